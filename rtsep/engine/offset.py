"""The offset: what lies below hearing is set aside before the separation, and given to the last source after it.

An offset is no sound, but to a spectrum it is the loudest one: it reaches all bins through the side lobes of the
window, and what estimators make of it is no constant any more. So the core hears the mixture without its slowest part,
which two one-pole low-passes in a row find (together -6 dB at 4 Hz, -28 dB at 20 Hz, -56 dB at 100 Hz). No delay: the
low-passes are causal, and what they find is subtracted at once and added at the end, sample by sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import constant, zeros
from rtsep.kernels.simd import move

CUTOFF_HZ = 4.0  # of each low-pass, -3 dB
FLAT = 4.0  # a first hop whose mean is so many times its standard deviation begins with an offset
TINY = 1e-10  # -200 dBFS is none, and what it decays through has no bins so small that their powers are denormal


class OffsetState(NamedTuple):
    """State of the low-passes, and the mixture without what they found."""

    samples: np.ndarray  # float32 (n_channels, length): the newest last
    slow: np.ndarray  # float64 (n_channels, 2): outputs of both low-passes; in float32 they would get stuck
    rate: np.ndarray  # float64 (1,), constant: share of the way that a low-pass goes in a sample
    begun: np.ndarray  # int64 (1,): whether there was a hop


def prepare_offset(n_channels: int, length: int, sr: int) -> OffsetState:
    """As after silence. Not real-time safe."""
    return OffsetState(
        samples=zeros((n_channels, length)),
        slow=zeros((n_channels, 2), np.float64),
        rate=constant([1 - math.exp(-2 * math.pi * CUTOFF_HZ / sr)], np.float64),
        begun=zeros(1, np.int64),
    )


@kernel
def set_aside(state, line, hop):
    """Move on by one hop.

    Parameters
    ----------
    state : OffsetState
        Updated in place; afterwards `samples` are the line without its slowest part.
    line : ndarray, float32, (n_channels, length)
        Newest samples of the mixture. Read only.
    hop : int
        How many of them are new.

    Notes
    -----
    Real-time safe. A stream that begins with an offset has always had it, as far as anybody knows: without that, its
    beginning would be a step.
    """
    n_channels, length = line.shape
    samples, rate = state.samples, state.rate[0]
    for c in range(n_channels):
        move(samples, c * length, samples, c * length + hop, length - hop)
        slow, slower = state.slow[c, 0], state.slow[c, 1]
        if state.begun[0] == 0:
            total, squares = 0.0, 0.0
            for i in range(length - hop, length):
                total += line[c, i]
                squares += np.float64(line[c, i]) * line[c, i]
            mean = total / hop
            if mean * mean > FLAT * FLAT * (squares / hop - mean * mean):
                slow = slower = mean
        for i in range(length - hop, length):
            x = line[c, i]
            slow += rate * (x - slow)
            slower += rate * (slow - slower)
            # No denormals, which callbacks treat as zero and arrays do not.
            samples[c, i] = x - np.float32(slower if abs(slower) > TINY else 0.0)
        state.slow[c, 0] = slow if abs(slow) > TINY else 0.0
        state.slow[c, 1] = slower if abs(slower) > TINY else 0.0
    state.begun[0] = 1


@kernel
def give_back(state, line, start, hop_out):
    """Add what was set aside to the last source.

    Parameters
    ----------
    state : OffsetState
    line : ndarray, float32, (n_channels, length)
        As `set_aside` got it. Read only.
    start : int
        Column of the first sample of `hop_out` in the line.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        The sources; the last one is updated in place.

    Notes
    -----
    Real-time safe.
    """
    last, n_channels, hop = hop_out.shape[0] - 1, hop_out.shape[1], hop_out.shape[2]
    for c in range(n_channels):
        for i in range(hop):
            hop_out[last, c, i] += line[c, start + i] - state.samples[c, start + i]
