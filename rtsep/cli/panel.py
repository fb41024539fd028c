"""The panel of `rtsep live`: the stream at a glance, and keys that change what is heard."""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from rtsep.cli.keys import Keys
from rtsep.cli.layout import ASCII, HEARD, UNICODE, View, layout
from rtsep.errors import ConfigError, LiveError
from rtsep.live.stream import MAX_GAIN_DB

if TYPE_CHECKING:
    from rtsep.live import LiveStream

INTERVAL_S = 0.1
STRENGTHS_DB = (0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 24.0, 30.0, 40.0, math.inf)
STEP_ROUNDING_DB = 0.01
LATENCIES_MS = (16.0, 8.0, 4.0, 2.0)
STEPPED = {"i": "input gain", "o": "output gain", "g": "gate"}  # by the same keys as the strength
GAIN_STEP_DB, GATE_STEP = 1.0, 0.05
ROUNDED_DOWN = 0.95  # windows are, to whole samples
HOLD_S, FALL_DB_PER_S = 1.5, 20.0
KEPT_BYTES = 8192  # of what others wrote to stderr
USUAL_SIZE = 80, 24  # for terminals that do not tell theirs


def panel_fits() -> bool:
    """Whether standard output is a terminal that can show a panel, and that is ours to use."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown") or Console().legacy_windows:
        return False
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()  # not started with &
    except (AttributeError, OSError):  # on Windows, and on a terminal of another session
        return True


class Panel:
    """Shows a stream on the whole terminal, about ten times a second, and lets keys change what is heard.

    Parameters
    ----------
    stream : LiveStream
        Running; the panel takes its messages.

    Attributes
    ----------
    messages : deque of str
        Those of the stream so far, with the time of day.
    """

    def __init__(self, stream: LiveStream) -> None:
        self.messages: deque[str] = deque(maxlen=100)
        self._stream = stream
        self._console = Console(force_terminal=True)
        self._glyphs = ASCII if self._console.options.ascii_only else UNICODE
        self._peaks, self._lights = _Peaks(), _Lights()
        self._stepped = "strength"
        self._suspended = False

    def run(self, stopped: Callable[[], bool], seconds: float | None = None) -> None:
        """Until the key for quitting or `stopped()`, or for so many seconds.

        The terminal is as before then, whatever happens.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        with self._suspending():
            while not self._show(stopped, end):
                _stop_process()

    def _show(self, stopped: Callable[[], bool], end: float) -> bool:
        """Whether the panel has ended; otherwise it has only left the terminal, for the shell."""
        self._suspended = False
        with _stderr_later(), Keys() as keys, _whole_screen(self._console):
            while (now := time.monotonic()) < end and not self._suspended and not stopped():
                self._draw(now, keys.available)
                for key in keys.wait(min(INTERVAL_S, end - now)):
                    if key == "q":
                        return True
                    self._press(key)
        return not self._suspended

    @contextmanager
    def _suspending(self) -> Iterator[None]:
        """Ctrl-Z gives the terminal back first."""

        def suspend(*_: object) -> None:
            self._suspended = True

        if not hasattr(signal, "SIGTSTP"):
            yield
            return
        before = signal.signal(signal.SIGTSTP, suspend)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, before)

    def _press(self, key: str) -> None:
        stream, choice, n_src = self._stream, self._stream.choice, self._stream.separator.n_src
        step = {"tab": 1, "right": 1, "left": -1}.get(key)
        if step:
            stream.set(solo=(choice["solo"] + step) % n_src)
        elif key in "123456789" and int(key) <= n_src:
            stream.set(solo=int(key) - 1)
        elif key in ("up", "+", "=", "down", "-"):
            self._step(key in ("up", "+", "="))
        elif key in STEPPED:
            self._stepped = "strength" if self._stepped == STEPPED[key] else STEPPED[key]
        elif key in ("b", "space"):
            stream.set(bypass=not choice["bypass"])
        elif key == "l":
            self._change_latency()
        elif key == "r":
            self._record()

    def _step(self, up: bool) -> None:
        """Change what the keys for it are set to."""
        stream, choice, what = self._stream, self._stream.choice, self._stepped
        if what == "strength":
            stream.set(strength=_next_strength(choice["strength"], up))
        elif what == "gate":
            threshold = stream.separator.gate.min_presence + (GATE_STEP if up else -GATE_STEP)
            stream.set(min_presence=round(min(max(threshold, 0.0), 1.0), 2))
        else:
            name = what.replace(" ", "_") + "_db"
            gain = choice[name] + (GAIN_STEP_DB if up else -GAIN_STEP_DB)
            stream.set(**{name: min(max(gain, -MAX_GAIN_DB), MAX_GAIN_DB)})

    def _record(self) -> None:
        """Begin a recording, or end the one that goes on."""
        stream, folder = self._stream, self._stream.recording
        try:
            if folder is None:
                stream.start_recording()
                stream.say(f"recording to {stream.recording}")
            else:
                stream.stop_recording()
                stream.say(f"recorded to {folder}")
        except LiveError as problem:
            stream.say(str(problem))

    def _change_latency(self) -> None:
        """To the next lower one, and from the lowest to the highest."""
        stream = self._stream
        now = stream.separator.config.times_ms["latency_ms"]
        lower = [ms for ms in LATENCIES_MS if ms < ROUNDED_DOWN * now]
        try:
            stream.set(latency_ms=lower[0] if lower else LATENCIES_MS[0])
        except (ConfigError, LiveError) as problem:
            stream.say(str(problem))

    def _draw(self, now: float, keys: bool) -> None:
        stream, console = self._stream, self._console
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        console.size = columns or USUAL_SIZE[0], lines or USUAL_SIZE[1]
        while stream.messages:
            self.messages.append(time.strftime("%H:%M:%S ") + self._plain(stream.messages.popleft()))
        stats, choice, config = stream.stats, stream.choice, stream.separator.config
        view = View(
            devices=(self._plain(stream.input.name), self._plain(stream.output.name)),
            sr=config.sr,
            hop_ms=1000 * config.hop_s,
            sources=stream.separator.sources,
            stats=stats,
            choice=choice,
            strength_db=_decibels(choice["strength"]),
            stepped=self._stepped,
            gate=stream.separator.gate.min_presence,
            ledger=stream.ledger,
            peaks=self._peaks.update(stats.levels_db | {HEARD: stats.heard_db}, now),
            lights=self._lights.update({"mixture": stats.clipped, HEARD: stats.limited}, now),
            messages=self.messages,
            keys=keys,
        )
        console.update_screen_lines(layout(view, *console.size, self._glyphs))

    def _plain(self, text: str) -> str:
        """Without what would move the cursor or has no sign in the terminal's encoding."""
        text = "".join(c if c.isprintable() else " " for c in text)
        return text.encode(self._console.encoding, "replace").decode(self._console.encoding)


