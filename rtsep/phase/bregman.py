"""MISI for other measures of error between magnitudes than the squared one: projected gradient steps.

Source: P. Magron, P.-H. Vial, T. Oberlin and C. Fevotte, "Phase recovery with Bregman divergences for audio source
separation", ICASSP 2021. The loss is a beta divergence between P_j = |S_j|^d and R_j = V_j^d, in either order; with
psi'(z) = z^(beta - 1) / (beta - 1), or log z for beta = 1, an iteration is, bin by bin,

    Y_j = Z_j - step d Z_j |Z_j|^(d - 2) G_j,  P_j of the consistent spectra Z_j,
    G_j = P_j^(beta - 2) (P_j - R_j)           ("right", the divergence of R from P)
    G_j = psi'(P_j) - psi'(R_j)                ("left", of P from R)
    S_j = Y_j + (X - sum_k Y_k) / J.

beta = 2, d = 1, step = 1 is MISI. In the paper the step has the unit of |S|^(2 - d beta); here spectra are in units of
the root mean square of the magnitudes (of the window; offline of the whole signal), so that a step means the same at
any level. With d beta = 2 it has no unit at all: bins large and small get the same, and 1 / d^2 is the step of Newton's
method where P_j is near R_j. That is the default, with beta = 1 and d = 2, and "left", where G is the logarithm of
P_j / R_j: what is wrong with estimated magnitudes are factors.

A step goes towards the target, but may go too far; where it ends further away from it than it began, the bin takes the
step of MISI instead, which ends there. So no step can diverge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtsep.config import StreamConfig, check_choice, check_int, check_real
from rtsep.engine.channels import TINY
from rtsep.engine.registry import register_phase
from rtsep.kernels.elementary import exp, log
from rtsep.kernels.jit import inlined
from rtsep.kernels.simd import get, put
from rtsep.phase.difference import FALLBACK, ONE
from rtsep.phase.window import Member, Windowed, mixed_mask

ZERO = np.float32(0)
TWO = np.float32(2)
# How much further from its target than it began a bin may end, in units of the level. Of 0, 0.1, 0.3 and 1, the best
# with magnitudes off by 3 and 6 dB that does not lose again within 100 iterations.
SLACK = 0.3


@inlined
def _raise(z, exponent):
    """z to a power."""
    return exp(exponent * log(z))


@inlined
def _gradient(power, target, beta, left):
    """G of one bin."""
    if not left:
        return _raise(power, beta - TWO) * (power - target)
    if beta == ONE:
        return log(power / target)
    return (_raise(power, beta - ONE) - _raise(target, beta - ONE)) / (beta - ONE)


@inlined
def stepped(re, im, v, xr, xi, work):
    """Y of one bin from Z, in units of the level."""
    beta, d, step = get(work, 0), get(work, 1), get(work, 2)
    ridge, left = get(work, 3), get(work, 4) > ZERO
    square = re * re + im * im
    ridged, power, target = square + ridge, square + ridge, v * v + ridge
    if d == ONE:
        power, target = np.float32(math.sqrt(power)), np.float32(math.sqrt(target))
    factor = ONE - step * d * (power / ridged) * _gradient(power, target, beta, left)
    size = np.float32(math.sqrt(square))
    # Not the opposite comparison: this way what is not a number overshoots, too.
    if not abs(factor * size - v) <= abs(size - v) + get(work, 5):
        re, im = re + FALLBACK * xr, im + FALLBACK * xi
        factor = v / np.float32(math.sqrt(re * re + im * im + TINY))
    return re * factor, im * factor


def _update(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """S_j = Y_j + (X - sum_k Y_k) / J with Y_j = Z_j (1 - step d |Z_j|^(d - 2) G_j)."""
    scale, share = ONE / level, ONE / np.float32(n_src)
    for k in range(n_bins):
        xr, xi = get(mixture, k) * scale, get(mixture, n_bins + k) * scale
        er, ei = xr, xi
        for j in range(n_src):
            at = 2 * j * n_bins + k
            v = get(magnitudes, j * n_bins + k) * scale
            re, im = stepped(get(analysed, at) * scale, get(analysed, at + n_bins) * scale, v, xr, xi, work)
            put(updated, at, re)
            put(updated, at + n_bins, im)
            er, ei = er - re, ei - im
        for j in range(n_src):
            at = 2 * j * n_bins + k
            put(updated, at, (get(updated, at) + er * share) * level)
            put(updated, at + n_bins, (get(updated, at + n_bins) + ei * share) * level)


@dataclass(frozen=True)
class Divergence(Windowed):
    """Settings of gradient steps on a beta divergence; see `Bregman`."""

    beta: float = 1.0
    d: int = 2
    side: str = "left"
    step_size: float = 0.25
    ridge: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("beta", self.beta, 0, 2)
        object.__setattr__(self, "d", check_int("d", self.d, 1, 2))
        check_choice("side", self.side, ("left", "right"))
        check_real("step_size", self.step_size, 0, 1e6)
        check_real("ridge", self.ridge, 1e-12, 1)

    @property
    def work(self) -> list[float]:
        """What `stepped` needs, but for the slack."""
        return [self.beta, self.d, self.step_size, self.ridge, self.side == "left"]


@register_phase("bregman")
@dataclass(frozen=True)
class Bregman(Divergence):
    """MISI with a beta divergence between magnitudes or powers, for magnitudes that are estimates.

    Parameters
    ----------
    n_iter : int
        Iterations, 0 to 1000.
    lookahead : int or None
        Future frames to wait for, 0 to 32 hops; None for the whole signal.
    tail : float
        As in `OMISI`, 0 to 1.
    beta : float
        0 (Itakura-Saito) over 1 (Kullback-Leibler) to 2 (Euclid).
    d : int
        1 to compare magnitudes, 2 powers.
    side : {"left", "right"}
        Left: the divergence of the estimates from the targets; right: of the targets from the estimates.
    step_size : float
        Length of a gradient step, 0 to 1e6, for spectra whose root mean square is 1.
    ridge : float
        Added to the squares of such spectra, 1e-12 to 1: keeps the powers of vanishing bins finite.

    References
    ----------
    Magron, Vial, Oberlin and Fevotte, ICASSP 2021.
    """

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        return Member(_update, mixed_mask, np.array([*self.work, SLACK]), tail=self.tail)
