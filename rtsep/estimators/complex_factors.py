"""Complex NMF, complex ISNMF and complex beta-NMF as estimators: magnitudes and phases of a whole signal at once.

The dictionary is that of `rtsep learn`; its activations start from 50 iterations of NMF. Each channel by itself. See
`rtsep.factorise` for the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.engine.protocols import SpectraEstimator
from rtsep.engine.registry import register_estimator
from rtsep.estimators.factorised import Supervised, padded_alike
from rtsep.factorise.anisotropic import MAX_KAPPA
from rtsep.factorise.complex_beta_nmf import complex_beta_nmf
from rtsep.factorise.complex_isnmf import complex_isnmf
from rtsep.factorise.complex_nmf import complex_nmf
from rtsep.factorise.factors import ComplexFactors, listener, sinusoidal_advance
from rtsep.factorise.nmf import nmf
from rtsep.phase.own import OwnPhases

FIRST_ITERATIONS = 50


class _Complex(Supervised, SpectraEstimator):
    """A dictionary, activations to start from, and an algorithm."""

    phase = OwnPhases()  # type: ignore[assignment]  # those that inherit from Supervised alone have a name there
    powers: ClassVar[bool]
    first_beta: ClassVar[float]  # of the NMF that the activations come from

    def factorise(self, x: np.ndarray, w: np.ndarray, h: np.ndarray, config: StreamConfig) -> ComplexFactors:
        """Of one channel: mixture (n_bins, n_frames), atoms (n_src, n_bins, n_atoms), activations."""
        raise NotImplementedError

    def estimate_all(self, config: StreamConfig, spectra: np.ndarray) -> np.ndarray:
        """Spectra of the sources, complex (n_channels, n_frames, n_src, n_bins)."""
        w = np.stack(padded_alike(self.atoms(config, self.powers)))
        n_channels, n_frames, n_bins = spectra.shape
        out = np.zeros((n_channels, n_frames, len(w), n_bins), complex)
        for x, sources in zip(spectra.transpose(0, 2, 1), out, strict=True):
            if not x.any():
                continue
            level = float(np.sqrt((np.abs(x) ** 2).mean()))
            v = np.abs(x / level) ** (2 if self.powers else 1)
            h = nmf(v, dictionary=np.hstack(list(w)), beta=self.first_beta, n_iter=FIRST_ITERATIONS).activations
            found = self.factorise(x / level, w, h.reshape(len(w), -1, n_frames), config).sources
            sources[:] = level * found.transpose(2, 0, 1)
        return out


@register_estimator("complex_nmf")
@dataclass(frozen=True)
class ComplexNMF(_Complex):
    """Complex NMF of a model: magnitudes and phases, which go on as sinusoids; whole signal.

    Parameters
    ----------
    model, n_iter
        As for `rtsep.estimators.factorised.Supervised`.
    sigma : float
        Weight of the sinusoids, from 0 on.
    """

    n_iter: int = 10
    sigma: float = 0.01

    powers = False
    first_beta = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("sigma", self.sigma, 0, 1e6)

    def factorise(self, x: np.ndarray, w: np.ndarray, h: np.ndarray, config: StreamConfig) -> ComplexFactors:
        """By `rtsep.factorise.complex_nmf`."""
        advance = sinusoidal_advance(config, w @ h)
        return complex_nmf(x, w, h, advance, sigma=self.sigma, n_iter=self.n_iter, progress=listener())


@register_estimator("complex_isnmf")
@dataclass(frozen=True)
class ComplexISNMF(_Complex):
    """Complex ISNMF of a model: variances and phases, which go on as sinusoids, by EM; whole signal.

    Parameters
    ----------
    model, n_iter
        As for `rtsep.estimators.factorised.Supervised`.
    kappa : float
        How sure the phases are, 0 to 20.
    tau : float
        How strictly they go on, from 0 on.
    """

    n_iter: int = 50
    kappa: float = 0.5
    tau: float = 1.0

    powers = True
    first_beta = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("kappa", self.kappa, 0, MAX_KAPPA)
        check_real("tau", self.tau, 0, 1e6)

    def factorise(self, x: np.ndarray, w: np.ndarray, h: np.ndarray, config: StreamConfig) -> ComplexFactors:
        """By `rtsep.factorise.complex_isnmf`."""
        advance = sinusoidal_advance(config, np.sqrt(w @ h))
        return complex_isnmf(x, w, h, advance, kappa=self.kappa, tau=self.tau, n_iter=self.n_iter, progress=listener())


@register_estimator("complex_beta_nmf")
@dataclass(frozen=True)
class ComplexBetaNMF(_Complex):
    """Complex beta-NMF of a model: powers by any divergence, phases near the mixture's; whole signal.

    Parameters
    ----------
    model, n_iter
        As for `rtsep.estimators.factorised.Supervised`.
    kappa : float
        How sure the phases are, 0 to 20.
    beta : float
        Of the divergence between powers, -2 to 4.
    """

    n_iter: int = 50
    kappa: float = 1.0
    beta: float = 0.5

    powers = True
    first_beta = 0.5

    def factorise(self, x: np.ndarray, w: np.ndarray, h: np.ndarray, config: StreamConfig) -> ComplexFactors:
        """By `rtsep.factorise.complex_beta_nmf`."""
        return complex_beta_nmf(x, w, h, kappa=self.kappa, beta=self.beta, n_iter=self.n_iter, progress=listener())