class _Peaks:
    """Highest levels: held for a while, then falling."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, float]] = {}  # level in dBFS and when

    def update(self, levels_db: dict[str, float], now: float) -> dict[str, float]:
        """Peaks in dBFS at the time `now` in seconds."""
        peaks = {}
        for name, level in levels_db.items():
            held, since = self._held.get(name, (level, now))
            peaks[name] = held - FALL_DB_PER_S * max(0, now - since - HOLD_S)
            if level >= peaks[name]:
                self._held[name], peaks[name] = (level, now), level
        return peaks


class _Lights:
    """Which of several counts have grown of late."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def update(self, counts: dict[str, int], now: float) -> set[str]:
        """Names of those that have, at the time `now` in seconds."""
        for name, count in counts.items():
            if count > self._counts.get(name, count):
                self._until[name] = now + HOLD_S
        self._counts = counts
        return {name for name, until in self._until.items() if now < until}


def _decibels(strength: float) -> float:
    """By how much the rest is lowered, in dB."""
    return math.inf if strength >= 1 else -20 * math.log10(1 - strength)


def _next_strength(strength: float, up: bool) -> float:
    """The next one of `STRENGTHS_DB`, as a share."""
    now = _decibels(strength)
    if up:
        i = min(bisect_right(STRENGTHS_DB, now + STEP_ROUNDING_DB), len(STRENGTHS_DB) - 1)
    else:
        i = max(bisect_left(STRENGTHS_DB, now - STEP_ROUNDING_DB) - 1, 0)
    return 1 - 10 ** (-STRENGTHS_DB[i] / 20)


@contextmanager
def _whole_screen(console: Console) -> Iterator[None]:
    """The alternate screen without a cursor; leaving it brings back what was there."""
    try:
        console.set_alt_screen(True)
        console.show_cursor(False)
        yield
    finally:
        console.show_cursor(True)
        console.set_alt_screen(False)


@contextmanager
def _stderr_later() -> Iterator[None]:
    """Hold back what audio libraries and other threads write to a terminal; the end of it comes afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    number = sys.stderr.fileno()
    terminal = os.dup(number)
    with tempfile.TemporaryFile() as held:
        try:
            os.dup2(held.fileno(), number)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, number)
            os.close(terminal)
            held.seek(max(0, held.seek(0, os.SEEK_END) - KEPT_BYTES))
            os.write(number, held.read())


def _stop_process() -> None:
    """Stop as Ctrl-Z does by default; returns when the shell lets the process go on."""
    ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, ours)
