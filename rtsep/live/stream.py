"""LiveStream: from a microphone to headphones."""

from __future__ import annotations

import atexit
import ctypes
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import numpy as np

from rtsep.config import ConfigError, check_choice, check_int, check_real
from rtsep.engine.output import Output
from rtsep.errors import LiveError
from rtsep.kernels.memory import arrays
from rtsep.live import callback as cb
from rtsep.live.connection import Connection
from rtsep.live.devices import DEVICES, Device, find_device, portaudio, rescan
from rtsep.live.howling import gain_db, howls
from rtsep.live.native import NativeDriver
from rtsep.live.pointers import Handle
from rtsep.live.record import Recorder
from rtsep.live.rings import read, waiting, write
from rtsep.live.stats import Histogram, Stats
from rtsep.live.worker import WorkerDriver
from rtsep.separator import Separator

TAP_S = 4.0  # how long the disk may be busy before a recording loses samples
WATCH_S = 0.05  # interval of the watching thread
SILENT_S = 2.0  # without a callback for so long, a device counts as gone
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 4.0)  # before the attempts to reconnect; the last one goes on
PHASE_SHARE = 0.7  # of a hop, after which the phase recovery starts no further iteration
SETTLING_S = 2.0  # for a bridge to learn what it needs; then the ledger is complete later
PATIENCE_S = 0.2  # for the last fade-out
STUCK_S = 5.0  # for an attempt to reconnect; then it is left alone, and ends when PortAudio lets it go on
FOREVER = 1 << 62  # ns
PREFILL_MS = 30.0

_OPEN: WeakSet[LiveStream] = WeakSet()  # a new search for devices would end the streams of others


@cache
def _close_at_exit() -> None:
    """Close what is open when the interpreter ends, before PortAudio does; so only after it was loaded."""
    atexit.register(_close_all)


