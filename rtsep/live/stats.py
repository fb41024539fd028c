"""What a live stream reports about itself, and how hop times are collected for hours in little memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS_PER_OCTAVE = 16
N_OCTAVES = 34  # from 1 ns to 17 s


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


@dataclass(frozen=True)
class Stats:
    """A live stream at one moment; counts are since its start.

    Parameters
    ----------
    state : str
        "running", "reconnecting" or "stopped".
    elapsed_s : float
        Seconds of audio.
    callbacks, hops : int
    xruns : int
        Callbacks that PortAudio flagged with an under- or overflow of input or output, and gaps between two clocks.
    late_hops : int
        Hops that took longer than they last, or that the worker delivered too late.
    skipped_hops : int
        Hops that were left out so that the machine could catch up.
    replaced_s : float
        Seconds for which the replacement was heard instead of the sources.
    shed_iterations : int
        Iterations of the phase recovery that were left out in time.
    hop_share : dict of str to float
        "median", "p999" and "max" of the time a hop took, as a share of its duration.
    late_callbacks : int
        Callbacks that came more than half a block late.
    interval_ms : dict of str to float
        The same of the time between the starts of two callbacks, in ms.
    levels_db : dict of str to float
        RMS level in dBFS of "mixture" and of each source, over about 0.3 s.
    limited, muted : int
        Samples at which a limiter worked, of the sources or of what is heard, and that were not finite.
    reconnects : int
    howls : int
        How often howling was turned down.
    howl_gain_db : float
        The gain that this has left, 0 dB when nothing howls.
    drift_ppm : float
        By how many millionths the input's clock is faster than the output's, where they are bridged.
    recorded_s, recording_lost_s : float
        Seconds that were written by `record`, and that were not since the disk was too slow.
    """

    state: str
    elapsed_s: float
    callbacks: int
    hops: int
    xruns: int
    late_hops: int
    skipped_hops: int
    replaced_s: float
    shed_iterations: int
    hop_share: dict[str, float]
    late_callbacks: int
    interval_ms: dict[str, float]
    levels_db: dict[str, float]
    limited: int
    muted: int
    reconnects: int
    howls: int
    howl_gain_db: float
    drift_ppm: float
    recorded_s: float
    recording_lost_s: float
