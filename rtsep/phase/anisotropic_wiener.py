"""Anisotropic Wiener filter: a Wiener filter that knows something about the phase.

Source: P. Magron, R. Badeau, B. David, "Phase-dependent anisotropic Gaussian model for audio source separation",
ICASSP 2017; with a concentration for each source as in P. Magron and T. Virtanen, iWAENC 2018. The phase of a
source is expected near that of its own last estimate, advanced by the sinusoidal model (`rtsep.phase.sinusoidal`,
regions weighted as in the paper), with a von Mises distribution around it; the filter is the posterior mean
(`rtsep.phase.posterior`).

*Onset.* Where a source begins nothing goes on. The paper takes the mixture's phase there as if it were the source's;
here the phase is unknown, so that an onset of all sources is filtered by plain Wiener. An onset is a frame in which
what the magnitudes rose, sum_k max(0, V_t - V_t-1), is more than half of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import carray

from rtsep.config import StreamConfig
from rtsep.engine.channels import TINY
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.jit import pasted
from rtsep.kernels.simd import LANES, clear, get, load, store
from rtsep.phase.difference import inverse_size
from rtsep.phase.posterior import posterior
from rtsep.phase.sinusoidal import SinusoidState, advance_phasors
from rtsep.phase.von_mises import check_kappa, von_mises_shapes
from rtsep.phase.window import Member, WindowState, prepare_window, recover_window

ONSET = np.float32(0.5)
NONE = np.float32(0)

# Places in `work`.
HOP, N_FFT, WEIGHTED, GUARDED, CURVATURE, CONSISTENCY, SHAPES = range(7)


def pack(config: StreamConfig, shapes: np.ndarray, consistency: float = 0.0) -> np.ndarray:
    """`work` of a member of the engine that uses `predict`."""
    return np.array([config.hop, config.n_fft, 1, 0, 0, consistency, *shapes.ravel()])


@pasted
def advance(n_src, n_bins, magnitudes, phasors, work):
    """Phasors (n_src, 2, n_bins) of the frame before, advanced in place by the sinusoidal model without its guard."""
    head = carray(work, SHAPES)
    values, units = carray(magnitudes, (n_src, n_bins)), carray(phasors, (n_src, 2, n_bins))
    unused = carray(magnitudes, (1, n_src, n_bins))
    state = SinusoidState(head[HOP:], head[N_FFT:], head[WEIGHTED:], head[GUARDED:], head[CURVATURE:], unused)
    advance_phasors(state, values, units[0], 0, units, units)


@pasted
def predict(n_src, n_bins, magnitudes, estimate, phasors, work):
    """exp(i mu) of a frame that enters, (n_src, 2, n_bins), from the estimate of the frame before; 0 is unknown."""
    before = -2 * n_src * n_bins
    for j in range(n_src):
        for start in range(0, n_bins, LANES):
            at = 2 * j * n_bins + min(start, n_bins - LANES)
            re, im = load(estimate, before + at), load(estimate, before + at + n_bins)
            scale = inverse_size(re, im)
            store(phasors, at, re * scale)
            store(phasors, at + n_bins, im * scale)
    advance(n_src, n_bins, magnitudes, phasors, work)
    for j in range(n_src):
        risen, total = NONE, TINY
        for k in range(j * n_bins, (j + 1) * n_bins):
            v = get(magnitudes, k)
            risen += max(v - get(magnitudes, k - n_src * n_bins), NONE)
            total += v
        if risen > ONSET * total:
            clear(phasors, 2 * j * n_bins, 2 * n_bins)


def anisotropic(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`enter` of the engine (`rtsep.phase.window`): posterior mean, with the predicted phase kept in `memory`."""
    predict(n_src, n_bins, magnitudes, estimate, memory, work)
    posterior(n_src, n_bins, mixture, 0, magnitudes, 0, memory, 0, work, SHAPES, NONE, memory, updated)


@register_phase("anisotropic_wiener")
@dataclass(frozen=True)
class AnisotropicWiener(OnlinePhase):
    """Wiener filter that expects the phases to go on as sinusoids; no extra FFT, sums to the mixture.

    Parameters
    ----------
    kappa : float or tuple of floats
        How concentrated the phases are around the predicted ones, for all sources or for each: 0 (the plain Wiener
        filter) to 1000. `rtsep.phase.von_mises_concentration` estimates it from isolated sources.

    References
    ----------
    Magron, Badeau and David, ICASSP 2017; Magron and Virtanen, iWAENC 2018.
    """

    kappa: float | tuple[float, ...] = 2.0

    State: ClassVar[type] = WindowState
    step = recover_window

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", check_kappa(self.kappa))

    def prepare(self, config: StreamConfig, n_src: int) -> WindowState:
        """Fresh state for `n_src` sources. Not real-time safe.

        Raises `ConfigError` if `kappa` is for another number of sources.
        """
        work = pack(config, von_mises_shapes(self.kappa, n_src))
        return prepare_window(config, n_src, 1, 0, Member(anisotropic, anisotropic, work, 2), config.n_channels)
