"""Phase retrieval with beta divergences, for every source by itself: accelerated gradient and ADMM.

Source: P.-H. Vial, P. Magron, T. Oberlin and C. Fevotte, "Phase retrieval with Bregman divergences and application
to audio signal recovery", IEEE J. Sel. Top. Signal Process. 15(1), 2021, sections III and IV. Bin by bin, for
each source, with Z = STFT(iSTFT(S)):

    bregman_gradient  S <- Y + a (Y - Y_before),  Y = Z - step d Z |Z|^(d - 2) G as in `bregman`
    bregman_admm      M <- Z - S;  S <- prox(|Z + M|) (Z + M) / |Z + M| - M

where prox(y) is the u with the least divergence between u and V plus rho / 2 (u - y)^2, in units of the root mean
square of the magnitudes, and M are the (scaled) multipliers of the constraint that U, the first term of S, be
consistent: M + Z - U = Z - S. They start from the amplitude mask; the mixture plays no other part, and the output
stage shares the mixing error among the sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtsep.config import StreamConfig, check_choice, check_real
from rtsep.engine.channels import TINY
from rtsep.engine.registry import register_phase
from rtsep.kernels.jit import inlined
from rtsep.kernels.simd import get, put
from rtsep.phase.bregman import TWO, ZERO, Divergence, stepped
from rtsep.phase.difference import FALLBACK, ONE
from rtsep.phase.window import Member, Windowed, mask

FOUR = np.float32(4)
MAX_SIZE = np.float32(1e12)  # in units of the level; the square of the largest rho times it fits into float32
LOSSES = ("quadratic", "kullback_leibler", "itakura_saito")

_mask = inlined(mask)


def _enter(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """The amplitude mask, remembered as Y before the first step."""
    _mask(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated)
    for i in range(2 * n_src * n_bins):
        put(memory, i, get(updated, i))


def _accelerated(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """S_j = Y_j + a (Y_j - Y_j before)."""
    scale, momentum = ONE / level, get(work, 6)
    for j in range(n_src):
        for k in range(n_bins):
            at = 2 * j * n_bins + k
            xr, xi = get(mixture, k) * scale, get(mixture, n_bins + k) * scale
            v = get(magnitudes, j * n_bins + k) * scale
            re, im = stepped(get(analysed, at) * scale, get(analysed, at + n_bins) * scale, v, xr, xi, work)
            re, im = re * level, im * level
            put(updated, at, re + momentum * (re - get(memory, at)))
            put(updated, at + n_bins, im + momentum * (im - get(memory, at + n_bins)))
            put(memory, at, re)
            put(memory, at + n_bins, im)


@inlined
def _prox(y, v, rho, loss):
    """The least divergence plus rho / 2 (u - y)^2, for a size y and a target v."""
    if loss == ZERO:  # (u - v)^2
        return (rho * y + TWO * v) / (rho + TWO)
    if loss == ONE:  # v log(v / u) - v + u
        b = rho * y - ONE
        return (b + np.float32(math.sqrt(b * b + FOUR * rho * v))) / (TWO * rho)
    b = ONE / (v + TINY) - rho * y  # u / v - log(u / v) - 1
    # Both forms are the same number; this one subtracts nothing from its like.
    root = np.float32(math.sqrt(b * b + FOUR * rho))
    return TWO / (b + root) if b > ZERO else (root - b) / (TWO * rho)


def _multipliers(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """S_j = U_j - M_j with M_j = Z_j - S_j and U_j = prox(|Z_j + M_j|) (Z_j + M_j) / |Z_j + M_j|."""
    rho, loss, scale = get(work, 0), get(work, 1), ONE / level
    for j in range(n_src):
        for k in range(n_bins):
            at = 2 * j * n_bins + k
            zr, zi = get(analysed, at) * scale, get(analysed, at + n_bins) * scale
            mr, mi = zr - get(estimate, at) * scale, zi - get(estimate, at + n_bins) * scale
            hr, hi = zr + mr, zi + mi
            v = get(magnitudes, j * n_bins + k) * scale
            y = min(np.float32(math.sqrt(hr * hr + hi * hi)), MAX_SIZE)
            hr, hi = hr + FALLBACK * scale * get(mixture, k), hi + FALLBACK * scale * get(mixture, n_bins + k)
            factor = _prox(y, v, rho, loss) / np.float32(math.sqrt(hr * hr + hi * hi + TINY))
            put(updated, at, (hr * factor - mr) * level)
            put(updated, at + n_bins, (hi * factor - mi) * level)


@register_phase("bregman_gradient")
@dataclass(frozen=True)
class BregmanGradient(Divergence):
    """Phase retrieval by accelerated gradient steps on a beta divergence, every source by itself.

    Parameters
    ----------
    n_iter, lookahead, tail, beta, d, side, step_size, ridge
        As in `Bregman`.
    momentum : float
        How much of a step the next one goes on, 0 to 1.

    References
    ----------
    Vial, Magron, Oberlin and Fevotte, IEEE J. Sel. Top. Signal Process. 15(1), 2021.
    """

    n_iter: int = 100
    lookahead: int | None = None
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("momentum", self.momentum, 0, 1)

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        return Member(_accelerated, _enter, np.array([*self.work, 0.0, self.momentum]), n_memory=2, tail=self.tail)


@register_phase("bregman_admm")
@dataclass(frozen=True)
class BregmanADMM(Windowed):
    """Phase retrieval by the alternating direction method of multipliers, every source by itself.

    Parameters
    ----------
    n_iter, lookahead, tail
        As in `Bregman`.
    loss : {"quadratic", "kullback_leibler", "itakura_saito"}
        Between magnitudes: the squared distance, the divergence of the targets from the estimates ("right"), and
        that of the estimates from the targets ("left").
    rho : float
        Penalty of inconsistency, 1e-6 to 1e6, for spectra whose root mean square is 1.

    References
    ----------
    Vial, Magron, Oberlin and Fevotte, IEEE J. Sel. Top. Signal Process. 15(1), 2021.
    """

    n_iter: int = 100
    lookahead: int | None = None
    loss: str = "quadratic"
    rho: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("loss", self.loss, LOSSES)
        check_real("rho", self.rho, 1e-6, 1e6)

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        work = np.array([self.rho, LOSSES.index(self.loss)])
        return Member(_multipliers, mask, work, tail=self.tail)
