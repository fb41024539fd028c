"""A background that comes again, at any time, found by the similarity of frames: online REPET-SIM.

The background of the newest frame has the median of the magnitudes of those past frames that are most like it, but
never more than the mixture has; the rest is foreground. Frames are alike by the cosine between their magnitudes. Those
that count are local maxima over their age: more alike than all that are at most `distance_s` older or younger, the
`number` most alike of them; the newest frame itself is one.

Source: Z. Rafii and B. Pardo, "Online REPET-SIM for real-time speech enhancement", ICASSP 2013. Two errors of the
released code are not here: distances are measured by the age of frames, not by their places in the ring buffer, and
there is sound before the buffer is full. Until something has come again, all of it is background.

The work of a hop is bounded: one product with every frame of the buffer, and local maxima by running maxima of blocks
(M. van Herk, Pattern Recognition Letters 13(7), 1992). `rtsep.factorise.repet_sim` is the same for all frames at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import constant, zeros
from rtsep.kernels.simd import LANES, load, multiply_add, store

ZERO = np.float32(0)
NONE = np.float32(-2)  # below every cosine
MAX_NUMBER = 64
MAX_BYTES = 64 << 20  # of the ring


class RepetSimState(NamedTuple):
    """Past frames, and what is found among them; float32 unless said."""

    sizes: np.ndarray  # int64, constant (3,): distance in frames, number, bins that are all background
    ring: np.ndarray  # (n_frames, n_padded): magnitudes
    norms: np.ndarray  # (n_frames,)
    n_seen: np.ndarray  # int64 (1,)
    alike: np.ndarray  # (n_frames,) scratch: cosines, oldest first
    highest: np.ndarray  # (n_frames + 3 * distance + 2,) scratch: largest of `distance` cosines from each place on
    chosen: np.ndarray  # int64 (number,) scratch: places in the ring
    score: np.ndarray  # (number,) scratch: their cosines, largest first
    ordered: np.ndarray  # (number,) scratch
    sums: np.ndarray  # (LANES,) scratch


@inlined
def _product(state, row, other):
    """Product of two rows of the ring."""
    n = state.ring.shape[1]
    total = load(state.ring, row * n) * load(state.ring, other * n)
    for i in range(LANES, n, LANES):
        total = multiply_add(load(state.ring, row * n + i), load(state.ring, other * n + i), total)
    store(state.sums, 0, total)
    found = ZERO
    for i in range(LANES):
        found += state.sums[i]
    return found


@kernel
def running_maxima(values, n, span, out):
    """`out[span + i]` becomes the largest of `values[i : i + span]`, for all i from -span to n.

    Parameters
    ----------
    values : ndarray, float32
        The first `n` count; beyond them is nothing. Read only.
    n, span : int
        `span` is at least 1.
    out : ndarray, float32, at least (n + 2 * span + 1,)
        Overwritten.

    Notes
    -----
    Real-time safe. Three comparisons a value: maxima from the start and from the end of blocks of `span`.
    """
    length = n + span + 1
    # From the end of each block.
    for place in range(length - 1, -1, -1):
        i = place - span
        value = values[i] if 0 <= i < n else NONE
        out[place] = value if place % span == span - 1 or place == length - 1 else max(value, out[place + 1])
    # From the start of the block after, up to the end of each span.
    start = NONE
    for place in range(length):
        end = place + span - 1
        i = end - span
        value = values[i] if 0 <= i < n else NONE
        start = value if end % span == 0 else max(start, value)
        if place % span:
            out[place] = max(out[place], start)


@kernel
def find_similar(state, n):
    """Places of the frames most like the newest one; how many there are.

    Parameters
    ----------
    state : RepetSimState
        `chosen` is overwritten, from `alike[:n]`, the oldest first.
    n : int
        Frames in the ring.

    Notes
    -----
    Real-time safe.
    """
    distance, number = state.sizes[0], state.sizes[1]
    alike, highest, chosen, score = state.alike, state.highest, state.chosen, state.score
    n_ring = state.ring.shape[0]
    oldest = state.n_seen[0] - n
    found = 0
    if distance:
        running_maxima(alike, n, distance, highest)
    for i in range(n):
        value = alike[i]
        peak = value >= ZERO
        if peak and distance:
            # The `distance` frames before, and those after.
            peak = value > highest[i] and value > highest[i + distance + 1]
        if peak and (found < number or value > score[found - 1]):
            at = min(found, number - 1)
            while at > 0 and score[at - 1] < value:
                score[at] = score[at - 1]
                chosen[at] = chosen[at - 1]
                at -= 1
            score[at] = value
            chosen[at] = (oldest + i) % n_ring
            found = min(found + 1, number)
    return found


@kernel
def estimate_repet_sim(state, mixture, power, magnitudes):
    """Magnitudes of foreground and background in the newest frame.

    Parameters
    ----------
    state : RepetSimState
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
    ring, norms, alike, ordered = state.ring, state.norms, state.alike, state.ordered
    n_ring, n_bins = ring.shape[0], power.size
    newest = state.n_seen[0] % n_ring
    for k in range(n_bins):
        ring[newest, k] = math.sqrt(power[k])
    norms[newest] = math.sqrt(_product(state, newest, newest))
    state.n_seen[0] += 1
    n = min(state.n_seen[0], n_ring)
    oldest = state.n_seen[0] - n
    for i in range(n):
        row = (oldest + i) % n_ring
        size = norms[row] * norms[newest]
        alike[i] = _product(state, row, newest) / size if size > 0 else ZERO
    found = find_similar(state, n)
    low = state.sizes[2]
    for k in range(n_bins):
        size = ring[newest, k]
        repeating = size
        if found and k >= low:
            for m in range(found):
                value = ring[state.chosen[m], k]
                at = m
                while at > 0 and ordered[at - 1] > value:
                    ordered[at] = ordered[at - 1]
                    at -= 1
                ordered[at] = value
            upper = ordered[found // 2]
            median = upper if found % 2 else np.float32(0.5) * (ordered[found // 2 - 1] + upper)
            repeating = min(median, size)
        magnitudes[1, k] = repeating
        magnitudes[0, k] = size - repeating


@register_estimator("repet_sim")
@dataclass(frozen=True)
class RepetSim(CompiledEstimator):
    """A background that comes again, and what does not: medians of similar frames of the last seconds.

    Parameters
    ----------
    buffer_s : float
        How far back frames are remembered, 0.1 to 60 s.
    distance_s : float
        Least time between two of the similar frames, 0 to 10 s.
    number : int
        Of similar frames at most, 1 to 64.
    cutoff_hz : float
        What is below is background, 0 to 1000 Hz: singing has nothing there.
    """

    buffer_s: float = 10.0
    distance_s: float = 0.5
    number: int = 20
    cutoff_hz: float = 100.0

    sources = ("foreground", "background")
    phase = "mixture"
    State: ClassVar[type] = RepetSimState
    step = estimate_repet_sim

    def __post_init__(self) -> None:
        check_real("buffer_s", self.buffer_s, 0.1, 60, " s")
        check_real("distance_s", self.distance_s, 0, 10, " s")
        check_int("number", self.number, 1, MAX_NUMBER)
        check_real("cutoff_hz", self.cutoff_hz, 0, 1000, " Hz")

    def prepare(self, config: StreamConfig) -> RepetSimState:
        """Fresh state. Not real-time safe."""
        n_padded = -(-config.n_bins // LANES) * LANES
        # At high rates with short hops the buffer is shorter than asked for, so that a hop is in time.
        n_frames = min(max(2, round(self.buffer_s / config.hop_s)), MAX_BYTES // (4 * n_padded))
        distance = min(round(self.distance_s / config.hop_s), n_frames)
        low = round(self.cutoff_hz * config.n_fft / config.sr)
        return RepetSimState(
            sizes=constant([distance, self.number, low + 1 if low else 0], np.int64),
            ring=zeros((n_frames, n_padded)),
            norms=zeros(n_frames),
            n_seen=zeros(1, np.int64),
            alike=zeros(n_frames),
            highest=zeros(n_frames + 2 * distance + 2),
            chosen=zeros(self.number, np.int64),
            score=zeros(self.number),
            ordered=zeros(self.number),
            sums=zeros(LANES),
        )
