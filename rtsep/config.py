"""StreamConfig: rate, windows, hop and FFT size of a stream, and all checks of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rtsep.errors import ConfigError
from rtsep.windows import Windows

MIN_SR, MAX_SR = 8_000, 192_000
MAX_CHANNELS = 1024  # what libsndfile can hold
BIN_SPACING_HZ = 31.25
MIN_N_FFT = 128
MIN_WIN_LENGTH = 16
USUAL_MS = 16.0
SHORTEST_MS = 0.005  # a sample at 192 kHz


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
    """Rate, windows, hop and FFT size of a stream.

    Parameters
    ----------
    sr : int
        Sample rate in Hz, 8000 to 192000.
    analysis : int, optional
        Analysis window in samples: what a frame is made from. Default: 16 ms, rounded down to a multiple of `hop`.
    hop : int, optional
        Step between frames in samples. Default: a quarter of the shorter window, if one is given, else of 16 ms,
        rounded down.
    n_fft : int, optional
        FFT length in samples: at least `analysis`, 16 times a product of 2, 3 and 5. Default: the size
        whose bins are nearest to 31.25 Hz apart (512 at 16 kHz, 1536 at 48 kHz), so that an estimator
        made for 16 kHz finds its 257 bins at the lower end at any rate.
    n_channels : int
        Channels of the mixture. They share one mask (see `Separator`).
    synthesis : int, optional
        Synthesis window in samples, which is the latency: the last part of a frame, over which frames overlap in the
        output. Default: as long as `analysis`.

    Raises
    ------
    ConfigError
        For values out of range and for windows and hops that cannot reconstruct.

    Notes
    -----
    The shapes of the windows are in `rtsep.windows`. The number and names of the sources belong to the estimator, not
    to the stream.
    """

    sr: int = 16_000
    analysis: int = None  # type: ignore[assignment]
    hop: int = None  # type: ignore[assignment]
    n_fft: int = None  # type: ignore[assignment]
    n_channels: int = field(default=1)
    synthesis: int = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        # Plain integers whatever comes in: those of NumPy overflow.
        self._set("sr", check_int("sr", self.sr, MIN_SR, MAX_SR, " Hz"))
        self._set("n_channels", check_int("n_channels", self.n_channels, 1, MAX_CHANNELS))
        given = {"analysis": self.analysis, "synthesis": self.synthesis}
        for name, value in given.items():
            if value is not None:
                self._set(name, check_int(name, value, MIN_WIN_LENGTH, self.sr, " samples"))
        shortest = min((value for value in (self.analysis, self.synthesis) if value is not None), default=None)
        if self.hop is None:
            self._set("hop", self.sr * 4 // 1000 if shortest is None else shortest // 4)
        self._set("hop", check_int("hop", self.hop, 1, self.sr, " samples"))
        if self.analysis is None:
            usual = max(2, self.sr * 16 // 1000 // self.hop) * self.hop
            self._set("analysis", max(usual, self.synthesis or 0))
            check_int("analysis", self.analysis, MIN_WIN_LENGTH, self.sr, " samples")
        if self.synthesis is None:
            self._set("synthesis", self.analysis)
        if self.n_fft is None:
            self._set("n_fft", nearest_fft_size(self.sr / BIN_SPACING_HZ, self.analysis))
        self._set("n_fft", check_int("n_fft", self.n_fft, MIN_N_FFT, 2 * MAX_SR, " samples"))
        if self.n_fft < self.analysis:
            raise ConfigError(f"n_fft={self.n_fft} is shorter than analysis={self.analysis}")
        if not fft_size_ok(self.n_fft):
            near = nearest_fft_size(self.n_fft, self.analysis)
            raise ConfigError(f"n_fft={self.n_fft} is not 16 times a product of 2, 3 and 5; {near} is")
        self.windows  # noqa: B018  checked when made

    def _set(self, name: str, value: int) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_ms(
        cls,
        sr: int,
        window_ms: float | None = None,
        hop_ms: float | None = None,
        n_channels: int = 1,
        *,
        latency_ms: float | None = None,
    ) -> StreamConfig:
        """Configuration from times in milliseconds, each rounded down to samples.

        Parameters
        ----------
        sr : int
            Sample rate in Hz.
        window_ms : float, optional
            Analysis window. Default: 16, or the latency if that is longer.
        hop_ms : float, optional
            Default: a quarter of the latency, or a half of it where that is below 8 ms and the analysis window longer.
        n_channels : int
        latency_ms : float, optional
            Synthesis window. Default: as long as the analysis window.

        Notes
        -----
        Where a window is a whole number of hops in milliseconds it is one in samples too (704 = 4 x 176 at 44.1 kHz).
        """
        for name, value in (("window_ms", window_ms), ("latency_ms", latency_ms), ("hop_ms", hop_ms)):
            if value is not None:
                check_real(name, value, SHORTEST_MS, 1000, " ms")
        if window_ms is None:
            window_ms = max(USUAL_MS, latency_ms or 0)
        latency_ms = window_ms if latency_ms is None else latency_ms
        if latency_ms > window_ms:
            raise ConfigError(f"latency_ms={latency_ms:g} is longer than window_ms={window_ms:g}")
        if hop_ms is None:
            hop_ms = latency_ms / (2 if latency_ms < min(window_ms, 8) else 4)
        elif hop_ms > latency_ms / 2:
            raise ConfigError(
                f"hop_ms={hop_ms:g} is too long for a window of {latency_ms:g} ms; half of it is the most"
            )
        sr = check_int("sr", sr, MIN_SR, MAX_SR, " Hz")
        hop = int(sr * hop_ms / 1000 + 1e-9)

        def in_samples(ms: float) -> int:
            hops = ms / hop_ms
            return hop * round(hops) if abs(hops - round(hops)) < 1e-9 else int(sr * ms / 1000 + 1e-9)

        analysis, synthesis = in_samples(window_ms), in_samples(latency_ms)
        if hop < 1 or synthesis < MIN_WIN_LENGTH:
            raise ConfigError(
                f"a window of {latency_ms:g} ms and a hop of {hop_ms:g} ms have {synthesis} and {hop} samples "
                f"{'even ' if sr == MAX_SR else ''}at {sr} Hz; at least {MIN_WIN_LENGTH} and 1 are needed"
            )
        return cls(sr, analysis, hop, n_channels=n_channels, synthesis=synthesis)

    def at_latency(self, latency_ms: float) -> StreamConfig:
        """The same stream with another synthesis window, in ms, and the hop that `from_ms` takes for it."""
        made = StreamConfig.from_ms(self.sr, latency_ms=latency_ms)
        analysis = max(self.analysis, made.synthesis)
        return replace(
            self, analysis=analysis, synthesis=made.synthesis, hop=made.hop, n_fft=max(self.n_fft, made.n_fft)
        )

    @property
    def n_bins(self) -> int:
        """Bins of a real frame, `n_fft // 2 + 1`."""
        return self.n_fft // 2 + 1

    @property
    def hop_s(self) -> float:
        """Duration of a hop in seconds."""
        return self.hop / self.sr

    @property
    def window_s(self) -> float:
        """Duration of the analysis window in seconds."""
        return self.analysis / self.sr

    @property
    def times_ms(self) -> dict[str, float]:
        """Analysis window, latency and hop in ms, for reports."""
        samples = {"window_ms": self.analysis, "latency_ms": self.synthesis, "hop_ms": self.hop}
        return {name: round(1000 * n / self.sr, 4) for name, n in samples.items()}

    @cached_property
    def windows(self) -> Windows:
        """The windows, and what follows from them."""
        return Windows(self.analysis, self.synthesis, self.hop)


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
    try:
        inside = low <= float(value) <= high
    except OverflowError:
        inside = False
    if not inside and high == np.inf:
        raise ConfigError(f"{name}={value} is not {low:.3g}{unit} or more")
    if not inside:
        raise ConfigError(f"{name}={value} is not between {low:.3g} and {high:.6g}{unit}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise `ConfigError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(map(str, choices))}")


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `ConfigError` unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={value!r} is no {kind.__name__}")


def check_axes(x: np.ndarray, known: bool = False) -> None:
    """Raise `ConfigError` for audio whose axes are swapped: with more channels than there can be, or than samples.

    The latter may be meant where the number of channels is `known`.
    """
    if x.ndim == 2 and (len(x) > MAX_CHANNELS or (not known and len(x) > x.shape[1] > 0)):
        many = f"{MAX_CHANNELS} channels are the most"
        hint = "if that is (n_samples, n_channels), pass its transpose"
        raise ConfigError(f"audio has shape {x.shape}; {hint if x.shape[1] <= MAX_CHANNELS else many}")
