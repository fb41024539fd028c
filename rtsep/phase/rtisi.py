"""RTISI-LA: real-time iterative spectrogram inversion with look-ahead, for every source by itself.

Source: X. Zhu, G. T. Beauregard and L. L. Wyse, "Real-time signal estimation from modified short-time Fourier
transform magnitude spectra", IEEE Trans. Audio Speech Lang. Process. 15(5), 2007; the variant of V. Gnann and
M. Spiertz, "Improving RTISI phase estimation with energy order and phase unwrapping", DAFx 2010. Griffin-Lim in a
window of K + 1 frames,

    S_j = V_j Z_j / |Z_j|,

one frame after the other from the newest to the oldest. As published the newest starts from nothing, so that the
overlap of the frames before gives its first phases; the sources then sound right one by one, but do not add up to the
mixture, whose phase is the better start where there is one. The overlap-add decays where future frames will still
overlap. So that the newest frame sees a window-shaped piece of signal nevertheless,

- RTISI-LA analyses it by a rising window, the sum of the synthesis windows that are still to come and its own
  (without its own in the first iteration, when it has added nothing);
- the variant divides by the overlap that is there, in every frame of the window.

The mixture plays no other part; the output stage shares the mixing error among the sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_choice
from rtsep.engine.registry import register_phase
from rtsep.kernels.simd import LANES, clear, load, store
from rtsep.phase.window import Member, Online, mask, unit

# Where the overlap is less than this share of the complete one, what there is of the signal is noise.
LEAST_OVERLAP = 1e-3


def _nothing(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`enter`: S_j = 0."""
    clear(updated, 0, 2 * n_src * n_bins)


def _update(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """S_j = V_j Z_j / |Z_j|."""
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        for j in range(n_src):
            at = 2 * j * n_bins + k
            ur, ui = unit(load(analysed, at), load(analysed, at + n_bins), xr, xi)
            v = load(magnitudes, j * n_bins + k)
            store(updated, at, ur * v)
            store(updated, at + n_bins, ui * v)


@dataclass(frozen=True)
class _RTISI(Online):
    """What both have in common."""

    lookahead: int | None = 3
    init: str = "mixture"

    window_pairs: ClassVar[bool] = False  # the newest frames have analysis windows of their own

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("init", self.init, ("mixture", "overlap"))

    @property
    def keeps_mixture_phase(self) -> bool:  # type: ignore[override]
        """Without iterations, if the first phases are those of the mixture."""
        return self.n_iter == 0 and self.init == "mixture"

    def _member(self, tail: float, first: np.ndarray, newest: np.ndarray | None = None) -> Member:
        if self.init == "mixture":
            return Member(_update, mask, tail=tail, sequential=True, newest=newest)
        return Member(_update, _nothing, tail=tail, sequential=True, newest=newest, first=first)


@register_phase("rtisi_la")
@dataclass(frozen=True)
class RTISILA(_RTISI):
    """RTISI-LA: Griffin-Lim in a window of frames, every source by itself.

    Parameters
    ----------
    n_iter : int
        Sweeps over the window per hop, 0 to 1000.
    lookahead : int
        Future frames to wait for, 0 to 32 hops; a window less a hop is usual.
    init : {"mixture", "overlap"}
        First phases of a new frame: those of the mixture, or those of what the frames before extend to.

    References
    ----------
    Zhu, Beauregard and Wyse, IEEE Trans. Audio Speech Lang. Process. 15(5), 2007.
    """

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        n, hop = config.analysis, config.hop
        complete, _ = config.windows.overlaps(1)
        synthesis = config.windows.analysis / complete
        coming = np.zeros(n)
        for start in range(hop, n, hop):
            coming[start:] += synthesis[: n - start]
        own = coming + synthesis
        return self._member(1.0, coming / complete, own / complete)


@register_phase("gsrtisi_la")
@dataclass(frozen=True)
class GSRTISILA(_RTISI):
    """RTISI-LA with the overlap-add divided by the overlap that is there, every source by itself.

    Parameters
    ----------
    n_iter : int
        Sweeps over the window per hop, 0 to 1000.
    lookahead : int
        Future frames to wait for, 0 to 32 hops; a window less a hop is usual.
    init : {"mixture", "overlap"}
        First phases of a new frame: those of the mixture, or those of what the frames before extend to.

    References
    ----------
    Gnann and Spiertz, DAFx 2010.
    """

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        complete, present = config.windows.overlaps(1)
        least = LEAST_OVERLAP * complete
        before = present - config.windows.analysis**2  # of the frames before the newest
        return self._member(0.0, config.windows.analysis / np.maximum(before, least))
