"""A private PipeWire without hardware: the sound server of Linux desktops, with WirePlumber, for programs that are
started under it. (This process keeps the JACK library that it has loaded.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from jackd import needs

PROGRAMS = ("dbus-daemon", "pipewire", "wireplumber", "pipewire-pulse")
PROGRAMS += ("pw-jack", "pw-cli", "pw-dump", "pw-link", "pw-metadata", "pactl")
PACKAGES = "dbus pipewire wireplumber pipewire-pulse pipewire-jack pipewire-alsa pulseaudio-utils"
PATIENCE_S = 60.0


def require_pipewire() -> None:
    """Skip the test if there is no PipeWire; with RTSEP_REQUIRE_AUDIO=1 fail instead."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    needs(not missing, f"{', '.join(missing)} not installed (apt install {PACKAGES})")


class PipeWire:
    """The servers in a folder of their own. A context manager; `environment` is that of programs that use them.

    Parameters
    ----------
    sinks : dict of str to int
        Null sinks to make, by name, and their channels; the first is the default. What is played on a sink is heard
        at its monitor.
    sr, quantum : int
        Of the graph.
    """

    def __init__(self, sinks: dict[str, int], sr: int = 48_000, quantum: int = 1024) -> None:
        self._sinks, self.sr, self.quantum = sinks, sr, quantum

    def __enter__(self) -> PipeWire:
        self._folder = tempfile.TemporaryDirectory(prefix="rtsep")
        runtime = Path(self._folder.name)
        (runtime / "pipewire.conf.d").mkdir()
        (runtime / "home").mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("JACK_")} | {
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(runtime / "home"),
            "XDG_STATE_HOME": str(runtime / "home"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime / 'bus'}",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("dbus-daemon", "--session", "--nofork", "--address", self.environment["DBUS_SESSION_BUS_ADDRESS"])
        wait_until((runtime / "bus").exists)
        try:
            self.go_on()
        except BaseException:
            self.__exit__()
            raise
        return self

    def go_on(self) -> None:
        """Start the servers, after `kill` again."""
        self._start("pipewire")
        wait_until(lambda: self._works("pw-cli", "info", "0"))
        self.run("pw-metadata", "-n", "settings", "0", "clock.force-rate", str(self.sr))
        self.run("pw-metadata", "-n", "settings", "0", "clock.quantum", str(self.quantum))
        self._start("wireplumber")
        self._start_pulse()
        if self._sinks:
            first = next(iter(self._sinks))
            wait_until(lambda: self._works("pactl", "set-default-sink", first))
            wait_until(lambda: self._works("pactl", "set-default-source", f"{first}.monitor"))

    def _start_pulse(self) -> None:
        self._start("pipewire-pulse")
        wait_until(lambda: self._works("pactl", "info"))
        for name, n_channels in self._sinks.items():
            self.add_sink(name, n_channels)

    def kill(self) -> None:
        """End the servers as a crash would."""
        for process in self._processes[1:]:
            process.kill()
            process.wait()
        del self._processes[1:]

    def restart_pulse(self) -> None:
        """End, as a crash would, only what answers programs of PulseAudio's and has made the sinks; start it again."""
        process = self._processes.pop()
        process.kill()
        process.wait()
        self._start_pulse()

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()
        self._folder.cleanup()

    def _start(self, *command: str) -> None:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(subprocess.Popen(command, env=self.environment, **quiet))

    def add_sink(self, name: str, n_channels: int) -> None:
        """A null sink, which programs see by this name."""
        positions = "MONO" if n_channels == 1 else ",".join(("FL", "FR", "RL", "RR")[:n_channels])
        properties = f"sink_properties=node.description={name}"
        self.run(
            "pactl", "load-module", "module-null-sink", f"sink_name={name}", f"channel_map={positions}", properties
        )

    def run(self, *command: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """A program that must end well."""
        options = {"check": True, "capture_output": True, "text": True} | options
        return subprocess.run(command, env=self.environment, timeout=timeout, **options)

    def _works(self, *command: str) -> bool:
        return self.run(*command, check=False).returncode == 0

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A program that goes on."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen(command, env=self.environment, **options)

    def dump(self) -> list[dict[str, Any]]:
        """Everything on the graph."""
        return json.loads(self.run("pw-dump").stdout)

    def remove_sink(self, name: str) -> None:
        """As if the device was pulled out."""
        modules = self.run("pactl", "list", "modules", "short").stdout.splitlines()
        (module,) = [line.split("\t")[0] for line in modules if f"sink_name={name} " in line]
        self.run("pactl", "unload-module", module)

    def ports(self) -> list[str]:
        """Names "node:port" of everything that can be connected."""
        return [port for side in ("-o", "-i") for port in self.run("pw-link", side).stdout.split("\n") if port]


def wait_until(condition: Any, seconds: float = PATIENCE_S) -> None:
    """Look again and again."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
