"""Settings of `rtsep live` that stay, and the unit that runs it at log-in; as commands, without devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from rtsep.cli.presets import preset_names, read_preset
from rtsep.cli.service import unit_text
from rtsep.errors import ConfigError

# No server is meant by this name, so that the stream ends where devices are looked for.
NOWHERE = ["--input=-x \"'é"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "none")
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "config"


def rtsep(*words: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtsep", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the folder of Linux")
def test_what_is_kept_is_used_again_and_what_stands_beside_it_wins(home, tmp_path):
    given = ["--strength", "12.5", "--estimator", "denoise", "--no-howling", "--input-channels", "2,1"]
    kept = rtsep("live", *given, "--virtual-mic", "--record", "take", *NOWHERE, "--save", "meeting", cwd=tmp_path)
    assert "`rtsep live meeting` uses it" in kept.stdout
    words = read_preset("meeting")
    assert set(words) == {
        "--strength=12.5",
        "--estimator=denoise",
        "--no-howling",
        "--input-channels=2,1",
        "--virtual-mic",
        f"--record={tmp_path / 'take'}",
        "--input=-x \"'é",
    }
    assert [path.name for path in (home / "rtsep/presets").iterdir()] == ["meeting.toml"]
    again = rtsep("live", "meeting", "--virtual-mic", "not: this")
    assert (again.returncode, "'not: this'" in again.stderr) == (2, True)
    wins = rtsep("live", "meeting", "--strength", "-1")
    assert (wins.returncode, "--strength=-1" in wins.stderr) == (2, True), wins
    rtsep("live", "meeting", "--strength", "3", "--save", "softly")
    assert set(read_preset("softly")) == set(words) - {"--strength=12.5"} | {"--strength=3.0"}
    assert "meeting: rtsep live " in rtsep("presets").stdout
    assert rtsep("presets", "--remove", "meeting").returncode == 0
    assert preset_names() == ["softly"]


def test_what_cannot_work_is_not_kept():
    run = rtsep("live", "--estimator", "nosuch", "--save", "meeting")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert preset_names() == []


@pytest.mark.skipif(sys.platform != "linux", reason="writes to the folder of Linux")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('strength = "loud"', "argument --strength: invalid float value: 'loud'"),
        ("strength = [", "Invalid value"),
        ("nosuch = 1", "unrecognized arguments: --nosuch=1"),
        ("strength = {a = 1}", "is no text, number, list, true or false"),
        ('save = "meeting"', "save is not for presets"),
        ('"x --record" = "/tmp/x"', "x --record is not for presets"),
    ],
)
def test_a_file_that_was_edited_is_checked_as_arguments_are(home, text, message):
    path = home / "rtsep/presets/meeting.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_preset("meeting")
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["nosuch", "../etc/passwd", "", "a b", "x" * 65])
def test_names_that_are_no_presets_are_one_line(name):
    run = rtsep("live", name)
    assert (run.returncode, run.stderr.count("\n"), "Traceback" in run.stderr) == (2, 1, False)


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    text = unit_text(["--virtual-mic", "Clean mic", "--record", 'a "b" 100% $HOME \\ c'], tmp_path)
    assert '"live" "--plain" "--virtual-mic" "Clean mic" "--record" "a \\"b\\" 100%% $$HOME \\\\ c"\n' in text
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "rtsep.service").write_text(text)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "verify", "--user", str(tmp_path / "rtsep.service")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (run.returncode, "rtsep.service:" in run.stderr) == (0, False), run.stderr


@pytest.mark.parametrize("words", [["--strength", "x"], ["nosuch"], ["--virtual-mic", "a:b"], ["--save", "x"]])
def test_a_service_that_could_not_run_is_not_installed(home, words):
    run = rtsep("service", "install", *words)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert not (home / "systemd").exists()


def test_a_service_without_systemd_answering_is_said_and_can_be_removed(home):
    run = rtsep("service", "install", "--strength", "12")
    assert (run.returncode, run.stderr.count("\n")) == (3, 1)
    assert ("systemd did not do" in run.stderr) or ("systemd is not on this system" in run.stderr)
    unit = home / "systemd/user/rtsep.service"
    if unit.exists():
        assert '"--strength" "12" "--virtual-mic"\n' in unit.read_text()
        assert rtsep("service", "remove").returncode == 0
        assert not unit.exists()
    assert rtsep("service", "remove").stdout == "there is no service to remove\n"
