"""What a machine has and lacks for live sound: every check gives one line, or none where it has nothing to say."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.registry import cpu_target

import rtsep
from rtsep.engine.hop import process_block
from rtsep.errors import LiveError
from rtsep.kernels.cache import folders, writable
from rtsep.live.budget import Fitted
from rtsep.live.connection import one_clock
from rtsep.live.cpu import X86
from rtsep.live.devices import JACK, Device, explained, find_device, list_devices, portaudio, supports
from rtsep.live.endurance import MARGIN, Endurance, measure, take_priority
from rtsep.live.pipewire import find_graph
from rtsep.live.processor import PHASE_SHARE
from rtsep.separator import Separator

ROOT = Path("/")  # of the files in which Linux describes itself
UNCHECKED = "not checked on this system"
LOCKABLE_MIB = 64  # what JACK and its clients like to keep from being swapped out, at least
SHORT = 256  # samples that PipeWire can be asked for on any machine
LIMITS = "etc/security/limits.d/audio.conf"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    section, name : str
        What was checked.
    status : {"ok", "note", "problem", "unknown"}
    text : str
        What was found, in one line.
    advice : tuple of str
        What to do; lines that begin with spaces are to be copied.
    values : dict
        The same as numbers and names.
    """

    section: str
    name: str
    status: str
    text: str
    advice: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


def _read(path: str) -> str:
    """The text of a file of the system, or nothing."""
    with suppress(OSError):
        return (ROOT / path).read_text(errors="replace").strip()
    return ""


def _entries(folder: str) -> list[str]:
    """Names in a folder of the system, if there are any."""
    with suppress(OSError):
        return sorted(os.listdir(ROOT / folder))
    return []


def check_machine() -> Iterator[Finding]:
    """Everything but the sound and the engine."""
    yield _versions()
    yield _cache()
    yield _processor()
    yield _governor()
    yield (priority := _priority())
    yield _memory_lock(told=bool(priority.advice))
    yield _kernel()
    yield from _swap()


def _versions() -> Finding:
    versions = {
        "rtsep": rtsep.__version__,
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
    }
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Finding("software", "versions", "ok", text, values=versions)


def _cache() -> Finding:
    places = folders(rtsep.__file__)
    if not places:  # a folder above the package is closed to this user
        text = f"{rtsep.__file__} cannot be read by this user: nothing is kept"
        return Finding("software", "kernel cache", "problem", text, ("install rtsep where you may read it",))
    first, *own = places
    warm = "`rtsep warm` as a user who may write there compiles what is missing, for all users"
    values: dict[str, Any] = {"path": str(first), "writable": not own}
    if not own:
        return Finding("software", "kernel cache", "ok", f"{first}, can be written", values=values)
    if writable(own[0]):
        text = f"{first}, cannot be written: what it lacks is kept in {own[0]}"
        return Finding("software", "kernel cache", "note", text, (warm,), values)
    text = f"{first}, cannot be written: what it lacks is compiled at every start, for ten seconds or so"
    advice = f"{warm}; or set NUMBA_CACHE_DIR to a folder that you may write to"
    return Finding("software", "kernel cache", "problem", text, (advice,), values)


def _processor() -> Finding:
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    known = {"+avx512f": "AVX-512", "+avx2": "AVX2", "+avx": "AVX", "+sse4.2": "SSE4", "+neon": "NEON"}
    widest = next((name for feature, name in known.items() if feature in features), "no SIMD")
    fma = "+fma" in features or not X86
    n_cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n_cores
    cores = f"{n_cores} core{'s' * (n_cores > 1)}" + (f", {usable} of them for this process" * (usable < n_cores))
    text = f"{_processor_name()}, {cores}, {widest} {'with' if fma else 'without'} FMA"
    values = {"name": _processor_name(), "cores": n_cores, "usable_cores": usable, "simd": widest, "fma": fma}
    if fma:
        return Finding("machine", "processor", "ok", text, values=values)
    advice = "multiply-add is emulated, which is slow; unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES if you have set them"
    return Finding("machine", "processor", "problem", text, (advice,), values)


def _processor_name() -> str:
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _read("proc/cpuinfo"), re.MULTILINE)
    if found:
        return found[1]
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.check_output(command, text=True, timeout=5).strip()
    return platform.processor() or platform.machine()


