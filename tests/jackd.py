"""A private JACK server without hardware, for live tests: a real PortAudio stream, looped back sample by sample."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

from rtsep.live.devices import DEVICES, rescan

_numbers = itertools.count()


def require_audio() -> None:
    """Skip the test if there is no JACK or no PortAudio; with RTSEP_REQUIRE_AUDIO=1 fail instead."""
    reason = ""
    if not shutil.which("jackd"):
        reason = "jackd is not installed (apt install jackd2)"
    else:
        try:
            import jack  # noqa: F401
            import sounddevice  # noqa: F401
        except (ImportError, OSError) as problem:
            reason = f"no PortAudio or JACK library: {problem} (apt install libportaudio2; pip install JACK-Client)"
    needs(not reason, reason)


def needs(there: bool, reason: str) -> None:
    """Skip the test where something is not there; with RTSEP_REQUIRE_AUDIO=1 fail instead."""
    if not there:
        if os.environ.get("RTSEP_REQUIRE_AUDIO") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@functools.cache
def _quiet() -> None:
    """Let JACK's library say nothing.

    Once in a process: JACK-Client frees the function that it replaces, and a thread that is just calling it (a stream
    that looks for its server) ends the process with a segmentation fault.
    """
    import jack

    jack.set_error_function(lambda message: None)
    jack.set_info_function(lambda message: None)


def open_client(name: str, server: JackServer) -> Any:
    """A `jack.Client` of this process, not while a stream looks for its server."""
    import jack

    _quiet()
    with DEVICES:
        return jack.Client(name, no_start_server=True, servername=server.name)


class JackServer:
    """`jackd` with the dummy driver under a name of its own, as the default server of this process.

    A context manager; `kill` and `start` in between are allowed.
    """

    def __init__(self, sr: int, period: int, n_channels: int = 1, realtime: bool = False) -> None:
        self.realtime = realtime  # needs privileges
        self.sr, self.period, self.n_channels = sr, period, n_channels
        self.name = f"rtsep{os.getpid()}_{next(_numbers)}"

    def __enter__(self) -> JackServer:
        os.environ |= {
            "JACK_DEFAULT_SERVER": self.name,
            "JACK_NO_START_SERVER": "1",
            "JACK_NO_AUDIO_RESERVATION": "1",
        }
        self.start()
        rescan()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._process.terminate()
        self._process.wait()

    def let_go(self) -> None:
        """End PortAudio in this process: its JACK part aborts the process once the server is gone."""
        import sounddevice

        with DEVICES:
            while sounddevice._initialized:
                sounddevice._terminate()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        import jack

        ports = ["-C", str(self.n_channels), "-P", str(self.n_channels)]
        priority = [] if self.realtime else ["-r"]
        command = [
            "jackd",
            *priority,
            "-n",
            self.name,
            "-d",
            "dummy",
            "-r",
            str(self.sr),
            "-p",
            str(self.period),
            *ports,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with DEVICES, suppress(jack.JackOpenError):
                open_client("wait", self).close()
                return
            time.sleep(0.05)
        raise RuntimeError("jackd does not answer")

    def kill(self) -> None:
        """Stop the server as a crash would; only before a `start`, since a dead server keeps one of eight places."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let the server stand still until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A client that connects others."""
        client = open_client("control", self)
        try:
            yield client
        finally:
            with DEVICES:
                client.close()

    def loop_back(self) -> None:
        """Connect the outputs of the only PortAudio stream to its inputs."""
        with self.client() as client:
            for port in client.get_ports("PortAudio"):
                for other in client.get_all_connections(port):
                    client.disconnect(*((port, other) if port.is_output else (other, port)))
            outputs = client.get_ports("PortAudio", is_output=True)
            for source, target in zip(outputs, client.get_ports("PortAudio", is_input=True), strict=False):
                client.connect(source, target)


class Player:
    """A JACK client that plays an array into the stream under test and records what that plays.

    Both start with the same period; `finished` is set when the array has been played and `tail` more recorded.
    In freewheel the stream under test waits for it, so what is recorded does not depend on the machine.
    """

    def __init__(self, server: JackServer, x: np.ndarray, tail: int = 0) -> None:
        """`x` is (n_channels, n_samples), float32."""
        n_channels, n_samples = x.shape
        self.played, self.breath = 0, server.sr // 25
        self.total = -(-(n_samples + tail) // server.period) * server.period
        self.heard = np.zeros((n_channels, self.total), np.float32)
        self.finished = threading.Event()
        padded = np.zeros((n_channels, self.total), np.float32)
        padded[:, :n_samples] = x
        self.client = client = open_client("player", server)
        outs = [client.outports.register(f"out_{c}") for c in range(n_channels)]
        ins = [client.inports.register(f"in_{c}") for c in range(n_channels)]
        self.running = False

        @client.set_process_callback
        def process(frames: int) -> None:
            at = self.played
            if not self.running or at >= self.total:
                for port in outs:
                    port.get_array()[:] = 0
                return
            for c in range(n_channels):
                outs[c].get_array()[:] = padded[c, at : at + frames]
                self.heard[c, at : at + frames] = ins[c].get_array()
            self.played = at + frames
            if self.played % self.breath < frames:
                time.sleep(0.001)  # at most 40 times as fast as it plays: a recording has to keep up
            if self.played >= self.total:
                self.finished.set()

        client.activate()
        for port in client.get_ports("PortAudio"):
            for other in client.get_all_connections(port):
                client.disconnect(*((port, other) if port.is_output else (other, port)))
        for port, target in zip(outs, client.get_ports("PortAudio", is_input=True), strict=False):
            client.connect(port, target)
        for source, port in zip(client.get_ports("PortAudio", is_output=True), ins, strict=False):
            client.connect(source, port)

    def run(self, timeout: float = 120.0, freewheel: bool = True) -> np.ndarray:
        """Play everything, in freewheel or by the server's clock, and return what was recorded."""
        if freewheel:
            self.client.set_freewheel(True)
        self.running = True
        try:
            assert self.finished.wait(timeout), f"played {self.played} of {self.total} samples"
        finally:
            if freewheel:
                self.client.set_freewheel(False)
            self.client.deactivate()
            with DEVICES:
                self.client.close()
        return self.heard
