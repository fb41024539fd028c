"""Sound devices by name or number, and errors that name the device and the way out."""

from __future__ import annotations

import atexit
import ctypes
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtsep.errors import LiveError
from rtsep.live.guard import guarded
from rtsep.live.jack import name_client, prepare_jack, server_answers, server_expected
from rtsep.live.pipewire import find_graph
from rtsep.live.pulse import prepare_pulse

RATES = (8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)

# PaErrorCode of portaudio.h -> the way out.
_WAYS_OUT = {
    -9999: "the system refused it: check that no other program holds the device and that you may use it",
    -9998: "it does not have that many channels",
    -9997: "it does not run at {sr} Hz; make the separator for a rate that `rtsep devices` lists for it",
    -9996: "it is gone, or input and output belong to different host APIs; see `rtsep devices`",
    -9993: "input and output belong to different host APIs; choose both from one, see `rtsep devices`",
    -9985: "another program holds it, or you may not use it",
}


# Who searches for devices, opens or closes them: PortAudio allows one thread at a time, and so does JACK's library
# for its clients: it maps the server's memory anew for each, under whoever is reading it.
DEVICES = threading.RLock()
JACK, ALSA = "JACK Audio Connection Kit", "ALSA"  # host APIs
PATIENCE_S = 5.0  # of who only asks: a JACK server that stands still keeps PortAudio waiting
BEGINNING_S = (0.1, 0.2, 0.4)  # pauses for a JACK server that has only begun to run

_UNUSABLE: list[Any] = []  # the library that could not be replaced yet
_ABANDONED: list[Any] = []  # copies of the library that must not be unloaded


@dataclass(frozen=True)
class Device:
    """A sound device as PortAudio reports it.

    Parameters
    ----------
    index : int
        Its number, until devices come or go.
    name, host_api : str
    n_inputs, n_outputs : int
        Channels.
    sr : int
        Default sample rate in Hz: that of the sound server, if there is one.
    input_latency_s, output_latency_s : float
        Lowest latencies that it reports for interactive use.
    default_input, default_output : bool
        Whether it is used where none is named: what was told to sounddevice; else one of JACK, which has the least
        delay and none of the interruptions of the others, with PipeWire the one chosen on the desktop; else the one
        that PortAudio takes.
    """

    index: int
    name: str
    host_api: str
    n_inputs: int
    n_outputs: int
    sr: int
    input_latency_s: float
    output_latency_s: float
    default_input: bool
    default_output: bool


def portaudio() -> Any:
    """The module sounddevice, with PortAudio loaded and initialised.

    Raises
    ------
    LiveError
        Where PortAudio is missing.
    """
    try:
        return _load()
    except OSError as problem:
        raise LiveError(f"PortAudio was not found ({problem}); {_installation()}") from problem


@cache
def _load() -> Any:
    prepare_jack()
    prepare_pulse()
    import sounddevice

    atexit.unregister(sounddevice._exit_handler)
    atexit.register(_end)
    _look_again(sounddevice)
    return sounddevice


def _end() -> None:
    """When the interpreter ends, end PortAudio, but not where that would abort the process."""
    if not _UNUSABLE and not _server_gone():
        portaudio()._exit_handler()


def end_portaudio() -> None:
    """End PortAudio, as the last thing of a process, which must neither be aborted nor wait for ever."""
    if sys.platform == "linux" and _load.cache_info().currsize:
        atexit.unregister(_end)
        guarded(_end)


def _server_gone() -> bool:
    """Whether PortAudio has a client of JACK whose server is gone."""
    sounddevice = portaudio()
    with suppress(sounddevice.PortAudioError):  # not initialised
        return any(api["name"] == JACK for api in sounddevice.query_hostapis()) and not server_answers()
    return False


