"""MISI: multiple input spectrogram inversion over a whole signal.

Source: D. Gunawan and D. Sen, "Iterative phase estimation for the synthesis of separated sources from
single-channel mixtures", IEEE Signal Process. Lett. 17(5), 2010. In the difference form, with the mixture
itself as the spectrum T that the estimates sum to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_choice, check_int
from rtsep.kernels.fft import irfft, plan_fft, rfft
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import clear
from rtsep.phase.difference import impose, mixture_phase, project
from rtsep.phase.omisi import MAX_ITERATIONS
from rtsep.stages.analysis import multiply
from rtsep.stages.registry import register_phase


@kernel
def _misi(
    plan, window, inverse, line, targets, n_iter, published,
    mixture, analysed, imposed, phasors, frame, wave, signals, fresh,
):  # fmt: skip
    """MISI on one channel; see `MISI.run`. `signals` and `fresh`: (J, n_samples), differences and sum."""
    n_frames, n_src, n_bins = targets.shape
    n, n_samples = window.size, line.size
    hop = inverse.size
    for iteration in range(n_iter + 1):
        last = iteration == n_iter
        n_rows = n_src if last and published else n_src - 1
        clear(fresh, 0, n_rows * n_samples)
        for t in range(n_frames):
            magnitudes = targets[t : t + 1]
            multiply(line, t * hop, window, 0, frame, n)
            rfft(plan, frame, mixture, 0)
            if iteration == 0:
                mixture_phase(mixture, 0, phasors)
                impose(magnitudes, phasors, 0, imposed)
            else:
                for j in range(n_src - 1):
                    multiply(signals, j * n_samples + t * hop, window, 0, frame, n)
                    rfft(plan, frame, analysed, 2 * j * n_bins)
                project(analysed, mixture, mixture, magnitudes, 0, last, phasors, imposed, np.float32(0), imposed)
            for j in range(n_rows):
                irfft(plan, imposed, 2 * j * n_bins, wave)
                for i in range(n):
                    fresh[j, t * hop + i] += window[i] * wave[i]
        for j in range(n_rows):
            for i in range(n_samples):
                signals[j, i] = fresh[j, i] * inverse[i % hop]


@register_phase("misi")
@dataclass(frozen=True)
class MISI:
    """MISI on the whole signal: best quality, offline only (`separate`).

    Parameters
    ----------
    n_iter : int
        Iterations, 0 to 1000, after the amplitude mask.
    order : {"paper", "published"}
        As in `OMISI`. The released code counts the mask as its first iteration: its 15 are 14 here.

    References
    ----------
    Gunawan and Sen, IEEE Signal Process. Lett. 17(5), 2010.
    """

    n_iter: int = 15
    order: str = "paper"

    offline: ClassVar[bool] = True
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        check_choice("order", self.order, ("paper", "published"))

    @property
    def consistent(self) -> bool:
        """Whether the output stage shares the mixing error."""
        return self.order == "paper"

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
            In the order of the paper they lack an equal part each of the mixture, which the output stage adds.
        """
        n_src, n_bins = magnitudes.shape[1:]
        signals, fresh = zeros((n_src, line.size)), zeros((n_src, line.size))
        _misi(
            plan_fft(config.n_fft),
            aligned(config.window),
            aligned(1 / config.envelope),
            aligned(line),
            np.ascontiguousarray(magnitudes, np.float32),
            self.n_iter,
            self.order == "published",
            zeros((1, 2, n_bins)),
            *(zeros((1, n_src, 2, n_bins)) for _ in range(3)),
            zeros(config.n_fft),
            zeros(config.n_fft),
            signals,
            fresh,
        )
        # Row j holds d_j and the last one the sum: s_J = (sum - sum_j d_j) / J, s_j = d_j + s_J.
        rest = (signals[-1] - signals[:-1].sum(0)) / np.float32(n_src) if self.order == "published" else 0
        signals[-1] = 0
        return signals + rest
