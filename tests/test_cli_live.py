"""`rtsep devices` and `rtsep live`, as commands, on a JACK server without hardware."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf
from jackd import JackServer, require_audio

# The JACK part of PortAudio and ALSA chat on stderr; what rtsep says itself begins with its name.
LIVE = [sys.executable, "-m", "rtsep", "live", "--estimator", "passthrough", "--phase", "mixture"]


@pytest.fixture(scope="module")
def server():
    require_audio()
    with JackServer(16_000, 64) as jack_server:
        yield jack_server


def said(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith(("rtsep: ", "rtsep live: ")) or "Traceback" in line]


def devices(*options: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({} if home is None else {"HOME": str(home)})
    command = [sys.executable, "-m", "rtsep", "devices", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)


def test_devices_are_listed_with_the_default_marked_and_the_rates_that_they_accept(server):
    run = devices()
    assert (run.returncode, run.stderr) == (0, "")  # PortAudio's chat is hidden
    lines = [line.split() for line in run.stdout.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[1:3] == ["system", "(JACK"])
    assert lines[at + 1][:3] == ["in*", "1", "channel"]
    assert lines[at + 2][:3] == ["out*", "1", "channel"]
    assert [line[-2:] for line in lines[at + 1 : at + 3]] == 2 * [["16*", "kHz"]]


def test_devices_as_json_are_the_same_list(server):
    run = devices("--json")
    listed = json.loads(run.stdout)["devices"]
    (jack,) = [device for device in listed if device["host_api"].startswith("JACK")]
    assert (jack["name"], jack["n_inputs"], jack["n_outputs"], jack["sr"]) == ("system", 1, 1, 16_000)
    assert jack["input_rates"] == jack["output_rates"] == [16_000]
    assert jack["default_input"]
    assert jack["default_output"]
    page = devices().stdout
    assert all(f"{device['index']:2}  {device['name']} ({device['host_api']})" in page for device in listed)


@pytest.mark.skipif(sys.platform != "linux", reason="makes a device for ALSA")
def test_the_list_of_devices_fits_80_columns_even_where_every_rate_is_accepted(server, tmp_path):
    (tmp_path / ".asoundrc").write_text('pcm.anything { type plug slave.pcm "null" hint { show on } }')
    lines = devices(home=tmp_path).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "anything (ALSA)" in line)
    assert lines[at + 1].endswith("8 16 22.05 32 44.1* 48 88.2 96 176.4 192 kHz")
    assert max(map(len, lines)) <= 80


def test_no_devices_is_one_line_and_status_3():
    require_audio()
    # As on a machine without a server; the name is one that no server has.
    environment = os.environ | {"JACK_DEFAULT_SERVER": "none", "JACK_NO_START_SERVER": "1"}
    command = [sys.executable, "-m", "rtsep", "devices"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)
    if run.returncode == 0:
        pytest.skip("this machine has sound devices")
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.startswith("rtsep: there are no sound devices; connect one")
    assert len(run.stderr.splitlines()) == 1


def test_live_prints_a_line_a_second_and_a_summary_and_records(server, tmp_path):
    command = [*LIVE, "--seconds", "2.2", "--record", str(tmp_path), "--strength", "12"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert (run.returncode, said(run.stderr)) == (0, [])
    lines = run.stdout.splitlines()
    assert lines[0] == "system -> system, 16000 Hz, signal"
    assert any(line.split()[:2] == ["window", "128"] for line in lines)
    assert "latency 8 ms: the largest with at most 16 ms in all, 12.0 ms with the 4.0 ms of the devices" in lines
    assert sum(" load median " in line for line in lines) >= 2
    assert "hops late" in lines[-2]
    assert lines[-1].startswith("recorded ")
    assert {path.name for path in tmp_path.iterdir()} == {"mixture.wav", "signal.wav"}
    assert sf.info(tmp_path / "mixture.wav").duration > 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_live_stops_cleanly_with_a_summary_and_its_recording(server, number, status, tmp_path):
    process = subprocess.Popen(
        [*LIVE, "--record", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while " load median " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status
    assert "hops late" in stdout
    assert "Traceback" not in stderr
    assert sf.info(tmp_path / "mixture.wav").duration > 0.5


def test_nothing_is_said_where_standard_output_is_closed(server):
    command = 'exec "$@" >&-'
    run = subprocess.run(
        ["sh", "-c", command, "sh", *LIVE, "--seconds", "0.2"], capture_output=True, text=True, timeout=180, check=False
    )
    assert (run.returncode, said(run.stderr)) == (0, [])


@pytest.mark.skipif(sys.platform != "linux", reason="makes a device for ALSA")
def test_a_device_that_keeps_no_time_is_told(server, tmp_path):
    (tmp_path / ".asoundrc").write_text('pcm.anything { type plug slave.pcm "null" hint { show on } }')
    command = [*LIVE, "--plain", "--input", "anything", "--output", "anything", "--seconds", "4"]
    environment = os.environ | {"HOME": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)
    assert run.returncode == 0
    (line,) = [line for line in run.stdout.splitlines() if "times as fast" in line]
    assert line.startswith("device 'anything' plays ")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--input", "nosuch"], 3, "nosuch"),
        (["--stereo"], 3, "channels"),
        (["--solo", "drums"], 2, "--solo='drums' is not one of signal"),
        (["--rate", "0"], 2, "--rate=0 is not between"),
        (["--input-channels", "a"], 2, "--input-channels: 'a' is no list of channels such as 1,2"),
        (["--seconds", "nan"], 2, "--seconds=nan is not 0 s or more"),
        (["--window-ms", "0"], 2, "--window-ms=0.0 is not between 0.005 and 1000 ms"),
    ],
)
def test_what_cannot_be_is_one_line(server, options, status, message):
    run = subprocess.run([*LIVE, *options], capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == status
    assert len(said(run.stderr)) == 1
    assert message in said(run.stderr)[0]


def test_what_a_stream_did_as_json(server):
    run = subprocess.run([*LIVE, "--seconds", "1", "--json"], capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["sr"] == 16_000
    assert report["sources"] == ["signal"]
    assert report["ledger"]["latency"] == sum(n for name, n in report["ledger"].items() if name != "latency")
    assert report["callbacks"] > 0
    assert "callbacks:" in run.stderr
