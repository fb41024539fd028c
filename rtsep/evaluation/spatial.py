"""Where and when: delay between two signals, and what the separation did to the differences between two ears."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.evaluation.checks import ScoreError, as_pair, ratio_db, refuse_silence

MAX_ITD_S = 1e-3  # differences between human ears end at 0.7 ms
FINER = 16  # points of the correlation per sample for the time between the ears


def delay(reference: Any, estimate: Any, max_delay: int, finer: int = 1) -> float:
    """Delay of the estimate, where its cross-correlation with the reference is largest.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        Signals.
    max_delay : int
        Largest delay, of either sign, in samples.
    finer : int
        Points of the correlation per sample, interpolated as band-limited.

    Returns
    -------
    float
        Samples, -max_delay to max_delay, in steps of 1 / `finer`; positive if the estimate is late. Of equal maxima
        the one nearest to 0.

    Raises
    ------
    ScoreError
        If either signal is silent, lengths differ, or samples are not finite.
    ValueError
        If `max_delay` or `finer` cannot be.

    Notes
    -----
    ``argmax_d sum_n s(n) e(n + d)``. A tone has as many maxima as periods fit; an inverted estimate is matched where
    it fits best as it is. This is a delay of the whole signal: of one frequency (group delay), or the latency by a
    click, it says nothing.

    References
    ----------
    C. H. Knapp, G. C. Carter, "The generalized correlation method for estimation of time delay", IEEE Trans. ASSP,
    1976 (here without weighting).
    """
    if max_delay < 0 or finer < 1:
        raise ValueError(f"{max_delay=} is below 0 or {finer=} below 1")
    s, e = as_pair(reference, estimate)
    return _delay(s, e, max_delay, finer)


def interaural_level_error(reference: Any, estimate: Any) -> float:
    """What the separation did to the level difference between two ears.

    Parameters
    ----------
    reference, estimate : array_like, real, (2, n_samples)
        Left and right.

    Returns
    -------
    float
        ``|ILD(estimate) - ILD(reference)|`` in dB, 0 to 200, with ``ILD = 10 log10(|left|^2 / |right|^2)``.

    Raises
    ------
    ScoreError
        If a channel is silent, shapes differ, or samples are not finite.

    Notes
    -----
    Over all frequencies and the whole signal: not to be compared with means over bands or frames of other tools.
    A listener notices about 1 dB.
    """
    s, e = as_pair(reference, estimate, 2)
    differences = []
    for name, signal in (("reference", s), ("estimate", e)):
        for side, channel in zip(("left", "right"), signal, strict=True):
            refuse_silence(f"{side} channel of the {name}", channel)
        differences.append(ratio_db(signal[0] @ signal[0], signal[1] @ signal[1]))
    return abs(differences[1] - differences[0])


def interaural_time_error(reference: Any, estimate: Any, sr: int) -> float:
    """What the separation did to the time difference between two ears.

    Parameters
    ----------
    reference, estimate : array_like, real, (2, n_samples)
        Left and right.
    sr : int
        Sample rate in Hz.

    Returns
    -------
    float
        ``|ITD(estimate) - ITD(reference)|`` in microseconds, 0 to 2000; the ITD is the `delay` of the right channel,
        at most 1 ms, in steps of a sixteenth of a sample (4 us at 16 kHz).

    Raises
    ------
    ScoreError
        If a channel is silent, shapes differ, or samples are not finite.

    Notes
    -----
    Over all frequencies and the whole signal; ears use it below about 1.5 kHz. In a signal of several directions it
    is that of the strongest. Not to be compared with means over bands or frames. A listener notices 10 to 20 us at
    best.
    """
    s, e = as_pair(reference, estimate, 2)
    times = []
    for name, signal in (("reference", s), ("estimate", e)):
        for side, channel in zip(("left", "right"), signal, strict=True):
            refuse_silence(f"{side} channel of the {name}", channel)
        times.append(_delay(signal[0], signal[1], int(np.ceil(MAX_ITD_S * sr)), FINER) / sr)
    return 1e6 * abs(times[1] - times[0])


def _delay(s: np.ndarray, e: np.ndarray, max_delay: int, finer: int) -> float:
    max_delay = min(max_delay, s.size - 1)
    from scipy.fft import next_fast_len

    n = next_fast_len(s.size + max_delay, True)
    spectrum = np.fft.rfft(e, n) * np.conj(np.fft.rfft(s, n))
    if finer > 1 and n % 2 == 0:
        spectrum[-1] /= 2  # half of the bin at half the rate goes to its mirror image
    correlation = np.fft.irfft(spectrum, finer * n) * finer
    steps = np.arange(-max_delay * finer, max_delay * finer + 1)
    values = correlation[steps]
    if values.max() <= 0:
        raise ScoreError("the signals do not correlate at any of the delays")
    # Rounding must not choose among equal maxima.
    best = steps[values >= values.max() * (1 - 1e-12)]
    return float(best[np.argmin(np.abs(best))] / finer)
