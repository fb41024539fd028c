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
import ablation
import algorithms
import learned_page
import oracle
import pages

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


def variant(name, group="losses", mask=5.0, magnitudes=4.0, weights=277_000, file_kb=600.0, note=""):
    """A result of the ablation that nobody measured."""
    return {
        "name": name,
        "group": group,
        "si_sdri": {"mask": mask, "magnitudes": magnitudes, "misi": magnitudes},
        "weights": weights,
        "file_kb": file_kb,
        "us_per_hop": 17.04,
        "training_s": 260.0,
        "core_s": 500.0,
        "note": note,
    }


@pytest.fixture
def made_up_ablation():
    return {
        "made": {"date": "a day", "machine": "a machine", "python": "3", "versions": {"numba": "0", "torch": "2"}},
        "command": "python bench/ablation.py",
        "stage": {"steps": 6, "batch": 32, "seconds": 2.0},
        "validation": {"mixtures": 40, "seconds": 4.0},
        "variants": [
            variant("as shipped", "shipped"),
            variant("as shipped, another seed", "shipped", 5.1, 4.25),
            variant("large", "size", 5.5, 4.0, 946_000, 1800.0),
            variant("without masks", mask=4.0),
            variant("masks alone", magnitudes=None, note="no magnitudes."),
        ],
    }


def test_the_page_of_the_ablation_has_a_row_for_every_variant(made_up_ablation):
    page = ablation.render(made_up_ablation)
    rows = {line.split(" | ")[0].strip("| *"): line.split(" | ")[1:] for line in page.splitlines() if line[:1] == "|"}
    # Below the heads and a line.
    assert list(rows)[2:] == [
        "as shipped",
        "as shipped, another seed",
        "size: large",
        "losses: without masks",
        "losses: masks alone",
    ]
    assert rows["as shipped"] == ["+5.00", "+4.00", "+4.00", "277 k", "600", "17.0", "260", "500 |"]
    assert rows["size: large"][:5] == ["+5.50 (+0.50)", "+4.00 (+0.00)", "+4.00 (+0.00)", "946 k", "1800"]
    assert rows["losses: masks alone"][:3] == ["+5.00 (+0.00)", "-", "-"]
    assert "by up to 0.25 dB" in page
    assert "- masks alone: no magnitudes." in page
    assert "- large: a file of more than 1500 kB" in page


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_ablation_is_drawn_however_far_it_is(made_up_ablation, n, tmp_path):
    made_up_ablation["variants"] = made_up_ablation["variants"][:n]
    ablation.draw(made_up_ablation, tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").stat().st_size > 10_000


@pytest.mark.skipif(not (DOCS / "ablation.json").exists(), reason="not measured yet")
def test_the_ablation_is_the_one_that_was_measured():
    assert (DOCS / "ablation.md").read_text() == ablation.render(json.loads((DOCS / "ablation.json").read_text()))


def test_the_page_of_the_learned_estimators_is_the_one_that_was_measured():
    assert (DOCS / "learned.md").read_text() == learned_page.render(json.loads((DOCS / "learned.json").read_text()))


def test_the_page_of_adaptations_is_the_one_that_was_measured_with_the_stages_of_now():
    pytest.importorskip("torch")
    import adapt

    result = json.loads((DOCS / "adapt.json").read_text())
    assert (DOCS / "adapt.md").read_text() == adapt.render(result)
    assert all(row["trained"] == adapt.trained(row["kind"]) for row in result["rows"])


def test_the_table_of_peers_is_the_one_that_was_measured():
    # bench/peers is run as a folder.
    spec = importlib.util.spec_from_file_location("peers", ROOT / "bench" / "peers" / "__main__.py")
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    assert (DOCS / "peers.md").read_text() == peers.table(json.loads((DOCS / "peers.json").read_text()))


@pytest.mark.parametrize(
    ("page", "names"),
    [("README.md", ["cost", "peers", "talkers", "adaptation"]), ("docs/evaluation.md", ["evaluation"])],
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
