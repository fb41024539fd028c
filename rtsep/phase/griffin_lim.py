"""Griffin-Lim and its accelerated form over a whole signal, each source on its own.

Sources: D. W. Griffin and J. S. Lim, "Signal estimation from modified short-time Fourier transform", IEEE
Trans. ASSP 32(2), 1984; N. Perraudin, P. Balazs and P. L. Sondergaard, "A fast Griffin-Lim algorithm", WASPAA
2013. With P_mag imposing the magnitudes and P_cons the transform of the inverse transform,

    t_n = P_cons(P_mag(c_n-1)),  c_n = t_n + alpha (t_n - t_n-1),  t_0 = 0;  the output is that of P_mag(c_n).

Since only the phase of c_n counts, this is the same as t_n - alpha / (1 + alpha) t_n-1. Without momentum (alpha = 0)
it is Griffin-Lim, whose distance between |t_n| and the magnitudes never grows; with it the distance falls
faster but may rise now and then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_choice, check_int, check_real
from rtsep.engine.protocols import OfflinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.fft import irfft, plan_fft, rfft
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import LANES, clear, load, move, multiply, store
from rtsep.phase.difference import inverse_size
from rtsep.phase.omisi import MAX_ITERATIONS

# Added to a spectrum in the direction that its phase had: inaudible, and decides where there is nothing else.
SMALLEST = np.float32(1e-15)


@kernel
def _griffin_lim(plan, window, inverse, targets, phasors, n_iter, kept, analysed, imposed, frame, wave, signal):
    """Griffin-Lim on one source.

    `targets` (n_frames, n_bins); `phasors` and `analysed` (n_frames, 2, n_bins): exp(i phase), updated, and t_n;
    `kept`: alpha / (1 + alpha); `signal` (n_samples,): overwritten.
    """
    n_frames, n_bins = targets.shape
    n, hop = window.size, inverse.size
    for iteration in range(n_iter + 1):
        clear(signal, 0, signal.size)
        for t in range(n_frames):
            for start in range(0, n_bins, LANES):
                k = min(start, n_bins - LANES)
                v, at = load(targets, t * n_bins + k), 2 * t * n_bins + k
                store(imposed, k, load(phasors, at) * v)
                store(imposed, n_bins + k, load(phasors, at + n_bins) * v)
            irfft(plan, imposed, 0, wave)
            for i in range(n):
                signal[t * hop + i] += window[i] * wave[i]
        for i in range(signal.size):
            signal[i] *= inverse[i % hop]
        if iteration == n_iter:
            break
        for t in range(n_frames):
            multiply(signal, t * hop, window, 0, frame, n)
            rfft(plan, frame, imposed, 0)
            for start in range(0, n_bins, LANES):
                k = min(start, n_bins - LANES)
                at = 2 * t * n_bins + k
                tr, ti = load(imposed, k), load(imposed, n_bins + k)
                pr, pi = load(phasors, at), load(phasors, at + n_bins)
                # Where a spectrum vanishes its phase stays as it was.
                cr, ci = tr - load(analysed, at) * kept, ti - load(analysed, at + n_bins) * kept
                cr, ci = cr + pr * SMALLEST, ci + pi * SMALLEST
                scale = inverse_size(cr, ci)
                store(phasors, at, cr * scale)
                store(phasors, at + n_bins, ci * scale)
            move(analysed, 2 * t * n_bins, imposed, 0, 2 * n_bins)


def _invert(
    config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray, n_iter: int, momentum: float, init: str
) -> np.ndarray:
    """Signals (n_src, n_samples) of magnitudes (n_frames, n_src, n_bins); `line` is the mixture."""
    n_frames, n_src, n_bins = magnitudes.shape
    if init == "mixture":
        frames = np.lib.stride_tricks.sliding_window_view(line, config.analysis)[:: config.hop][:n_frames]
        angles = np.angle(np.fft.rfft(frames * config.windows.analysis, config.n_fft))[:, None]
    else:
        angles = np.random.default_rng(0).uniform(-np.pi, np.pi, magnitudes.shape)
    signals = zeros((n_src, line.size))
    for j in range(n_src):
        angle = angles[:, min(j, angles.shape[1] - 1)]
        _griffin_lim(
            plan_fft(config.n_fft),
            aligned(config.windows.analysis),
            aligned(1 / config.windows.envelope),
            aligned(magnitudes[:, j]),
            aligned(np.stack([np.cos(angle), np.sin(angle)], 1)),
            n_iter,
            np.float32(momentum / (1 + momentum)),
            zeros((n_frames, 2, n_bins)),
            zeros((2, n_bins)),
            zeros(config.n_fft),
            zeros(config.n_fft),
            signals[j],
        )
    return signals


@register_phase("griffin_lim")
@dataclass(frozen=True)
class GriffinLim(OfflinePhase):
    """Griffin-Lim on the whole signal, each source on its own; offline only (`separate`).

    Parameters
    ----------
    n_iter : int
        Iterations, 0 to 1000.
    init : {"mixture", "random"}
        First phases: those of the mixture, or random ones, the same in every run.

    References
    ----------
    Griffin and Lim, IEEE Trans. ASSP 32(2), 1984.
    """

    n_iter: int = 100
    init: str = "mixture"

    lookahead = None
    window_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        check_choice("init", self.init, ("mixture", "random"))

    @property
    def keeps_mixture_phase(self) -> bool:  # type: ignore[override]
        """Without iterations, if the first phases are those of the mixture."""
        return self.n_iter == 0 and self.init == "mixture"

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources of one channel.

        Parameters
        ----------
        config : StreamConfig
        line : ndarray, float32, (n_samples,)
            Mixture; frame t starts at sample `t * hop`. Samples that fewer frames cover than elsewhere come
            out faded, so pad both ends.
        magnitudes : ndarray, float32, (n_frames, n_src, n_bins)
            Targets, not negative.

        Returns
        -------
        sources : ndarray, float32, (n_src, n_samples)
            Without the mixing error that the output stage shares.
        """
        return _invert(config, line, magnitudes, self.n_iter, 0.0, self.init)


@register_phase("fast_griffin_lim")
@dataclass(frozen=True)
class FastGriffinLim(GriffinLim):
    """Griffin-Lim with momentum on the whole signal, each source on its own; offline only.

    Parameters
    ----------
    n_iter, init
        As in `GriffinLim`.
    momentum : float
        Alpha in `rtsep.phase.griffin_lim`, 0 to 1, as librosa counts it too; 0 is Griffin-Lim.

    References
    ----------
    Perraudin, Balazs and Sondergaard, WASPAA 2013.
    """

    momentum: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("momentum", self.momentum, 0, 1)

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources of one channel, as `GriffinLim.run`."""
        return _invert(config, line, magnitudes, self.n_iter, self.momentum, self.init)
