"""PulseAudio itself, without hardware.

Debian's package of it conflicts with `pipewire-alsa`: where both are wanted, it has to be unpacked beside the system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from pipewire import wait_until
from test_virtual import similarity

RTSEP = [sys.executable, "-m", "rtsep"]
MODULES = ["module-native-protocol-unix", "module-null-sink sink_name=heard rate=48000"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    missing = [program for program in ("pulseaudio", "pactl") if not shutil.which(program)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (apt install pulseaudio, which removes pipewire-alsa)")
    folder = tmp_path_factory.mktemp("pulse")
    folder.chmod(0o700)
    (folder / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JACK_")}
    environment |= {"XDG_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder / "home")}
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", *[f"--load={module}" for module in MODULES]]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: subprocess.run(["pactl", "info"], env=environment, capture_output=True).returncode == 0)
            yield environment
        finally:
            server.terminate()


def run(environment, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RTSEP, *command], env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_its_plug_in_is_a_device_and_doctor_sees_it(environment):
    devices = json.loads(run(environment, "devices", "--json").stdout)["devices"]
    (pulse,) = [device for device in devices if device["name"] == "pulse"]
    assert 48_000 in pulse["input_rates"]
    findings = json.loads(run(environment, "doctor", "--json", "--estimator", "passthrough").stdout)["findings"]
    (servers,) = [finding for finding in findings if finding["name"] == "servers"]
    assert "PulseAudio" in servers["text"]


def test_no_virtual_device_is_made_and_a_line_says_why(environment):
    refused = run(environment, "live", "--virtual-mic", "--plain", "--estimator", "passthrough", "--phase", "mixture")
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "here PulseAudio runs instead" in refused.stderr
    assert "`PULSE_SINK=rtsep rtsep live`" in refused.stderr


def test_a_null_sink_by_hand_is_a_microphone(environment, tmp_path):
    """Half of the pieces of what is played arrive as they are, at least: a busy machine loses many."""
    voice = 0.1 * np.random.default_rng(0).standard_normal(5 * 48_000)
    sf.write(tmp_path / "voice.wav", voice, 48_000, "FLOAT")
    for module in (
        ["module-null-sink", "sink_name=rtsep", "rate=48000"],
        ["module-remap-source", "master=rtsep.monitor", "source_name=rtsep_microphone"],
    ):
        subprocess.run(["pactl", "load-module", *module], env=environment, check=True, capture_output=True)
    live = subprocess.Popen(
        [*RTSEP, "live", "--plain", "--rate", "48000", "--estimator", "passthrough", "--phase", "mixture"],
        env=environment | {"PULSE_SINK": "rtsep", "PULSE_SOURCE": "heard.monitor"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with (tmp_path / "heard.raw").open("wb") as heard:
        short = ["--latency-msec=30", "--format=float32le", "--rate=48000", "--channels=1", "--raw"]
        recorder = subprocess.Popen(["parec", "-d", "rtsep_microphone", *short], env=environment, stdout=heard)
        try:
            while " load median " not in live.stdout.readline():
                assert live.poll() is None
            subprocess.run(["paplay", "-d", "heard", str(tmp_path / "voice.wav")], env=environment, check=True)
            wait_until(lambda: (tmp_path / "heard.raw").stat().st_size > 4 * voice.size)
        finally:
            for process in (recorder, live):
                process.terminate()
                process.wait(60)
            live.stdout.close()
    assert similarity(np.fromfile(tmp_path / "heard.raw", np.float32), voice) > 0.99
