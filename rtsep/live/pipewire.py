"""PipeWire, the sound server of most Linux desktops, as its own tool describes it."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 2.0


@dataclass(frozen=True)
class Graph:
    """What runs the devices of this user.

    Parameters
    ----------
    sr : int
        Rate in Hz.
    quantum : int
        Samples of a cycle, where no program asks for fewer.
    source, sink : str
        The input and output that were chosen on the desktop, as its programs, and clients of JACK, see their names;
        empty without one.
    """

    sr: int
    quantum: int
    source: str
    sink: str


def find_graph() -> Graph | None:
    """The graph of this user; None where PipeWire does not run, or does not answer."""
    folder = os.environ.get("PIPEWIRE_RUNTIME_DIR") or os.environ.get("XDG_RUNTIME_DIR")
    if not folder or not (Path(folder) / os.environ.get("PIPEWIRE_REMOTE", "pipewire-0")).exists():
        return None
    with suppress(OSError, subprocess.SubprocessError, ValueError, KeyError):
        return _read(json.loads(subprocess.check_output(["pw-dump"], stderr=subprocess.DEVNULL, timeout=PATIENCE_S)))
    return None


def _read(objects: list[dict[str, Any]]) -> Graph:
    metadata = {one["props"]["metadata.name"]: one["metadata"] for one in objects if "metadata" in one}
    settings = {entry["key"]: entry["value"] for entry in metadata["settings"]}
    chosen = {entry["key"]: entry["value"]["name"] for entry in metadata.get("default", ()) if "audio" in entry["key"]}
    nodes = [one["info"]["props"] for one in objects if one["type"].endswith(":Node")]
    names = {node["node.name"]: node.get("node.description") or node["node.name"] for node in nodes}

    def name(side: str) -> str:
        return names.get(chosen.get(f"default.audio.{side}", "").removesuffix(".monitor"), "")

    return Graph(
        sr=settings["clock.force-rate"] or settings["clock.rate"],
        quantum=settings["clock.force-quantum"] or settings["clock.quantum"],
        source=name("source"),
        sink=name("sink"),
    )
