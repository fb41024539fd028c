"""The framework of spectrogram inversion: mixing, inconsistency and magnitudes, each as a loss or as a constraint.

Source: P. Magron and T. Virtanen, "Spectrogram inversion for audio source separation via consistency, mixing,
and magnitude constraints", EUSIPCO 2023. With Z = STFT(iSTFT(S)), the mixing error E = X - sum_k S_k, mixing
weights L_j that sum to one, consistency weight c, and everything bin by bin, an iteration is

    mix_incons           S_j <- (S_j + L_j E + c L_j Z_j) / (1 + c L_j)
    mix_incons_hardmag   S_j <- V_j exp(i phase(S_j + L_j E + c L_j Z_j))
    mag_incons_hardmix   S_j <- A_j + (X - sum_k A_k) / J,  A_j = (V_j exp(i phase(S_j)) + c Z_j) / (1 + c)

from the amplitude mask on. The other two: `misi` has all three as constraints one after the other, and
`incons_hardmix` is the amplitude mask with the mixing error shared sample by sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_choice, check_real
from rtsep.engine.registry import register_phase
from rtsep.kernels.simd import LANES, get, load, store
from rtsep.phase.mixture import MixturePhase
from rtsep.phase.window import Member, Windowed, mask, unit

ONE = np.float32(1)
MAX_CONSISTENCY = 1e6
# Mixing weights: L_j in proportion to a + b V_j + c V_j^2. The least part makes them equal in silence.
MIXING = {"equal": (1.0, 0.0, 0.0), "magnitude": (1e-30, 1.0, 0.0), "power": (1e-30, 0.0, 1.0)}


def _mix_incons(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """S_j <- (S_j + L_j E + c L_j Z_j) / (1 + c L_j), or its phase with the magnitude V_j."""
    consistency, hard = get(work, 0), get(work, 4) > 0
    a, b, c = get(work, 1), get(work, 2), get(work, 3)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        er, ei = xr - load(estimate, k), xi - load(estimate, n_bins + k)
        v = load(magnitudes, k)
        total = (v * c + b) * v + a
        for j in range(1, n_src):
            at = 2 * j * n_bins + k
            er, ei = er - load(estimate, at), ei - load(estimate, at + n_bins)
            v = load(magnitudes, j * n_bins + k)
            total = total + (v * c + b) * v + a
        inverse = ONE / total
        for j in range(n_src):
            at = 2 * j * n_bins + k
            v = load(magnitudes, j * n_bins + k)
            weight = ((v * c + b) * v + a) * inverse
            consistency_weight = weight * consistency
            re = load(estimate, at) + weight * er + consistency_weight * load(analysed, at)
            im = load(estimate, at + n_bins) + weight * ei + consistency_weight * load(analysed, at + n_bins)
            if hard:
                re, im = unit(re, im, xr, xi)
                re, im = re * v, im * v
            else:
                scale = ONE / (consistency_weight + ONE)
                re, im = re * scale, im * scale
            store(updated, at, re)
            store(updated, at + n_bins, im)


def _mag_incons_hardmix(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """S_j <- A_j + (X - sum_k A_k) / J with A_j = (V_j S_j / |S_j| + c Z_j) / (1 + c)."""
    consistency = get(work, 0)
    scale, share = ONE / (ONE + consistency), ONE / np.float32(n_src)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        er, ei = xr, xi
        for j in range(n_src):
            at = 2 * j * n_bins + k
            ur, ui = unit(load(estimate, at), load(estimate, at + n_bins), xr, xi)
            v = load(magnitudes, j * n_bins + k)
            ar = (ur * v + load(analysed, at) * consistency) * scale
            ai = (ui * v + load(analysed, at + n_bins) * consistency) * scale
            store(updated, at, ar)
            store(updated, at + n_bins, ai)
            er, ei = er - ar, ei - ai
        for j in range(n_src):
            at = 2 * j * n_bins + k
            store(updated, at, load(updated, at) + er * share)
            store(updated, at + n_bins, load(updated, at + n_bins) + ei * share)


@dataclass(frozen=True)
class _Soft(Windowed):
    """Members with a consistency weight."""

    consistency: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("consistency", self.consistency, 0, MAX_CONSISTENCY)


@dataclass(frozen=True)
class _Mix(_Soft):
    """Members with mixing weights."""

    mixing: str = "magnitude"

    hard: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mixing", self.mixing, tuple(MIXING))

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        work = np.array([self.consistency, *MIXING[self.mixing], self.hard])
        return Member(_mix_incons, mask, work, tail=self.tail)


@register_phase("mix_incons")
@dataclass(frozen=True)
class MixIncons(_Mix):
    """Spectrogram inversion by mixing and inconsistency: what the magnitudes say is only where it starts.

    For poor magnitudes. Few iterations: they lead away from the magnitudes and the masks alike.

    Parameters
    ----------
    n_iter : int
        Iterations, 0 to 1000.
    lookahead : int or None
        Future frames to wait for, 0 to 32 hops; None for the whole signal.
    tail : float
        As in `OMISI`, 0 to 1.
    consistency : float
        Weight of the inconsistency beside the mixing error, 0 to 1e6; with 0 this is the mask of the mixing weights.
    mixing : {"magnitude", "power", "equal"}
        What the shares of the sources in the mixing error are in proportion to.

    References
    ----------
    Magron and Virtanen, EUSIPCO 2023.
    """


@register_phase("mix_incons_hardmag")
@dataclass(frozen=True)
class MixInconsHardMag(_Mix):
    """Spectrogram inversion by mixing and inconsistency, with the magnitudes as a constraint.

    Parameters
    ----------
    n_iter, lookahead, tail, consistency, mixing
        As in `MixIncons`; with an infinite consistency weight this would be Griffin-Lim for every source.

    References
    ----------
    Magron and Virtanen, EUSIPCO 2023.
    """

    hard: ClassVar[bool] = True


@register_phase("mag_incons_hardmix")
@dataclass(frozen=True)
class MagInconsHardMix(_Soft):
    """Spectrogram inversion by magnitudes and inconsistency, with the mixture as a constraint.

    Parameters
    ----------
    n_iter, lookahead, tail, consistency
        As in `MixIncons`.

    References
    ----------
    Magron and Virtanen, EUSIPCO 2023.
    """

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        return Member(_mag_incons_hardmix, mask, np.array([self.consistency]), tail=self.tail)


@register_phase("incons_hardmix")
@dataclass(frozen=True)
class InconsHardMix(MixturePhase):
    """The amplitude mask made consistent, with the mixture as a constraint: another name of `mixture`.

    Its one iteration, consistency and then mixing, is in the time domain nothing but sharing the mixing error
    sample by sample, which the output stage does: no more FFTs than the mask needs, and no look-ahead.

    References
    ----------
    Magron and Virtanen, EUSIPCO 2023.
    """