def _installation() -> str:
    if platform.system() != "Linux":
        return "reinstall the Python package sounddevice, which contains it"
    for tool, command in (
        ("apt-get", "apt install libportaudio2"),
        ("dnf", "dnf install portaudio"),
        ("pacman", "pacman -S portaudio"),
        ("zypper", "zypper install libportaudio2"),
        ("apk", "apk add portaudio"),
    ):
        if shutil.which(tool):
            return f"install it: {command}"
    return "install PortAudio with your system's package manager"


def rescan() -> None:
    """Let PortAudio look for devices and servers again. Streams that are open become invalid."""
    sounddevice = portaudio()
    with DEVICES:
        if _UNUSABLE or _server_gone():
            abandon()
        _initialise(sounddevice)
        _look_again(sounddevice)


def _initialise(sounddevice: Any) -> None:
    """Let PortAudio begin anew."""
    while sounddevice._initialized:
        sounddevice._terminate()
    sounddevice._initialize()


def _look_again(sounddevice: Any) -> None:
    """A server of JACK that has only begun may not take PortAudio's client in time, or have no ports yet."""
    for pause_s in BEGINNING_S:
        if not server_expected() or any(api["name"] == JACK and api["devices"] for api in sounddevice.query_hostapis()):
            return
        time.sleep(pause_s)
        _initialise(sounddevice)


