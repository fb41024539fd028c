"""The library that PortAudio finds behind the name of JACK's: that of JACK's own server, or PipeWire's."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtsep.live.pipewire import accepts, running, socket_path

CLIENT = b"rtsep"  # on the graph; PortAudio keeps the address

PIPEWIRES = "/pipewire-0.3/jack/"  # in the path of its library

_LOADED: list[Any] = []
_NAMED: list[ctypes.CDLL] = []  # the library of PortAudio, and its copies


def prepare_jack() -> None:
    """Before PortAudio is loaded, choose the library, and the name under which programs see its client.

    PipeWire answers clients of JACK through a library of its own, to which `pw-jack` leads. Whoever loads it first does
    without that: the loader takes what is there under the same name. Not where a server of JACK's own runs or is named,
    and not in a process that has loaded one of the two.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):
        path = pipewire_library()
        if path and running() and not jack_named_or_running() and "libjack" not in Path("/proc/self/maps").read_text():
            _LOADED.append(ctypes.CDLL(path))
        name_client(ctypes.CDLL("libportaudio.so.2"))


def name_client(portaudio: ctypes.CDLL) -> None:
    """Call the client of a library of PortAudio "rtsep", from its next initialisation on."""
    with suppress(AttributeError):  # built without JACK
        portaudio.PaJack_SetClientName(CLIENT)
        _NAMED[:] = [portaudio]


def client_name() -> str:
    """What the server calls the client of the library that was named last; empty without one."""
    name = ctypes.c_char_p()
    for portaudio in _NAMED:
        if portaudio.PaJack_GetClientName(ctypes.byref(name)) == 0 and name.value:
            return name.value.decode(errors="replace")
    return ""


def pipewire_library() -> str | None:
    """The library for clients of JACK that comes with PipeWire, from the text of `pw-jack`; as the loader reads it."""
    script = shutil.which("pw-jack")
    found = re.search(r"LD_LIBRARY_PATH='([^':]+)'", Path(script).read_text(errors="replace")) if script else None
    return f"{found[1]}/libjack.so.0" if found else None


def server_answers() -> bool:
    """Whether the server of the library that is loaded takes clients; True where that cannot be told."""
    return not sys.platform.startswith("linux") or accepts(_server())


def server_expected() -> bool:
    """Whether PortAudio, which knows JACK, should find a server of it."""
    return bool(_NAMED) and sys.platform.startswith("linux") and accepts(_server())


def server_identity() -> tuple[int, int] | None:
    """Something else for every server, also for one that came after another; None where that cannot be told."""
    path = _server()
    with suppress(OSError):
        if path:
            found = path.stat()
            return found.st_ino, found.st_ctime_ns
    return None


def _server() -> Path | None:
    """The socket of the server of the library that is loaded."""
    with suppress(OSError):
        if PIPEWIRES in Path("/proc/self/maps").read_text():
            return socket_path()
        return Path(f"/dev/shm/jack_{os.environ.get('JACK_DEFAULT_SERVER', 'default')}_{os.getuid()}_0")
    return None


def jack_named_or_running() -> bool:
    """Whether a server of JACK's own is named in the environment, or runs as the default one of this user."""
    if "JACK_DEFAULT_SERVER" in os.environ:
        return True
    # What a server that crashed has left is no server.
    return Path(f"/dev/shm/jack_default_{os.getuid()}_0").exists() and bool({"jackd", "jackdbus"} & _running())


def _running() -> set[str]:
    """Names of the processes that this one can see."""
    names = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            names.add(path.read_text().strip())
    return names
