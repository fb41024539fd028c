"""`rtsep score` as users and scripts see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import signals
from test_files import write

from rtsep import evaluation
from rtsep.cli import main

N = 16_000


@pytest.fixture
def scene(tmp_path):
    """Two voices, noisy estimates of them, and their sum, in files."""
    s = signals.voices(N)
    e = s + 0.01 * np.random.default_rng(0).normal(size=s.shape).astype(np.float32)
    names = {"a": s[0], "b": s[1], "ea": e[0], "eb": e[1], "x": s.sum(0)}
    return {name: write(tmp_path / f"{name}.wav", x) for name, x in names.items()} | {"signals": (s, e)}


def score(*args: object) -> int:
    return main(["score", *map(str, args)])


def report(capsys) -> list:
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_sources_of_one_mixture_are_scored_in_order_with_the_gain(scene, capsys):
    assert score(scene["a"], scene["b"], scene["ea"], scene["eb"], "--mixture", scene["x"], "--json") == 0
    first, second = report(capsys)
    s, e = scene["signals"]
    assert (second["reference"], second["estimate"]) == (str(scene["b"]), str(scene["eb"]))
    assert first["scores"]["si_sdr"] == pytest.approx(evaluation.si_sdr(s[0], e[0]))
    assert first["scores"]["si_sdr_gain"] == pytest.approx(
        evaluation.si_sdr(s[0], e[0]) - evaluation.si_sdr(s[0], s.sum(0))
    )
    assert first["scores"]["si_sir"] == pytest.approx(evaluation.si_sdr_parts(s, e[0], 0).sir)
    assert first["reasons"] == {}


def test_estimates_in_any_order_are_matched(scene, capsys):
    assert score(scene["a"], scene["b"], scene["eb"], scene["ea"], "--any-order", "--json") == 0
    assert [row["estimate"] for row in report(capsys)] == [str(scene["ea"]), str(scene["eb"])]


def test_the_text_has_the_scores_the_gain_and_a_warning_about_the_delay(scene, tmp_path, capsys):
    s, _ = scene["signals"]
    late = write(tmp_path / "late.wav", np.roll(s[0], 40))
    assert score(scene["a"], late, "--mixture", scene["x"], "--scores", "sdr,delay") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{scene['a']} <- {late}\n")
    assert "delay           40.000 samples" in out
    assert "mixture" in out
    assert "not aligned" in out


def test_silence_has_no_score_but_a_reason(scene, tmp_path, capsys):
    silent = write(tmp_path / "silent.wav", np.zeros(N, np.float32))
    assert score(silent, scene["ea"], "--json", "--scores", "si-sdr") == 0
    (row,) = report(capsys)
    assert row["scores"] == {"si_sdr": None}
    assert row["reasons"] == {"si_sdr": "reference is silent"}
    assert score(silent, scene["ea"], "--scores", "si-sdr") == 0
    assert "si_sdr       none: reference is silent" in capsys.readouterr().out


def test_folders_are_compared_name_by_name_and_what_is_missing_is_said(scene, tmp_path, capsys):
    s, e = scene["signals"]
    for folder, first in (("clean", s[0]), ("made", e[0])):
        (tmp_path / folder / "sub").mkdir(parents=True)
        write(tmp_path / folder / "sub" / "1.wav", first)
    write(tmp_path / "clean" / "2.wav", s[1])
    write(tmp_path / "made" / "3.wav", s[1])
    assert score(tmp_path / "clean", tmp_path / "made", "--json", "--scores", "sdr") == 2
    captured = capsys.readouterr()
    missing, row = json.loads(captured.out)
    assert row["scores"]["sdr"] == pytest.approx(evaluation.sdr(s[0], e[0]))
    assert missing["error"] == f"{tmp_path / 'made' / '2.wav'}: No such file or directory"
    assert f"rtsep: {missing['error']}\n" in captured.err
    assert f"{tmp_path / 'made' / '3.wav'}: has no reference" in captured.err


def test_bad_pairs_are_named_and_all_others_scored(scene, tmp_path, capsys):
    s, e = scene["signals"]
    for name, reference, estimate, rate in (
        ("1", s[0], e[0][:-7], N),
        ("2", s[0], e[0], N),
        ("3", s[1], e[1], 2 * N),
        ("4", s[1], e[1], N),
        ("5", s[1], e[1], N),
    ):
        for folder, x, sr in (("clean", reference, N), ("made", estimate, rate)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write(tmp_path / folder / f"{name}.wav", x, sr)
    (tmp_path / "made" / "4.wav").write_bytes(b"not sound")
    folders = (tmp_path / "clean", tmp_path / "made")
    assert score(*folders, "--json", "--scores", "sdr") == 2
    captured = capsys.readouterr()
    reports = json.loads(captured.out)
    assert [Path(report["reference"]).stem for report in reports if "scores" in report] == ["2", "5"]
    bad = {Path(report["reference"]).stem: report["error"] for report in reports if "error" in report}
    assert sorted(bad) == ["1", "3", "4"]
    assert f"1.wav has {N - 7} samples, " in bad["1"]
    assert "3.wav has 32000 Hz, " in bad["3"]
    assert "4.wav" in bad["4"]
    assert [line for line in captured.err.splitlines() if line in {f"rtsep: {text}" for text in bad.values()}]
    assert score(*folders, "--scores", "sdr") == 2
    out = capsys.readouterr().out
    assert out.count(" <- ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "ea"], "3 files: give as many estimates as references"),
        (["a", "short"], "short.wav has 100 samples, "),
        (["a", "fast"], "fast.wav has 48000 Hz, "),
        (["a", "stereo"], "stereo.wav has 2 channels, "),
        (["a", "none"], "none.wav: No such file"),
        (["a", "ea", "--scores", "magic"], "--scores='magic' is not one of si-sdr"),
        (["a", "."], "give two folders, or files alone"),
        ([".", "empty"], "no audio files of the same name"),
        ([".", ".", "--any-order"], "are for the files of one mixture"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_status_2(scene, tmp_path, capsys, arguments, message):
    write(tmp_path / "short.wav", np.ones(100, np.float32))
    write(tmp_path / "fast.wav", np.ones(N, np.float32), 48_000)
    write(tmp_path / "stereo.wav", np.ones((2, N), np.float32))
    (tmp_path / "empty").mkdir()
    names = {name: tmp_path / f"{name}.wav" for name in ("a", "b", "ea", "short", "fast", "stereo", "none")}
    names |= {".": tmp_path, "empty": tmp_path / "empty"}
    assert score(*(names.get(argument, argument) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("rtsep: ")
    assert message in captured.err.splitlines()[-1]


def test_a_score_whose_package_is_missing_names_the_extra(scene, capsys, monkeypatch):
    monkeypatch.setattr("rtsep.evaluation.scores.find_spec", lambda name: None)
    assert score(scene["a"], scene["ea"], "--scores", "pesq") == 2
    assert "score 'pesq' needs pesq: pip install \"rtsep[eval]\"" in capsys.readouterr().err
