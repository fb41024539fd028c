"""When the callbacks came and how long they took: collected for hours in little memory."""

from __future__ import annotations

import numpy as np

from rtsep.live.callback import N_TIMES
from rtsep.live.rings import Ring, read, waiting

BINS_PER_OCTAVE = 16
N_OCTAVES = 34  # from 1 ns to 17 s
N_DELAYS, AGREEING, AGREE = 50, 0.9, 2  # callbacks of which that share has to agree on the delay, to so many samples


class Histogram:
    """Durations in bins of equal ratio, 4.4 % wide, and their maximum."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS_PER_OCTAVE * N_OCTAVES, np.int64)
        self.max_ns = 0

    def add(self, durations_ns: np.ndarray) -> None:
        """Count durations in ns, integers."""
        if durations_ns.size:
            bins = (BINS_PER_OCTAVE * np.log2(np.maximum(durations_ns, 1))).astype(int)
            np.add.at(self.counts, np.minimum(bins, self.counts.size - 1), 1)
            self.max_ns = max(self.max_ns, int(durations_ns.max()))

    def summary(self, unit_ns: float) -> dict[str, float]:
        """ "median", "p999" and "max" in a unit of so many ns."""
        values = {"median": self.percentile_ns(50), "p999": self.percentile_ns(99.9), "max": float(self.max_ns)}
        return {name: value / unit_ns for name, value in values.items()}

    def percentile_ns(self, percent: float) -> float:
        """The duration that `percent` of all stay below, to 4.4 %; 0 without any."""
        total = self.counts.sum()
        if not total:
            return 0.0
        k = int(np.searchsorted(np.cumsum(self.counts), percent / 100 * total))
        return min(float(2 ** ((k + 1) / BINS_PER_OCTAVE)), float(self.max_ns))


class Times:
    """What the time stamps of the callbacks say.

    Parameters
    ----------
    stamps : Ring
        `LiveState.times`, of which this is the reader.
    sr : int

    Attributes
    ----------
    hops, intervals : Histogram
        How long the hops took, and from the start of one callback to that of the next.
    late : int
        Callbacks that came more than half a block late.
    block : int
        Samples of the last callback; 0 before the first one.
    """

    def __init__(self, stamps: Ring, sr: int) -> None:
        self._stamps, self._sr = stamps, sr
        self.hops, self.intervals = Histogram(), Histogram()
        self.late = 0
        self.interrupt()

    def interrupt(self) -> None:
        """The callbacks that follow do not continue those before."""
        self.block = self._last_ns = 0
        self._delays_ns = np.empty(0, np.int64)

    @property
    def delay(self) -> int:
        """What the devices delay, in samples, as the last callbacks were told; 0 where they are not, or it moves."""
        if self._delays_ns.size < N_DELAYS:
            return 0
        delays = self._delays_ns * 1e-9 * self._sr
        median = float(np.median(delays))
        return round(median) if np.mean(np.abs(delays - median) <= AGREE) >= AGREEING else 0

    def forget_hops(self) -> None:
        """Those that follow are of another length than those before."""
        self.collect()
        self.hops = Histogram()

    def collect(self) -> None:
        """Take what has come since."""
        n = int(waiting(self._stamps))
        if not n:
            return
        block = np.empty(N_TIMES * n, np.int64)
        read(self._stamps, block, n)
        start, _, n_samples, _, longest, delays_ns = block.reshape(N_TIMES, n)
        self.hops.add(longest[longest > 0])
        # What a callback has to wait for is the block before it.
        intervals = np.diff(start, prepend=self._last_ns or start[0])
        blocks = np.concatenate([[self.block], n_samples[:-1]])
        self.intervals.add(intervals[intervals > 0])
        self.late += int((intervals > 1.5e9 * blocks / self._sr).sum())
        self._last_ns, self.block = int(start[-1]), int(n_samples[-1])
        self._delays_ns = np.concatenate([self._delays_ns, delays_ns])[-N_DELAYS:]
