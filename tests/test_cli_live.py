"""`rtsep devices` and `rtsep live`, as commands, on a JACK server without hardware."""

from __future__ import annotations

import signal
import subprocess
import sys

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
    return [line for line in stderr.splitlines() if line.startswith("rtsep: ") or "Traceback" in line]


def test_devices_are_listed_with_the_default_marked(server):
    run = subprocess.run([sys.executable, "-m", "rtsep", "devices"], capture_output=True, text=True, check=False)
    assert (run.returncode, said(run.stderr)) == (0, [])
    line = next(line for line in run.stdout.splitlines() if "JACK" in line)
    assert "1*" in line
    assert "16000" in line
    assert "system" in line


def test_live_prints_a_line_a_second_and_a_summary_and_records(server, tmp_path):
    command = [*LIVE, "--seconds", "2.2", "--record", str(tmp_path), "--strength", "12"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, said(run.stderr)) == (0, [])
    lines = run.stdout.splitlines()
    assert lines[0] == "system -> system, 16000 Hz, signal"
    assert any(line.split()[:2] == ["window", "256"] for line in lines)
    assert sum(" load median " in line for line in lines) == 3
    assert "hops late" in lines[-2]
    assert lines[-1].startswith("recorded ")
    assert {path.name for path in tmp_path.iterdir()} == {"mixture.wav", "signal.wav"}
    assert sf.info(tmp_path / "mixture.wav").duration > 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_live_stops_cleanly_with_a_summary(server, number, status):
    process = subprocess.Popen(LIVE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--input", "nosuch"], 3, "nosuch"),
        (["--stereo"], 3, "channels"),
        (["--solo", "drums"], 2, "--solo='drums' is not one of signal"),
        (["--window-ms", "0"], 2, "--window-ms=0.0 is not between 0.005 and 1000 ms"),
    ],
)
def test_what_cannot_be_is_one_line(server, options, status, message):
    run = subprocess.run([*LIVE, *options], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == status
    assert len(said(run.stderr)) == 1
    assert message in said(run.stderr)[0]
