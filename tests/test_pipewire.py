"""The commands on a PipeWire without hardware: its defaults, its rate, and a delay that is what it says."""

from __future__ import annotations

import json
import signal
import sys
import time

import pytest
from pipewire import PipeWire, require_pipewire, wait_until

from rtsep.live.pipewire import merged

RTSEP = [sys.executable, "-m", "rtsep"]
NO_SERVER = "no_server_of_this_name"
PLAIN = ["--estimator", "passthrough", "--phase", "mixture"]


@pytest.fixture(scope="module")
def server():
    require_pipewire()
    with PipeWire({"chosen": 1, "another": 2}) as pipewire:
        yield pipewire


@pytest.mark.parametrize("route", [["pw-jack"], [], ["env", f"JACK_DEFAULT_SERVER={NO_SERVER}"]])
def test_the_default_is_that_of_the_desktop_and_its_rate_that_of_the_graph(server, route):
    """PipeWire's way for clients of JACK, where no other server is named: then that of ALSA."""
    listed = json.loads(server.run(*route, *RTSEP, "devices", "--json", timeout=180).stdout)["devices"]
    (default,) = [device for device in listed if device["default_output"]]
    assert default["default_input"]
    assert default["sr"] == 48_000
    by_jack = NO_SERVER not in str(route)
    assert default["host_api"] == ("JACK Audio Connection Kit" if by_jack else "ALSA")
    assert default["name"] == ("chosen" if by_jack else "default")


def test_changes_that_come_while_the_graph_is_described_are_part_of_it():
    first = [{"id": 1, "info": {"a": 1}}, {"id": 2, "info": {}}]
    metadata = {"id": 3, "metadata": [{"subject": 0, "key": "rate", "value": 48_000}]}
    changed = {"id": 3, "metadata": [{"subject": 0, "key": "source", "value": {"name": "chosen"}}]}
    taken_back = {"id": 3, "metadata": [{"subject": 0, "key": "source", "value": None}]}
    arrays = [[*first, metadata], [{"id": 2, "info": None}, {"id": 1, "info": {"a": 2}}], [changed]]
    expected = {1: {"a": 2}, 3: [metadata["metadata"][0], changed["metadata"][0]]}
    for arrays_, entries in ((arrays, 2), ([*arrays, [taken_back]], 1)):
        found = {one["id"]: one.get("info", one.get("metadata")) for one in merged("\n".join(map(json.dumps, arrays_)))}
        assert found == {1: expected[1], 3: expected[3][:entries]}
    assert merged("") == []
    with pytest.raises(ValueError, match="Expecting"):
        merged("[] [")


@pytest.mark.parametrize(("asked", "period"), [(None, 1024), ("256/48000", 256)])
def test_the_delay_of_the_graph_is_promised_as_it_is_measured(server, asked, period):
    # What is played on a null sink comes in at its monitor.
    latency = ["env", *([f"PIPEWIRE_LATENCY={asked}"] if asked else []), *RTSEP, "latency", *PLAIN, "--json"]
    latency += ["--latency-ms", "16"]
    report = json.loads(server.run(*latency, "--repeats", "2", timeout=180).stdout)
    assert report["promised"]["devices"] == period
    assert report["measured"]["devices"]["median"] == pytest.approx(period, abs=0.1)
    assert report["measured"]["engine"]["median"] == pytest.approx(768, abs=0.1)


def test_the_ledger_follows_the_graph_and_says_so(server):
    live = server.start(*RTSEP, "live", *PLAIN, "--plain")
    try:
        lines: list[str] = []
        while not any(" load median " in line for line in lines):
            lines.append(live.stdout.readline())
            assert live.poll() is None
        server.run("pw-metadata", "-n", "settings", "0", "clock.force-quantum", "256")
        while not any("the delay" in line for line in lines):
            lines.append(live.stdout.readline())
            assert live.poll() is None
    finally:
        server.run("pw-metadata", "-n", "settings", "0", "clock.force-quantum", "0")
        live.terminate()
        live.communicate(timeout=60)
    assert any(line.split()[:3] == ["device", "out", "1024"] for line in lines)
    assert lines[-1] == "the delay of the devices is 256 samples, 5.3 ms, and was 21.3 ms\n"
    wait_until(lambda: not any("rtsep" in port for port in server.ports()))


def test_the_delay_through_alsa_is_promised_as_it_is_now_and_said_where_it_moves(server):
    """By whole blocks: where it begins, and after the program stood still for a moment."""
    by_alsa = ["env", f"JACK_DEFAULT_SERVER={NO_SERVER}", *RTSEP]
    latency = [*by_alsa, "latency", *PLAIN, "--json", "--latency-ms", "16", "--repeats", "2"]
    report = json.loads(server.run(*latency, timeout=180).stdout)
    if not report["discarded"]:  # else it may have moved after the last one that counts
        assert report["promised"]["devices"] == pytest.approx(report["measured"]["devices"]["repeats"][-1], abs=1)
    live = server.start(*by_alsa, "live", *PLAIN, "--plain", "--bypass", "--output-gain", "-40")
    try:
        while "the delay of the devices is" not in (line := live.stdout.readline()):
            assert live.poll() is None
            if " load median " in line:
                live.send_signal(signal.SIGSTOP)
                time.sleep(0.06)
                live.send_signal(signal.SIGCONT)
    finally:
        live.terminate()
        live.communicate(timeout=60)
