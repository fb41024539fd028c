"""What the documentation says is what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from rtsep.engine.registry import PHASES
from rtsep.phase import MISI, OMISI, BregmanGradient, MixturePhase, Wiener

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import algorithms
import known_sounds
import latency
import learned_page
import oracle
import pages
import restoration
import target

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def measured():
    return json.loads((DOCS / "algorithms.json").read_text())


def test_the_table_of_algorithms_is_the_one_that_was_measured(measured):
    assert (DOCS / "algorithms.md").read_text() == algorithms.render(measured)


def test_every_registered_phase_recovery_is_in_the_table(measured):
    ours = {name for name, kind in PHASES.items() if kind.__module__.startswith("rtsep.")}
    assert ours <= {entry["name"] for entry in measured["algorithms"]}


def test_the_oracle_study_is_the_one_that_was_measured():
    assert (DOCS / "oracle.md").read_text() == oracle.render(json.loads((DOCS / "oracle.json").read_text()))


def test_the_page_of_latencies_is_the_one_that_was_measured():
    assert (DOCS / "latency.md").read_text() == latency.render(json.loads((DOCS / "latency.json").read_text()))


def test_the_pages_of_known_sounds_restoration_and_target_are_what_was_measured():
    for study in (known_sounds, restoration, target):
        name = study.__name__
        assert (DOCS / f"{name}.md").read_text() == study.render(json.loads((DOCS / f"{name}.json").read_text()))


def test_the_page_of_the_learned_estimators_is_the_one_that_was_measured():
    assert (DOCS / "learned.md").read_text() == learned_page.render(json.loads((DOCS / "learned.json").read_text()))


def test_the_page_of_adaptations_is_the_one_that_was_measured_with_the_stages_of_now():
    pytest.importorskip("torch")
    import adapt

    result = json.loads((DOCS / "adapt.json").read_text())
    assert (DOCS / "adapt.md").read_text() == adapt.render(result)
    # Which weights they were is on the page: an hour of training does not go with every change of them.
    assert all(row["trained"]["stages"] == adapt.trained(row["kind"])["stages"] for row in result["rows"])


def test_the_table_of_peers_is_the_one_that_was_measured():
    # bench/peers is run as a folder.
    spec = importlib.util.spec_from_file_location("peers", ROOT / "bench" / "peers" / "__main__.py")
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    assert (DOCS / "peers.md").read_text() == peers.page(json.loads((DOCS / "peers.json").read_text()))


def test_the_page_of_engines_by_kind_is_the_one_that_was_measured(monkeypatch):
    pytest.importorskip("torch", reason='the rooms of the training need pip install ".[train]"')
    monkeypatch.syspath_prepend(ROOT / "bench" / "peers")
    kinds = importlib.import_module("kinds")
    assert (DOCS / "peers_kinds.md").read_text() == kinds.render(json.loads((DOCS / "peers_kinds.json").read_text()))


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("README.md", ["latency", "peers"]),
        ("docs/evaluation.md", ["evaluation"]),
        ("docs/training.md", ["talkers", "adaptation"]),
        ("docs/speed.md", ["cost"]),
    ],
)
def test_tables_in_pages_are_those_that_were_measured(page, names):
    text = (ROOT / page).read_text()
    assert re.findall(r"<!-- measured: (\w+) -->", text) == names
    assert text == pages.fill(text), "renew with: python bench/pages.py"


@pytest.mark.parametrize(
    ("phase", "n_src", "n_ffts"),
    [
        (MixturePhase(), 2, 2),  # analysis; the difference back
        (OMISI(n_iter=5), 2, 13),  # analysis; target; 5 times there and back; back
        (OMISI(n_iter=5, lookahead=2), 3, 70),  # 1 + 3 + 3 * 2 * (2 * 5 + 1)
        (OMISI(n_iter=5, order="published"), 2, 13),
        (MISI(n_iter=5, lookahead=0), 2, 23),  # analysis; both back; 5 times both there and back
        (MISI(n_iter=5), 2, 24),
        (BregmanGradient(n_iter=1, lookahead=1), 2, 11),
        (Wiener(), 2, 3),
    ],
    ids=str,
)
def test_real_ffts_per_hop_are_counted_by_hand(phase, n_src, n_ffts):
    assert algorithms.transforms(phase, n_src) == n_ffts
