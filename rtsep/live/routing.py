"""What a stream's ports are connected to on JACK's graph: kept as the user has it, whatever comes and goes.

PortAudio connects a stream to its devices. From then on the graph is the user's: what is connected and disconnected
there, by any program, is noted. A connection to a device that goes is kept in mind and made again when that is back;
after the server was gone all are, and none that the user had taken away. A program that is started anew while the
server runs connects itself, or is connected, as it likes.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

from rtsep.live.devices import DEVICES, JACK, Device
from rtsep.live.jack import client_name, server_identity
from rtsep.live.ports import IS_INPUT, IS_OUTPUT, IS_PHYSICAL, Ports

SIDES = (IS_INPUT, IS_OUTPUT)  # what the ports of a stream are, in the order of its devices
SETTLING_S = 1.0  # till all is seen that PortAudio has connected
GONE_S = 1.0  # what is away for longer is not just being made anew
AGAIN_S = 0.25  # after a connection was refused

Connected = tuple[int, int, str]  # side, number of the own port on that side, name of the other port


class Other(NamedTuple):
    """The other port of a connection."""

    identity: int | None  # None while it is to be connected again
    awaited: bool  # whether it will be, when it goes


class Routing:
    """The connections of one stream; it knows of none where its devices are not JACK's."""

    def __init__(self) -> None:
        self._ports: Ports | None = None
        self._server: tuple[int, int] | None = None
        self._others: set[str] = set()  # ports of this process that are not this stream's
        self._n_ports = (0, 0)
        self._own: list[list[str]] = []
        self._devices: list[str] = []
        self._new = [True, True]  # whether the stream had not this device before
        self._kept: dict[Connected, Other] = {}  # as the user has it
        self._missed: set[Connected] = set()  # at the last look, although both ports are there
        self._begun_s = self._again_s = 0.0
        self._gone_s: list[float | None] = [None, None]  # since when a device is gone

    def expect(self, devices: tuple[Device, Device]) -> None:
        """Before the ports are made; with the lock of the devices, as `begin` and `close`."""
        server, on_jack = server_identity(), all(device.host_api == JACK for device in devices)
        if not on_jack or server != self._server:  # clients are gone with their server
            self._ports = None
        if on_jack and not self._ports:
            with suppress(OSError):
                self._ports, self._server = Ports(), server
        self._others = {port for ports in self._all() for port in ports}

    def begin(self, devices: tuple[Device, Device], n_ports: tuple[int, int]) -> None:
        """After so many were made: let everything become as it was before, if there was a before."""
        before, self._devices = self._devices, [device.name for device in devices]
        self._new = [not before or before[side] != name for side, name in enumerate(self._devices)]
        # What led to a device that another one has taken the place of leads to that now.
        self._kept = {
            (side, k, other): Other(None, awaited=True)
            for side, k, other in self._kept
            if not (self._new[side] and _client(other) == before[side])
        }
        self._n_ports, self._own, self._missed = n_ports, [], set()
        self._begun_s, self._gone_s = time.monotonic(), [None, None]

    def close(self) -> None:
        """Go from the graph."""
        if self._ports:
            self._ports.close()
        self._ports = None

    def look(self) -> list[str]:
        """Note what the user has done, and connect what is back; what was, in lines.

        While nothing is to be done it costs some ten microseconds, of which the server knows nothing.
        """
        if not DEVICES.acquire(blocking=False):  # who opens devices goes first
            return []
        try:
            return self._look(self._ports) if self._ports else []
        finally:
            DEVICES.release()

    @property
    def gone(self) -> str:
        """The device to which nothing leads any more since it has gone from the graph; empty if there is none."""
        limit_s = time.monotonic() - GONE_S
        gone = (
            name for name, since_s in zip(self._devices, self._gone_s, strict=True) if (since_s or limit_s) < limit_s
        )
        return next(gone, "") if self._ports else ""

    def _look(self, ports: Ports) -> list[str]:
        if not self._own:
            own = [[port for port in of_side if port not in self._others] for of_side in self._all()]
            if tuple(map(len, own)) != self._n_ports:  # not yet seen
                return []
            self._own = own
        there = {
            (side, k, other)
            for side, names in enumerate(self._own)
            for k, name in enumerate(names)
            for other in ports.connected(name)
        }
        messages = self._restore(ports, there)
        settling = time.monotonic() - self._begun_s < SETTLING_S
        for side, k, other in there - self._kept.keys():
            if settling and not self._new[side] and _client(other) == self._devices[side]:
                ports.disconnect(*self._pair(side, k, other))  # PortAudio's, which the user had taken away
            else:
                self._kept[side, k, other] = self._seen(ports, other)
        self._miss_devices(ports)
        return messages

    def _seen(self, ports: Ports, other: str) -> Other:
        client = _client(other)
        return Other(ports.identity(other), client in self._devices or bool(ports.of(client, IS_PHYSICAL)))

    def _restore(self, ports: Ports, there: set[Connected]) -> list[str]:
        """Connect what is back, forget what the user has disconnected."""
        messages, missed, now = [], set(), time.monotonic()
        for link, before in list(self._kept.items()):
            identity = ports.identity(link[2])
            if link in there:
                if identity != before.identity:
                    self._kept[link] = self._seen(ports, link[2])
            elif identity is None and before.awaited:
                self._kept[link] = before._replace(identity=None)
            elif identity is None:
                del self._kept[link]
            elif identity != before.identity:
                if now < self._again_s:
                    continue
                source, target = self._pair(*link)
                if ports.connect(source, target):
                    self._kept[link] = self._seen(ports, link[2])
                    messages.append(f"connected again: {source} -> {target}")
                else:  # a program may have ports before it is ready
                    self._kept[link], self._again_s = before._replace(identity=None), now + AGAIN_S
            elif link in self._missed:
                del self._kept[link]
            else:  # perhaps one of its ports is just going, too
                missed.add(link)
        self._missed = missed
        return messages

    def _pair(self, side: int, k: int, other: str) -> tuple[str, str]:
        """Source and target."""
        own = self._own[side][k]
        return (own, other) if SIDES[side] == IS_OUTPUT else (other, own)

    def _miss_devices(self, ports: Ports) -> None:
        """Note since when a device is gone."""
        for side, device in enumerate(self._devices):
            ends = [end for (at, _, other), end in self._kept.items() if at == side and _client(other) == device]
            gone = ends and all(end.identity is None for end in ends) and not ports.of(device, SIDES[1 - side])
            self._gone_s[side] = (self._gone_s[side] or time.monotonic()) if gone else None

    def _all(self) -> list[list[str]]:
        """The ports of this process, by side."""
        if not self._ports:
            return [[] for _ in SIDES]
        client = client_name()
        return [self._ports.of(client, side) for side in SIDES]


def _client(port: str) -> str:
    return port.partition(":")[0]
