"""PulseAudio itself, where neither PipeWire nor JACK runs: reached through its plug-in of ALSA."""

from __future__ import annotations

import os
from pathlib import Path

from rtsep.live.pipewire import accepts
from rtsep.live.pipewire import running as pipewire_running

LATENCY_MS = "60"


def pulse_running() -> bool:
    """Whether PulseAudio runs for this user, and not PipeWire in its place."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return bool(folder) and accepts(Path(folder) / "pulse/native") and not pipewire_running()


def prepare_pulse() -> None:
    """Before PortAudio is loaded, ask for buffers that the server can keep.

    The plug-in asks for those of PortAudio, 9 ms, and leaves the devices of the server as they are, whose own may be of
    two seconds: the stream underruns all the time, and ends. Who has set it is obeyed.
    """
    if "PULSE_LATENCY_MSEC" not in os.environ and pulse_running():
        os.environ["PULSE_LATENCY_MSEC"] = LATENCY_MS
