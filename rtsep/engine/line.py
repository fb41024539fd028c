"""The line: what comes in is put right and kept for as long as a core needs it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros
from rtsep.kernels.simd import move

# Samples beyond +120 dBFS cannot be meant, and their powers would overflow float32 further on.
MAX_SAMPLE = np.float32(1e6)
# Samples below -360 dBFS are zero: neither they nor their squares are denormal.
MIN_SAMPLE = np.float32(1e-18)


class LineState(NamedTuple):
    """The newest samples of the mixture."""

    samples: np.ndarray  # float32 (n_channels, length): the newest last
    replaced: np.ndarray  # int64 (1,): samples so far that were not finite or beyond MAX_SAMPLE


def prepare_line(n_channels: int, length: int) -> LineState:
    """A line of silence for the newest `length` samples. Not real-time safe."""
    return LineState(samples=zeros((n_channels, length)), replaced=zeros(1, np.int64))


@kernel
def take_in(state, hop_in):
    """Move the line on by one hop.

    Parameters
    ----------
    state : LineState
        Updated in place.
    hop_in : ndarray, float32, (n_channels, hop)
        Read only; not longer than the line. Values that are not finite count as zero.

    Notes
    -----
    Real-time safe.
    """
    n_channels, hop = hop_in.shape
    samples, length = state.samples, state.samples.shape[1]
    for c in range(n_channels):
        move(samples, c * length, samples, c * length + hop, length - hop)
        for i in range(hop):
            x = hop_in[c, i]
            size = abs(x)
            if not size <= MAX_SAMPLE:
                state.replaced[0] += 1
                x = math.copysign(MAX_SAMPLE, x) if size > MAX_SAMPLE and not math.isinf(x) else np.float32(0)
            elif size < MIN_SAMPLE:
                x = np.float32(0)
            samples[c, length - hop + i] = x
