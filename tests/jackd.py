"""A private JACK server without hardware, for live tests: a real PortAudio stream, looped back sample by sample."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from rtsep.live.devices import DEVICES, rescan

_names_in_use: set[str] = set()


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
        # The first name that is free: a server that has crashed keeps one of the eight places of this machine until
        # another takes its name.
        names = (f"rtsep{os.getpid()}_{k}" for k in itertools.count())
        self.name = next(name for name in names if name not in _names_in_use)

    def __enter__(self) -> JackServer:
        os.environ |= {
            "JACK_DEFAULT_SERVER": self.name,
            "JACK_NO_START_SERVER": "1",
            "JACK_NO_AUDIO_RESERVATION": "1",
        }
        _names_in_use.add(self.name)
        self.start()
        rescan()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._process.terminate()
        self._process.wait()
        _names_in_use.discard(self.name)

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
        with tempfile.TemporaryFile("w+") as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            end = time.monotonic() + 60
            while self._process.poll() is None and time.monotonic() < end:
                with DEVICES, suppress(jack.JackOpenError):
                    open_client("wait", self).close()
                    return
                time.sleep(0.05)
            self._process.kill()
            status = self._process.wait()
            _names_in_use.discard(self.name)
            said.seek(0)
            raise RuntimeError(f"jackd does not answer (exit status {status}): {said.read()}")

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
            for port in client.get_ports("rtsep"):
                for other in client.get_all_connections(port):
                    client.disconnect(*((port, other) if port.is_output else (other, port)))
            outputs = client.get_ports("rtsep", is_output=True)
            for source, target in zip(outputs, client.get_ports("rtsep", is_input=True), strict=False):
                client.connect(source, target)


# Places in what the process callback of a player works on.
N_CHANNELS, TOTAL, PLAYED, RUNNING, BREATH, PADDED, HEARD, PORTS = range(8)


@functools.cache
def _process() -> Any:
    """The process callback of players, compiled.

    In Python it could be in the interpreter when libjack ends its thread, which would then keep the interpreter's lock
    for ever: at periods of a millisecond that happens.
    """
    libjack, libc = ctypes.CDLL("libjack.so.0"), ctypes.CDLL(None)
    buffer_of, sleep_us = libjack.jack_port_get_buffer, libc.usleep
    buffer_of.argtypes, buffer_of.restype = (ctypes.c_void_p, ctypes.c_uint32), ctypes.c_void_p
    sleep_us.argtypes, sleep_us.restype = (ctypes.c_uint32,), ctypes.c_int

    @cfunc(types.int32(types.uint32, types.CPointer(types.int64)))
    def process(n_frames, player):
        n_channels, total, at = player[N_CHANNELS], player[TOTAL], player[PLAYED]
        plays = player[RUNNING] != 0 and at < total
        padded = carray(address_as_void_pointer(player[PADDED]), (n_channels, total), np.float32)
        heard = carray(address_as_void_pointer(player[HEARD]), (n_channels, total), np.float32)
        for c in range(n_channels):
            port_out, port_in = player[PORTS + 2 * c], player[PORTS + 2 * c + 1]
            data_out = address_as_void_pointer(buffer_of(address_as_void_pointer(port_out), n_frames))
            data_in = address_as_void_pointer(buffer_of(address_as_void_pointer(port_in), n_frames))
            out, come = carray(data_out, (n_frames,), np.float32), carray(data_in, (n_frames,), np.float32)
            for i in range(n_frames):
                inside = plays and at + i < total
                out[i] = padded[c, at + i] if inside else np.float32(0)
                if inside:
                    heard[c, at + i] = come[i]
        if plays:
            if (at + n_frames) % player[BREATH] < n_frames:
                sleep_us(1000)  # at most 40 times as fast as it plays: a recording has to keep up
            player[PLAYED] = at + n_frames
        return 0

    return process


@intrinsic
def address_as_void_pointer(typingctx, address):
    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


class Player:
    """A JACK client that plays an array into the stream under test and records what that plays.

    Both start with the same period. In freewheel the stream under test waits for it, so what is recorded does not
    depend on the machine.
    """

    def __init__(self, server: JackServer, x: np.ndarray, tail: int = 0) -> None:
        """`x` is (n_channels, n_samples), float32; `tail` more samples are recorded."""
        import jack

        n_channels, n_samples = x.shape
        self.total = -(-(n_samples + tail) // server.period) * server.period
        self.heard, self._padded = np.zeros((2, n_channels, self.total), np.float32)
        self._padded[:, :n_samples] = x
        self.client = client = open_client("player", server)
        outs = [client.outports.register(f"out_{c}") for c in range(n_channels)]
        ins = [client.inports.register(f"in_{c}") for c in range(n_channels)]
        ports = [int(jack._ffi.cast("intptr_t", port._ptr)) for pair in zip(outs, ins, strict=True) for port in pair]
        arrays = (self._padded.ctypes.data, self.heard.ctypes.data)
        self._state = np.array([n_channels, self.total, 0, 0, server.sr // 25, *arrays, *ports])
        function = jack._ffi.cast("JackProcessCallback", _process().address)
        state = jack._ffi.cast("void *", self._state.ctypes.data)
        assert jack._lib.jack_set_process_callback(client._ptr, function, state) == 0

        client.activate()
        for port in client.get_ports("rtsep"):
            for other in client.get_all_connections(port):
                client.disconnect(*((port, other) if port.is_output else (other, port)))
        for port, target in zip(outs, client.get_ports("rtsep", is_input=True), strict=False):
            client.connect(port, target)
        for source, port in zip(client.get_ports("rtsep", is_output=True), ins, strict=False):
            client.connect(source, port)

    def run(self, timeout: float = 120.0, freewheel: bool = True) -> np.ndarray:
        """Play everything, in freewheel or by the server's clock, and return what was recorded."""
        if freewheel:
            self.client.set_freewheel(True)
        self._state[RUNNING] = 1
        end = time.monotonic() + timeout
        try:
            while self._state[PLAYED] < self.total:
                assert time.monotonic() < end, f"played {self._state[PLAYED]} of {self.total} samples"
                time.sleep(0.002)
        finally:
            if freewheel:
                self.client.set_freewheel(False)
            self.client.deactivate()
            with DEVICES:
                self.client.close()
        return self.heard
