"""The ports on JACK's graph, and what connects them: by the library through which PortAudio is a client, too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from rtsep.live.guard import guarded

CLIENT = b"rtsep-routing"  # on the graph, without a port
NO_START_SERVER = 1  # JackNoStartServer of types.h
IS_INPUT, IS_OUTPUT, IS_PHYSICAL = 1, 2, 4  # JackPortIsInput and so on


@cache
def _library() -> ctypes.CDLL:
    """JACK's, or PipeWire's: the one that is loaded. Raises `OSError` without one."""
    library = ctypes.CDLL("libjack.so.0")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, *arguments in (
        ("client_open", pointer, text, ctypes.c_int, pointer),
        ("client_close", ctypes.c_int, pointer),
        ("get_ports", pointer, pointer, text, text, ctypes.c_ulong),
        ("port_by_name", pointer, pointer, text),
        ("port_uuid", ctypes.c_uint64, pointer),
        ("port_get_all_connections", pointer, pointer, pointer),
        ("connect", ctypes.c_int, pointer, text, text),
        ("disconnect", ctypes.c_int, pointer, text, text),
        ("free", None, pointer),
    ):
        function = getattr(library, f"jack_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Ports:
    """A client that looks at the ports of others.

    To look costs some ten microseconds, of which the server knows nothing; whoever connects waits for it, 5 s at most.
    With the lock of the devices only: JACK's library maps the server's memory anew for each client.

    Raises
    ------
    OSError
        Without JACK's library, or where the server takes no client.
    """

    def __init__(self) -> None:
        self._client = _library().jack_client_open(CLIENT, NO_START_SERVER, None)
        if not self._client:
            raise OSError("the JACK server takes no client")

    def of(self, client: str, flag: int) -> list[str]:
        """Full names of the ports of a client that have a flag, in the order of their numbers."""
        found = _names(lambda: _library().jack_get_ports(self._client, None, None, flag))
        own = [name for name in found if name.partition(":")[0] == client]
        return sorted(own, key=lambda name: (len(name), name))

    def identity(self, port: str) -> int | None:
        """Something that another port of that name may not have; None where there is no such port."""
        found = _library().jack_port_by_name(self._client, port.encode())
        return int(_library().jack_port_uuid(found)) if found else None

    def connected(self, port: str) -> list[str]:
        """Full names of the ports that a port is connected to."""
        found = _library().jack_port_by_name(self._client, port.encode())
        return list(_names(lambda: _library().jack_port_get_all_connections(self._client, found))) if found else []

    def connect(self, source: str, target: str) -> bool:
        """Whether they are connected now."""
        return self._ask("connect", source.encode(), target.encode())

    def disconnect(self, source: str, target: str) -> bool:
        """Whether they were."""
        return self._ask("disconnect", source.encode(), target.encode())

    def close(self) -> None:
        """Go from the graph."""
        self._ask("client_close")

    def _ask(self, name: str, *arguments: bytes) -> bool:
        """Something that the server has to do; False too where it does not answer."""
        status: list[int] = []
        function = getattr(_library(), f"jack_{name}")
        return guarded(lambda: status.append(function(self._client, *arguments))) and status == [0]


def _names(ask: Callable[[], Any]) -> Iterator[str]:
    """The texts of an array that JACK gives away."""
    array = ask()
    if array:
        texts, k = ctypes.cast(array, ctypes.POINTER(ctypes.c_char_p)), 0
        while (text := texts[k]) is not None:
            yield text.decode(errors="replace")
            k += 1
        _library().jack_free(array)
