"""Bayesian anisotropic Gaussian model: the phases themselves are estimated, not only predicted.

Source: P. Magron and T. Virtanen, "Bayesian anisotropic Gaussian model for audio source separation", ICASSP 2018.
Beside `rtsep.phase.anisotropic_wiener` it has Rayleigh distributed magnitudes, and the phase parameters mu are a
Markov chain, mu_t ~ von Mises(mu_t-1 advanced by the sinusoidal model, tau). Expectation maximisation alternates
between the posterior mean S of the sources (`rtsep.phase.posterior`) and

    mu_t = phase( 2 mean / (radial V) S + tau exp(i advanced mu_t-1) ),

which leaves out, as the paper does, a term in exp(-2 i mu), and, to stay causal, the influence of the next frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.channels import TINY
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.simd import LANES, get, load, move, multiply_add, store
from rtsep.phase.anisotropic_wiener import CONSISTENCY, NONE, SHAPES, advance, pack
from rtsep.phase.difference import inverse_size
from rtsep.phase.posterior import posterior
from rtsep.phase.von_mises import MAX_KAPPA, check_kappa, von_mises_shapes
from rtsep.phase.window import MAX_ITERATIONS, Member, WindowState, prepare_window, recover_window

TWO = np.float32(2)

# Places in `work`; after the shapes come `n_iter` and the phasors that the chain predicts.
TAU = CONSISTENCY


def _bayesian(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`enter` of the engine (`rtsep.phase.window`), with exp(i mu) kept in `memory`."""
    n_iter, tau = int(get(work, SHAPES + 3 * n_src)), get(work, TAU)
    size = 2 * n_src * n_bins
    chain = SHAPES + 3 * n_src + 1
    move(memory, 0, memory, -size, size)
    advance(n_src, n_bins, magnitudes, memory, work)
    move(work, chain, memory, 0, size)
    for iteration in range(n_iter + 1):
        posterior(n_src, n_bins, mixture, 0, magnitudes, 0, memory, 0, work, SHAPES, NONE, memory, updated)
        if iteration == n_iter:
            break
        for j in range(n_src):
            trust = TWO * get(work, SHAPES + 3 * j) / get(work, SHAPES + 3 * j + 1)
            for start in range(0, n_bins, LANES):
                k = min(start, n_bins - LANES)
                at = 2 * j * n_bins + k
                scale = trust / (load(magnitudes, j * n_bins + k) + TINY)
                re = multiply_add(load(updated, at), scale, load(work, chain + at) * tau)
                im = multiply_add(load(updated, at + n_bins), scale, load(work, chain + at + n_bins) * tau)
                scale = inverse_size(re, im)
                store(memory, at, re * scale)
                store(memory, at + n_bins, im * scale)


@register_phase("bayesian_anisotropic")
@dataclass(frozen=True)
class BayesianAnisotropic(OnlinePhase):
    """Anisotropic Gaussian model whose phases are estimated in every frame; no extra FFT, sums to the mixture.

    Parameters
    ----------
    n_iter : int
        Iterations in each frame, 0 to 1000; with 0 the phases are predicted alone.
    kappa : float or tuple of floats
        Concentration of the phases around their parameters, for all sources or for each, 0 to 1000.
    tau : float
        Concentration of the phase parameters around those of the frame before, 0 to 1000.

    References
    ----------
    Magron and Virtanen, ICASSP 2018.
    """

    n_iter: int = 5
    kappa: float | tuple[float, ...] = 5.0
    tau: float = 0.5

    State: ClassVar[type] = WindowState
    step = recover_window

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        object.__setattr__(self, "kappa", check_kappa(self.kappa))
        check_real("tau", self.tau, 0, MAX_KAPPA)

    def prepare(self, config: StreamConfig, n_src: int) -> WindowState:
        """Fresh state for `n_src` sources. Not real-time safe.

        Raises `ConfigError` if `kappa` is for another number of sources.
        """
        shapes = von_mises_shapes(self.kappa, n_src, rayleigh=True)
        chain = np.zeros(2 * n_src * config.n_bins)
        work = np.array([*pack(config, shapes, self.tau), self.n_iter, *chain])
        return prepare_window(config, n_src, 1, 0, Member(_bayesian, _bayesian, work, 2), config.n_channels)
