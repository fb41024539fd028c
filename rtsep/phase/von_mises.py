"""Von Mises phases: how sure a predicted phase is, and what a source with such a phase looks like.

The phase of a source is distributed as exp(kappa cos(phi - mu)) around its prediction mu; kappa = 0 says nothing
about it, kappa -> infinity that it is mu. Sources: P. Magron, R. Badeau, B. David, "Phase-dependent anisotropic
Gaussian model for audio source separation", ICASSP 2017, section 3; the estimation of kappa: P. Magron and
T. Virtanen, "On modeling the STFT phase of audio signals with the von Mises distribution", iWAENC 2018, section 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from rtsep.config import ConfigError, StreamConfig, check_real
from rtsep.kernels.memory import aligned, zeros
from rtsep.phase.sinusoidal import PEAK_FLOOR, advance_phasors, prepare_sinusoids

# Beyond it, 2 degrees rms, the variance along the predicted phase is lost to float32 beside that across it.
MAX_KAPPA = 1000.0


class Shape(NamedTuple):
    """Moments of a source of unit magnitude and predicted phase 0: an ellipse in the complex plane."""

    mean: float
    radial: float  # variance along the predicted phase, in the scale in which that of a free phase is 1
    tangential: float  # variance across it


def von_mises_shape(kappa: float, rayleigh: bool = False) -> Shape:
    """Moments of V exp(i phi) with phi ~ von Mises(0, kappa).

    Parameters
    ----------
    kappa : float
        Concentration, 0 to 1000.
    rayleigh : bool
        V is Rayleigh distributed with mean square 1 instead of being 1.

    Notes
    -----
    With r_n = I_n(kappa) / I_0(kappa) and m = r_1 (Rayleigh: times sqrt(pi) / 2), the variance E|s - m|^2 is
    1 - m^2, the relation E(s - m)^2 is r_2 - m^2, and their sum and difference are the two variances.
    """
    r1, r2 = special.ive([1, 2], kappa) / special.ive(0, kappa)
    mean = r1 * math.sqrt(math.pi) / 2 if rayleigh else r1
    return Shape(float(mean), float(1 - mean**2 + (r2 - mean**2)), float(1 - r2))


def check_kappa(kappa: object) -> float | tuple[float, ...]:
    """`kappa`, one for all sources or one for each. Raises `ConfigError` unless all are from 0 to 1000."""
    each = tuple(kappa) if isinstance(kappa, (tuple, list, np.ndarray)) else (kappa,)
    for value in each:
        check_real("kappa", value, 0, MAX_KAPPA)
    return tuple(float(value) for value in each) if isinstance(kappa, (tuple, list, np.ndarray)) else float(each[0])


def von_mises_shapes(kappa: float | tuple[float, ...], n_src: int, rayleigh: bool = False) -> np.ndarray:
    """Mean, radial and tangential variance of every source, float64 (n_src, 3).

    Raises `ConfigError` if `kappa` is for another number of sources.
    """
    each = kappa if isinstance(kappa, tuple) else (kappa,) * n_src
    if len(each) != n_src:
        raise ConfigError(f"kappa={kappa!r} is for {len(each)} sources, the estimator has {n_src}")
    return np.array([von_mises_shape(value, rayleigh) for value in each])


def von_mises_concentration(sources: np.ndarray, config: StreamConfig) -> tuple[float, ...]:
    """Maximum-likelihood concentration of isolated sources: the `kappa` of `AnisotropicWiener`.

    Parameters
    ----------
    sources : ndarray, real, (n_src, n_samples)
        Each source alone, as for training: with estimates it would confirm itself.
    config : StreamConfig
        Window, hop and FFT size; concentration depends on them.

    Returns
    -------
    kappa : tuple of n_src floats, 0 to 1000
        0 for a source without any spectral peak.

    Raises
    ------
    ValueError
        If `sources` has another shape, or samples that are not finite.

    Notes
    -----
    For each pair of frames, the phase that the sinusoidal model predicts from the earlier one is compared with that
    of the later one, at its spectral peaks and their neighbours.
    Not real-time safe. Source: Magron and Virtanen, iWAENC 2018, section 3.
    """
    sources = np.asarray(sources, np.float64)
    if sources.ndim != 2 or not np.isfinite(sources).all():
        raise ValueError(f"sources of shape {sources.shape} are not finite samples of shape (n_src, n_samples)")
    return tuple(fit_concentration(_prediction_errors(source, config)) for source in sources)


def _prediction_errors(source: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Errors of the predicted phase in radians at all peaks and their neighbours."""
    sinusoids, errors = prepare_sinusoids(config, 1, weighted=True), []
    magnitudes, phasors, predicted = (zeros((1, *shape)) for shape in [(config.n_bins,), *[(2, config.n_bins)] * 2])
    for start in range(0, source.size - config.analysis + 1, config.hop):
        frame = source[start : start + config.analysis] * config.windows.analysis
        spectrum = np.fft.rfft(frame, config.n_fft)
        magnitudes[0] = v = aligned(np.abs(spectrum))
        advance_phasors(sinusoids, magnitudes, phasors[0], 0, phasors, predicted)
        before = phasors.copy()
        unit = np.divide(spectrum, np.abs(spectrum), out=np.zeros_like(spectrum), where=v > 0)
        phasors[0] = unit.real, unit.imag
        peaks = np.flatnonzero((v[1:-1] > v[:-2]) & (v[1:-1] > v[2:]) & (v[1:-1] >= PEAK_FLOOR * v.max())) + 1
        near = np.unique(np.concatenate([peaks - 1, peaks, peaks + 1]))
        near = near[(np.abs(before[0, :, near]).sum(1) > 0) & (v[near] > 0)]
        errors.append(np.angle(unit[near] * (predicted[0, 0, near] - 1j * predicted[0, 1, near])))
    return np.concatenate(errors) if errors else np.zeros(0)


def fit_concentration(errors: np.ndarray) -> float:
    """Maximum-likelihood concentration, 0 to 1000, of von Mises distributed angles around 0 in radians.

    Solves I1(kappa) / I0(kappa) = mean(cos(errors)) by Newton's method; 0 where the mean is not positive and where
    there are no angles.
    """
    mean = float(np.cos(errors).mean()) if errors.size else 0.0
    if mean <= 0:
        return 0.0
    if mean >= von_mises_shape(MAX_KAPPA).mean:
        return MAX_KAPPA
    kappa = mean * (2 - mean**2) / (1 - mean**2)
    for _ in range(20):
        ratio = von_mises_shape(kappa).mean
        kappa -= (ratio - mean) / (1 - ratio / kappa - ratio**2)
    return min(float(kappa), MAX_KAPPA)
