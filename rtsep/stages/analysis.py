"""Analysis: a hop of mixture becomes the newest spectrum of every channel."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.kernels.fft import FFTPlan, plan_fft, rfft
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import LANES, load, move, store

# Samples beyond +120 dBFS cannot be meant, and their powers would overflow float32 further on.
MAX_SAMPLE = np.float32(1e6)
# Samples below -360 dBFS are zero: neither they nor their squares are denormal.
MIN_SAMPLE = np.float32(1e-18)


class AnalysisState(NamedTuple):
    """State of the analysis; float32 unless said."""

    plan: FFTPlan
    window: np.ndarray  # (win_length,)
    line: np.ndarray  # (n_channels, win_length + lookahead * hop): the newest samples of the mixture
    frame: np.ndarray  # (n_fft,) scratch
    mixture: np.ndarray  # (n_channels, 2, n_bins): newest spectrum, real and imaginary parts
    power: np.ndarray  # (n_bins,): squared magnitude, mean over the channels
    replaced: np.ndarray  # int64 (1,): samples so far that were not finite or beyond MAX_SAMPLE


def prepare_analysis(config: StreamConfig, lookahead: int) -> AnalysisState:
    """State for `config`; the line also holds the `lookahead` hops that a phase recovery waits for."""
    return AnalysisState(
        plan=plan_fft(config.n_fft),
        window=aligned(config.window),
        line=zeros((config.n_channels, config.win_length + lookahead * config.hop)),
        frame=zeros(config.n_fft),
        mixture=zeros((config.n_channels, 2, config.n_bins)),
        power=zeros(config.n_bins),
        replaced=zeros(1, np.int64),
    )


@inlined
def multiply(a, at_a, b, at_b, out, n):
    """`out[i] = a[at_a + i] * b[at_b + i]` for `i < n`, on flat positions; `out` overlaps neither."""
    for start in range(0, n, LANES):
        i = min(start, n - LANES)
        store(out, i, load(a, at_a + i) * load(b, at_b + i))


@kernel
def analyse(state, hop_in):
    """Take in one hop.

    Parameters
    ----------
    state : AnalysisState
        Updated in place: `line`, `mixture`, `power`, `replaced`.
    hop_in : ndarray, float32, (n_channels, hop)
        Read only. Values that are not finite count as zero.

    Notes
    -----
    Real-time safe.
    """
    n_channels, hop = hop_in.shape
    length = state.line.shape[1]
    n = state.window.size
    n_bins = state.power.size
    line, mixture, power = state.line, state.mixture, state.power
    for c in range(n_channels):
        move(line, c * length, line, c * length + hop, length - hop)
        for i in range(hop):
            x = hop_in[c, i]
            size = abs(x)
            if not size <= MAX_SAMPLE:
                state.replaced[0] += 1
                x = math.copysign(MAX_SAMPLE, x) if size > MAX_SAMPLE and not math.isinf(x) else np.float32(0)
            elif size < MIN_SAMPLE:
                x = np.float32(0)
            line[c, length - hop + i] = x
        multiply(line, (c + 1) * length - n, state.window, 0, state.frame, n)
        rfft(state.plan, state.frame, mixture, 2 * c * n_bins)
    share = np.float32(1) / np.float32(n_channels)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        re, im = load(mixture, k), load(mixture, n_bins + k)
        total = re * re + im * im
        for c in range(1, n_channels):
            at = 2 * c * n_bins + k
            re, im = load(mixture, at), load(mixture, at + n_bins)
            total = total + re * re + im * im
        store(power, k, total * share)
