"""Resampling at a rate that may drift: what bridges two clocks inside the audio callback.

A bank of windowed sincs, one for each of 512 fractions of a sample, interpolated linearly between neighbours:
any ratio, changed at any time, and a linear phase whose delay is one exact number for the ledger. Libraries for
this (soxr is the oracle of the tests) have no entry that compiled code could call without Python, and filters
that wait for 10 ms and more; these wait for 32 samples of the lower rate.

Source: J. O. Smith and P. Gossett, "A flexible sampling-rate conversion method", ICASSP 1984; the window is
J. F. Kaiser's, with the formulas of A. V. Oppenheim and R. W. Schafer, "Discrete-Time Signal Processing", 7.6.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import LANES, clear, load, move, multiply_add, store
from rtsep.live.rings import read, waiting

N_FRACTIONS = 512  # of a sample; interpolating between them leaves an error at -105 dB
N_CROSSINGS = 32  # of zero on each side, in samples of the lower rate
PASS, STOP = 0.42, 0.5  # edges of the transition in cycles per sample of the lower rate
ATTENUATION_DB = 80.0
CHUNK = 256  # samples taken from the ring at a time, at most


class ResamplerState(NamedTuple):
    """State of a resampler; float32 unless said."""

    bank: np.ndarray  # (N_FRACTIONS + 1, n_taps)
    line: np.ndarray  # (n_channels, n_taps + CHUNK): the newest input
    block: np.ndarray  # (n_channels * CHUNK,) scratch
    sums: np.ndarray  # (LANES,) scratch
    filled: np.ndarray  # int64 (1,): samples in the line
    start: np.ndarray  # int64 (1,): where in the line the taps of the next output sample begin
    fraction: np.ndarray  # float64 (1,): of a sample that it lies behind that
    step: np.ndarray  # float64 (1,): input samples per output sample


def prepare_resampler(step: float, n_channels: int) -> ResamplerState:
    """State for `step` input samples per output sample, of which it may drift a little. Not real-time safe.

    It starts with silence, so that the first output sample is that at the time of the first input sample.
    """
    half = half_length(step)
    scale = 1 / max(1.0, step)  # the lower rate in units of the input's
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    k = np.arange(2 * half) - (half - 1)
    offset = k[None, :] - np.arange(N_FRACTIONS + 1)[:, None] / N_FRACTIONS
    shape = np.i0(beta * np.sqrt(np.maximum(0, 1 - (offset / half) ** 2))) / np.i0(beta)
    cut = (PASS + STOP) * scale
    bank = cut * np.sinc(cut * offset) * shape
    state = ResamplerState(
        bank=aligned(bank / bank.sum(1, keepdims=True)),
        line=zeros((n_channels, 2 * half + CHUNK)),
        block=zeros(n_channels * CHUNK),
        sums=zeros(LANES),
        filled=zeros(1, np.int64),
        start=zeros(1, np.int64),
        fraction=zeros(1, np.float64),
        step=np.array([step]),
    )
    state.filled[0] = half - 1
    return state


def half_length(step: float) -> int:
    """Input samples by which the output is behind, at `step` input samples per output sample."""
    # Whole lanes on both sides.
    return LANES * math.ceil(N_CROSSINGS * max(1.0, step) / LANES)


@kernel
def pull(state, ring, out, at, n):
    """Take input from the ring as far as it is needed for the next `n` output samples.

    Parameters
    ----------
    state : ResamplerState
        Updated in place.
    ring : Ring, float32, n_channels rows
        Read from.
    out : ndarray, float32, at least (at + n) * n_channels
        From `at` on the output, channel by channel within each sample.
    n : int

    Returns
    -------
    made : int
        Output samples; less than `n` where the ring has too little.

    Notes
    -----
    Real-time safe. The output is `half_length` input samples behind what was read.
    """
    n_channels, capacity = state.line.shape
    n_taps = state.bank.shape[1]
    line, bank = state.line, state.bank
    start, fraction, filled, step = state.start[0], state.fraction[0], state.filled[0], state.step[0]
    made = 0
    while made < n:
        if start + n_taps > filled:
            # Make room and fetch more.
            drop = min(start, filled)
            for c in range(n_channels):
                for i in range(drop, filled):
                    line[c, i - drop] = line[c, i]
            filled -= drop
            start -= drop
            n_new = min(waiting(ring), CHUNK, capacity - filled)
            if n_new == 0:
                break
            read(ring, state.block, n_new)
            for c in range(n_channels):
                move(line, c * capacity + filled, state.block, c * n_new, n_new)
            filled += n_new
            continue
        place = fraction * N_FRACTIONS
        row = int(place)
        weight = np.float32(place - row)
        for c in range(n_channels):
            lower, upper = _dot(state.sums, line, c * capacity + start, bank, row * n_taps, n_taps)
            out[(at + made) * n_channels + c] = lower + weight * (upper - lower)
        # Whole samples and the fraction apart, so that the rounding is the same wherever the line is moved.
        fraction += step
        whole = int(fraction)
        start += whole
        fraction -= whole
        made += 1
    state.start[0], state.fraction[0], state.filled[0] = start, fraction, filled
    return made


@kernel
def _dot(sums, line, i, bank, k, n_taps):
    """Products of the line with two neighbouring rows of the bank."""
    clear(sums, 0, LANES)
    a = load(sums, 0)
    b = load(sums, 0)
    for t in range(0, n_taps, LANES):
        x = load(line, i + t)
        a = multiply_add(x, load(bank, k + t), a)
        b = multiply_add(x, load(bank, k + n_taps + t), b)
    store(sums, 0, a)
    lower = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7]
    store(sums, 0, b)
    return lower, sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7]


@kernel
def needed(state, n):
    """Samples that the ring must hold for `pull` to make `n`. Real-time safe."""
    last = state.start[0] + int(state.fraction[0] + (n - 1) * state.step[0])
    return max(0, last + state.bank.shape[1] - state.filled[0])


@kernel
def center(state, ring):
    """Where the next output sample lies, counted in the samples that were ever written to the ring. Real-time safe."""
    before = ring.read[0] - state.filled[0] + state.start[0]
    return before + state.bank.shape[1] // 2 - 1 + state.fraction[0]


@kernel
def seek(state, ring, target):
    """Go on with the output sample whose `center` is `target`; what is older than the line is silence.

    Real-time safe.
    """
    n_channels, capacity = state.line.shape
    first = int(target) - (state.bank.shape[1] // 2 - 1)
    state.fraction[0] = target - int(target)
    oldest = ring.read[0] - state.filled[0]
    state.start[0] = max(0, first - oldest)
    if first < oldest:
        clear(state.line, 0, n_channels * capacity)
        state.filled[0] = min(capacity, ring.read[0] - first)


@kernel
def skip(state, n):
    """Leave out `n` output samples; the input that belongs to them is dropped when it comes. Real-time safe."""
    fraction = state.fraction[0] + n * state.step[0]
    state.start[0] += int(fraction)
    state.fraction[0] = fraction - int(fraction)
