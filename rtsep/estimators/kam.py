"""Harmonic and percussive sounds by kernel additive modelling: alike within small neighbourhoods of each bin.

As `rtsep.factorise.kam` (equations and sources there), with neighbourhoods in the past only. The powers of the newest
frame start at half of the mixture's; each iteration filters the mixture with them and takes the median of the filtered
powers over the kernel, in which the frames before have the values they ended with:

    S_j <- P_j / (sum P + eps) X,   P_j <- median_{kernel j, past} |S_j|^2.

As in `hpss`, a note counts as percussive until it has lasted for half of its kernel. Kernels of more than 31 values
take every second, third ... frame, so that the work of a hop is bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_int
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.factorise.kam import HARMONIC, LEAST, PERCUSSIVE, band_edges
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import constant, zeros

MOST = 31  # values in a kernel
MAX_WIDTH = 31  # bins
EPS = np.float32(LEAST)
ZERO, ONE = np.float32(0), np.float32(1)


class KAMState(NamedTuple):
    """Filtered powers of the last frames; float32 unless said."""

    edges: np.ndarray  # int64, constant (n_bands + 1,): first bin of each band, and the end of the last
    shapes: np.ndarray  # int64, constant (2, n_bands, 3): bins, frames, frames from one to the next
    n_iter: np.ndarray  # int64, constant (1,)
    history: np.ndarray  # (2, n_frames, n_bins): ring
    n_seen: np.ndarray  # int64 (1,)
    powers: np.ndarray  # (2, n_bins): the model of the newest frame
    values: np.ndarray  # (MOST,) scratch


@inlined
def _within(k, low, high):
    """Bin `k` of a band low <= k < high that is mirrored at its ends, once."""
    if k < low:
        k = 2 * low - 1 - k
    elif k >= high:
        k = 2 * high - 1 - k
    return min(max(k, low), high - 1)


@inlined
def _smallest(values, n, rank):
    """The value that `rank` of the first `n` precede in order (quickselect, in place)."""
    left, right = 0, n - 1
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                value = values[i]
                values[i] = values[j]
                values[j] = value
                i += 1
                j -= 1
        if rank <= j:
            right = j
        elif rank >= i:
            left = i
        else:
            return values[rank]
    return values[rank]


@kernel
def smooth_powers(state, n_seen):
    """Medians of the filtered powers over the kernels.

    Parameters
    ----------
    state : KAMState
        `powers` is overwritten, from `history`.
    n_seen : int
        Frames so far, the newest one among them.

    Notes
    -----
    Real-time safe. The lower median of an even number of values; before the first frame is nothing.
    """
    history, values, edges = state.history, state.values, state.edges
    n_frames = history.shape[1]
    for j in range(2):
        for band in range(edges.size - 1):
            low, high = edges[band], edges[band + 1]
            n_bins, n_times, stride = state.shapes[j, band, 0], state.shapes[j, band, 1], state.shapes[j, band, 2]
            below = (n_bins - 1) // 2
            for k in range(low, high):
                n = 0
                for past in range(0, min(n_times * stride, n_seen), stride):
                    row = (n_seen - 1 - past) % n_frames
                    for i in range(-below, n_bins - below):
                        values[n] = history[j, row, _within(k + i, low, high)]
                        n += 1
                state.powers[j, k] = _smallest(values, n, (n + 1) // 2 - 1)


@kernel
def estimate_kam(state, mixture, power, magnitudes):
    """Magnitudes of harmonic and percussive sounds in the newest frame.

    Parameters
    ----------
    state : KAMState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only, not used.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    magnitudes : ndarray, float32, (2, n_bins)
        Overwritten; they add up to the magnitude of the mixture.

    Notes
    -----
    Real-time safe.
    """
    n_bins, powers, history = power.size, state.powers, state.history
    row = state.n_seen[0] % history.shape[1]
    state.n_seen[0] += 1
    total = ZERO
    for k in range(n_bins):
        total += power[k]
        powers[0, k] = powers[1, k] = np.float32(0.5) * power[k]
    eps = EPS * total / np.float32(n_bins) + np.float32(1e-30)
    for _ in range(state.n_iter[0]):
        for k in range(n_bins):
            whole = powers[0, k] + powers[1, k] + eps
            for j in range(2):
                gain = powers[j, k] / whole
                history[j, row, k] = gain * gain * power[k]
        smooth_powers(state, state.n_seen[0])
    for k in range(n_bins):
        whole, size = powers[0, k] + powers[1, k], math.sqrt(power[k])
        share = powers[0, k] / whole if whole > 0 else np.float32(0.5)
        magnitudes[0, k] = share * size
        magnitudes[1, k] = size - magnitudes[0, k]


@register_estimator("kam")
@dataclass(frozen=True)
class KAM(CompiledEstimator):
    """Harmonic and percussive sounds: alike along time, alike along frequency (kernel additive modelling).

    Parameters
    ----------
    n_iter : int
        Iterations in every hop, 1 to 6.
    """

    n_iter: int = 2

    sources = ("harmonic", "percussive")
    phase = "mixture"
    State: ClassVar[type] = KAMState
    step = estimate_kam

    def __post_init__(self) -> None:
        check_int("n_iter", self.n_iter, 1, 6)

    def prepare(self, config: StreamConfig) -> KAMState:
        """Fresh state. Not real-time safe."""
        bin_hz = config.sr / config.n_fft
        shapes = []
        for kernels in (HARMONIC, PERCUSSIVE):
            for width_hz, time_s in kernels:
                n_bins = min(max(1, round(width_hz / bin_hz)), MAX_WIDTH)
                n_frames = max(1, round(time_s / config.hop_s))
                stride = -(-n_frames * n_bins // MOST)
                shapes.append((n_bins, max(1, min(n_frames // stride, MOST // n_bins)), stride))
        table = np.array(shapes).reshape(2, -1, 3)
        return KAMState(
            edges=constant(band_edges(config.n_bins, bin_hz), np.int64),
            shapes=constant(table, np.int64),
            n_iter=constant([self.n_iter], np.int64),
            history=zeros((2, int((table[:, :, 1] * table[:, :, 2]).max()), config.n_bins)),
            n_seen=zeros(1, np.int64),
            powers=zeros((2, config.n_bins)),
            values=zeros(MOST),
        )
