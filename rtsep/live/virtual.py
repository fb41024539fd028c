"""Virtual devices: a microphone that programs can choose and the engine plays into, a speaker that it listens to.

The sound server makes them by a module for its PulseAudio interface, and forgets them when it ends: a stream that gets
its devices back makes them anew. One whose program was killed stays; its properties say whose it was, so that the next
program can tell, and remove it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rtsep.config import check_choice, check_int
from rtsep.errors import ConfigError, LiveError
from rtsep.live.connection import anything_open
from rtsep.live.devices import rescan
from rtsep.live.pipewire import Graph, find_graph, has_ports, running
from rtsep.live.pulse import pulse_running
from rtsep.live.uninterrupted import uninterrupted

KINDS = {"microphone": "Audio/Source/Virtual", "speaker": "Audio/Sink"}
PATIENCE_S = 10.0  # for the server to make a device
SETTLING_S = 3.0  # for the session manager to choose a default, after a device has come or gone
NAME = r"\w[\w .-]{0,59}"
OWNED = re.compile(r"^(\d+)\t.*\bsink_name=(\S+).*\brtsep\.owner=(\d+)-(\d+)", re.MULTILINE)
POSITIONS = {1: "mono", 2: "front-left,front-right"}

_ENTERED: list[VirtualDevice] = []
_CHANGING = threading.Lock()  # of what is entered, and what the server has of it


class Made(NamedTuple):
    """A virtual device on the server, whoever made it."""

    module: str
    node: str
    pid: int
    started: str  # when the process was, in ticks

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return _started(self.pid) == self.started


class VirtualDevice:
    """A virtual device of PipeWire's, there while this context manager is entered.

    Parameters
    ----------
    kind : {"microphone", "speaker"}
        A microphone is an output of the stream and an input of other programs, a speaker the other way round.
    name : str
        By which programs and `LiveStream` know it: letters, digits, spaces, dots, "-" and "_", at most 60.
    n_channels : int
        1 or 2.

    Attributes
    ----------
    removed : list of str
        What a killed program had left and is gone now.

    Raises
    ------
    ConfigError
        For names that cannot be.
    LiveError
        Where there is no PipeWire, or another program has a device of this name; when it is entered.

    Notes
    -----
    Defaults of the desktop stay as they are. Enter it before streams are open: PortAudio has to search anew. After the
    server was gone, the stream between its devices makes it anew, under the same name.
    """

    def __init__(self, kind: str, name: str, n_channels: int = 1) -> None:
        check_choice("kind", kind, tuple(KINDS))
        check_int("n_channels", n_channels, 1, 2)
        if not re.fullmatch(NAME, name):
            allowed = "letters, digits, spaces, '-', '_' and '.', at most 60"
            raise ConfigError(f"virtual {kind} {name!r}: a name is {allowed}")
        self.kind, self.name, self.n_channels = kind, name, n_channels
        self.node = "rtsep_" + re.sub(r"\W", "_", f"{kind}_{name}")
        self.removed: list[str] = []
        self._before: Graph | None = None

    def __enter__(self) -> VirtualDevice:
        _require_server(self.kind)
        try:
            uninterrupted(self._enter)
        except BaseException:
            uninterrupted(self._leave)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        uninterrupted(self._leave)

    def partner(self) -> str:
        """The desktop's device for the other side of the stream: the one that was chosen when this one was made.

        Raises
        ------
        LiveError
            Where there is none.
        """
        side = {"microphone": "sources", "speaker": "sinks"}[self.kind]
        found, end = list(getattr(self._before, side, ())), time.monotonic() + SETTLING_S
        while not found and time.monotonic() < end:
            found = [name for name in getattr(find_graph(), side, ()) if name != self.name]
        if not found:
            what = {"microphone": "no microphone", "speaker": "no loudspeaker"}[self.kind]
            raise LiveError(f"there is {what} but the virtual one; connect one")
        return str(found[0])

    def _enter(self) -> None:
        with _CHANGING:
            _ENTERED.append(self)
            self._make()
        if "sounddevice" in sys.modules and not anything_open():
            rescan()

    def _make(self) -> None:
        self.removed = remove_left()
        if any(made.node == self.node for made in _made()):
            raise LiveError(
                f"another rtsep has a virtual {self.kind} of the name {self.name!r}; give this one another name"
            )
        graph = self._before = find_graph()
        if graph is None:
            raise LiveError("PipeWire does not answer")
        if self.name in (*graph.sources, *graph.sinks):
            raise LiveError(f"there is a device of the name {self.name!r}; give the virtual {self.kind} another name")
        owner = f"{os.getpid()}-{_started(os.getpid())}"
        _pactl(
            "load-module",
            "module-null-sink",
            f"media.class={KINDS[self.kind]}",
            f"sink_name={self.node}",
            f"channel_map={POSITIONS[self.n_channels]}",
            # The desktop's own choice never falls on it while there is anything else.
            f"sink_properties=\"device.description='{self.name}' priority.session=1 rtsep.owner={owner}\"",
        )
        end = time.monotonic() + PATIENCE_S
        while not has_ports(self.node):
            if time.monotonic() > end:
                raise LiveError(f"the sound server did not make the virtual {self.kind} {self.name!r}")
            time.sleep(0.05)

    def _leave(self) -> None:
        """Remove it, also when it was only just being made; what is gone with its server needs nothing."""
        with _CHANGING, suppress(LiveError):
            _ENTERED.remove(self)
            for made in _made():
                if (made.node, made.pid) == (self.node, os.getpid()):
                    _pactl("unload-module", made.module)


def restore_virtual() -> list[str]:
    """Make those devices of this process anew that their server has forgotten; what was made, in lines.

    Raises
    ------
    LiveError
        If the server does not answer, or does not make them.
    """
    with _CHANGING:
        if not _ENTERED:
            return []
        if not running():
            raise LiveError("PipeWire does not run")
        there = {made.node for made in _made()}
        forgotten = [device for device in _ENTERED if device.node not in there]
        for device in forgotten:
            device._make()
    return [f"virtual {device.kind} {device.name!r} is there again" for device in forgotten]


def remove_left() -> list[str]:
    """Remove the virtual devices of programs that run no more; their names on the graph.

    Raises
    ------
    LiveError
        If the server does not answer.
    """
    left = [made for made in _made() if not made.alive]
    for made in left:
        _pactl("unload-module", made.module)
    return [made.node for made in left]


def _made() -> list[Made]:
    return [
        Made(module, node, int(pid), started)
        for module, node, pid, started in OWNED.findall(_pactl("list", "modules", "short"))
    ]


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine was: its number may come again."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _require_server(kind: str) -> None:
    """Where there is no PipeWire, say what does its job."""
    if sys.platform != "linux":
        program = {"darwin": "BlackHole", "win32": "VB-CABLE"}.get(sys.platform, "a virtual cable")
        side = {"microphone": "--output", "speaker": "--input"}[kind]
        raise LiveError(f"a virtual {kind} needs PipeWire; here, install {program} and name it by {side}")
    if pulse_running():
        route, other = {
            "microphone": ("PULSE_SINK=rtsep", "record from 'Monitor of Null Output'"),
            "speaker": ("PULSE_SOURCE=rtsep.monitor", "play on 'Null Output'"),
        }[kind]
        raise LiveError(
            f"a virtual {kind} needs PipeWire; here PulseAudio runs instead: `pactl load-module module-null-sink "
            f"sink_name=rtsep`, then `{route} rtsep live`, and let programs {other}"
        )
    if not running():
        raise LiveError(
            f"a virtual {kind} needs PipeWire, which does not run for this user; with JACK alone, connect the ports of "
            "rtsep to the other program; with ALSA alone, load snd-aloop and name its device"
        )
    if not shutil.which("pactl"):
        raise LiveError(f"a virtual {kind} needs pactl; install it: apt install pulseaudio-utils")


def _pactl(*command: str) -> str:
    """What it prints. A session of its own: Ctrl-C in the terminal is not for it."""
    try:
        return subprocess.run(
            ["pactl", *command], capture_output=True, text=True, timeout=PATIENCE_S, check=True, start_new_session=True
        ).stdout
    except subprocess.CalledProcessError as problem:
        raise LiveError(f"the sound server refused `pactl {command[0]}`: {problem.stderr.strip()}") from problem
    except (OSError, subprocess.SubprocessError) as problem:
        raise LiveError(f"the sound server does not answer pactl: {problem}") from problem
