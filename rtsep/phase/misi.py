"""MISI: multiple input spectrogram inversion.

Source: D. Gunawan and D. Sen, "Iterative phase estimation for the synthesis of separated sources from
single-channel mixtures", IEEE Signal Process. Lett. 17(5), 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.config import StreamConfig, check_choice
from rtsep.engine.registry import register_phase
from rtsep.kernels.simd import LANES, load, store
from rtsep.phase.window import Member, Windowed, mask, mixed_mask, unit


def _paper(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """Magnitude, then mixing: S_j = U_j + (X - sum_k U_k) / J with U_j = V_j Z_j / |Z_j|."""
    share = np.float32(1) / np.float32(n_src)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        er, ei = xr, xi
        for j in range(n_src):
            at = 2 * j * n_bins + k
            ur, ui = unit(load(analysed, at), load(analysed, at + n_bins), xr, xi)
            v = load(magnitudes, j * n_bins + k)
            ur, ui = ur * v, ui * v
            store(updated, at, ur)
            store(updated, at + n_bins, ui)
            er, ei = er - ur, ei - ui
        for j in range(n_src):
            at = 2 * j * n_bins + k
            store(updated, at, load(updated, at) + er * share)
            store(updated, at + n_bins, load(updated, at + n_bins) + ei * share)


def _published(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """Mixing, then magnitude: S_j = V_j C_j / |C_j| with C_j = Z_j + (X - sum_k Z_k) / J."""
    share = np.float32(1) / np.float32(n_src)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        er, ei = xr, xi
        for j in range(n_src):
            at = 2 * j * n_bins + k
            er, ei = er - load(analysed, at), ei - load(analysed, at + n_bins)
        for j in range(n_src):
            at = 2 * j * n_bins + k
            ur, ui = unit(load(analysed, at) + er * share, load(analysed, at + n_bins) + ei * share, xr, xi)
            v = load(magnitudes, j * n_bins + k)
            store(updated, at, ur * v)
            store(updated, at + n_bins, ui * v)


@register_phase("misi")
@dataclass(frozen=True)
class MISI(Windowed):
    """MISI on the whole signal, or online with a look-ahead (`omisi` does the same faster).

    Parameters
    ----------
    n_iter : int
        Iterations after the amplitude mask, 0 to 1000.
    lookahead : int or None
        Future frames to wait for, 0 to 32 hops; None for the whole signal: best quality, `rtsep.separate` alone.
    tail : float
        As in `OMISI`, 0 to 1.
    order : {"paper", "published"}
        As in `OMISI`. The released code counts the mask as its first iteration: its 15 are 14 here.

    References
    ----------
    Gunawan and Sen, IEEE Signal Process. Lett. 17(5), 2010.
    """

    n_iter: int = 15
    lookahead: int | None = None
    order: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("order", self.order, ("paper", "published"))

    @property
    def consistent(self) -> bool:  # type: ignore[override]
        """Whether the output stage shares the mixing error."""
        return self.order == "paper"

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        update, enter = (_paper, mixed_mask) if self.order == "paper" else (_published, mask)
        return Member(update, enter, tail=self.tail)
