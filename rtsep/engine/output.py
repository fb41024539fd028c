"""Output: mixture consistency, strength, fade-in and limiter; the last thing that touches a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, constant, zeros

RELEASE_S = 0.05  # time constant with which the limiter lets go
RAMP_S = 0.02  # a leak goes from 0 to 1 in this time
UNSET = np.float32(-1)  # a leak that has not begun


@dataclass(frozen=True)
class Output:
    """What happens to the separated sources before they leave.

    Parameters
    ----------
    strength_db : float
        By how many dB the other sources are lowered in each source, 0 to infinity. Below infinity the
        sources no longer add up to the mixture, since each of them keeps a part of the others.
    ceiling_db : float
        No output sample exceeds this level, -60 to 0 dBFS; infinity switches the limiter off. All sources
        and channels share one gain, so balance and stereo image stay.
    fade_in_ms : float
        Linear fade-in at the start of what is heard, 0 to 1000 ms.
    """

    strength_db: float = math.inf
    ceiling_db: float = -1.0
    fade_in_ms: float = 0.0

    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {"strength_db": ("leak_goal",), "ceiling_db": ("ceiling",)}

    def __post_init__(self) -> None:
        check_real("strength_db", self.strength_db, 0, math.inf, " dB")
        if self.ceiling_db != math.inf:
            check_real("ceiling_db", self.ceiling_db, -60, 0, " dBFS (or infinity)")
        check_real("fade_in_ms", self.fade_in_ms, 0, 1000, " ms")

    def prepare(
        self,
        config: StreamConfig,
        consistent: bool,
        delay: int = 0,
        start: int = 0,
        shares: np.ndarray | None = None,
    ) -> OutputState:
        """Fresh state.

        Parameters
        ----------
        config : StreamConfig
        consistent : bool
            Share the mixing error among the sources.
        delay : int
            Samples from the start of the stream to the first that belongs to the input.
        start : int
            Where the mixture of a hop stands in the line that `finish` is given.
        shares : ndarray, float32, (n_src,), optional
            Of the mixing error, which who owns the array may change from hop to hop; they sum to one. Default: equal.
        """
        fade_in = self.fade_in_ms * config.sr / 1000
        return OutputState(
            start=constant([start], np.int64),
            consistent=constant([consistent], np.bool_),
            shares=aligned([]) if shares is None else shares,
            leak=aligned([UNSET]),
            leak_goal=aligned([10 ** (-self.strength_db / 20)]),
            leak_step=constant([1 / (RAMP_S * config.sr)]),
            ceiling=aligned([10 ** (self.ceiling_db / 20)]),
            release=constant([1 - math.exp(-1 / (RELEASE_S * config.sr))]),
            gain=aligned([1.0]),
            fade=aligned([-delay / fade_in if fade_in else 1.0]),
            fade_step=constant([1 / fade_in if fade_in else 1.0]),
            limited=zeros(1, np.int64),
            muted=zeros(1, np.int64),
        )


class OutputState(NamedTuple):
    """State of the output stage; arrays of one element, float32, unless said."""

    start: np.ndarray  # int64, constant: column of the line with the mixture of the first sample
    consistent: np.ndarray  # bool, constant
    shares: np.ndarray  # (n_src,): of the mixing error; empty if they are equal
    leak: np.ndarray  # gain of the other sources in each source; UNSET before the first sample
    leak_goal: np.ndarray  # where it is going
    leak_step: np.ndarray  # constant: by how much in a sample
    ceiling: np.ndarray  # linear
    release: np.ndarray  # constant: share of the way back to one that the limiter gain goes in a sample
    gain: np.ndarray  # of the limiter
    fade: np.ndarray  # gain of the fade-in; below zero before its start
    fade_step: np.ndarray  # constant: per sample
    limited: np.ndarray  # int64: samples so far at which the limiter was at work
    muted: np.ndarray  # int64: samples so far that were not finite and were set to zero


@kernel
def finish(state, line, hop_out):
    """Finish one hop of all sources in place.

    Parameters
    ----------
    state : OutputState
        Updated in place.
    line : ndarray, float32, (n_channels, at least start + hop)
        Its `hop` columns from `start` on are the mixture at the time of `hop_out`. Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        The sources; updated in place. Afterwards finite and never above the ceiling.

    Notes
    -----
    Real-time safe. Adding an equal share of the mixing error to every source is the orthogonal projection
    on the sources that sum to the mixture (S. Wisdom et al., "Differentiable consistency constraints for
    improved deep speech enhancement", ICASSP 2019, section 3.1). The limiter has no look-ahead: its gain
    falls at once by what the loudest sample needs and recovers with a time constant of 50 ms.
    """
    n_src, n_channels, hop = hop_out.shape
    start, consistent, ceiling = state.start[0], state.consistent[0], state.ceiling[0]
    leak, goal, leak_step = state.leak[0], state.leak_goal[0], state.leak_step[0]
    if leak == UNSET:
        leak = goal
    gain, fade = state.gain[0], state.fade[0]
    release, fade_step = state.release[0], state.fade_step[0]
    one, zero = np.float32(1), np.float32(0)
    share = one / np.float32(n_src)
    equal = state.shares.size == 0
    alone = consistent and n_src == 1  # what adds up to the mixture, bit by bit
    for i in range(hop):
        leak += min(max(goal - leak, -leak_step), leak_step)
        peak = zero
        for c in range(n_channels):
            x = line[c, start + i]
            total = zero
            for j in range(n_src):
                total += hop_out[j, c, i]
            missing = x - total if consistent else zero
            for j in range(n_src):
                s = x if alone else hop_out[j, c, i] + missing * (share if equal else state.shares[j])
                s = (s + leak * (x - s)) * max(fade, zero)
                if not math.isfinite(s):
                    s = zero
                    state.muted[0] += 1
                hop_out[j, c, i] = s
                peak = max(peak, abs(s))
        fade = min(one, fade + fade_step)
        gain += release * (one - gain)
        # Snap to one: below the ceiling the samples pass bit by bit.
        if gain > np.float32(0.9999):
            gain = one
        if peak * gain > ceiling:
            gain = ceiling / peak
        if gain < one:
            state.limited[0] += 1
            for j in range(n_src):
                for c in range(n_channels):
                    # The product may round to just above the ceiling.
                    hop_out[j, c, i] = min(max(hop_out[j, c, i] * gain, -ceiling), ceiling)
    state.gain[0], state.fade[0], state.leak[0] = gain, fade, leak
