"""`rtsep doctor`: on a JACK server without hardware, without PortAudio, and on machines made of files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numba
import numpy as np
import pytest
from jackd import JackServer, require_audio

from rtsep import Separator, StreamConfig
from rtsep.live import health
from rtsep.live.budget import Fitted
from rtsep.live.endurance import Endurance, measure

STATUSES = {"ok", "note", "problem", "unknown"}
PLAIN = ("--estimator", "passthrough", "--phase", "mixture")  # the quickest to compile
# The command with a shorter measurement.
QUICK = "import sys, rtsep.cli.doctor as d; from rtsep.cli import main; d.SECONDS = 0.3; sys.exit(main(sys.argv[1:]))"

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the files of Linux")


def doctor(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", QUICK, "doctor", *PLAIN, *options]
    environment = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def rows(page: str) -> list[tuple[str, str, str]]:
    """Section, name and status of every line of the page."""
    found, section = [], ""
    for line in page.splitlines()[:-1]:
        if not line.startswith(" "):
            section = line
        elif line[2] != " ":
            found.append((section, line[12:26].strip(), line[2:12].strip()))
    return found


@pytest.fixture(scope="module")
def server():
    require_audio()
    with JackServer(16_000, 64) as jack_server:
        yield jack_server


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes the files that make a machine."""
    monkeypatch.setattr(health, "ROOT", tmp_path)

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


def found(name: str) -> health.Finding:
    return next(finding for finding in health.check_machine() if finding.name == name)


