"""Energy ratios of a target and what is not the target: SDR, SI-SDR, and the parts of the latter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rtsep.evaluation.checks import ScoreError, as_pair, as_references, as_signal, ratio_db, refuse_silence


class Ratios(NamedTuple):
    """Signal to distortion, to interference, and to artifacts, in dB."""

    sdr: float
    sir: float
    sar: float


def sdr(reference: Any, estimate: Any) -> float:
    """Plain signal-to-distortion ratio: any difference counts, that of level too.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        True source and what was made of the mixture.

    Returns
    -------
    float
        ``10 log10(|s|^2 / |s - e|^2)`` in dB, -100 to 100. An estimate that is silent has 0 dB.

    Raises
    ------
    ScoreError
        If the reference is silent, lengths differ, or samples are not finite.

    Notes
    -----
    The "SNR" of some papers, the "global SDR" or "uSDR" of music separation challenges (without their 1e-7 in both
    energies), and the measure within the class-aware ones. Equals the SDR of BSS Eval v4 on one window. Not to be
    compared with SI-SDR, which forgives the level, nor with BSS Eval v3, which forgives 512 taps of filtering.
    """
    s, e = as_signal("reference", reference), as_signal("estimate", estimate)
    if s.shape != e.shape:
        raise ScoreError(f"reference has {s.size} samples, estimate has {e.size}")
    refuse_silence("reference", s)
    return ratio_db(s @ s, (s - e) @ (s - e))


def si_sdr(reference: Any, estimate: Any) -> float:
    """Scale-invariant signal-to-distortion ratio.

    Parameters
    ----------
    reference, estimate : array_like, real, (n_samples,)
        True source and what was made of the mixture; the mean is removed from both.

    Returns
    -------
    float
        ``10 log10(|a s|^2 / |e - a s|^2)`` with ``a = <e, s> / |s|^2`` in dB, -100 to 100.

    Raises
    ------
    ScoreError
        If either is silent (without its mean), lengths differ, or samples are not finite.

    Notes
    -----
    Level and polarity do not count; a delay of one sample does. Not to be compared with the SDR of BSS Eval v3 (lower
    than it by what a 512-tap filter can mend) or v4, nor with means over files where other tools add an epsilon or
    clip to other limits.

    References
    ----------
    J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, eq. 3-5.
    """
    s, e = centred_pair(reference, estimate)
    target = (e @ s) / (s @ s) * s
    return ratio_db(target @ target, (e - target) @ (e - target))


def si_sdr_parts(references: Any, estimate: Any, index: int) -> Ratios:
    """SI-SDR, SI-SIR and SI-SAR: distortion, and the shares of it that other sources and artifacts have.

    Parameters
    ----------
    references : array_like, real, (n_src, n_samples)
        All true sources; their means are removed.
    estimate : array_like, real, (n_samples,)
        Estimate of source `index`.
    index : int
        Which of the references it is an estimate of.

    Returns
    -------
    Ratios
        ``|a s|^2`` over the energy of ``r = e - a s``, of its projection on the span of all sources
        (interference), and of the rest (artifacts), in dB, -100 to 100. With one source the SI-SIR is 100.

    Raises
    ------
    ScoreError
        If a signal is silent, lengths differ, or samples are not finite.
    IndexError
        If there is no such reference.

    Notes
    -----
    Without the limits ``10^(-SDR/10) = 10^(-SIR/10) + 10^(-SAR/10)``. "SDR" in papers on complex NMF and phase
    recovery by Magron et al. is this. Not to be compared with BSS Eval v3: there the projections have 512 delays.

    References
    ----------
    J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, eq. 6-8.
    """
    e = as_signal("estimate", estimate)
    sources = as_references(references, e)
    s, e = centred_pair(sources[index], e)
    sources = sources - sources.mean(1, keepdims=True)
    target = (e @ s) / (s @ s) * s
    rest = e - target
    # By the pseudo-inverse of the Gram matrix: sources may be multiples of each other.
    interference = (np.linalg.pinv(sources @ sources.T, hermitian=True) @ (sources @ rest)) @ sources
    artifacts = rest - interference
    energy = target @ target
    return Ratios(*(ratio_db(energy, part @ part) for part in (rest, interference, artifacts)))


def improvement(score: Callable[[Any, Any], float], reference: Any, estimate: Any, mixture: Any) -> float:
    """What the separation has gained: the score of the estimate less that of the mixture.

    Parameters
    ----------
    score : callable
        `score(reference, estimate)`, e.g. `si_sdr`.
    reference, estimate, mixture : array_like, real, (n_samples,)
        True source, its estimate, and what it was separated from.

    Returns
    -------
    float
        In the unit of the score; negative if the separation did harm.

    Raises
    ------
    ScoreError
        As `score`.

    Notes
    -----
    Report the score of the mixture beside it: 10 dB are gained easily at -10 dB and hardly at 15 dB.
    """
    return score(reference, estimate) - score(reference, mixture)


def centred_pair(reference: Any, estimate: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both without their means, as float64. Raises `ScoreError` where nothing is left."""
    pair = as_pair(reference, estimate)
    s, e = (signal - signal.mean() for signal in pair)
    for name, centred, signal in zip(("reference", "estimate"), (s, e), pair, strict=True):
        # What is left of a constant is the rounding of its mean.
        if centred @ centred <= 1e-24 * (signal @ signal):
            raise ScoreError(f"{name} is constant")
        refuse_silence(name, centred)
    return s, e
