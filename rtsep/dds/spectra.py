"""What flows are learned of and mixtures are searched in: spectra with a compressed level, of a part of the band.

    level = log(1 + 1e4 S) / log(1 + 1e4),   S the magnitude, 1 for the largest of the recording,

0 to 1 for 80 dB and more. The frames are those that `rtsep.separate` analyses; the constant term is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.config import MAX_SR, MIN_SR, ConfigError, StreamConfig, check_axes, check_int, check_real, nearest_fft_size
from rtsep.offline import power_of

RANGE = 1e4
WINDOW_S = 0.128
LOWEST_BAND_HZ = 500.0


@dataclass(frozen=True)
class Spectra:
    """Where spectra are taken, and what of them.

    Parameters
    ----------
    sr : int
        Rate of the recordings in Hz.
    band_hz : float
        Highest frequency, 500 Hz to half of `sr`.
    """

    sr: int
    band_hz: float

    def __post_init__(self) -> None:
        check_int("sr", self.sr, MIN_SR, MAX_SR, " Hz")
        check_real("band_hz", self.band_hz, LOWEST_BAND_HZ, self.sr / 2, " Hz")

    @property
    def config(self) -> StreamConfig:
        """Frames of about 128 ms, four in the time of each."""
        return self.config_for(1)

    def config_for(self, n_channels: int) -> StreamConfig:
        """The same, of a mixture with so many channels."""
        n = nearest_fft_size(WINDOW_S * self.sr, 128)
        return StreamConfig(self.sr, n, n // 4, n, n_channels=n_channels)

    @property
    def n_bins(self) -> int:
        """Bins of a spectrum; the constant term is none of them."""
        config = self.config
        return min(int(self.band_hz * config.n_fft / self.sr), config.n_bins - 1)

    @property
    def hop_s(self) -> float:
        """Seconds from frame to frame."""
        return self.config.hop_s

    def magnitudes(self, x: np.ndarray) -> np.ndarray:
        """Of all frames of a signal: float64 (n_bins, n_frames), as they are.

        Raises `ConfigError` unless `x`, (n_samples,) or (n_channels, n_samples), is real, finite and not silent.
        """
        x = np.asarray(x)
        if np.iscomplexobj(x) or x.ndim not in (1, 2) or x.size == 0:
            raise ConfigError(f"audio has shape {x.shape} of {x.dtype}, not (n_samples,) or (n_channels, n_samples)")
        x = np.atleast_2d(x)
        check_axes(x)
        if not np.isfinite(x).all():
            raise ConfigError(f"audio has {np.count_nonzero(~np.isfinite(x))} samples that are not finite")
        if not x.any():
            raise ConfigError("audio is silent")
        return np.sqrt(power_of(x, self.config)[:, 1 : 1 + self.n_bins].T)

    def times(self, n_frames: int) -> np.ndarray:
        """Middle of each frame in seconds."""
        config = self.config
        return ((np.arange(n_frames) + 1) * config.hop - config.analysis / 2) / self.sr


def compress(magnitudes: np.ndarray) -> np.ndarray:
    """Levels of magnitudes, float32."""
    return (np.log1p(RANGE * magnitudes) / np.log1p(RANGE)).astype(np.float32)


def expand(levels: np.ndarray) -> np.ndarray:
    """Magnitudes of levels; those below 0 count as 0, those above 4 as 4."""
    return np.expm1(np.log1p(RANGE) * np.clip(levels, 0, 4).astype(float)) / RANGE
