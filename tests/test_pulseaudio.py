"""PulseAudio itself, without hardware.

Debian's package of it conflicts with `pipewire-alsa`: where both are wanted, it has to be unpacked beside the system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from pipewire import wait_until

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
