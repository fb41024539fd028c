"""What the browser and other remote controls say and hear: a stream as JSON, and commands for it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rtsep.config import check_real
from rtsep.errors import ConfigError, LiveError
from rtsep.plain import plain
from rtsep.web.spectra import FLOOR_DB, RATE_HZ, Spectra

if TYPE_CHECKING:
    from rtsep.live import LiveStream

PROTOCOL = 1
LATENCIES_MS = (16, 8, 4, 2)
# What a remote control may set. Not what costs time in the hop: nothing that it says may stop the sound.
SETTABLE = (
    "solo",
    "strength_db",
    "bypass",
    "input_gain_db",
    "output_gain_db",
    "min_presence",
    "gate_hold_ms",
    "latency_ms",
)
KINDS = ("state", "spectra")
MAX_MESSAGES = 20


class Remote:
    """A stream as plain values, and the commands that may change it; every method may take its time.

    Parameters
    ----------
    stream : LiveStream
    """

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream
        separator = stream.separator
        self._rows = ("mixture", *separator.sources)
        self._spectra = Spectra(len(self._rows), separator.config.sr)

    def hello(self) -> dict[str, Any]:
        """What does not change."""
        separator = self._stream.separator
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "sr": separator.config.sr,
            "n_channels": separator.config.n_channels,
            "sources": list(separator.sources),
            "settable": list(SETTABLE),
            "latencies_ms": list(LATENCIES_MS),
            "spectra": {
                "rate_hz": RATE_HZ,
                "floor_db": FLOOR_DB,
                "frequencies_hz": self._spectra.frequencies_hz,
            },
        }

    def state(self) -> dict[str, Any]:
        """The stream at this moment."""
        stream = self._stream
        separator, choice, recording = stream.separator, stream.choice, stream.recording
        rest = 1 - choice["strength"]
        stats = asdict(stream.stats)
        settings = {
            "solo": separator.sources[choice["solo"]],
            "strength_db": -20 * math.log10(rest) if rest > 0 else None,
            "bypass": choice["bypass"],
            "input_gain_db": choice["input_gain_db"],
            "output_gain_db": choice["output_gain_db"],
            "min_presence": separator.gate.min_presence,
            "gate_hold_ms": separator.gate.gate_hold_ms,
            "latency_ms": separator.config.times_ms["latency_ms"],
        }
        return {
            "type": "state",
            "input": stream.input.name,
            "output": stream.output.name,
            "settings": plain(settings),
            "ledger": stream.ledger,
            "recording": None if recording is None else str(recording),
            "stats": plain(stats),
        }

    def messages(self) -> dict[str, Any]:
        """What has happened of late."""
        said = list(self._stream.history)[-MAX_MESSAGES:]
        return {"type": "messages", "messages": [{"time": when, "text": text} for when, text in said]}

    def spectra(self) -> dict[str, Any] | None:
        """Columns of the spectrograms since the last time; None if there are none. The scope opens."""
        scope = self._stream.scope
        scope.open = True
        columns = self._spectra.add(scope.read())
        n = columns.shape[1]
        if not n:
            return None
        return {
            "type": "spectra",
            "column": self._spectra.column - n,
            "columns": dict(zip(self._rows, columns.tolist(), strict=True)),
        }

    def look_away(self) -> None:
        """Nobody wants spectrograms: the audio thread has nothing to do for them."""
        self._stream.scope.open = False

    def obey(self, command: dict[str, Any]) -> None:
        """Do what a remote control says.

        Parameters
        ----------
        command : dict
            `{"set": {name: value}}` with names of `SETTABLE`, or `{"record": True}` or False.

        Raises
        ------
        ConfigError, LiveError
            One line, for what cannot be; then nothing has changed.
        """
        if set(command) == {"record"} and isinstance(command["record"], bool):
            self._record(command["record"])
        elif set(command) == {"set"} and isinstance(command["set"], dict):
            self._stream.set(**self._settings(command["set"]))
        else:
            raise ConfigError('a command is {"set": {NAME: VALUE}}, {"record": true} or {"watch": [KIND]}')

    def _record(self, wanted: bool) -> None:
        stream, folder = self._stream, self._stream.recording
        if wanted:
            stream.start_recording()
            stream.say(f"recording to {stream.recording}")
        elif folder is None:
            raise LiveError("nothing is being recorded")
        else:
            stream.stop_recording()
            stream.say(f"recorded to {folder}")

    def _settings(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Arguments for `LiveStream.set`."""
        settings = dict(wanted)
        for name, value in wanted.items():
            if name not in SETTABLE:
                raise ConfigError(f"{name!r} cannot be set from here; {', '.join(SETTABLE)} can")
            if value is None and name != "strength_db":
                raise ConfigError(f"{name} needs a value")
        if "bypass" in settings and not isinstance(settings["bypass"], bool):
            raise ConfigError(f"bypass={settings['bypass']!r} is neither true nor false")
        if "solo" in settings and not isinstance(settings["solo"], str):
            raise ConfigError(f"solo={settings['solo']!r} is not the name of a source")
        if "latency_ms" in settings and settings["latency_ms"] not in LATENCIES_MS:
            raise ConfigError(f"latency_ms={settings['latency_ms']!r} is not one of 16, 8, 4, 2")
        if "strength_db" in settings:
            strength_db = settings.pop("strength_db")
            if strength_db is not None:
                check_real("strength_db", strength_db, 0, math.inf, " dB")
            settings["strength"] = 1.0 if strength_db is None else 1 - 10 ** (-strength_db / 20)
        return settings
