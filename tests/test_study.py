"""What the studies in bench share."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import material
import study

from rtsep.estimators import Oracle
from rtsep.phase import OMISI


def test_a_study_goes_on_with_what_the_same_command_has_published(tmp_path, capsys):
    folder = tmp_path / "new"
    assert study.earlier(folder, "a", "x") == {}
    study.publish(folder, "a", {"command": "x", "rows": (1, float("nan"))}, lambda result: f"rows {result['rows']}")
    assert sorted(os.listdir(folder)) == ["a.json", "a.md"]
    assert (folder / "a.md").read_text() == "rows [1, None]"
    assert capsys.readouterr().out == "rows [1, None]\n"
    assert study.earlier(folder, "a", "x") == json.loads((folder / "a.json").read_text())
    assert study.earlier(folder, "a", "y") == {}


def test_a_page_that_cannot_be_made_leaves_the_earlier_results(tmp_path):
    study.publish(tmp_path, "a", {"command": "x"}, lambda result: "page")
    with pytest.raises(KeyError):
        study.publish(tmp_path, "a", {"command": "y"}, lambda result: result["rows"])
    assert study.earlier(tmp_path, "a", "x")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.md"]


def test_the_median_leaves_out_the_first_round():
    values = {"a": iter([9.0, 1.0, 2.0, 4.0]), "b": iter([0.0, 5.0, 5.0, 5.0])}
    assert study.medians({key: (lambda it=it: next(it)) for key, it in values.items()}, 3) == {"a": 2.0, "b": 5.0}


def test_given_magnitudes_are_those_that_the_oracle_has():
    (sources, *_) = material.pairs(None).values()
    sources = sources[:, :16_000]
    given, true = np.abs(material.spectra(sources)), Oracle(sources)
    assert material.mean_gain([sources], [given], OMISI()) == pytest.approx(
        material.gain(sources, true, OMISI()), abs=0.1
    )


def test_degraded_magnitudes_have_the_error_that_they_are_called_after():
    true = material.spectra(next(iter(material.pairs(None).values())))
    for degrade in (material.independent, material.smooth):
        error_db = 20 * np.log10(degrade(true, 3.0) / np.abs(true))
        assert np.sqrt(np.mean(error_db**2)) == pytest.approx(3, abs=0.02)
