"""Virtual devices on a PipeWire without hardware: what is heard through one, and that nothing of it is left."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from pipewire import PipeWire, require_pipewire, wait_until
from scipy.signal import correlate

from rtsep import StreamConfig, separate

LIVE = [sys.executable, "-m", "rtsep", "live", "--plain"]
PLAIN = ["--estimator", "passthrough", "--phase", "mixture"]
MICROPHONE = "rtsep_microphone_rtsep_signal"  # as its node is called, by default
PIECE = 2400


@pytest.fixture(scope="module")
def server():
    require_pipewire()
    with PipeWire({"chosen": 1, "another": 2}) as pipewire:
        yield pipewire


def start(server, *options: str) -> tuple[subprocess.Popen, list[str]]:
    """A stream that runs, and what it has said until then."""
    process, lines = server.start(*LIVE, *options), []
    while not any(" load median " in line for line in lines):
        lines.append(process.stdout.readline())
        assert process.poll() is None, (lines, process.communicate())
    return process, lines


def end(process, number=signal.SIGTERM) -> tuple[int, str, str]:
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    return process.returncode, out, said


def sources(server) -> list[str]:
    return [line.split("\t")[1] for line in server.run("pactl", "list", "sources", "short").stdout.splitlines()]


def defaults(server) -> list[str]:
    return [line for line in server.run("pactl", "info").stdout.splitlines() if line.startswith("Default S")]


def test_a_recorder_hears_from_the_microphone_what_the_engine_makes_of_a_file(server, tmp_path):
    rng = np.random.default_rng(0)
    voice = 0.1 * rng.standard_normal(3 * 48_000) * np.sin(np.arange(3 * 48_000) / 9_000) ** 2
    voice += 0.01 * rng.standard_normal(voice.size)
    voice[-9600:] = 0  # the player ends before the last of it is played
    sf.write(tmp_path / "voice.wav", voice, 48_000, "FLOAT")
    before = defaults(server)
    process, lines = start(
        server, "--virtual-mic", "Clean mic", "--estimator", "denoise", "--record", str(tmp_path / "take")
    )
    recorder = record(server, "rtsep_microphone_Clean_mic", tmp_path)
    try:
        wait_until(lambda: recorded(server, "rtsep_microphone_Clean_mic"))
        server.run("pw-cat", "--playback", "--target", "chosen", str(tmp_path / "voice.wav"))
        time.sleep(0.5)
        assert defaults(server) == before
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=20)
        end(process)
    assert "virtual microphone 'Clean mic': choose it in your programs\n" in lines
    (mixture, sr), (heard, _) = sf.read(tmp_path / "take/mixture.wav"), sf.read(tmp_path / "heard.wav")
    assert sr == 48_000
    # What came in is the file, and what is heard is what `separate` makes of what came in.
    assert similarity(mixture, voice) > 0.9999
    latency_ms = next(float(line.split()[3]) for line in lines if line.split()[:1] == ["window"])
    made = separate(mixture, sr, "denoise", config=StreamConfig.from_ms(sr, latency_ms=latency_ms))
    assert similarity(made[0], heard) > 0.9999


def test_what_a_killed_program_has_left_is_removed_by_the_next_one(server):
    process, _ = start(server, "--virtual-mic", *PLAIN)
    assert end(process, signal.SIGKILL)[0] == -9
    assert sources(server).count(MICROPHONE) == 1
    process, lines = start(server, "--virtual-mic", *PLAIN)
    assert lines[0] == f"removed {MICROPHONE}, which an rtsep that was killed had left\n"
    assert sources(server).count(MICROPHONE) == 1
    second = server.run(*LIVE, "--virtual-mic", *PLAIN, check=False)
    assert (second.returncode, second.stderr.count("\n")) == (3, 1)
    assert "another rtsep has a virtual microphone of the name 'rtsep signal'" in second.stderr
    assert sources(server).count(MICROPHONE) == 1
    assert end(process)[0] == 143
    wait_until(lambda: MICROPHONE not in sources(server))


@pytest.mark.parametrize("seed", range(4))
def test_a_signal_at_any_time_leaves_no_device(server, seed):
    rng = random.Random(seed)
    process = server.start(*LIVE, "--virtual-mic", "at any time", *PLAIN)
    if seed % 2:
        wait_until(lambda: process.poll() is not None or any("at_any_time" in source for source in sources(server)))
        assert process.poll() is None, process.communicate()
    time.sleep(rng.uniform(0, 1))
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(rng.uniform(0, 0.1))
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 130), said  # of a stream, and before there is one
    assert "Traceback" not in said
    wait_until(lambda: not any("at_any_time" in source for source in sources(server)))


def test_the_speaker_is_heard_by_the_engine(server, tmp_path):
    voice = 0.1 * np.random.default_rng(1).standard_normal(96_000)
    voice[-9600:] = 0
    sf.write(tmp_path / "voice.wav", voice, 48_000, "FLOAT")
    process, _ = start(server, "--virtual-speaker", "--record", str(tmp_path / "take"), *PLAIN)
    try:
        server.run("pw-cat", "--playback", "--target", "rtsep_speaker_rtsep_speaker", str(tmp_path / "voice.wav"))
        links = server.run("pw-link", "-l").stdout
    finally:
        end(process)
    assert similarity(sf.read(tmp_path / "take/mixture.wav")[0], voice) > 0.9999
    assert re.search(r"chosen:playback_\w+\n  \|<- rtsep:out_\d", links)  # the desktop's device plays it


@pytest.mark.parametrize("lost", ["PipeWire", "its interface for PulseAudio"])
def test_a_server_that_comes_back_gets_the_microphone_again(lost, tmp_path):
    """A recorder that has survived hears it again, and what the desktop had chosen is chosen."""
    require_pipewire()
    voice = 0.1 * np.random.default_rng(2).standard_normal(96_000)
    voice[-9600:] = 0
    sf.write(tmp_path / "voice.wav", voice, 48_000, "FLOAT")
    with PipeWire({"chosen": 1, "another": 2}) as server:
        process, lines = start(server, "--virtual-mic", *PLAIN)
        server.run("pactl", "set-default-source", MICROPHONE)
        before = described(server)
        if lost == "PipeWire":
            server.kill()
            server.go_on()
        else:
            recorder = record(server, MICROPHONE, tmp_path)
            wait_until(lambda: recorded(server))
            server.restart_pulse()
        while not any("running again" in line for line in lines):
            lines.append(process.stdout.readline())
            assert process.poll() is None, lines
        try:
            assert "virtual microphone 'rtsep signal' is there again\n" in lines
            assert described(server) == before
            if lost == "PipeWire":  # with which recorders end
                recorder = record(server, MICROPHONE, tmp_path)
            else:
                assert f"Default Source: {MICROPHONE}" in defaults(server)
            wait_until(lambda: recorded(server))
            server.run("pw-cat", "--playback", "--target", "chosen", str(tmp_path / "voice.wav"))
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.communicate(timeout=20)
            status, *_ = end(process)
        assert status == 143
        assert MICROPHONE not in sources(server)
    assert similarity(sf.read(tmp_path / "heard.wav")[0], voice) > 0.9999


def record(server, microphone: str, folder: Path) -> subprocess.Popen:
    command = ["pw-record", "--target", microphone, "--format", "f32", "--channels", "1"]
    return server.start(*command, str(folder / "heard.wav"))


def recorded(server, microphone: str = MICROPHONE) -> bool:
    return "|-> pw-record:" in server.run("pw-link", "-l", "-o", microphone).stdout


def described(server) -> list[str]:
    """What programs see of the microphone, but for numbers."""
    nodes = [(one.get("info") or {}).get("props") or {} for one in server.dump()]
    (microphone,) = [node for node in nodes if node.get("node.name") == MICROPHONE]
    return sorted(f"{key} {value}" for key, value in microphone.items() if not key.endswith((".id", ".serial")))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--virtual-mic", "a:b"], 2, "virtual microphone 'a:b': a name is letters"),
        (["--virtual-mic", "chosen"], 3, "there is a device of the name 'chosen'"),
        (["--virtual-mic", "--output", "another"], 2, "--virtual-mic is the output itself; leave --output out"),
    ],
)
def test_what_cannot_be_is_one_line(server, options, status, message):
    run = server.run(*LIVE, *options, *PLAIN, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (status, 1)
    assert message in run.stderr


def test_without_pipewire_a_line_says_what_to_use(tmp_path):
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    command = [*LIVE, "--virtual-mic", *PLAIN]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (3, 1)
    assert "a virtual microphone needs PipeWire" in run.stderr


def similarity(heard: np.ndarray, played: np.ndarray) -> float:
    """The median of the correlation coefficients of the pieces of `played`, each at the lag at which it is highest.

    Where the machine is busy, players and recorders lose a block now and then.
    """
    pieces = played[: played.size // PIECE * PIECE].reshape(-1, PIECE)
    power = (pieces**2).mean(1)
    return float(np.median([_similarity(heard, piece) for piece in pieces[power > 0.1 * power.mean()]]))


def _similarity(heard: np.ndarray, piece: np.ndarray) -> float:
    lag = int(np.argmax(correlate(heard, piece, "valid", "fft")))
    return float(np.corrcoef(heard[lag : lag + piece.size], piece)[0, 1])
