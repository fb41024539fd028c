"""Whatever ends `rtsep live`: the recording can be read up to the end, the status is right, nothing crashes."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import sys
import time

import pytest
import soundfile as sf
from jackd import JackServer, require_audio

LIVE = [sys.executable, "-m", "rtsep", "live", "--estimator", "passthrough", "--phase", "mixture"]
STATUS = {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}


@pytest.fixture(scope="module")
def server():
    require_audio()
    with JackServer(16_000, 64) as jack_server:
        yield jack_server


def start(folder, *options, **streams) -> subprocess.Popen:
    """A stream that records."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    process = subprocess.Popen([*LIVE, "--record", str(folder), *options], **streams)
    end = time.monotonic() + 200
    while recorded(folder) < 0.5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def recorded(folder) -> float:
    """How many seconds can be read."""
    try:
        return min(sf.info(folder / f"{name}.wav").duration for name in ("mixture", "signal"))
    except sf.LibsndfileError:
        return 0.0


@pytest.mark.parametrize("seed", range(8))
def test_two_signals_one_after_the_other(server, seed, tmp_path):
    """The first one decides on the status; a SIGKILL is one for any process."""
    rng = random.Random(seed)
    first, second = rng.choices([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], (3, 3, 3, 1), k=2)
    process = start(tmp_path, "--plain")
    before, since = recorded(tmp_path), time.monotonic()
    time.sleep(rng.uniform(0.2, 0.6))
    heard = time.monotonic() - since
    process.send_signal(first)
    time.sleep(rng.uniform(0, 0.3))
    process.send_signal(second)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in {STATUS[first], -9 if signal.SIGKILL in (first, second) else STATUS[first]}
    assert b"Traceback" not in stderr
    assert before + heard - 1 < recorded(tmp_path)


def test_a_terminal_that_is_closed_under_the_panel(server, tmp_path):
    ours, theirs = pty.openpty()
    process = start(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=control)
    os.close(theirs)
    time.sleep(0.3)
    before = recorded(tmp_path)
    os.close(ours)
    time.sleep(0.05)
    process.send_signal(signal.SIGHUP)  # as the shell does
    assert process.wait(60) == 129
    assert recorded(tmp_path) >= before


def control() -> None:
    """Take standard input for the terminal of this session."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
