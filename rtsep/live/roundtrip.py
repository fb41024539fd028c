"""How long sound takes from output to input, measured, without the engine and with it.

What can be measured honestly? A cable joins output and input, so only their sum: what went out is compared with
what came in at the same sample of the same callbacks. Opened up at the engine instead of at the cable, the loop
of a live stream is the same loop: here a real `LiveStream` runs, with its devices, driver, framing, worker and
limiter, but what the engine hears is a sweep instead of the input, and the input is recorded. That sweep passes
engine, output, cable and input, which is the whole delay from microphone to headphone, counted from another
point of the circle; and nothing is fed back. Between two such sweeps comes one that is put out next to the
engine: the devices alone. Both in one stream, because many devices settle at another delay whenever they are
opened; their difference is the engine.

Of the engine all sources together are played: they add up to what went in, whatever the estimator makes of a
sweep. Where they do not, the sweep is coloured, but not delayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.optimize import minimize_scalar
from scipy.signal import chirp
from scipy.signal.windows import tukey

from rtsep.config import ConfigError, check_int, check_real
from rtsep.errors import LiveError
from rtsep.kernels.memory import zeros
from rtsep.live.driver import make_driver
from rtsep.live.loopback import LoopDriver
from rtsep.live.stream import LiveStream
from rtsep.separator import Separator

SWEEP_S = 0.25
SWEEP_BAND = 0.005, 0.45  # of the sample rate: what converters and small transducers let through
FADE_SHARE = 0.1  # of the sweep, half of it at either end
LEAD_S = 1.0  # silence at first: devices settle, and the noise is measured
MAX_DEVICE_S = 0.5  # longest round trip of the devices that is searched for; wireless ones take up to 0.3 s
GUARD_S = 0.002  # around a peak, what does not count as noise
# Noise alone peaks at 13 dB above its RMS among the lags of half a second.
LEAST_PEAK_TO_NOISE_DB = 16.0
LEAST_SNR_DB = 20.0  # below, a remark
CLIPPING = 0.999  # of full scale
SILENCE_DB = -160.0  # what is quieter counts as this
POLL_S = 0.02
ATTEMPTS = 3  # while samples are lost in all repeats of one
ENGINE_PARTS = "window", "look-ahead", "worker"  # of the ledger; the others are between the engine's ends and the cable


@dataclass(frozen=True)
class Arrival:
    """Where a probe was found in a recording.

    Parameters
    ----------
    delay : float
        Samples.
    gain : float
        Linear, negative if the polarity is inverted.
    peak_to_noise_db : float
        How far the peak of the correlation is above the RMS of the rest; -infinity for a silent recording.
    """

    delay: float
    gain: float
    peak_to_noise_db: float


@dataclass(frozen=True)
class Delay:
    """A delay in samples, measured several times; `repeats` are the single values."""

    repeats: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the repeats."""
        return float(np.median(self.repeats))

    @property
    def spread(self) -> float:
        """Largest minus smallest."""
        return max(self.repeats) - min(self.repeats)


@dataclass(frozen=True)
class RoundTrip:
    """A measured round trip next to the promised one; delays in samples.

    Parameters
    ----------
    sr : int
        Sample rate in Hz.
    promised : dict of str to int
        The ledger of the stream; "device in" and "device out" are what the devices report.
    devices : Delay
        From output to input, and what bridges their clocks and rates.
    total : Delay
        The same through the engine.
    discarded : int
        Repeats that do not count, since samples were lost meanwhile.
    gain_db : float
        Of the loop, over the band of the sweep.
    inverted : bool
        Whether the loop inverts the polarity.
    noise_db : float
        RMS level in dBFS of what comes in while nothing is played; at least -160.
    snr_db : float
        RMS level of the probe as it comes back, over the noise.
    peak_to_noise_db : float
        The lowest of all repeats (see `Arrival`).
    clipped : bool
        Whether the input reached full scale.
    """

    sr: int
    promised: dict[str, int]
    devices: Delay
    total: Delay
    discarded: int
    gain_db: float
    inverted: bool
    noise_db: float
    snr_db: float
    peak_to_noise_db: float
    clipped: bool

    @property
    def engine(self) -> Delay:
        """What the engine adds, repeat by repeat."""
        pairs = zip(self.total.repeats, self.devices.repeats, strict=True)
        return Delay(tuple(through - past for through, past in pairs))

    @property
    def promised_engine(self) -> int:
        """What the ledger says of the engine."""
        return sum(self.promised[part] for part in ENGINE_PARTS)

    @property
    def promised_devices(self) -> int:
        """What the ledger says of the devices, and of what bridges their clocks and rates."""
        return sum(self.promised.values()) - self.promised_engine

    @property
    def remarks(self) -> list[str]:
        """What does not add up, and what makes the measurement doubtful; one sentence each."""
        said = []
        if self.discarded:
            n = self.discarded + len(self.total.repeats)
            said.append(f"{self.discarded} of {n} repeats do not count: samples were lost while they were played")
        if self.inverted:
            said.append("the loop inverts the polarity")
        if self.clipped:
            said.append("the input clips: lower its gain, or the level of the probe")
        if self.snr_db < LEAST_SNR_DB:
            said.append(f"the probe is only {self.snr_db:.0f} dB above the noise: raise the level or the gains")
        if self.devices.spread > 1:
            said.append(
                f"the devices' delay changed by {self.devices.spread:.4g} samples meanwhile: their clocks differ, or "
                "samples were lost that nobody reported"
            )
        unreported = self.devices.median - self.promised_devices
        if unreported >= 0.5:
            said.append(f"the devices add {self._amount(unreported)} that they do not report")
        elif unreported <= -0.5:
            said.append(f"the devices report {self._amount(-unreported)} more than they take")
        missing = self.engine.median - self.promised_engine
        if abs(missing) >= 0.5:
            said.append(
                f"the engine takes {self._amount(abs(missing))} {'more' if missing > 0 else 'less'} than it says"
            )
        return said

    def _amount(self, samples: float) -> str:
        return f"{samples:.4g} samples ({1000 * samples / self.sr:.2f} ms)"


