"""Consistent Wiener filters: sources that are likely and whose spectra are spectra of signals.

Sources: J. Le Roux and E. Vincent, "Consistent Wiener filtering for audio source separation", IEEE Signal Process.
Lett. 20(3), 2013; P. Magron, J. Le Roux, T. Virtanen, "Consistent anisotropic Wiener filtering for audio source
separation", WASPAA 2017. The cost is, with the variances A_j of `rtsep.phase.posterior`,

    sum_t,j  (S_j - m_j)' A_j^-1 (S_j - m_j) + delta_t |S_j - STFT(s_j)|^2   subject to sum_j S_j = X, sum_j s_j = x.

delta_t is `consistency` over the mean power of the frame, so that nothing depends on the level; the papers have one
delta for all frames, and one for a source and the rest that is twice this one.

*Offline.* The best S for given signals is `posterior`. What is left is quadratic in the signals alone, and the
conjugate gradient method finds its minimum: its vectors are signals, not spectra, it needs no preconditioner but
the overlap of the windows, and handles all sources at once.

*Online*, an experiment that nobody has published. S and s = iSTFT(S) in turn, in a window of frames with a frozen past
(`rtsep.phase.window`). With `tail=0` no step increases the cost. Without look-ahead most of it is lost: the
newest frame has hardly anything to be consistent with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.engine.channels import TINY
from rtsep.engine.registry import register_phase
from rtsep.kernels.fft import irfft, rfft
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import LANES, clear, get, load, store
from rtsep.phase.anisotropic_wiener import CONSISTENCY, SHAPES, anisotropic, pack
from rtsep.phase.posterior import posterior
from rtsep.phase.von_mises import check_kappa, von_mises_shapes
from rtsep.phase.wiener import wiener
from rtsep.phase.window import Member, Windowed, WindowState, prepare_window, recover_all

MAX_CONSISTENCY = 1e6
QUIET = 1e-6  # power of a frame, relative to the mean one, below which it counts as so loud, 60 dB
CONVERGED = 1e-12  # squared residual, relative to the first one, that float32 does not go below


def _consistent(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`update` of the engine (`rtsep.phase.window`)."""
    delta = get(work, CONSISTENCY) / (level * level * np.float32(n_src) + TINY)
    posterior(n_src, n_bins, mixture, 0, magnitudes, 0, memory, 0, work, SHAPES, delta, analysed, updated)


@kernel
def negative_gradient(state, mixture, work, weights, signals, residual):
    """Half of the negative gradient of the cost with respect to the samples.

    Parameters
    ----------
    state : WindowState
        After `recover_all`. Scratch is updated.
    mixture : ndarray, float32, (1, n_frames + 1, 2, n_bins)
        As in the state. Read only.
    work : ndarray, float32
        As in the state. Read only. With no mixture and no means the gradient is linear in the signals.
    weights : ndarray, float32, (n_frames,)
        delta of each frame. Read only.
    signals, residual : ndarray, float32, (n_src - 1, n_samples)
        Differences between each source and the last one: of the signals; of the gradient, overwritten.
    """
    n_frames, n_src, n_bins = weights.size, state.analysed.shape[0], state.analysed.shape[2]
    n, hop = state.window.size, state.emit.size
    last = 2 * (n_src - 1) * n_bins
    known = 2 * n_src * n_bins
    clear(residual, 0, residual.size)
    clear(state.analysed, last, 2 * n_bins)
    for t in range(n_frames):
        slot = t + 1
        for j in range(n_src - 1):
            for i in range(n):
                state.frame[i] = state.window[i] * signals[j, t * hop + i]
            rfft(state.plan, state.frame, state.analysed, 2 * j * n_bins)
        posterior(
            n_src, n_bins, mixture, 2 * slot * n_bins, state.magnitudes, slot * n_src * n_bins, state.memory,
            slot * known, work, SHAPES, weights[t], state.analysed, state.updated,
        )  # fmt: skip
        for at in range(0, last, n_bins):
            base = last + at % (2 * n_bins)
            for start in range(0, n_bins, LANES):
                k = min(start, n_bins - LANES)
                s = load(state.updated, at + k) - load(state.updated, base + k)
                store(state.estimate, at + k, s - load(state.analysed, at + k))
        for j in range(n_src - 1):
            irfft(state.plan, state.estimate, 2 * j * n_bins, state.wave)
            for i in range(n):
                residual[j, t * hop + i] += weights[t] * state.window[i] * state.wave[i]


