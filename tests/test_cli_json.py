"""`--json` is JSON, whatever happens, in every command; and messages speak of what was typed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from test_files import write

from rtsep.cli import main, make_parser

RECORDING = Path(__file__).parents[1] / "rtsep" / "data" / "noisy_speech.flac"


def commands() -> list[str]:
    parser = make_parser()
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(action.choices)


def parse(text: str) -> object:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("command", commands())
def test_a_refusal_is_json_too(command, capsys):
    status = main([command, "--no-such-option", "--json"])
    captured = capsys.readouterr()
    report = parse(captured.out)
    assert report["status"] == status == 2
    assert captured.err == f"{report['error']}\n" or captured.err == f"rtsep {command}: {report['error']}\n"


REFUSALS = {
    "separate": ["nowhere.wav", "-o", "out", "--window-ms", "nan"],
    "score": ["a.wav", "b.wav", "--scores", "magic"],
    "mix": ["--speech", "nowhere", "--noise", "nowhere", "-o", "out"],
    "evaluate": ["nowhere", "-o", "out"],
    "learn": ["a=nowhere", "-o", "model.npz"],
    "restore": ["nowhere.wav", "-o", "out.wav"],
    "warm": ["--estimator", "magic"],
    "doctor": ["--rate", "3"],
}


@pytest.mark.parametrize("command", REFUSALS)
def test_what_the_library_refuses_is_json_with_the_same_line(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = main([command, *REFUSALS[command], "--json"])
    captured = capsys.readouterr()
    report = parse(captured.out)
    assert status == 2
    assert report == {"error": captured.err.removeprefix("rtsep: ").rstrip("\n"), "status": 2}


def test_list_gives_names_and_what_they_are(capsys):
    assert main(["list", "--json"]) == 0
    report = parse(capsys.readouterr().out)
    estimators = {entry["name"]: entry for entry in report["estimators"]}
    assert estimators["speech"]["command_line"]
    assert not estimators["oracle"]["command_line"]
    assert all(entry["summary"] for entry in report["estimators"] + report["phases"])
    assert "omisi" in {entry["name"] for entry in report["phases"]}


def test_commands_that_write_files_report_them(tmp_path, capsys):
    for name in ("voices", "street"):
        (tmp_path / name).mkdir()
    (tmp_path / "voices" / "a.flac").write_bytes(RECORDING.read_bytes())
    (tmp_path / "street" / "b.flac").write_bytes(RECORDING.read_bytes())
    folders = ["--speech", str(tmp_path / "voices"), "--noise", str(tmp_path / "street")]
    assert main(["mix", *folders, "-o", str(tmp_path / "mixtures"), "--count", "2", "--json"]) == 0
    captured = capsys.readouterr()
    report = parse(captured.out)
    assert Path(report["manifest"]).exists()
    assert (report["count"], report["sources"]) == (2, ["speech", "noise"])
    assert report["manifest"] in captured.err  # people still read it
    assert main(["restore", str(RECORDING), "-o", str(tmp_path / "clean.wav"), "--json"]) == 0
    report = parse(capsys.readouterr().out)
    assert (report["kind"], report["sr"]) == ("click", 16_000)
    assert Path(report["output"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["separate", "x.wav", "-o", "out", "--hop-ms", "16"], "--hop-ms=16 is too long for a window of 16 ms"),
        (["separate", "x.wav", "-o", "out", "--strength", "-inf"], "--strength=-inf is not 0 dB or more"),
        (["separate", "x.wav", "-o", "out", "--strength", "nan"], "--strength=nan is not 0 dB or more"),
        (["separate", "x.wav", "-o", "out", "--strength", "-1e3"], "--strength=-1000.0 is not 0 dB or more"),
        (["mix", "-o", "out", "--duration", "nan"], "--duration=nan is not between 0.1 and 600 s"),
        (["mix", "-o", "out", "--snr", "20", "nan"], "--snr=20 to nan is no range between"),
        (["score", "a.wav", "b.wav", "--scores", "x"], "--scores='x' is not one of si-sdr"),
        (["live", "--seconds", "-1"], "--seconds=-1.0 is not 0 s or more"),
    ],
)
def test_messages_name_what_was_typed_in_its_units(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.wav", [0.1] * 1000)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