def test_the_page_of_a_machine_with_sound(server):
    command = [sys.executable, "-m", "rtsep", "doctor"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    statuses = {name: status for _, name, status in rows(run.stdout)}
    assert set(statuses.values()) <= STATUSES
    assert [statuses[name] for name in ("PortAudio", "input", "output")] == ["ok"] * 3
    assert "system (JACK Audio Connection Kit), 1 channel, 16000" in run.stdout
    assert "speech + mixture at 16000 Hz, window 128, hop 32" in run.stdout
    assert "2500 hops" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("`rtsep live` can run; ")
    # A path is in one piece, however long it is.
    assert max(len(line) for line in run.stdout.splitlines() if os.sep not in line) <= 80


def test_json_says_the_same_as_the_page(server):
    page, report = doctor().stdout, json.loads(doctor("--json").stdout)
    assert report["can_stream"]
    named = [(finding["section"], finding["name"]) for finding in report["findings"]]
    assert named == [(section, name) for section, name, _ in rows(page)]
    words = " ".join(page.split())
    for finding in report["findings"]:
        assert finding["status"] in STATUSES
        assert finding["values"] or finding["status"] in ("unknown", "problem")
        if finding["section"] != "engine":  # measured anew
            assert finding["text"] in words
    values = {finding["name"]: finding["values"] for finding in report["findings"]}
    assert values["input"] == {
        "name": "system",
        "host_api": "JACK Audio Connection Kit",
        "channels": 1,
        "sr": 16_000,
    }
    assert values["block size"]["block_size"] == 64  # that of the server
    share = values["load"]["share"]
    assert 0 < share["median"] <= share["p999"] <= share["max"]
    assert values["load"]["hops"] == 150


def test_a_rate_that_the_device_does_not_run_at_is_a_note_since_it_is_bridged(server):
    run = doctor("--rate", "48000")
    assert run.returncode == 0
    assert ("sound", "bridge", "note") in rows(run.stdout)
    assert "at 48000 Hz 'system' must be resampled" in " ".join(run.stdout.split())
    assert "passthrough + mixture at 48000 Hz" in run.stdout


def test_without_devices_no_stream_can_run_and_the_status_is_3(tmp_path):
    require_audio()
    nothing = {"JACK_DEFAULT_SERVER": "none", "JACK_NO_START_SERVER": "1"}
    run = doctor(**nothing)
    if run.returncode == 0:
        pytest.skip("this machine has sound devices")
    assert run.returncode == 3
    assert {("sound", "input", "problem"), ("sound", "output", "problem")} <= set(rows(run.stdout))
    assert run.stdout.splitlines()[-1].startswith("`rtsep live` cannot run; ")


@linux
def test_two_devices_with_two_clocks_are_a_note(server, tmp_path):
    device = 'pcm.{} {{ type plug slave.pcm "null" hint {{ show on }} }}\n'
    (tmp_path / ".asoundrc").write_text(device.format("one") + device.format("two"))
    code = (
        "from rtsep.live import find_device\nfrom rtsep.live.health import _bridge\n"
        "one, two = find_device('one', 'input'), find_device('two', 'output')\n"
        "print(len(list(_bridge(one, one, 44100))), len(list(_bridge(one, two, 44100))))"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).split() == ["0", "1"]


def test_without_portaudio_everything_else_is_checked_and_the_installation_is_told(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes.util\n"
        "find = ctypes.util.find_library\n"
        "ctypes.util.find_library = lambda name: None if name == 'portaudio' else find(name)\n"
    )
    run = doctor("--json", PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    if run.returncode == 0:
        pytest.skip("sounddevice contains PortAudio on this system")
    assert (run.returncode, run.stderr) == (3, "")
    report = json.loads(run.stdout)
    assert not report["can_stream"]
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert findings["PortAudio"]["status"] == "problem"
    assert findings["PortAudio"]["advice"][0].startswith("install")
    assert findings["settings"]["values"]["sr"] == 48_000
    assert findings["load"]["values"]["hops"] == 150


def test_bad_settings_are_one_line_before_anything_is_checked():
    run = doctor("--window-ms", "0")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "rtsep: --window-ms=0.0 is not between 0.005 and 1000 ms\n"


@linux
def test_ctrl_c_ends_the_measurement():
    command = [sys.executable, "-m", "rtsep", "doctor", *PLAIN]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        while "kernels" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "rtsep: interrupted\n")


@linux
def test_a_machine_that_tells_nothing_about_itself_is_checked_all_the_same(machine):
    findings = list(health.check_machine())
    assert {finding.name for finding in findings} >= {"versions", "processor", "clock", "priority", "kernel"}
    assert next(finding for finding in findings if finding.name == "clock").status == "unknown"


@linux
@pytest.mark.parametrize(
    ("governors", "status"),
    [(["performance"] * 2, "ok"), (["performance", "powersave"], "note"), (["ondemand"], "note")],
)
def test_a_clock_that_follows_the_load_is_a_note_with_the_command(machine, governors, status):
    for number, governor in enumerate(governors):
        machine(f"sys/devices/system/cpu/cpufreq/policy{number}/scaling_governor", f"{governor}\n")
    clock = found("clock")
    assert clock.status == status
    assert all(governor in clock.text for governor in governors)
    assert ("    sudo cpupower frequency-set -g performance" in clock.advice) == (status == "note")


@linux
def test_without_real_time_priority_the_lines_and_the_group_are_told(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    priority = found("priority")
    assert priority.status == "note"
    copied = [line.strip() for line in priority.advice if line.startswith(" ")]
    group = copied[0].split()[0].removeprefix("@")
    assert copied[:2] == [f"@{group} - rtprio 95", f"@{group} - memlock unlimited"]
    assert priority.advice[0] == "write to /etc/security/limits.d/audio.conf:"
    # Once the lines are there, their group is the one to join.
    machine("etc/security/limits.d/99-sound.conf", "@musicians   -  rtprio     90\n")
    advice = found("priority").advice
    assert not any("write to" in line for line in advice)
    assert any(line.startswith("    sudo usermod -aG musicians ") for line in advice)
    machine("proc/77/comm", "rtkit-daemon\n")
    assert "PipeWire gets it from rtkit" in found("priority").text


def refuse(*_: object) -> None:
    raise PermissionError


@linux
def test_a_user_without_privileges_is_told_how_to_get_them():
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    code = (
        "import grp, os, pwd, resource\nfrom rtsep.live.health import check_machine\n"
        "resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))\n"
        "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
        "for f in check_machine(): print(f.name, '=', f.status, *f.advice)"
    )
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    (priority,) = [line for line in lines if line.startswith("priority = note ")]
    assert "sudo usermod -aG " in priority
    assert "memory lock = note JACK likes more: as for the priority" in lines


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    assert found("kernel cache").status == "ok"
    # Below a file nothing can be made, not even by root.
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    cache = found("kernel cache")
    assert cache.status == "note"
    assert str(tmp_path / "own") in cache.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "own"))
    cache = found("kernel cache")
    assert cache.status == "problem"
    assert "rtsep warm" in cache.advice[0]
    assert "NUMBA_CACHE_DIR" in cache.advice[0]