def _governor() -> Finding:
    policies = sorted((ROOT / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_governor"))
    governors = sorted({_read(str(path.relative_to(ROOT))) for path in policies} - {""})
    if not governors:
        text = "the system does not show it (a virtual machine?)" if sys.platform == "linux" else UNCHECKED
        return Finding("machine", "clock", "unknown", text)
    text = f"governor {', '.join(governors)}"
    if governors == ["performance"]:
        return Finding("machine", "clock", "ok", text, values={"governors": governors})
    advice = "the clock falls between hops, which then take longer; while you play:"
    command = "    sudo cpupower frequency-set -g performance"
    return Finding("machine", "clock", "note", text, (advice, command), {"governors": governors})


def _priority() -> Finding:
    if sys.platform != "linux":
        if sys.platform == "darwin":
            return Finding("machine", "priority", "ok", "Core Audio gives real-time priority to its audio threads")
        return Finding("machine", "priority", "unknown", UNCHECKED)
    granted, rtkit = _gets_priority(), "rtkit-daemon" in _running()
    values = {"realtime": granted, "limit": _limit("RLIMIT_RTPRIO"), "rtkit": rtkit}
    if granted:
        text = "real-time priority is allowed; JACK gives it to the audio thread, PortAudio on ALSA does not ask for it"
        return Finding("machine", "priority", "ok", text, values=values)
    text = "real-time priority is not allowed" + ("; PipeWire gets it from rtkit" * rtkit)
    return Finding("machine", "priority", "note", text, _join_group(), values)


def _gets_priority() -> bool:
    """Whether a thread may have real-time priority; one that ends at once tries."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(take_priority).result()


def _limit(name: str) -> int | None:
    """A soft limit of this process; None for none, or where there is no such thing."""
    try:
        import resource

        soft = resource.getrlimit(getattr(resource, name))[0]
    except (ImportError, AttributeError, OSError, ValueError):
        return None
    return None if soft == resource.RLIM_INFINITY else soft


def _join_group() -> tuple[str, ...]:
    """How to be allowed real-time priority and locked memory."""
    import grp
    import pwd

    files = [f"limits.d/{name}" for name in _entries("etc/security/limits.d") if name.endswith(".conf")]
    lines = "\n".join(_read(f"etc/security/{file}") for file in ("limits.conf", *files))
    ready = re.findall(r"(?m)^@(\S+)\s+\S+\s+rtprio\s", lines)
    known = {group.gr_name: group for group in grp.getgrall()}
    group = ready[0] if ready else "realtime" if "realtime" in known else "audio"
    advice: list[str] = []
    if not ready:
        advice = [f"write to /{LIMITS}:", f"    @{group} - rtprio 95", f"    @{group} - memlock unlimited"]
    user = "$USER"
    with suppress(KeyError):
        user = pwd.getpwuid(os.getuid()).pw_name
    if group not in known or (user not in known[group].gr_mem and known[group].gr_gid not in os.getgroups()):
        advice += ["join the group:", f"    sudo usermod -aG {group} {user}"]
    return (*advice, "log out and in again")


def _memory_lock(told: bool) -> Finding:
    """`told`: the advice has been given already."""
    if sys.platform != "linux":
        return Finding("machine", "memory lock", "unknown", UNCHECKED)
    most = _limit("RLIMIT_MEMLOCK")
    mib = None if most is None else most / 2**20
    text = "no limit" if mib is None else f"{mib:.0f} MiB may be kept from being swapped out"
    enough = mib is None or mib >= LOCKABLE_MIB or os.geteuid() == 0
    advice = (
        () if enough else ("JACK likes more: as for the priority",) if told else ("JACK likes more:", *_join_group())
    )
    return Finding("machine", "memory lock", "ok" if enough else "note", text, advice, {"limit_mib": mib})


def _kernel() -> Finding:
    if sys.platform != "linux":
        return Finding("machine", "kernel", "unknown", f"{platform.system()} {platform.release()}, {UNCHECKED}")
    found = re.search(r"PREEMPT\w*", platform.version())
    preemption = found[0] if found else None
    threaded = preemption == "PREEMPT_RT" or "threadirqs" in _read("proc/cmdline").split()
    text = f"Linux {platform.release()}, {preemption or 'not preemptible'}" + ", threaded interrupts" * threaded
    values = {"release": platform.release(), "preemption": preemption, "threaded_interrupts": threaded}
    if preemption:
        return Finding("machine", "kernel", "ok", text, values=values)
    advice = "it is made for servers: it lets other work finish before the audio; use a desktop or low-latency kernel"
    return Finding("machine", "kernel", "note", text, (advice,), values)


def _swap() -> Iterator[Finding]:
    """Only where it hurts."""
    kib = {name: int(value) for name, value in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", _read("proc/meminfo"))}
    used = kib.get("SwapTotal", 0) - kib.get("SwapFree", 0)
    if used and kib.get("MemAvailable", 0) < 0.1 * kib.get("MemTotal", 0):
        text = f"{used / 2**10:.0f} MiB in use, and little memory is left"
        advice = "close other programs: what was swapped out takes milliseconds to come back"
        yield Finding("machine", "swap", "note", text, (advice,), {"used_mib": used / 2**10})


def _running() -> set[str]:
    """Names of the processes that this one can see; Linux only."""
    return {_read(f"proc/{entry}/comm") for entry in _entries("proc") if entry.isdecimal()}


def check_sound(rate: int | None) -> Iterator[Finding]:
    """PortAudio, servers, default devices, and what a stream at `rate` in Hz needs; None for that of the input."""
    try:
        sounddevice = portaudio()
    except LiveError as problem:
        yield Finding("sound", "PortAudio", "problem", *_way_out(problem))
        yield _servers(None)
        return
    version = sounddevice.get_portaudio_version()[1].split(",")[0].removeprefix("PortAudio ")
    values = {"version": version, "library": sounddevice._libname}
    yield Finding("sound", "PortAudio", "ok", f"{version}, sounddevice {sounddevice.__version__}", values=values)
    devices = list_devices()
    yield _host_apis(devices)
    yield _servers(devices)
    (found_input, input), (found_output, output) = _device("input"), _device("output")
    yield from (found_input, found_output)
    if input and output:
        yield from _bridge(input, output, rate or input.sr)


def _way_out(problem: LiveError) -> tuple[str, tuple[str, ...]]:
    """Text and advice from the message of an error."""
    what, _, advice = str(problem).replace(" (see `rtsep doctor`)", "").partition("; ")
    return what, (advice,) if advice else ()


def _host_apis(devices: list[Device]) -> Finding:
    counts = Counter(device.host_api for device in devices)
    found = {api["name"]: counts[api["name"]] for api in portaudio().query_hostapis()}
    text = ", ".join(f"{name}: {n or 'no'} device{'s' * (n != 1)}" for name, n in found.items())
    return Finding("sound", "host APIs", "ok", text or "none", values={"devices": found})


def _servers(devices: list[Device] | None) -> Finding:
    if sys.platform != "linux":
        return Finding("sound", "servers", "unknown", UNCHECKED)
    processes = _running()
    programs = {"JACK": {"jackd", "jackdbus"}, "PipeWire": {"pipewire"}, "PulseAudio": {"pulseaudio"}}
    servers = [name for name, names in programs.items() if names & processes]
    text = ", ".join(servers) or "none seen; ALSA devices are used directly, by one program at a time"
    status, advice = "ok", ""
    if devices is not None and not any(device.host_api == JACK for device in devices):
        if "JACK" in servers:
            status, advice = "note", "it is not reached: it must run for this user and be named JACK_DEFAULT_SERVER"
        elif "PipeWire" in servers:
            status, advice = "note", "install its library for clients of JACK, pipewire-jack: less delay than by ALSA"
        elif "PulseAudio" in servers:
            status = "note"
            advice = (
                "it adds about 100 ms, and wants `rtsep live --block 1024`; `pasuspender -- rtsep live` goes past it"
            )
    return Finding("sound", "servers", status, text, (advice,) if advice else (), {"running": servers})


def _device(kind: str) -> tuple[Finding, Device | None]:
    """The default device, if there is one that can be used."""
    try:
        device = find_device(None, kind)
        check = getattr(portaudio(), f"check_{kind}_settings")
        with explained(repr(device.name), device.sr):
            check(device=device.index, channels=1, dtype="float32", samplerate=device.sr)
    except LiveError as problem:
        return Finding("sound", kind, "problem", *_way_out(problem)), None
    n_channels = device.n_inputs if kind == "input" else device.n_outputs
    text = f"{device.name} ({device.host_api}), {n_channels} channel{'s' * (n_channels > 1)}, {device.sr} Hz"
    values = {"name": device.name, "host_api": device.host_api, "channels": n_channels, "sr": device.sr}
    return Finding("sound", kind, "ok", text, values=values), device


def _bridge(input: Device, output: Device, sr: int) -> Iterator[Finding]:
    """Only if the stream would need one."""
    slow = [repr(d.name) for d, kind in ((input, "input"), (output, "output")) if not supports(d, kind, 1, sr)]
    if slow:
        text = f"at {sr} Hz {' and '.join(dict.fromkeys(slow))} must be resampled"
        advice = "try another --rate"
    elif not one_clock(input, output):
        text, advice = "two devices have two clocks, which resampling must keep together", "take one device for both"
    else:
        return
    yield Finding("sound", "bridge", "note", text, (f"this adds delay: {advice}, see `rtsep devices`",), {"sr": sr})


def check_engine(make: Callable[[], Fitted], host_api: str, seconds: float) -> Iterator[Finding]:
    """The hop of a separator, measured for so many seconds as a device of this host API would run it.

    `make()` gives the separator, which is measured together with the trial of the devices.
    """
    start = time.perf_counter()
    separator, why, block = make()
    took, cached = time.perf_counter() - start, bool(process_block.stats.cache_hits)
    config, estimator, phase = separator.config, separator.estimator, separator.phase
    sr, window, hop, hop_ms = config.sr, config.synthesis, config.hop, 1000 * config.hop_s
    text = f"{estimator.name} + {phase.name} at {sr} Hz, window {window}, hop {hop} samples"
    values = {"estimator": estimator.name, "phase": phase.name, "sr": sr, "window": window, "hop": hop}
    yield Finding("engine", "settings", "ok", text + f"; {why}" * bool(why), values=values)
    text = f"ready after {took:.1f} s, {'from the cache' if cached else 'compiled'}"
    yield Finding("engine", "kernels", "ok", text, values={"seconds": took, "cached": cached})

    realtime = host_api == JACK and _gets_priority()
    found = measure(separator, seconds, realtime)
    share, n_hops = found.shares(config.hop_s), found.took_s.size
    text = ", ".join(f"{name.replace('p999', 'p99.9')} {100 * value:.1f} %" for name, value in share.items())
    text += f" of the {hop_ms:.3g} ms of a hop; {n_hops} hops with {'real-time' if realtime else 'ordinary'} priority"
    status, advice = "ok", ""
    if share["median"] > PHASE_SHARE:
        status, advice = "problem", "too slow: try fewer --iterations, a longer --hop-ms or a lower --rate"
    elif share["max"] > 1:
        status, advice = "note", "quick enough but interrupted: see priority and clock above, close other programs"
    values = {"share": share, "hops": n_hops, "realtime": realtime}
    yield Finding("engine", "load", status, text, (advice,) if advice else (), values)
    yield _block(found, separator, block, host_api)


def _pipewire_is_jack() -> bool:
    """Whether the JACK server that is reached is PipeWire."""
    graph = find_graph()
    names = {graph.source, graph.sink} if graph else set()
    return any(device.host_api == JACK and device.name in names for device in list_devices())


def _block(found: Endurance, separator: Separator, block: int, host_api: str) -> Finding:
    """What the devices deliver at a time, as their server or PortAudio has it: whether the usual hop leaves it half of
    the time. `block` is 0 where it is not known.
    """
    sr, usual_ms, needed = separator.config.sr, 1000 * found.usual_s, found.smallest_block(separator.config.sr)
    values = {
        "block_size": block or needed,
        "usual_ms": usual_ms,
        "slowest_ms": 1000 * found.need_s,
        "separator_ms": 1000 * separator.latency / sr,
    }
    if needed is None:
        text = f"no block lasts {MARGIN:g} times as long as the usual hop, {usual_ms:.2g} ms"
        return Finding("engine", "block size", "problem", text, ("close other programs and look again",), values)
    if not block:
        text = f"from {needed} samples, {1000 * needed / sr:.1f} ms: {MARGIN:g} times the usual hop, {usual_ms:.2g} ms"
        return Finding("engine", "block size", "ok", text, values=values)
    who = "server runs at" if host_api == JACK else "devices deliver"
    text = f"the {who} {block} samples, {1000 * block / sr:.1f} ms; the usual hop takes {usual_ms:.2g} ms"
    if block >= needed:
        shorter = (
            ("for less delay:", _set_period(SHORT, sr))
            if block > SHORT >= needed and host_api == JACK and _pipewire_is_jack()
            else ()
        )
        return Finding("engine", "block size", "ok", text, shorter, values)
    command = _set_period(needed, sr) if host_api == JACK else f"    rtsep live --block {needed}"
    return Finding("engine", "block size", "note", text, ("a longer one:", command), values)


def _set_period(block: int, sr: int) -> str:
    """The command for that."""
    if _pipewire_is_jack():
        return f"    PIPEWIRE_LATENCY={block}/{sr} rtsep live"
    return f"    jack_bufsize {block}"
