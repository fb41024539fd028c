"""PipeWire, the sound server of most Linux desktops, as its own tool describes it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 10.0  # a busy machine takes more than two to describe the graph


@dataclass(frozen=True)
class Graph:
    """What runs the devices of this user.

    Parameters
    ----------
    sr : int
        Rate in Hz.
    quantum : int
        Samples of a cycle, where no program asks for fewer.
    sources, sinks : tuple of str
        The inputs and outputs, as programs of the desktop, and clients of JACK, see their names: the one that was
        chosen on the desktop, then the others as it would choose. A sink is a source too where its monitor was chosen.
    """

    sr: int
    quantum: int
    sources: tuple[str, ...]
    sinks: tuple[str, ...]

    @property
    def source(self) -> str:
        """The input that was chosen; empty without one."""
        return self.sources[0] if self.sources else ""

    @property
    def sink(self) -> str:
        """The output that was chosen; empty without one."""
        return self.sinks[0] if self.sinks else ""


def socket_path() -> Path | None:
    """Where PipeWire is reached by the programs of this user."""
    folder = os.environ.get("PIPEWIRE_RUNTIME_DIR") or os.environ.get("XDG_RUNTIME_DIR")
    return Path(folder) / os.environ.get("PIPEWIRE_REMOTE", "pipewire-0") if folder else None


def accepts(path: Path | None) -> bool:
    """Whether a server is behind a socket; one that crashed has left its socket."""
    if path is None:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PATIENCE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def running() -> bool:
    """Whether PipeWire runs for this user."""
    return accepts(socket_path())


def find_graph() -> Graph | None:
    """The graph of this user; None where PipeWire does not run, or does not answer."""
    objects = _dump()
    with suppress(KeyError):
        return _read(objects) if objects else None
    return None


def has_ports(node: str) -> bool:
    """Whether a node of this name can be connected already."""
    objects = _dump()
    ids = {one["id"] for one in objects if one["type"].endswith(":Node") and _props(one).get("node.name") == node}
    return any(one["type"].endswith(":Port") and _props(one).get("node.id") in ids for one in objects)


def _dump() -> list[dict[str, Any]]:
    """Everything on the graph; nothing where PipeWire does not run, or does not answer."""
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        if running():
            # A session of its own: Ctrl-C in the terminal is not for it.
            options: dict[str, Any] = {"stderr": subprocess.DEVNULL, "start_new_session": True}
            return merged(subprocess.check_output(["pw-dump"], timeout=PATIENCE_S, text=True, **options))
    return []


def merged(dump: str) -> list[dict[str, Any]]:
    """The objects that `pw-dump` has printed: an array, and one more for each change while it was at it.

    Raises `ValueError` if it is not that.
    """
    objects: dict[int, dict[str, Any]] = {}
    decoder, rest = json.JSONDecoder(), dump.strip()
    while rest:
        array, length = decoder.raw_decode(rest)
        for one in array:
            if one.get("info", one) is None:  # it is gone
                objects.pop(one["id"], None)
            else:
                if "metadata" in one:  # the entries that have changed
                    entries = [*objects.get(one["id"], {}).get("metadata", ()), *one["metadata"]]
                    last = {(entry["subject"], entry["key"]): entry for entry in entries}
                    one["metadata"] = [entry for entry in last.values() if entry["value"] is not None]
                objects[one["id"]] = one
        rest = rest[length:].lstrip()
    return list(objects.values())


def _props(one: dict[str, Any]) -> dict[str, Any]:
    return dict((one.get("info") or {}).get("props") or {})


def _read(objects: list[dict[str, Any]]) -> Graph:
    metadata = {one["props"]["metadata.name"]: one["metadata"] for one in objects if "metadata" in one}
    settings = {entry["key"]: entry["value"] for entry in metadata["settings"]}
    chosen = {entry["key"]: entry["value"]["name"] for entry in metadata.get("default", ()) if "audio" in entry["key"]}
    nodes = [_props(one) for one in objects if one["type"].endswith(":Node")]
    nodes.sort(key=lambda node: -int(node.get("priority.session", 0)))

    def names(side: str, classes: tuple[str, ...]) -> tuple[str, ...]:
        first = chosen.get(f"default.audio.{side}", "").removesuffix(".monitor")
        of_side = [node for node in nodes if node["node.name"] == first]
        of_side += [node for node in nodes if node.get("media.class") in classes]
        return tuple(dict.fromkeys(node.get("node.description") or node["node.name"] for node in of_side))

    return Graph(
        sr=settings["clock.force-rate"] or settings["clock.rate"],
        quantum=settings["clock.force-quantum"] or settings["clock.quantum"],
        sources=names("source", ("Audio/Source", "Audio/Source/Virtual")),
        sinks=names("sink", ("Audio/Sink",)),
    )
