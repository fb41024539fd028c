"""Anisotropic Gaussian sources: the moments of a spectrum with an expected phase, and what a mixture says about them.

A source has a Rayleigh magnitude of power v and a phase around mu, von Mises with the concentration kappa. Its first
two moments are those of a complex Gaussian with

    m = lambda sqrt(v) e^(i mu),   gamma = (1 - lambda^2) v,   c = rho v e^(2 i mu),
    lambda = sqrt(pi) / 2 I1(kappa) / I0(kappa),   rho = I2(kappa) / I0(kappa) - lambda^2.

(For magnitudes that are known, as in anisotropic Wiener filtering, lambda and rho differ: see `rtsep.phase.von_mises`.)

Source: P. Magron and T. Virtanen, "Complex ISNMF: a phase-aware model for monaural audio source separation",
IEEE/ACM TASLP 27(1), 2019, section III.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ive

MAX_KAPPA = 20.0  # from there on the covariance is singular to rounding


class Moments(NamedTuple):
    """Mean, variance and relation term of each source; arrays (n_src, n_bins, n_frames)."""

    mean: np.ndarray  # complex128
    variance: np.ndarray  # float64
    relation: np.ndarray  # complex128


def anisotropy(kappa: float) -> tuple[float, float]:
    """lambda and rho."""
    mean = np.sqrt(np.pi) / 2 * ive(1, kappa) / ive(0, kappa)
    return float(mean), float(ive(2, kappa) / ive(0, kappa) - mean**2)


def posterior(x: np.ndarray, prior: Moments) -> Moments:
    """Moments of the sources, given the mixture `x` (n_bins, n_frames). The means add up to `x`."""
    mean, variance, relation = prior
    whole, turned = variance.sum(0), relation.sum(0)
    floor = 1e-12 * whole**2 + np.finfo(float).tiny
    determinant = np.maximum(whole**2 - np.abs(turned) ** 2, floor)
    rest = x - mean.sum(0)
    cross = relation * turned.conj()
    return Moments(
        mean + ((variance * whole - cross) * rest + (relation * whole - variance * turned) * rest.conj()) / determinant,
        variance - (whole * (variance**2 + np.abs(relation) ** 2) - 2 * variance * cross.real) / determinant,
        relation - (2 * variance * whole * relation - variance**2 * turned - relation**2 * turned.conj()) / determinant,
    )
