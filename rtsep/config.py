"""StreamConfig: rate, window, hop and FFT size of a stream, and all checks of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rtsep.errors import ConfigError

MIN_SR, MAX_SR = 8_000, 192_000
MAX_CHANNELS = 1024  # what libsndfile can hold
BIN_SPACING_HZ = 31.25
MIN_N_FFT = 128
MIN_WIN_LENGTH = 16
SHORTEST_MS = 0.005  # a sample at 192 kHz

# A dual window that has to amplify by more than this would amplify rounding and every error as well.
MAX_ENVELOPE_RATIO = 1e3


def fft_size_ok(n_fft: int) -> bool:
    """Whether the kernels can transform `n_fft` samples: 16 times a product of 2, 3 and 5, from 128 on."""
    if n_fft < MIN_N_FFT or n_fft % 16:
        return False
    for prime in (2, 3, 5):
        while n_fft % prime == 0:
            n_fft //= prime
    return n_fft == 1


def nearest_fft_size(target: float, at_least: int) -> int:
    """The valid FFT size nearest to `target` that is not below `at_least`."""
    sizes = [n for n in range(MIN_N_FFT, 2 * int(max(target, at_least)) + MIN_N_FFT, 16) if fft_size_ok(n)]
    return min((n for n in sizes if n >= at_least), key=lambda n: abs(n - target))


@dataclass(frozen=True)
class StreamConfig:
    """Rate, window, hop and FFT size of a stream.

    Parameters
    ----------
    sr : int
        Sample rate in Hz, 8000 to 192000.
    win_length : int, optional
        Window in samples, periodic Hann. Default: 16 ms, rounded down to a multiple of `hop`.
    hop : int, optional
        Step between frames in samples. Default: a quarter of `win_length` if that is given, else of 16 ms, rounded
        down.
    n_fft : int, optional
        FFT length in samples: at least `win_length`, 16 times a product of 2, 3 and 5. Default: the size
        whose bins are nearest to 31.25 Hz apart (512 at 16 kHz, 1536 at 48 kHz), so that an estimator
        made for 16 kHz finds its 257 bins at the lower end at any rate.
    n_channels : int
        Channels of the mixture. They share one mask (see `Separator`).

    Raises
    ------
    ConfigError
        For values out of range and for pairs of window and hop that cannot reconstruct.

    Notes
    -----
    The number and names of the sources belong to the estimator, not to the stream.
    """

    sr: int = 16_000
    win_length: int = None  # type: ignore[assignment]
    hop: int = None  # type: ignore[assignment]
    n_fft: int = None  # type: ignore[assignment]
    n_channels: int = field(default=1)

    def __post_init__(self) -> None:
        # Plain integers whatever comes in: those of NumPy overflow.
        self._set("sr", check_int("sr", self.sr, MIN_SR, MAX_SR, " Hz"))
        self._set("n_channels", check_int("n_channels", self.n_channels, 1, MAX_CHANNELS))
        if self.win_length is not None:
            length = check_int("win_length", self.win_length, MIN_WIN_LENGTH, self.sr, " samples")
            self._set("win_length", length)
        if self.hop is None:
            self._set("hop", self.sr * 4 // 1000 if self.win_length is None else self.win_length // 4)
        self._set("hop", check_int("hop", self.hop, 1, self.sr, " samples"))
        if self.win_length is None:
            self._set("win_length", max(2, self.sr * 16 // 1000 // self.hop) * self.hop)
            check_int("win_length", self.win_length, MIN_WIN_LENGTH, self.sr, " samples")
        if self.hop > self.win_length:
            raise ConfigError(f"hop={self.hop} is longer than win_length={self.win_length}")
        if self.n_fft is None:
            self._set("n_fft", nearest_fft_size(self.sr / BIN_SPACING_HZ, self.win_length))
        self._set("n_fft", check_int("n_fft", self.n_fft, MIN_N_FFT, 2 * MAX_SR, " samples"))
        if self.n_fft < self.win_length:
            raise ConfigError(f"n_fft={self.n_fft} is shorter than win_length={self.win_length}")
        if not fft_size_ok(self.n_fft):
            near = nearest_fft_size(self.n_fft, self.win_length)
            raise ConfigError(f"n_fft={self.n_fft} is not 16 times a product of 2, 3 and 5; {near} is")
        envelope = self.envelope
        if envelope.min() * MAX_ENVELOPE_RATIO < envelope.max():
            raise ConfigError(
                f"win_length={self.win_length} with hop={self.hop} cannot reconstruct: the Hann window leaves "
                f"samples (nearly) uncovered; use hop <= {self.win_length // 2}"
            )

    def _set(self, name: str, value: int) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_ms(
        cls, sr: int, window_ms: float = 16.0, hop_ms: float | None = None, n_channels: int = 1
    ) -> StreamConfig:
        """Configuration from times in milliseconds, each rounded down to samples.

        `hop_ms` defaults to a quarter of the window. Where the window is a whole number of hops in
        milliseconds it is one in samples too (704 = 4 x 176 at 44.1 kHz).
        """
        check_real("window_ms", window_ms, SHORTEST_MS, 1000, " ms")
        hop_ms = window_ms / 4 if hop_ms is None else hop_ms
        check_real("hop_ms", hop_ms, SHORTEST_MS, 1000, " ms")
        sr = check_int("sr", sr, MIN_SR, MAX_SR, " Hz")
        hop = int(sr * hop_ms / 1000 + 1e-9)
        hops = window_ms / hop_ms
        win_length = hop * round(hops) if abs(hops - round(hops)) < 1e-9 else int(sr * window_ms / 1000 + 1e-9)
        if hop < 1 or win_length < MIN_WIN_LENGTH:
            raise ConfigError(
                f"window_ms={window_ms} and hop_ms={hop_ms} give {win_length} and {hop} samples at {sr} Hz; "
                f"at least {MIN_WIN_LENGTH} and 1 are needed"
            )
        return cls(sr, win_length, hop, n_channels=n_channels)

    @property
    def n_bins(self) -> int:
        """Bins of a real frame, `n_fft // 2 + 1`."""
        return self.n_fft // 2 + 1

    @property
    def hop_s(self) -> float:
        """Duration of a hop in seconds."""
        return self.hop / self.sr

    @cached_property
    def window(self) -> np.ndarray:
        """Analysis window, periodic Hann; float64 (win_length,)."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.win_length) / self.win_length)

    @cached_property
    def envelope(self) -> np.ndarray:
        """Steady-state sum of the squared windows of all frames over one hop; float64 (hop,)."""
        squared = np.zeros(-(-self.win_length // self.hop) * self.hop)
        squared[: self.win_length] = self.window**2
        return squared.reshape(-1, self.hop).sum(0)


def check_int(name: str, value: object, low: int, high: int, unit: str = "") -> int:
    """`value` as a plain integer. Raises `ConfigError` unless it is one from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name}={value!r} is not an integer")
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} is not between {low} and {high}{unit}")
    return int(value)


def check_real(name: str, value: object, low: float, high: float, unit: str = "") -> None:
    """Raise `ConfigError` unless `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{name}={value!r} is not a number")
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} is not between {low:.3g} and {high:.6g}{unit}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise `ConfigError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(map(str, choices))}")


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `ConfigError` unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={value!r} is no {kind.__name__}")
