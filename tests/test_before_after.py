"""The demo of five examples, run as anybody would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
import signals
import soundfile as sf

from rtsep import separate
from rtsep.estimators import Speech, Talkers
from rtsep.estimators.learned import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
NOISE_FILES = {f"{number}_{name}.flac" for number in range(1, 6) for name in ("mixture", "speech", "true")}
TALKER_FILES = {f"{n}_{name}.flac" for n in (4, 5) for name in ("mixture", "talker1", "talker2", "true1", "true2")}


def before_after(*args: object) -> str:
    command = [sys.executable, ROOT / "demos" / "before_after.py", *map(str, args)]
    return subprocess.check_output(command, text=True, timeout=120)


def check_page(folder: Path, sounds: set[str]) -> None:
    """All files are there and named in the page, which needs nothing else."""
    assert {path.name for path in folder.glob("*.flac")} == sounds
    page = (folder / "index.html").read_text()
    assert set(re.findall(r'<audio [^>]*src="([^"]*)"', page)) == sounds
    assert re.findall(r'<img src="([^"]*)"', page) == [f"{number}.png" for number in range(1, 6)]
    assert all((folder / f"{number}.png").stat().st_size > 20_000 for number in range(1, 6))
    assert "<script" not in page
    assert "//" not in page


def test_before_and_after_with_folders_has_noise_and_talkers_and_true_sources(tmp_path):
    for name in ("speech", "noise"):
        (tmp_path / name).mkdir()
    for seed in range(2):
        for j, voice in enumerate(signals.voices(112_000, seed=seed)):
            sf.write(tmp_path / "speech" / f"{'ab'[j]}{seed}.flac", voice, 16_000)
    sf.write(tmp_path / "noise" / "street.flac", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    out, model = tmp_path / "out", models.tiny(Speech)
    text = before_after(
        *(tmp_path / "speech", tmp_path / "noise", "-o", out),
        *("--speech-model", model, "--talkers-model", models.tiny(Talkers)),
    )
    check_page(out, {name for name in NOISE_FILES if name[0] in "123"} | TALKER_FILES)
    assert text.count("SI-SDR") == 3 * 2 + 2 * 2
    mixture, heard = sf.read(out / "1_mixture.flac")[0], sf.read(out / "1_speech.flac")[0]
    assert np.abs(separate(mixture, 16_000, Speech(model))[0] - heard).max() < 1e-3
    assert np.abs(heard).max() > 0.01


@pytest.mark.skipif(not (SHIPPED / Speech.shipped).exists(), reason="no model for speech is shipped")
def test_before_and_after_runs_with_what_the_package_ships(tmp_path):
    text = before_after("-o", tmp_path)
    check_page(tmp_path, NOISE_FILES)
    assert "SI-SDR" not in text