def make_probe(sr: int, level_db: float) -> np.ndarray:
    """The sweep that is played: float32 (n_samples,), peak at `level_db` dBFS, fading in and out.

    Linear, so that its spectrum is flat and the peak of its correlation as narrow as can be; a sine, so that it
    carries 3 dB below its peak, and finds its way through small loudspeakers better than a click.
    """
    n = round(SWEEP_S * sr)
    low, high = (share * sr for share in SWEEP_BAND)
    sweep = chirp(np.arange(n) / sr, low, n / sr, high, phi=-90) * tukey(n, FADE_SHARE)
    return (10 ** (level_db / 20) * sweep).astype(np.float32)


def find_probe(probe: np.ndarray, recording: np.ndarray, sr: int) -> Arrival:
    """Where in `recording` the `probe` is, to a small fraction of a sample and whatever its polarity.

    Parameters
    ----------
    probe, recording : ndarray, real, (n_samples,)
        The recording is at least as long, and is searched for the whole probe.
    sr : int
        Sample rate in Hz.

    Notes
    -----
    The peak of the cross-correlation; between the samples it is evaluated from the cross-spectrum, which is exact
    for a probe whose band ends below half the sample rate.
    """
    n_fft = next_fast_len(len(recording), real=True)
    spectrum = rfft(recording.astype(np.float64), n_fft) * np.conj(rfft(probe.astype(np.float64), n_fft))
    # Circular, but lags at which the whole probe fits do not wrap around.
    correlation = irfft(spectrum, n_fft)[: len(recording) - len(probe) + 1]
    peak = int(np.argmax(np.abs(correlation)))
    if not correlation[peak]:
        return Arrival(float(peak), 0.0, -np.inf)
    sign = np.sign(correlation[peak])
    turns = 2j * np.pi / n_fft * np.arange(spectrum.size)

    def between(lag: float) -> float:
        return 2 / n_fft * float(np.sum(spectrum * np.exp(lag * turns)).real)

    found = minimize_scalar(
        lambda lag: -sign * between(lag), bounds=(peak - 1, peak + 1), method="bounded", options={"xatol": 1e-4}
    )
    guard = round(GUARD_S * sr)
    rest = np.concatenate([correlation[: max(0, peak - guard)], correlation[peak + guard + 1 :]])
    top = between(found.x)
    noise = max(float(np.sqrt(np.mean(rest**2))), 1e-12 * abs(top))
    return Arrival(
        delay=float(found.x),
        gain=top / float(np.sum(probe.astype(np.float64) ** 2)),
        peak_to_noise_db=20 * float(np.log10(abs(top) / noise)),
    )


def _play(stream: LiveStream, loop: LoopDriver, progress: Callable[[int, int], None]) -> list[tuple[int, int]]:
    """Play the signals of `loop`; returns the stretches of samples in which some were lost."""
    losses, begin, lost = [], 0, _losses(stream)
    loop.play()
    while begin < loop.n_samples:
        time.sleep(POLL_S)
        if stream.stats.state != "running":
            raise LiveError(f"device {stream.input.name!r} or {stream.output.name!r} stopped during the measurement")
        # The callback goes on meanwhile: a loss lies between the position before the last count and that after.
        position, lost_before, lost = loop.position, lost, _losses(stream)
        if lost != lost_before:
            losses.append((begin, loop.position))
        begin = position
        progress(min(begin, loop.n_samples), loop.n_samples)
    return losses


def _losses(stream: LiveStream) -> int:
    stats = stream.stats
    return stats.xruns + stats.late_hops + stats.reconnects