def abandon() -> None:
    """Leave PortAudio as it is and go on with a second, fresh copy of its library.

    PortAudio's JACK part can neither close a stream nor terminate when the server is gone: the one waits
    for ever, the other aborts the process (an assertion in `Terminate` of pa_jack.c, PortAudio 19.6 and 19.7).
    """
    sounddevice = portaudio()
    _UNUSABLE[:] = [sounddevice._lib]
    path = _library_path(sounddevice)
    try:
        with tempfile.TemporaryDirectory(prefix="rtsep", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / path.name
            shutil.copy(path, copy)
            fresh = sounddevice._ffi.dlopen(str(copy))
            name_client(ctypes.CDLL(str(copy)))
    except OSError as problem:
        raise LiveError(f"the JACK server is gone, and PortAudio cannot be loaded again ({problem})") from problem
    _UNUSABLE.clear()
    _ABANDONED.append(sounddevice._lib)
    sounddevice._lib, sounddevice._initialized = fresh, 0


def _library_path(sounddevice: Any) -> Path:
    """Where the PortAudio that is loaded was loaded from the first time."""
    name = Path(sounddevice._libname)
    if not name.is_absolute():
        # Linux: only the name is known, for which the loader searched.
        with suppress(OSError):
            for line in Path("/proc/self/maps").read_text().splitlines():
                path = Path(line.split()[-1])
                if path.is_absolute() and "libportaudio" in path.name and path.exists():
                    return path
    return name


@contextmanager
def _asking() -> Iterator[None]:
    """The lock, or an error where a stream has been searching for its device for long."""
    if not DEVICES.acquire(timeout=PATIENCE_S):
        raise LiveError("a stream's search for its device does not end; restart the sound server")
    try:
        yield
    finally:
        DEVICES.release()


def list_devices() -> list[Device]:
    """All sound devices.

    Raises
    ------
    LiveError
        Where PortAudio is missing, or a stream's search for its device lasts longer than 5 s.
    """
    sounddevice = portaudio()
    with _asking():
        if not sounddevice._initialized:  # after `abandon`
            sounddevice._initialize()
        apis, found = sounddevice.query_hostapis(), sounddevice.query_devices()
        chosen, usual = sounddevice.default.device._pair, apis[sounddevice.default.hostapi]
    graph = find_graph()
    names = [apis[one["hostapi"]]["name"] for one in found]
    jack = {one["name"]: index for index, one in enumerate(found) if names[index] == JACK}
    ranked = sorted((usual, *apis), key=lambda api: api["name"] != JACK)

    def default(side: int, desktop: str) -> Any:
        if isinstance(chosen[side], int):
            return chosen[side]
        own = (api[("default_input_device", "default_output_device")[side]] for api in ranked)
        return jack.get(desktop, next((index for index in own if index >= 0), -1))

    default_input = default(0, graph.source if graph else "")
    default_output = default(1, graph.sink if graph else "")
    return [
        Device(
            index=index,
            name=one["name"],
            host_api=names[index],
            n_inputs=one["max_input_channels"],
            n_outputs=one["max_output_channels"],
            # A plug-in of ALSA takes any rate, and PortAudio the lowest usual one of those.
            sr=graph.sr
            if graph and names[index] == ALSA and "(hw:" not in one["name"]
            else round(one["default_samplerate"]),
            input_latency_s=one["default_low_input_latency"],
            output_latency_s=one["default_low_output_latency"],
            default_input=index == default_input,
            default_output=index == default_output,
        )
        for index, one in enumerate(found)
    ]


def find_device(which: int | str | None, kind: str) -> Device:
    """The device with this number or (part of a) name.

    Parameters
    ----------
    which : int, str or None
        Number; or the first word of a host API, such as "jack", for its first device or the default; or name, or a
        part of it in any case that fits one device only, as "name, host API" too; or None for the default.
    kind : {"input", "output"}

    Raises
    ------
    LiveError
        Where there is none, or more than one.
    """
    usable = [d for d in list_devices() if (d.n_inputs if kind == "input" else d.n_outputs) > 0]
    preferred = [d for d in usable if (d.default_input if kind == "input" else d.default_output)]
    known = ", ".join(f"{d.index} {d.name}" for d in usable) or "none"
    if not usable:
        raise LiveError(f"there is no {kind} device; connect one, or start the sound server (see `rtsep doctor`)")
    if which is None:
        chosen = preferred or usable[:1]
    elif isinstance(which, int) or which.isdecimal():
        chosen = [d for d in usable if d.index == int(which)]
    else:
        wanted = which.lower()
        of_api = [d for d in usable if d.host_api.lower().split()[0] == wanted]
        labels = {d.index: (d.name.lower(), f"{d.name}, {d.host_api}".lower()) for d in usable}
        chosen = [d for d in of_api if d in preferred] or of_api[:1]
        chosen = chosen or [d for d in usable if wanted in labels[d.index]]
        chosen = chosen or [d for d in usable if any(wanted in label for label in labels[d.index])]
    if not chosen:
        raise LiveError(f"{kind} device {which!r} was not found; there are: {known}")
    if len(chosen) > 1:
        same = ", ".join(f"{d.index} {d.name}, {d.host_api}" for d in chosen)
        raise LiveError(f"{kind} device {which!r} fits several: {same}; use the number")
    return chosen[0]


def supports(device: Device, kind: str, n_channels: int, sr: int) -> bool:
    """Whether the device accepts a sample rate in Hz as "input" or "output" with so many channels."""
    sounddevice = portaudio()
    check = sounddevice.check_input_settings if kind == "input" else sounddevice.check_output_settings
    try:
        with _asking():
            check(device=device.index, channels=n_channels, dtype="float32", samplerate=sr)
    except (sounddevice.PortAudioError, ValueError):
        return False
    return True


def supported_rates(device: Device, kind: str, n_channels: int = 1) -> list[int]:
    """Those of the usual sample rates, in Hz, that the device accepts. Takes a moment: each is tried."""
    with _asking():
        return [sr for sr in RATES if supports(device, kind, n_channels, sr)]


@contextmanager
def explained(what: str, sr: int) -> Iterator[None]:
    """Turn PortAudio's errors into a `LiveError` about `what`, a device or two."""
    sounddevice = portaudio()
    try:
        yield
    except sounddevice.PortAudioError as problem:
        code = problem.args[1] if len(problem.args) > 1 else 0
        text = str(problem.args[0]).split("[")[0].strip()
        way_out = _WAYS_OUT.get(code, "see `rtsep devices` and `rtsep doctor`").format(sr=sr)
        raise LiveError(f"{what}: {way_out} ({text})") from problem
