"""Which files of a folder are audio, the same for every command."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_files import recording, write

from rtsep.audio_files import SUFFIXES, FileError, find_audio, read_alike
from rtsep.cli import main
from rtsep.evaluation.corpus import read_corpus
from rtsep.recordings import find_recordings


@pytest.fixture
def folder(tmp_path):
    """A mixture and its sources under every suffix; all of the same content, which is what libsndfile goes by."""
    wav = write(tmp_path / "a.wav", recording(2_000))
    for suffix in SUFFIXES:
        for name in ("mixture", "speech", "noise"):
            (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(wav, tmp_path / "in" / name / f"a{suffix[1:]}{suffix.upper()}")
    return tmp_path / "in"


def test_all_commands_take_the_same_files_of_a_folder_for_audio(folder, tmp_path, capsys):
    speech = folder / "speech"
    (speech / ".hidden").mkdir()
    for name in ("notes.txt", ".a.wav", ".hidden/a.wav", "wav"):
        shutil.copy(speech / "awav.WAV", speech / name)
    expected = sorted(f"a{suffix[1:]}{suffix.upper()}" for suffix in SUFFIXES)
    assert find_audio(speech) == expected
    assert [recording.name for recording in find_recordings(speech, pytest.fail)] == expected
    assert [item.mixture.name for item in read_corpus(folder)] == expected
    assert main(["separate", str(speech), "-o", str(tmp_path / "out"), "--estimator", "passthrough", "--json"]) == 0
    assert sorted(file["input"].rsplit("/", 1)[1] for file in json.loads(capsys.readouterr().out)["files"]) == expected
    assert main(["score", str(speech), str(folder / "noise"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(SUFFIXES)


def test_what_differs_from_the_first_recording_is_said(tmp_path):
    paths = [write(tmp_path / f"{n}.wav", np.zeros(n, np.float32)) for n in (100, 101)]
    with pytest.raises(FileError, match=r"101\.wav has 101 samples, .*100\.wav has 100"):
        read_alike(paths)
