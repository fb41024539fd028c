"""What the user has connected to a stream comes back with its other end: a device, a program, the whole server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from jackd import JackServer, require_audio
from pipewire import PipeWire, require_pipewire, wait_until
from test_live import wait_for

from rtsep import Separator, StreamConfig
from rtsep.estimators import Passthrough
from rtsep.live import LiveStream

LIVE = [sys.executable, "-m", "rtsep", "live", "--plain", "--estimator", "passthrough", "--phase", "mixture"]
AUTOMATIC = {"system:capture_1 -> rtsep:in_0", "rtsep:out_0 -> system:playback_1", "rtsep:out_1 -> system:playback_2"}


@pytest.fixture
def jack():
    require_audio()
    with JackServer(16_000, 128, n_channels=2) as server:
        yield server


def connections(client) -> set[str]:
    """Of the stream's ports."""
    pairs = [(port, other) for port in client.get_ports("rtsep:") for other in client.get_all_connections(port)]
    return {
        f"{port.name} -> {other.name}" if port.is_output else f"{other.name} -> {port.name}" for port, other in pairs
    }


def test_after_the_server_of_jack_was_gone_all_is_connected_as_it_was(jack):
    with LiveStream(Separator(StreamConfig(16_000), Passthrough())) as stream:
        with jack.client() as client:
            wait_for(lambda: connections(client) == AUTOMATIC)
            time.sleep(1.5)  # what is taken away at once could be PortAudio's
            client.connect("system:capture_2", "rtsep:in_0")
            client.disconnect("system:capture_1", "rtsep:in_0")
            client.disconnect("rtsep:out_1", "system:playback_2")
            mine = connections(client)
            time.sleep(0.5)
        for _ in range(2):
            jack.kill()
            wait_for(lambda: stream.stats.state == "reconnecting")
            jack.start()
            wait_for(lambda: stream.stats.state == "running")
            with jack.client() as client:
                wait_for(lambda client=client: connections(client) == mine)
                time.sleep(1.5)
                assert connections(client) == mine
    messages = list(stream.messages)
    assert messages.count("connected again: system:capture_2 -> rtsep:in_0") == 2
    assert sum("connected again" in message for message in messages) == 2


# It has a port for a while before it is ready to be connected.
PROGRAM = """
import sys, time, jack
client = jack.Client("program", no_start_server=True)
client.inports.register("in")
time.sleep(0.5)
client.activate()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def program() -> Iterator[None]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield
        process.kill()


def test_a_program_that_was_gone_with_the_server_is_connected_again_and_one_that_was_started_anew_is_not(jack):
    link = "rtsep:out_0 -> program:in"
    with LiveStream(Separator(StreamConfig(16_000), Passthrough())) as stream:
        with program():
            with jack.client() as client:
                client.connect("rtsep:out_0", "program:in")
            time.sleep(0.5)
            jack.kill()
        wait_for(lambda: stream.stats.state == "reconnecting")
        jack.start()
        wait_for(lambda: stream.stats.state == "running")
        with jack.client() as client:
            with program():
                wait_for(lambda: link in connections(client))
            wait_for(lambda: connections(client) == AUTOMATIC)
            with program():
                time.sleep(1)
                assert connections(client) == AUTOMATIC
        assert list(stream.messages)[-1] == f"connected again: {link}"
        assert sum("connected again" in message for message in stream.messages) == 1


@pytest.fixture
def pipewire():
    require_pipewire()
    with PipeWire({"chosen": 1, "another": 2}) as server:
        yield server


class Live:
    """`rtsep live`, whose lines are read while it runs."""

    def __init__(self, server: PipeWire, *options: str) -> None:
        self.process, self.lines = server.start(*LIVE, *options, stderr=subprocess.STDOUT), []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reader.start()

    def __enter__(self) -> Live:
        self.wait(lambda: any(" load median " in line for line in self.lines))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._reader.join()

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < end, self.lines
            time.sleep(0.05)

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def links(server: PipeWire) -> set[str]:
    """Of the stream's ports, whatever their numbers are."""
    found, port = set(), ""
    for line in server.run("pw-link", "-l", check=False).stdout.splitlines():
        if not line.startswith(" "):
            port = line
        elif port.startswith("rtsep:"):
            found.add(f"{port.partition('_')[0]} {line.strip()}")
    return found


PATCHED = {"rtsep:in |<- another:monitor_2", "rtsep:in |<- chosen:monitor_1", "rtsep:out |-> another:playback_1"}


def patch(server: PipeWire) -> None:
    """What a user does with a patchbay."""
    time.sleep(1.5)
    ports = server.ports()
    (heard,) = [port for port in ports if port.startswith("rtsep:in")]
    (played,) = [port for port in ports if port.startswith("rtsep:out")]
    server.run("pw-link", "another:monitor_2", heard)
    server.run("pw-link", played, "another:playback_1")
    server.run("pw-link", "-d", played, "chosen:playback_1")
    wait_until(lambda: links(server) == PATCHED)
    time.sleep(0.5)


def test_a_device_that_is_pulled_out_and_put_back_is_connected_as_it_was(pipewire):
    with Live(pipewire, "--input", "chosen", "--output", "chosen") as live:
        patch(pipewire)
        pipewire.remove_sink("chosen")
        live.wait(lambda: live.said("device 'chosen' stopped; trying to get it back"))
        pipewire.add_sink("chosen", 1)
        live.wait(lambda: live.said("running again on 'chosen' and 'chosen'"))
        wait_until(lambda: links(pipewire) == PATCHED)
        pipewire.remove_sink("another")  # not a device of the stream's
        wait_until(lambda: links(pipewire) == {"rtsep:in |<- chosen:monitor_1"})
        time.sleep(1.5)
        pipewire.add_sink("another", 2)
        wait_until(lambda: links(pipewire) == PATCHED)
        assert sum("stopped" in line for line in live.lines) == 1


def test_a_default_device_that_is_pulled_out_is_replaced_by_the_next_one(pipewire):
    with Live(pipewire) as live:
        pipewire.remove_sink("chosen")
        live.wait(lambda: live.said("running again on 'another' and 'another'"))
        wait_until(lambda: {link.split(":")[1].split()[1] for link in links(pipewire)} != set())


def test_after_pipewire_was_gone_all_is_connected_as_it_was(pipewire):
    with Live(pipewire, "--input", "chosen", "--output", "chosen") as live:
        patch(pipewire)
        pipewire.kill()
        live.wait(lambda: live.said("stopped; trying to get it back"))
        pipewire.go_on()
        live.wait(lambda: live.said("running again on 'chosen' and 'chosen'"))
        wait_until(lambda: links(pipewire) == PATCHED)
        time.sleep(1.5)
        assert links(pipewire) == PATCHED