@linux
def test_swap_is_mentioned_only_where_memory_is_short(machine):
    total = "MemTotal: 1000 kB\nSwapTotal: 1000 kB\n"
    machine("proc/meminfo", total + "MemAvailable: 500 kB\nSwapFree: 100 kB\n")
    assert "swap" not in {finding.name for finding in health.check_machine()}
    machine("proc/meminfo", total + "MemAvailable: 50 kB\nSwapFree: 1000 kB\n")
    assert "swap" not in {finding.name for finding in health.check_machine()}
    machine("proc/meminfo", total + "MemAvailable: 50 kB\nSwapFree: 100 kB\n")
    assert found("swap").status == "note"


@linux
@pytest.mark.parametrize(
    ("program", "word"),
    [("jackd", "JACK_DEFAULT_SERVER"), ("pipewire", "pipewire-jack"), ("pulseaudio", "pasuspender")],
)
def test_a_server_that_is_not_used_is_pointed_out(machine, program, word):
    machine("proc/12/comm", f"{program}\n")
    servers = health._servers([])
    assert servers.status == "note"
    assert word in servers.advice[0]


def test_the_block_lasts_twice_as_long_as_the_usual_hop_however_long_the_slowest_one_took():
    took, late = np.array([1e-3, 1.5e-3, 1e-3]), np.array([0, 0.5e-3, 0.1e-3])
    assert Endurance(took, late).smallest_block(16_000) == 32
    assert Endurance(took, late).smallest_block(48_000) == 128  # 2 ms are 96 samples
    assert Endurance(took, 100 * late).smallest_block(48_000) == 128
    assert Endurance(0.001 * took, late).smallest_block(8_000) == 32  # never fewer
    assert Endurance(1000 * took, late).smallest_block(8_000) is None
    assert Endurance(took, late).shares(0.002) == pytest.approx({"median": 0.5, "p999": 0.7495, "max": 0.75}, abs=1e-4)


def test_every_hop_is_measured():
    separator = Separator(StreamConfig(16_000, 256, 64, n_channels=2), "passthrough", "mixture")
    measured = measure(separator, 0.1, realtime=True)
    assert measured.took_s.shape == measured.late_s.shape == (25,)
    assert (measured.took_s > 0).all()
    assert (measured.late_s >= 0).all()
    assert separator.counts["replaced"] == 0


@pytest.mark.parametrize(("seconds", "status"), [(3e-3, "problem"), (1e-4, "ok")])
def test_a_hop_that_takes_too_long_is_a_problem_with_the_options_that_help(monkeypatch, seconds, status):
    slow = Endurance(np.full(100, seconds), np.zeros(100))
    monkeypatch.setattr(health, "measure", lambda separator, duration, realtime: slow)
    separator = Separator(StreamConfig(16_000), "passthrough", "mixture")
    findings = health.check_engine(lambda: Fitted(separator, "", 0), "ALSA", 1.0)
    load = next(finding for finding in findings if finding.name == "load")
    assert load.status == status
    assert bool(load.advice) == (status == "problem")
    assert ("--iterations" in "".join(load.advice)) == (status == "problem")
