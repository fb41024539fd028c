"""SDR in which the bands that matter for understanding speech count most."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from rtsep.evaluation.checks import ratio_db
from rtsep.evaluation.ratios import centred_pair

# Third octaves from 160 Hz to 8 kHz, and their importance for average speech: ANSI S3.5-1997, table 3.
CENTRES_HZ = 1000 * 2.0 ** (np.arange(-8, 10) / 3)
IMPORTANCE = 1e-4 * np.array([83, 95, 150, 289, 440, 578, 653, 711, 818, 844, 882, 898, 868, 844, 771, 527, 364, 185])
FRAME_S = 0.064  # the lowest band is 37 Hz wide: two bins


def weighted_sdr(
    reference: Any, estimate: Any, sr: int, weights: Literal["importance", "level"] = "importance"
) -> float:
    """Frequency-weighted, scale-invariant SDR, with fixed or adaptive weights.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        True source and its estimate; the mean is removed from both.
    sr : int
        Sample rate in Hz.
    weights : {"importance", "level"}
        Fixed: the importance of the band for understanding speech. Adaptive: the magnitude of the reference in band
        and frame to the power of 0.2.

    Returns
    -------
    float
        ``10 log10(sum_bt w_bt T_bt / sum_bt w_bt D_bt)`` in dB, -100 to 100, with the energies T of ``a s`` and D of
        ``e - a s`` (`a` as in SI-SDR) in the 18 third octaves b from 160 Hz to 8 kHz and in frames t of 64 ms every
        16 ms (Hann). Bands above half the rate are left out.

    Raises
    ------
    ScoreError
        If either is silent, in these bands too, lengths differ, or samples are not finite.
    ValueError
        For rates below 1000 Hz and other weights.

    Notes
    -----
    The form that the paper trains with. Its form for reporting is a mean of clamped ratios over bands of the cochlea
    up to 3.8 kHz: not to be compared with this one, nor this one among rates below 18 kHz, which have fewer bands.

    References
    ----------
    Monir, Magron, Serizel, "Frequency-weighted training losses for phoneme-level DNN-based speech enhancement",
    MMSP 2025; weights "ANSI" and "speech norm".
    """
    if weights not in ("importance", "level"):
        raise ValueError(f"{weights=} is not one of importance, level")
    if sr < 1000:
        raise ValueError(f"{sr=} is below 1000 Hz")
    s, e = centred_pair(reference, estimate)
    target = (e @ s) / (s @ s) * s
    t, d = _band_energies(target, sr), _band_energies(e - target, sr)
    w = IMPORTANCE[: len(t), None] if weights == "importance" else _band_energies(s, sr) ** 0.1
    return ratio_db(float((w * t).sum()), float((w * d).sum()))


def _band_energies(x: np.ndarray, sr: int) -> np.ndarray:
    """Energies in third octaves, (n_bands, n_frames)."""
    n = 4 * round(FRAME_S * sr / 4)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    # Frames around the ends, too, so that every sample counts alike.
    padded = np.pad(x, (n, 2 * n - x.size % (n // 4)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n)[:: n // 4]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    hz = np.arange(n // 2 + 1) * sr / n
    edges = [(f * 2 ** (-1 / 6), f * 2 ** (1 / 6)) for f in CENTRES_HZ if f <= sr / 2]
    return np.array([power[:, (hz >= low) & (hz < high)].sum(1) for low, high in edges])