def _close_all() -> None:
    for stream in list(_OPEN):
        stream.close()


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
    ceiling_db, fade_in_ms : float
        Of what is heard, as in `Output`. The fade-in comes at the start and after every reconnection.
    howling : bool
        Turn down what feeds back into the microphone (`rtsep.live.howling`). Nothing else changes by a bit.
    late : {"mixture", "silence", "wait"}
        What is heard where the machine was too slow. "wait" leaves the audio as it is, however late: for
        clocks that wait too, such as JACK in freewheel.
    driver : {"native", "worker"}, optional
        Default: native for compiled estimators, else worker.
    prefill_ms : float
        Delay that the worker driver adds to have time, in ms.
    record : path, optional
        Folder for mixture.wav and a WAV of each source, aligned with each other; strength, solo and bypass do
        not touch them.

    Attributes
    ----------
    ledger : dict of str to int
        What the delay from input to output is made of, in samples; the devices' part as they report it.
    messages : collections.deque of str
        What happened to the devices, newest last.

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
        ceiling_db: float = -1.0,
        fade_in_ms: float = 30.0,
        howling: bool = True,
        late: str = "mixture",
        driver: str | None = None,
        prefill_ms: float = PREFILL_MS,
        record: str | Path | None = None,
    ) -> None:
        config = separator.config
        check_int("block_size", block_size, 0, 1 << 16, " samples")
        check_choice("late", late, ("mixture", "silence", "wait"))
        check_choice("driver", driver, (None, "native", "worker"))
        check_real("prefill_ms", prefill_ms, 0, 2000, " ms")
        _check_free(separator)
        if driver == "native" and not separator.compiled:
            name = type(separator.estimator).__name__
            raise LiveError(f"estimator {name} is ordinary Python; use the worker driver")
        self.separator, self.block_size = separator, block_size
        self.messages: deque[str] = deque(maxlen=100)
        self._asked = input, output
        n_channels = config.n_channels
        self._channels_in = _check_channels("input_channels", input_channels or range(1, n_channels + 1), n_channels)
        self._channels_out = None
        if output_channels is not None:
            self._channels_out = _check_channels("output_channels", output_channels, None)
        with DEVICES:
            self.input, self.output = self._find()
        self._driver: NativeDriver | WorkerDriver
        if driver == "worker" or not separator.compiled:
            self._driver = WorkerDriver(separator, prefill_ms)
            if block_size > self._driver.prefill:
                needed = f"{1000 * block_size / config.sr:g} ms"
                raise ConfigError(
                    f"block_size={block_size} is more than prefill_ms={prefill_ms:g} covers; it takes {needed}"
                )
        else:
            self._driver = NativeDriver(separator)
        monitor = Output(ceiling_db=ceiling_db, fade_in_ms=fade_in_ms)
        played = self._channels_out or list(range(min(self.output.n_outputs, max(2, n_channels))))
        self._live = cb.prepare_live(
            config,
            separator.n_src,
            max(self._channels_in) + 1,
            max(played) + 1,
            separator.latency + self._driver.prefill,
            monitor,
            round(TAP_S * config.sr) if record is not None else 1,
        )._replace(deadline=self._driver.deadline)
        live = self._live
        live.process[:] = self._driver.function, self._driver.pointer
        live.route_out[:] = -1
        live.route_out[played] = np.arange(len(played)) % n_channels
        hop_ns = round(1e9 * config.hop_s)
        live.limits[:] = (FOREVER, FOREVER, 0) if late == "wait" else (PHASE_SHARE * hop_ns, hop_ns, 1)
        live.fallback[0] = late == "mixture"
        live.listens[0] = howling
        self._lock = threading.RLock()
        self._choice: dict[str, Any] = {"solo": 0, "strength": 1.0, "bypass": False}
        self._connection: Connection | None = None
        self._connected = dict.fromkeys(("resampling", "bridge", "device in", "device out"), 0)
        self._breaks = 0  # of the bridges of connections that are closed
        self._watch: threading.Thread | None = None
        self._ending = threading.Event()
        self._recorder: Recorder | None = None
        self._record = None if record is None else Path(record)
        self._state = "stopped"
        self._reconnects = self._late_callbacks = 0
        self._last_start_ns = self._last_block = 0
        self._put_right: Counter[str] = Counter()  # by the separator before its last reset
        self._warned, self._howls = False, 0
        self._hop_times, self._intervals = Histogram(), Histogram()
        self._closed = False
        _OPEN.add(self)
        self._warm_up()
        self._fresh = [array.copy() for array in arrays(live)]
        self.set(solo=0 if solo is None else solo, strength=strength, bypass=bypass)

    def _find(self) -> tuple[Device, Device]:
        found = find_device(self._asked[0], "input"), find_device(self._asked[1], "output")
        n_channels = self.separator.config.n_channels
        last_in, last_out = max(self._channels_in) + 1, max(self._channels_out or [0]) + 1
        if found[0].n_inputs < last_in:
            raise LiveError(f"input device {found[0].name!r} has {found[0].n_inputs} channels, no channel {last_in}")
        if found[1].n_outputs < last_out:
            raise LiveError(f"output device {found[1].name!r} has {found[1].n_outputs} channels, no channel {last_out}")
        if self._channels_out is None and found[1].n_outputs < n_channels:
            raise LiveError(
                f"output device {found[1].name!r} has {found[1].n_outputs} channels, not {n_channels}; use mono"
            )
        return found

    def _warm_up(self) -> None:
        """One callback on silence, so that the first real one meets nothing for the first time."""
        n = self.separator.config.hop
        live = self._live
        device_in = np.zeros(n * int(live.route_in[0]), np.float32)
        device_out = np.zeros(n * live.route_out.size, np.float32)
        call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_ulong, ctypes.c_void_p,
                                ctypes.c_ulong, ctypes.c_void_p)(cb.compiled_callback().address)  # fmt: skip
        fresh = [array.copy() for array in arrays(live)]
        handle = Handle(live)
        self._driver.reset()
        call(device_in.ctypes.data, device_out.ctypes.data, n, None, 0, handle.address)
        handle.release()
        for array, values in zip(arrays(live), fresh, strict=True):
            np.copyto(array, values)  # which also touches every page

    def _reset(self) -> None:
        """A new beginning after a break; counts go on. Not while the callback runs."""
        live = self._live
        counts, muted, limited = live.counts.copy(), live.monitor.muted.copy(), live.monitor.limited.copy()
        alarms = live.howling.alarms.copy()
        taps, shed = live.taps.copy(), self._driver.shed.copy()
        tap = live.tap.written.copy(), live.tap.read.copy()
        for array, values in zip(arrays(live), self._fresh, strict=True):
            np.copyto(array, values)
        live.counts[:], live.monitor.muted[:], live.monitor.limited[:] = counts, muted, limited
        live.howling.alarms[:] = alarms
        live.taps[:] = taps
        live.goals[:] = live.gains[:] = self._goals()  # commands that no callback has read are gone
        live.tap.written[:], live.tap.read[:] = tap
        self._last_start_ns = self._last_block = 0
        self._put_right.update(self.separator.counts)
        self._driver.reset()
        self._driver.shed[:] = shed

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
        with self._lock:
            if self._watch:
                return
            if self._closed:
                raise LiveError("the stream is closed; make a new one")
            _check_free(self.separator)
            config = self.separator.config
            self._reset()
            if self._record is not None:
                names = self.separator.sources
                self._recorder = Recorder(self._live.tap, self._record, names, config.n_channels, config.sr)
                self._live.taps[0] = 1
            try:
                self._open()
            except BaseException:  # Ctrl-C, too
                self._stop_recording()
                raise
            self._watch = threading.Thread(target=self._watch_over, name="rtsep watch", daemon=True)
            self._watch.start()
            connection = self._connection
        # The ledger of a bridge is complete when it has learned what it needs.
        end = time.monotonic() + SETTLING_S
        while connection and connection.learning and time.monotonic() < end:
            time.sleep(0.02)

    def _open(self) -> None:
        portaudio()
        _close_at_exit()
        self._driver.start()
        try:
            with DEVICES:
                self._connection = Connection(
                    self._live,
                    (self.input, self.output),
                    self._channels_in,
                    self.separator.config.sr,
                    self.block_size,
                )
        except BaseException:
            self._driver.stop()
            raise
        self._state = "running"

    def _shut(self, lost: bool = False) -> None:
        """Close the devices; `lost`: they are gone."""
        if self._connection:
            self._connected = self._connection.ledger
            self._breaks += self._connection.breaks
            with DEVICES:
                self._connection.close(lost)
        self._connection = None
        self._driver.stop()
        self._state = "stopped"

    def close(self) -> None:
        """Stop, close the devices and the recording, release the memory. Harmless the second time."""
        self._ending.set()
        watch = self._watch
        if watch and watch is not threading.current_thread():
            watch.join(STUCK_S)
        with self._lock:
            self._watch = None
            lost = not self._fade_out()
            self._shut(lost)
            self._collect_times()
            self._stop_recording()
            self._closed = True
            self._driver.close()

    def _fade_out(self) -> bool:
        """Let what is heard go down, and be played, before the devices stop; whether they still call back."""
        if not (self._connection and self._connection.active):
            return False
        gains, counts, start = self._live.gains, self._live.counts, time.monotonic()
        before = counts[cb.CALLBACKS]
        write(self._live.commands, np.zeros_like(gains), 1)
        while gains.any() and time.monotonic() - start < PATIENCE_S:
            time.sleep(0.002)
        time.sleep(min(self._connection.ledger["device out"] / self.separator.config.sr, PATIENCE_S))
        # PortAudio would wait minutes for a JACK server that stands still.
        while counts[cb.CALLBACKS] == before and time.monotonic() - start < SILENT_S:
            time.sleep(0.002)
        return bool(counts[cb.CALLBACKS] != before)

    def _stop_recording(self) -> None:
        self._live.taps[0] = 0
        if self._recorder:
            self._recorder.close()

    def set(self, *, solo: int | str | None = None, strength: float | None = None, bypass: bool | None = None) -> None:
        """Change what is heard, within 20 ms and without a click; what is None stays as it is.

        Parameters
        ----------
        solo : int or str, optional
            Number or name of a source.
        strength : float, optional
            0 to 1.
        bypass : bool, optional

        Raises
        ------
        ConfigError
            For sources that there are not, and strengths out of range.
        """
        sources = self.separator.sources
        if isinstance(solo, str):
            check_choice("solo", solo, sources)
            solo = sources.index(solo)
        if solo is not None:
            check_int("solo", solo, 0, len(sources) - 1)
        if strength is not None:
            check_real("strength", strength, 0, 1)
        given = {"solo": solo, "strength": strength, "bypass": bypass}
        with self._lock:
            self._choice.update({name: value for name, value in given.items() if value is not None})
        # A callback empties the ring. If none comes, the watching thread needs the lock to find that out.
        while not self._pass_on():
            time.sleep(0.001)

    def _pass_on(self) -> bool:
        """The present choice to the callback; False if its ring is full."""
        with self._lock:
            goals = self._goals()
            if self._state == "running":
                return bool(write(self._live.commands, goals, 1))
            self._live.goals[:] = self._live.gains[:] = goals
            return True

    def _goals(self) -> np.ndarray:
        """The gains of mixture and sources that the choice means."""
        goals = np.zeros_like(self._live.goals)
        rest = 1.0 if self._choice["bypass"] else 1.0 - self._choice["strength"]
        goals[0], goals[1 + self._choice["solo"]] = rest, 1 - rest
        return goals

    @property
    def choice(self) -> dict[str, Any]:
        """The present `solo`, `strength` and `bypass`."""
        with self._lock:
            return dict(self._choice)

    @property
    def ledger(self) -> dict[str, int]:
        """What the delay is made of, in samples."""
        separator = self.separator.ledger
        own = {"window": separator.window, "look-ahead": separator.lookahead, "worker": self._driver.prefill}
        with self._lock:
            if self._connection:
                self._connected = self._connection.ledger
            return own | self._connected

    @property
    def latency(self) -> int:
        """The sum of the ledger in samples."""
        return sum(self.ledger.values())

    @property
    def stats(self) -> Stats:
        """Counts, levels and times up to now."""
        with self._lock:
            self._collect_times()
            live, config = self._live, self.separator.config
            counts = live.counts
            put_right = self._put_right + Counter(self.separator.counts)
            levels = 10 * np.log10(np.maximum(live.energies, 1e-20))
            return Stats(
                state=self._state,
                elapsed_s=int(counts[cb.SAMPLES]) / config.sr,
                callbacks=int(counts[cb.CALLBACKS]),
                hops=int(counts[cb.HOPS]),
                xruns=int(counts[cb.XRUNS]) + self._breaks + (self._connection.breaks if self._connection else 0),
                late_hops=int(counts[cb.LATE]),
                skipped_hops=int(counts[cb.SKIPPED]),
                replaced_s=int(counts[cb.REPLACED]) / config.sr,
                shed_iterations=int(self._driver.shed[0]),
                hop_share=self._hop_times.summary(1e9 * config.hop_s),
                late_callbacks=self._late_callbacks,
                interval_ms=self._intervals.summary(1e6),
                levels_db=dict(zip(("mixture", *self.separator.sources), map(float, levels), strict=True)),
                limited=int(live.monitor.limited[0]) + put_right["limited"],
                muted=int(live.monitor.muted[0]) + put_right["muted"],
                reconnects=self._reconnects,
                howls=howls(live.howling),
                howl_gain_db=gain_db(live.howling),
                drift_ppm=1e6 * self._connection.drift if self._connection else 0.0,
                recorded_s=(self._recorder.n_samples if self._recorder else 0) / config.sr,
                recording_lost_s=int(counts[cb.TAP_LOST]) / config.sr,
            )

    def _collect_times(self) -> None:
        """Take the time stamps out of their ring."""
        times = self._live.times
        n = int(waiting(times))
        if not n:
            return
        block = np.empty(cb.N_TIMES * n, np.int64)
        read(times, block, n)
        start, _, n_samples, _, longest = block.reshape(cb.N_TIMES, n)
        self._hop_times.add(longest[longest > 0])
        # What a callback has to wait for is the block before it.
        intervals = np.diff(start, prepend=self._last_start_ns or start[0])
        blocks = np.concatenate([[self._last_block], n_samples[:-1]])
        self._intervals.add(intervals[intervals > 0])
        self._late_callbacks += int((intervals > 1.5e9 * blocks / self.separator.config.sr).sum())
        self._last_start_ns, self._last_block = int(start[-1]), int(n_samples[-1])

    def _watch_over(self) -> None:
        """Collect the times; notice when the devices are gone, and get them back."""
        seen, since = -1, time.monotonic()
        looked = since
        while not self._ending.wait(WATCH_S):
            with self._lock:
                self._collect_times()
                callbacks, now = int(self._live.counts[cb.CALLBACKS]), time.monotonic()
                # After a Ctrl-Z, this process stood still and not the device.
                if callbacks != seen or now - looked > SILENT_S / 2:
                    seen, since = callbacks, now
                looked = now
                self._report_problems()
                lost = not (self._connection and self._connection.active) or time.monotonic() - since > SILENT_S
            if lost:
                self._reconnect()
                since = time.monotonic()

    def _report_problems(self) -> None:
        """What the other threads ran into."""
        n_howls = howls(self._live.howling)
        if n_howls > self._howls:
            gain = gain_db(self._live.howling)
            self._say(f"howling: what is heard feeds back into the microphone; turned down to {gain:.0f} dB")
        self._howls = n_howls
        if self._last_block > self._driver.prefill > 0 and not self._warned:
            self._warned = True
            self._say(
                f"the device delivers {self._last_block} samples at a time, which prefill_ms="
                f"{1000 * self._driver.prefill / self.separator.config.sr:g} does not cover: the mixture is heard"
            )
        problem, self._driver.problem = self._driver.problem, None
        if problem:
            self._say(f"the separator failed, the mixture is heard: {type(problem).__name__}: {problem}")
        if self._recorder and self._recorder.problem:
            self._live.taps[0] = 0
            self._say(f"the recording to {self._record} ended: {self._recorder.problem}")
            self._recorder.problem = None

    def _reconnect(self) -> None:
        self._say(f"device {self.input.name!r} or {self.output.name!r} stopped; trying to get it back")
        with self._lock:
            self._shut(lost=True)
            self._state = "reconnecting"
        attempt = 0
        while not self._ending.wait(BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]):
            attempt += 1
            try:
                # Without the other lock: a JACK server that stands still keeps PortAudio waiting.
                with DEVICES:
                    if not any(stream._connection for stream in list(_OPEN)):
                        rescan()
                with self._lock, DEVICES:
                    if self._ending.is_set():
                        return
                    self.input, self.output = self._find()
                    self._reset()
                    self._open()
                    self._reconnects += 1
            except (LiveError, portaudio().PortAudioError) as problem:
                self._say(f"attempt {attempt}: {problem}")
                continue
            self._say(f"running again on {self.input.name!r} and {self.output.name!r}")
            return

    def _say(self, message: str) -> None:
        self.messages.append(message)


def _check_free(separator: Separator) -> None:
    if any(stream.separator is separator and stream._watch for stream in list(_OPEN)):
        raise LiveError("the separator belongs to a stream that is running; make another one for this stream")


def _check_channels(name: str, channels: Sequence[int], n: int | None) -> list[int]:
    """`n` numbers of channels, counted from 0 instead of 1."""
    chosen = [check_int(name, channel, 1, 1024) - 1 for channel in channels]
    if len(chosen) != n if n is not None else not chosen:
        raise ConfigError(f"{name}={list(channels)} are not {n or 'one or more'} channels")
    return chosen
