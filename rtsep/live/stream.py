"""LiveStream: from a microphone to headphones."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

from rtsep.config import ConfigError, check_choice, check_int, check_real
from rtsep.engine.output import Output
from rtsep.errors import LiveError
from rtsep.live.devices import Device, portaudio
from rtsep.live.driver import PREFILL_MS, Driver, make_driver
from rtsep.live.link import SILENT_S, Asked, Link
from rtsep.live.processor import Processor
from rtsep.live.record import Recorder
from rtsep.live.scope import Scope
from rtsep.live.stats import Stats, summarise
from rtsep.live.uninterrupted import uninterrupted
from rtsep.live.watch import Watch
from rtsep.separator import Separator

SETTLING_S = 2.0  # for the ledger to be complete: a bridge learns what it needs; then it is complete later

MAX_GAIN_DB = 40.0
RECORDING = "rtsep-%Y%m%d-%H%M%S"

_OPEN: WeakSet[LiveStream] = WeakSet()


@cache
def _close_at_exit() -> None:
    """Close what is open when the interpreter ends, before PortAudio does; so only after it was loaded."""
    atexit.register(_close_all)


def _close_all() -> None:
    for stream in list(_OPEN):
        stream._close()  # when the interpreter ends, no thread can be started


class LiveStream:
    """Separates what comes from an input device and plays one source of it on an output device.

    Parameters
    ----------
    separator : Separator
        It belongs to the stream until that is closed. Devices that do not run at its rate, or have two clocks,
        are bridged by resampling.
    input, output : int, str or None
        Number of the device or (part of) its name; None for the default.
    block_size : int
        Samples the device delivers at a time; 0 leaves it to the device, which gives the lowest latency.
    input_channels : sequence of int, optional
        Channels of the input device, counted from 1, for the channels of the separator. Default: the first.
    output_channels : sequence of int, optional
        Channels of the output device, counted from 1, that play the channels of the separator, one after the other
        and over again. Default: the first, and the second with the same if there is one.
    solo : int, str or None
        Number or name of the source that is heard; None for the first.
    strength : float
        1 for the source alone, down to 0 for the mixture: the share by which the rest is lowered.
    bypass : bool
        Hear the mixture, with exactly the same delay.
    input_gain_db, output_gain_db : float
        -40 to 40 dB: of what comes in, before anything else, also of what is recorded; and of what is heard, before the
        limiter.
    ceiling_db, fade_in_ms : float
        Of what is heard, as in `Output`. The fade-in comes at the start and after every reconnection.
    howling : bool
        Turn down what feeds back into the microphone (`rtsep.live.howling`). Nothing else changes by a bit.
    late : {"mixture", "silence", "wait"}
        What is heard where the machine was too slow. "wait" leaves the audio as it is, however late: for
        clocks that wait too, such as JACK in freewheel.
    driver : {"native", "worker"} or Driver, optional
        Default: native for compiled estimators, else worker. One that is given belongs to the stream.
    prefill_ms : float
        Delay that the worker driver adds to have time, in ms.
    record : path, optional
        Folder for mixture.wav and a WAV of each source, aligned with each other; strength, solo, bypass and
        `output_gain_db` do not touch them. `start_recording` does the same later.

    Attributes
    ----------
    ledger : dict of str to int
        What the delay from input to output is made of, in samples; the devices' part as they report it.
    messages : collections.deque of str
        What happened to the devices, newest last, for one who takes them out.
    history : collections.deque of (float, str)
        The last of them, with the time in seconds since the epoch, for all who want to read them.
    scope : Scope
        What is heard and separated, for spectrograms and the like.

    Raises
    ------
    LiveError
        If the devices cannot be used as asked; one line that names the device and the way out.
    ConfigError
        For settings that cannot work.

    Notes
    -----
    A context manager; or `start` and `close`. Every method may be called from any thread. With the native driver
    the audio thread runs compiled code only and never waits for Python.

    Examples
    --------
    >>> with LiveStream(Separator(StreamConfig(48_000))) as stream:  # doctest: +SKIP
    ...     stream.set(solo="noise")
    ...     print(stream.stats.hop_share)
    """

    def __init__(
        self,
        separator: Separator,
        input: int | str | None = None,
        output: int | str | None = None,
        block_size: int = 0,
        *,
        input_channels: Sequence[int] | None = None,
        output_channels: Sequence[int] | None = None,
        solo: int | str | None = None,
        strength: float = 1.0,
        bypass: bool = False,
        input_gain_db: float = 0.0,
        output_gain_db: float = 0.0,
        ceiling_db: float = -1.0,
        fade_in_ms: float = 30.0,
        howling: bool = True,
        late: str = "mixture",
        driver: str | Driver | None = None,
        prefill_ms: float = PREFILL_MS,
        record: str | Path | None = None,
    ) -> None:
        config = separator.config
        check_int("block_size", block_size, 0, 1 << 16, " samples")
        check_choice("late", late, ("mixture", "silence", "wait"))
        _check_free(separator)
        if driver is None or isinstance(driver, str):
            driver = make_driver(separator, driver, prefill_ms, block_size)
        self.separator, self.block_size = separator, block_size
        self.messages: deque[str] = deque(maxlen=100)
        self.history: deque[tuple[float, str]] = deque(maxlen=100)
        n_channels = config.n_channels
        channels_in = _check_channels("input_channels", input_channels or range(1, n_channels + 1), n_channels)
        channels_out = None if output_channels is None else _check_channels("output_channels", output_channels, None)
        asked = Asked(input, output, channels_in, channels_out, n_channels)
        devices = asked.find()
        monitor = Output(ceiling_db=ceiling_db, fade_in_ms=fade_in_ms)
        self._processor = Processor(
            separator,
            driver,
            max(channels_in) + 1,
            asked.played(devices[1]),
            monitor,
            late,
            howling,
        )
        self.scope = Scope(self._processor)
        self._link = Link(self._processor, asked, devices, block_size)
        self._choice: dict[str, Any] = {"solo": 0, "strength": 1.0, "bypass": False}
        self._choice |= {"input_gain_db": 0.0, "output_gain_db": 0.0}
        self._watch: Watch | None = None
        self._recorder: Recorder | None = None
        self._record = None if record is None else Path(record)
        self._closed = False
        self._exchanging, self._recording_changes = threading.Lock(), threading.Lock()
        _OPEN.add(self)
        gains = {"input_gain_db": input_gain_db, "output_gain_db": output_gain_db}
        self.set(solo=0 if solo is None else solo, strength=strength, bypass=bypass, **gains)

    def __enter__(self) -> LiveStream:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Open the devices and start.

        Raises
        ------
        LiveError
            If the devices cannot be opened, or the recording cannot be made.
        """
        with self._link.lock:
            if self._watch:
                return
            if self._closed:
                raise LiveError("the stream is closed; make a new one")
            _check_free(self.separator)
            portaudio()
            _close_at_exit()
            self._processor.reset()
            try:
                if self._record is not None:
                    self._start_recording(self._record)
                self._link.open()
                self._watch = Watch(self._link, self._processor, lambda: self._recorder, self.say)
            except BaseException:  # Ctrl-C, too
                uninterrupted(self._stop)
                raise
        try:
            end = time.monotonic() + SETTLING_S
            while self._link.learning and time.monotonic() < end:
                time.sleep(0.005)
                with self._link.lock:
                    self._processor.times.collect()
        except BaseException:
            self.close()
            raise

    def say(self, message: str) -> None:
        """Add to messages and history."""
        self.messages.append(message)
        self.history.append((time.time(), message))

    def start_recording(self, folder: str | Path | None = None) -> None:
        """Record from now on, as `record` does from the start.

        Parameters
        ----------
        folder : path, optional
            Default: one named after date and time, beside `record` or else in the working directory.

        Raises
        ------
        LiveError
            If there is a recording already, files cannot be made, or the stream does not run.
        """
        with self._recording_changes:
            if self.recording is not None:
                raise LiveError(f"the recording to {self.recording} has not ended")
            self._end_recording()
            with self._link.lock:
                if not self._watch:
                    raise LiveError("the stream does not run: there is nothing to record")
                beside = self._record.parent if self._record else Path()
                self._start_recording(beside / time.strftime(RECORDING) if folder is None else Path(folder))

    def _start_recording(self, folder: Path) -> None:
        config, live = self.separator.config, self._processor.live
        self._recorder = Recorder(live.tap, folder, self.separator.sources, config.n_channels, config.sr)
        live.taps[0] = 1

    def stop_recording(self) -> None:
        """End the recording, if there is one; its files are complete."""
        with self._recording_changes:
            self._end_recording()

    def _end_recording(self) -> None:
        self._processor.live.taps[0] = 0
        if self._recorder:
            self._recorder.close()

    @property
    def recording(self) -> Path | None:
        """The folder of the recording that goes on, or None."""
        recorder = self._recorder
        return recorder.folder if recorder and self._processor.live.taps[0] else None

    def _stop(self, lost: bool = False) -> None:
        """Close devices and recording; `lost`: the devices are gone."""
        self._link.close(lost)
        self._processor.times.collect()
        self._end_recording()

    def close(self) -> None:
        """Stop, close the devices and the recording, release the memory. Harmless the second time.

        Nothing interrupts it: what a signal raises meanwhile is raised at the end.
        """
        uninterrupted(self._close)

    def _close(self) -> None:
        if self._watch:
            self._watch.end()
        with self._link.lock:
            self._watch = None
            self._stop(lost=not self._link.fade_out())
            self._closed = True
            self._processor.driver.close()

    def set(
        self,
        *,
        solo: int | str | None = None,
        strength: float | None = None,
        bypass: bool | None = None,
        input_gain_db: float | None = None,
        output_gain_db: float | None = None,
        latency_ms: float | None = None,
        **settings: Any,
    ) -> None:
        """Change what is heard, within 20 ms and without a click; what is None stays as it is.

        Parameters
        ----------
        solo : int or str, optional
            Number or name of a source.
        strength : float, optional
            0 to 1.
        bypass : bool, optional
        input_gain_db, output_gain_db : float, optional
            -40 to 40 dB; they change by 1 dB in a millisecond.
        latency_ms : float, optional
            Another latency of the engine, as in `StreamConfig.from_ms`: `separator` is exchanged for one that begins
            anew, while what is heard fades out and in within 20 ms each; for the new latency between the two, silence.
            Recordings go on, with that silence in all their files. Only for the native driver.
        **settings
            As for `Separator.set`, such as `min_presence`, of the gate.

        Raises
        ------
        ConfigError
            For sources that there are not, values out of range, and settings that cannot be changed.
        LiveError
            If the devices do not call back, for a change of the latency.
        """
        sources = self.separator.sources
        if isinstance(solo, str):
            check_choice("solo", solo, sources)
            solo = sources.index(solo)
        if solo is not None:
            check_int("solo", solo, 0, len(sources) - 1)
        if strength is not None:
            check_real("strength", strength, 0, 1)
        gains = {"input_gain_db": input_gain_db, "output_gain_db": output_gain_db}
        for name, gain in gains.items():
            if gain is not None:
                check_real(name, gain, -MAX_GAIN_DB, MAX_GAIN_DB, " dB")
        if settings:
            self.separator.set(**settings)
        if latency_ms is not None:
            self._exchange(latency_ms)
        given = {"solo": solo, "strength": strength, "bypass": bypass, **gains}
        with self._link.lock:
            choice, goals = self._choice, self._processor.goals
            choice.update({name: value for name, value in given.items() if value is not None})
            rest = 1.0 if choice["bypass"] else 1.0 - choice["strength"]
            goals[:] = 0
            goals[0], goals[1 + choice["solo"]] = rest, 1 - rest
            self._processor.trims[:] = [10 ** (choice[name] / 20) for name in gains]
            self._processor.trim(self._link.state == "running")
        # A callback empties the ring. If none comes, the watching thread needs the lock to find that out.
        while not self._pass_on():
            time.sleep(0.001)

    def _exchange(self, latency_ms: float) -> None:
        """Take a separator of another latency."""
        with self._exchanging:
            before = self.separator
            if not self._processor.switchable:
                raise ConfigError(f"latency_ms={latency_ms:g} cannot be set while a stream runs with this driver")
            config = before.config.at_latency(latency_ms)
            if config == before.config:
                return
            separator = Separator(config, before.estimator, before.phase, before.output, before.gate)
            end = time.monotonic() + SILENT_S
            while not self._follow(separator):
                if time.monotonic() > end:
                    raise LiveError(f"latency_ms={latency_ms:g} was not set: the devices do not call back")
                time.sleep(0.001)
            while not self._processor.followed and time.monotonic() < end:
                time.sleep(0.001)
            with self._link.lock:
                self._processor.times.forget_hops()

    def _follow(self, separator: Separator) -> bool:
        with self._link.lock:
            if not self._processor.follow(separator, self._link.state == "running"):
                return False
            self.separator = separator
            return True

    def _pass_on(self) -> bool:
        with self._link.lock:
            return self._processor.pass_on(self._link.state == "running")

    @property
    def input(self) -> Device:
        """The input device, as it was found last."""
        return self._link.input

    @property
    def output(self) -> Device:
        """The output device."""
        return self._link.output

    @property
    def recording_problem(self) -> Exception | None:
        """What ended the recording before its time."""
        return self._recorder.problem if self._recorder else None

    @property
    def block(self) -> int:
        """Samples that the devices deliver at a time; 0 before they do."""
        return self._processor.times.block

    @property
    def choice(self) -> dict[str, Any]:
        """The present `solo`, `strength`, `bypass`, `input_gain_db` and `output_gain_db`."""
        with self._link.lock:
            return dict(self._choice)

    @property
    def ledger(self) -> dict[str, int]:
        """What the delay is made of, in samples."""
        separator, prefill = self.separator.ledger, self._processor.driver.prefill
        own = {"window": separator.window, "look-ahead": separator.lookahead, "worker": prefill}
        with self._link.lock:
            return own | self._link.ledger

    @property
    def latency(self) -> int:
        """The sum of the ledger in samples."""
        return sum(self.ledger.values())

    @property
    def stats(self) -> Stats:
        """Counts, levels and times up to now."""
        with self._link.lock:
            return summarise(self._processor, self._link, self._recorder)


def _check_free(separator: Separator) -> None:
    if any(stream.separator is separator and stream._watch for stream in list(_OPEN)):
        raise LiveError("the separator belongs to a stream that is running; make another one for this stream")


def _check_channels(name: str, channels: Sequence[int], n: int | None) -> list[int]:
    """`n` numbers of channels, counted from 0 instead of 1."""
    chosen = [check_int(name, channel, 1, 1024) - 1 for channel in channels]
    if len(chosen) != n if n is not None else not chosen:
        raise ConfigError(f"{name}={list(channels)} are not {n or 'one or more'} channels")
    return chosen