def measure_round_trip(
    separator: Separator,
    input: int | str | None = None,
    output: int | str | None = None,
    block_size: int = 0,
    *,
    input_channel: int = 1,
    output_channel: int | None = None,
    repeats: int = 5,
    level_db: float = -20.0,
    ready: Callable[[LiveStream], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RoundTrip:
    """Play sweeps on the output and find them in the input, which a cable or the air connects.

    Parameters
    ----------
    separator : Separator
        Of one channel.
    input, output, block_size
        As for `LiveStream`.
    input_channel, output_channel : int
        Counted from 1; None for the first two.
    repeats : int
        Sweeps without the engine, and as many with it, 1 to 100.
    level_db : float
        Their peak level, -80 to -3 dBFS.
    ready : callable, optional
        `ready(stream)` once the devices run, a second before the first sweep.
    progress : callable, optional
        `progress(done, total)` in samples.

    Raises
    ------
    LiveError
        If the devices cannot be used or nothing, or nothing certain, comes back.
    ConfigError
        For settings that cannot work.
    """
    check_int("repeats", repeats, 1, 100)
    check_real("level_db", level_db, -80, -3, " dBFS")
    if separator.config.n_channels != 1:
        raise ConfigError(f"n_channels={separator.config.n_channels}: a round trip is measured with one")
    devices = {
        "input": input,
        "output": output,
        "block_size": block_size,
        "input_channels": [input_channel],
        "output_channels": None if output_channel is None else [output_channel],
    }
    for _ in range(ATTEMPTS):
        trip = _measure(separator, devices, repeats, level_db, ready, progress)
        if trip:
            return trip
    raise LiveError(
        f"samples were lost in every repeat, {ATTEMPTS} times over, so that nothing can be measured; try a larger "
        f"block than {block_size or 'that of the device'}, and close what keeps the machine busy"
    )


def _measure(
    separator: Separator,
    devices: dict[str, Any],
    repeats: int,
    level_db: float,
    ready: Callable[[LiveStream], None] | None,
    progress: Callable[[int, int], None] | None,
) -> RoundTrip | None:
    """As `measure_round_trip`, once; None where samples were lost in every repeat."""
    config = separator.config
    probe = make_probe(config.sr, level_db)
    lead = round(LEAD_S * config.sr)
    # A sweep has come back before the next one starts.
    slot = probe.size + round(MAX_DEVICE_S * config.sr) + separator.latency
    n_samples = lead + 2 * repeats * slot
    direct, through = zeros(n_samples), zeros(n_samples)
    starts = lead + slot * np.arange(2 * repeats)
    for k, start in enumerate(starts):
        (through if k % 2 else direct)[start : start + probe.size] = probe
    loop = LoopDriver(make_driver(separator), separator, direct, through)
    stream = LiveStream(
        separator,
        **devices,
        driver=loop,
        # Hops count however late: they must not be replaced by the mixture, which is the probe coming back.
        late="wait",
        fade_in_ms=0,
        howling=False,
    )
    with stream:
        if ready:
            ready(stream)
        losses = _play(stream, loop, progress or (lambda done, total: None))
        promised = stream.ledger
    recording = loop.recording()
    kept = [
        k
        for k in range(repeats)
        if not any(first < starts[2 * k] + 2 * slot and last >= starts[2 * k] for first, last in losses)
    ]
    arrivals = [find_probe(probe, recording[start : start + slot], config.sr) for start in starts]
    came_back = [arrival.peak_to_noise_db >= LEAST_PEAK_TO_NOISE_DB for arrival in arrivals]
    noise_db = _level_db(recording[3 * lead // 4 : lead])
    if any(came_back) and not kept:
        return None
    used = [2 * k + i for k in kept for i in range(2)]
    missing = sum(not came_back[k] for k in used)
    if missing or not kept:
        came = f"only {len(used) - missing} of {len(used)} sweeps" if any(came_back) else "no signal"
        raise LiveError(
            f"{came} came back from output {stream.output.name!r} to input {stream.input.name!r}: connect them with a "
            f"cable, or put the headphone to the microphone, and mind the gains; sent {level_db:.0f} dBFS, "
            f"received {_level_db(recording[lead:]):.0f} dBFS, of which noise {noise_db:.0f} dBFS"
        )
    gain = float(np.median([arrivals[2 * k].gain for k in kept]))
    return RoundTrip(
        sr=config.sr,
        promised=promised,
        devices=Delay(tuple(arrivals[2 * k].delay for k in kept)),
        total=Delay(tuple(arrivals[2 * k + 1].delay for k in kept)),
        discarded=repeats - len(kept),
        gain_db=20 * float(np.log10(abs(gain))),
        inverted=gain < 0,
        noise_db=noise_db,
        snr_db=_level_db(gain * probe) - noise_db,
        peak_to_noise_db=min(arrivals[k].peak_to_noise_db for k in used),
        clipped=bool(np.abs(recording).max() >= CLIPPING),
    )


def _level_db(x: np.ndarray) -> float:
    """RMS level in dBFS (a full-scale square wave has 0)."""
    power = float(np.mean(x.astype(np.float64) ** 2))
    return max(10 * float(np.log10(power)), SILENCE_DB) if power else SILENCE_DB