def conjugate_gradients(
    state: WindowState, consistency: float, signals: np.ndarray, n_iter: int
) -> tuple[np.ndarray, list[float]]:
    """Minimise the cost by conjugate gradients.

    Parameters
    ----------
    state : WindowState
        After `recover_all`.
    consistency : float
    signals : ndarray, float32, (n_src - 1, n_samples)
        Differences of the sources to the last one, at which to start.
    n_iter : int

    Returns
    -------
    signals : ndarray, float32
    residuals : list of float
        Squared gradients before each iteration and at the end, in the norm of the preconditioner.
    """
    n_src = signals.shape[0] + 1
    energy = state.energy[0, 1:].astype(np.float64)
    loud = np.maximum(energy, QUIET * energy.mean() + 1e-36)
    weights = aligned(consistency / (n_src * loud))
    n, hop = state.window.size, state.emit.size
    diagonal = zeros(signals.shape[1])
    for t, value in enumerate(weights):
        diagonal[t * hop : t * hop + n] += value * state.window**2
    preconditioner = np.divide(1, diagonal, out=np.zeros_like(diagonal), where=diagonal > 1e-6 * diagonal.max())
    still, linear = zeros(state.mixture.shape), state.work.copy()
    linear[SHAPES : SHAPES + 3 * n_src : 3] = 0

    def inner(a: np.ndarray, b: np.ndarray) -> float:
        """Over all sources, which sum to zero, of those that differ so from the last one."""
        return float(np.vdot(a, b) - np.vdot(a.sum(0), b.sum(0)) / n_src)

    residual, product = zeros(signals.shape), zeros(signals.shape)
    negative_gradient(state, state.mixture, state.work, weights, signals, residual)
    preconditioned = preconditioner * residual
    direction, residuals = preconditioned, [inner(residual, preconditioned)]
    for _ in range(n_iter):
        if residuals[-1] <= CONVERGED * residuals[0]:
            break
        negative_gradient(state, still, linear, weights, direction, product)
        step = np.float32(residuals[-1] / -inner(direction, product))
        signals = signals + step * direction
        residual = residual + step * product
        preconditioned = preconditioner * residual
        residuals.append(inner(residual, preconditioned))
        direction = preconditioned + np.float32(residuals[-1] / residuals[-2]) * direction
    return signals, residuals


@dataclass(frozen=True)
class _Consistent(Windowed):
    """What both have in common."""

    n_iter: int = 5
    # Nearly strict least squares: what the newest frames lack would count as silence of the sources.
    tail: float = 0.01
    consistency: float = 5.0

    window_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("consistency", self.consistency, 0, MAX_CONSISTENCY)

    def open(self, config: StreamConfig, n_src: int, n_frames: int, n_iter: int, n_channels: int) -> WindowState:
        """State of the engine for a window of `n_frames`."""
        raise NotImplementedError

    def prepare(self, config: StreamConfig, n_src: int) -> WindowState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        assert self.lookahead is not None
        return self.open(config, n_src, self.lookahead + 1, self.n_iter, config.n_channels)

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources of one channel, offline, by conjugate gradients; see `Windowed.run`.

        They lack an equal part each of the mixture, which the output stage adds.
        """
        n_frames, n_src, _ = magnitudes.shape
        state = self.open(config, n_src, n_frames, 0, 1)
        sources = zeros((n_src, line.size))
        recover_all(state, aligned(line), np.ascontiguousarray(magnitudes, np.float32), sources)
        if self.consistency > 0:
            differences = np.ascontiguousarray(sources[:-1] - sources[-1])
            sources[:-1], _ = conjugate_gradients(state, self.consistency, differences, self.n_iter)
            sources[-1] = 0
        return sources


@register_phase("consistent_wiener")
@dataclass(frozen=True)
class ConsistentWiener(_Consistent):
    """Wiener filter towards spectra that signals have; conjugate gradients offline, online an experiment.

    Parameters
    ----------
    n_iter : int
        Iterations per hop, or of conjugate gradients over the whole signal, 0 to 1000. Offline, 20 with a
        consistency of 30 are best with true magnitudes.
    lookahead : int or None
        Future frames to wait for, 0 to 32 hops; None for the whole signal (`rtsep.separate` alone).
    tail : float
        As in `OMISI`; online only.
    consistency : float
        Weight of the consistency of the spectra beside the variances of the sources, 0 (the plain Wiener filter) to
        1e6.

    References
    ----------
    Le Roux and Vincent, IEEE Signal Process. Lett. 20(3), 2013. The online form is experimental.
    """

    def open(self, config: StreamConfig, n_src: int, n_frames: int, n_iter: int, n_channels: int) -> WindowState:
        """State of the engine for a window of `n_frames`."""
        work = pack(config, von_mises_shapes(0.0, n_src), self.consistency)
        member = Member(_consistent, wiener, work, 2, self.tail)
        return prepare_window(config, n_src, n_frames, n_iter, member, n_channels)


@register_phase("consistent_anisotropic_wiener")
@dataclass(frozen=True)
class ConsistentAnisotropicWiener(_Consistent):
    """Anisotropic Wiener filter towards spectra that signals have; offline, and online an experiment.

    Parameters
    ----------
    n_iter, lookahead, tail
        As in `ConsistentWiener`.
    consistency : float
        As in `ConsistentWiener`; 0 is the anisotropic Wiener filter.
    kappa : float or tuple of floats
        Concentration of the phases as in `AnisotropicWiener`; 0 is the consistent Wiener filter.

    References
    ----------
    Magron, Le Roux and Virtanen, WASPAA 2017. The online form is experimental.
    """

    kappa: float | tuple[float, ...] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kappa", check_kappa(self.kappa))

    @property
    def keeps_mixture_phase(self) -> bool:  # type: ignore[override]
        """Never: the first phases are predicted."""
        return False

    def open(self, config: StreamConfig, n_src: int, n_frames: int, n_iter: int, n_channels: int) -> WindowState:
        """State of the engine for a window of `n_frames`."""
        work = pack(config, von_mises_shapes(self.kappa, n_src), self.consistency)
        member = Member(_consistent, anisotropic, work, 2, self.tail)
        return prepare_window(config, n_src, n_frames, n_iter, member, n_channels)
