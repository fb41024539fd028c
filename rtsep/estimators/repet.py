"""A background that comes again with one period, or with periods that change: REPET and adaptive REPET, whole signals.

See `rtsep.factorise.repet` and `rtsep.factorise.adaptive_repet`. Windows of 40 ms and more, `--window-ms 40`, suit them
better than the usual 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.engine.protocols import WholeEstimator
from rtsep.engine.registry import register_estimator
from rtsep.errors import ConfigError
from rtsep.factorise.adaptive_repet import adaptive_repet
from rtsep.factorise.repet import repet


@register_estimator("repet")
@dataclass(frozen=True)
class Repet(WholeEstimator):
    """A background that comes again with one period, and what does not; whole signal.

    Parameters
    ----------
    shortest_s, longest_s : float
        Periods to look for, 0.1 to 60 s; none longer than a third of the signal.
    cutoff_hz : float
        What is below is background, 0 to 1000 Hz: singing has nothing there.
    """

    shortest_s: float = 1.0
    longest_s: float = 10.0
    cutoff_hz: float = 100.0

    sources = ("foreground", "background")
    phase = "mixture"

    def __post_init__(self) -> None:
        check_real("longest_s", self.longest_s, 0.1, 60, " s")
        check_real("shortest_s", self.shortest_s, 0.1, self.longest_s, " s")
        check_real("cutoff_hz", self.cutoff_hz, 0, 1000, " Hz")

    def mask(self, config: StreamConfig, v: np.ndarray, shortest: int, longest: int) -> np.ndarray:
        """Share of the background in magnitudes `v` (n_bins, n_frames)."""
        return repet(v, shortest, longest)[0]

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of foreground and background, (n_frames, 2, n_bins)."""
        v = np.sqrt(power.T)
        if not v.any():
            return np.zeros((len(power), 2, config.n_bins))
        shortest, longest = (max(1, round(s / config.hop_s)) for s in (self.shortest_s, self.longest_s))
        share = self.mask(config, v, shortest, longest)
        share[1 : 1 + round(self.cutoff_hz * config.n_fft / config.sr)] = 1
        return np.stack([(1 - share) * v, share * v], 1).transpose(2, 1, 0)


@register_estimator("adaptive_repet")
@dataclass(frozen=True)
class AdaptiveRepet(Repet):
    """A background that comes again with periods that change, and what does not; whole signal.

    Parameters
    ----------
    shortest_s, longest_s, cutoff_hz : float
        As for `Repet`; no period is longer than a third of the segment.
    segment_s : float
        Length of the window in which a period is looked for, 1 to 120 s; it moves by half of it.
    """

    segment_s: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("segment_s", self.segment_s, 1, 120, " s")
        if self.segment_s < 3 * self.shortest_s:
            raise ConfigError(f"segment_s={self.segment_s:g} has no room for three periods of {self.shortest_s:g} s")

    def mask(self, config: StreamConfig, v: np.ndarray, shortest: int, longest: int) -> np.ndarray:
        """Share of the background in magnitudes `v` (n_bins, n_frames)."""
        segment = min(round(self.segment_s / config.hop_s), v.shape[1])
        return adaptive_repet(v, shortest, longest, segment=segment, step=max(1, segment // 2))[0]
