"""Windows: how a frame is cut out of the signal and put back, and what follows from it.

Latency is the length of the *synthesis* window; the *analysis* window may reach further into the past. A frame t of
`analysis` samples A ends with the newest hop. Of what becomes of it, only the last L = `synthesis` samples are added to
the output:

    x[n] = sum_t s[n - tH] y_t[n - tH] / envelope[n mod H],    y_t = iDFT(DFT(a x_t)),

with the analysis window a and the synthesis window s, which is zero before sample A - L. So a sample is complete once
the L samples from it on are there.

*One length* (A = L): a = s = periodic Hann, as it always was.

*Two lengths* (A > L), after D. Mauler and R. Martin, "A low delay, variable resolution, perfect reconstruction
spectral analysis-synthesis system for speech enhancement", EUSIPCO 2007: a rises over R = A - L/2 samples as the
square of a sine and falls over the last L/2 as that of a cosine,

    a[n] = sin^2(pi (n + 1/2) / 2R) for n < R,    cos^2(pi (n - R + 1/2) / L) for n >= R,

and s makes their product the window g[m] = sin^4(pi (m + 1/2) / L) over the last L samples, s = g / a, which stays
bounded since g vanishes faster than a at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rtsep.errors import ConfigError

# A frame that has to be amplified by more than this would amplify rounding and every error as well.
MAX_ENVELOPE_RATIO = 1e3


@dataclass(frozen=True)
class Windows:
    """A pair of windows and their hop, in samples.

    Parameters
    ----------
    length : int
        Of the analysis window, A.
    latency : int
        Of the synthesis window, L, 2 to `length`.
    hop : int
        Step between frames, H.

    Raises
    ------
    ConfigError
        For lengths and hops that cannot reconstruct.
    """

    length: int
    latency: int
    hop: int

    def __post_init__(self) -> None:
        if not 2 <= self.latency <= self.length:
            raise ConfigError(f"synthesis={self.latency} is not between 2 and analysis={self.length}")
        if self.hop > self.latency:
            raise ConfigError(f"hop={self.hop} is longer than the window of {self.latency} that it steps through")
        if self.envelope.min() * MAX_ENVELOPE_RATIO < self.envelope.max():
            raise ConfigError(
                f"a window of {self.latency} with hop={self.hop} cannot reconstruct: samples are (nearly) uncovered; "
                f"use hop <= {self.latency // 2}"
            )

    @property
    def is_pair(self) -> bool:
        """Whether the analysis window is the longer one."""
        return self.latency < self.length

    @cached_property
    def analysis(self) -> np.ndarray:
        """a; float64 (length,)."""
        n = np.arange(self.length)
        if not self.is_pair:
            return 0.5 - 0.5 * np.cos(2 * np.pi * n / self.length)
        fall = self.latency / 2
        rise = self.length - fall
        return np.where(
            n < rise, np.sin(np.pi * (n + 0.5) / (2 * rise)) ** 2, np.cos(np.pi * (n - rise + 0.5) / (2 * fall)) ** 2
        )

    @cached_property
    def tail(self) -> np.ndarray:
        """The part of a over which frames overlap in the output: its last `latency` samples; float64 (latency,)."""
        return self.analysis[self.length - self.latency :]

    @cached_property
    def synthesis(self) -> np.ndarray:
        """s over its last `latency` samples, where it is not zero; float64 (latency,)."""
        if not self.is_pair:
            return self.analysis
        product = np.sin(np.pi * (np.arange(self.latency) + 0.5) / self.latency) ** 4
        return product / self.tail

    @cached_property
    def ratio(self) -> np.ndarray:
        """s / a over the last `latency` samples; float64 (latency,)."""
        return self.synthesis / self.tail if self.is_pair else np.ones(self.latency)

    @cached_property
    def envelope(self) -> np.ndarray:
        """Sum of a s over all frames, for the samples of a hop; float64 (hop,)."""
        return self._per_hop(self.tail * self.synthesis)

    @cached_property
    def centre(self) -> float:
        """The time that the phases of a frame refer to where they are made from magnitudes alone, in samples.

        Such phases put the zero-phase window p, which has the magnitudes |A(w)| of the analysis window, at this time c.
        So it is that which makes the part of the frame that is used most like what it should be,

            c = argmin sum_n (s[n] (a[n] - p[n - c]))^2,

        the middle for one length, where both are equal.
        """
        if not self.is_pair:
            return self.length / 2
        n_fft, start = 4 * self.length, self.length - self.latency
        size = np.abs(np.fft.rfft(self.analysis, n_fft))
        turns = np.arange(size.size) / n_fft

        def difference(c: float) -> float:
            moved = np.fft.irfft(size * np.exp(-2j * np.pi * turns * c), n_fft)[start : self.length]
            return float(np.sum((self.synthesis * (self.tail - moved)) ** 2))

        low, high = self.length / 2, self.length - self.latency / 2
        while high - low > 0.01:
            tried = np.linspace(low, high, 9)
            best = int(np.argmin([difference(c) for c in tried]))
            low, high = tried[max(best - 1, 0)], tried[min(best + 1, 8)]
        return float((low + high) / 2)

    def overlaps(self, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums of a squared over the open samples: of all frames there will ever be, and of those up to the newest.

        The least-squares signal of frames y_t over the samples that the output still lacks is

            x[n] = sum_t a[n - tH] y_t[n - tH] / sum_t a[n - tH]^2,

        over the last `latency` samples of every frame: what lies before is emitted and does not change. Samples are
        counted from the first that is not emitted before the oldest of the `n_frames` is committed.

        Returns
        -------
        complete, present : ndarray, float64, (latency + (n_frames - 1) * hop,)
        """
        n, hop = self.latency, self.hop
        squared = self.tail**2
        position = np.arange(n + (n_frames - 1) * hop)
        complete = self._per_hop(squared)[position % hop]
        present = complete.copy()
        for t in range(n_frames, n_frames + n // hop + 1):
            future = position - t * hop
            inside = (future >= 0) & (future < n)
            present -= np.where(inside, squared[future % n], 0)
        return complete, np.maximum(present, 0)

    def _per_hop(self, values: np.ndarray) -> np.ndarray:
        """Sums of values (latency,) that are a hop apart; (hop,)."""
        padded = np.zeros(-(-values.size // self.hop) * self.hop)
        padded[: values.size] = values
        return padded.reshape(-1, self.hop).sum(0)
