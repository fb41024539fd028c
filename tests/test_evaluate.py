"""`rtsep evaluate`: what it finds is what is true, and nothing stops it half way."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import numpy as np
import pytest
import signals
import soundfile as sf
from test_apart import wait_for_end
from test_files import posix, write

from rtsep import ConfigError, separate
from rtsep.cli import main
from rtsep.estimators import Speech, Talkers
from rtsep.evaluation import si_sdr, summary
from rtsep.evaluation.corpus import read_corpus
from rtsep.evaluation.evaluate import Setup, separate_item
from rtsep.evaluation.workers import Failure, Task, run_local
from rtsep.phase import MixturePhase

SR, N = 16_000, 8_000
QUICK = ("--estimator", "denoise", "--phase", "mixture", "--jobs", 1)
CLASSES = ("rain", "wind", "<u>")


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    """Six mixtures of half a second, as `rtsep mix` writes them."""
    folder = tmp_path_factory.mktemp("mixtures")
    entries = []
    for i in range(6):
        rng = np.random.default_rng(i)
        speech = signals.voices(N, n_src=1, seed=i)[0]
        noise = (10 ** (-i / 10) * 0.05 * rng.normal(size=N)).astype(np.float32)
        for name, x in (("mixture", speech + noise), ("speech", speech), ("noise", noise)):
            (folder / name).mkdir(exist_ok=True)
            write(folder / name / f"{i}.wav", x)
        sources = {"speech": {"file": f"speech/{i}.wav"}, "noise": f"noise/{i}.wav"}
        snr_db = float(10 * np.log10(np.mean(speech**2) / np.mean(noise**2)))
        head = {"id": str(i), "mixture": f"mixture/{i}.wav"}
        entries.append(head | {"sources": sources, "snr_db": snr_db, "class": CLASSES[i % 3]})
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "manifest.jsonl").write_text(lines)
    return folder


@pytest.fixture
def corpus(mixtures, tmp_path):
    """A copy of the mixtures that can be damaged."""
    return Path(shutil.copytree(mixtures, tmp_path / "corpus"))


def evaluate(corpus: Path, out: Path, *options: object) -> int:
    return main(list(map(str, ["evaluate", corpus, "-o", out, *options])))


def rows(out: Path) -> list[dict]:
    text = (out / "files.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["rows"]


def load_summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def test_every_mixture_has_the_scores_that_the_library_gives(mixtures, tmp_path, capsys):
    assert evaluate(mixtures, tmp_path, *QUICK) == 0
    table = rows(tmp_path)
    assert [(row["id"], row["source"]) for row in table] == [(str(i), s) for i in range(6) for s in ("speech", "noise")]
    x, _ = sf.read(mixtures / "mixture" / "2.wav", dtype="float32")
    s, _ = sf.read(mixtures / "speech" / "2.wav", dtype="float32")
    expected = si_sdr(s, separate(x, SR, "denoise", "mixture")[0])
    (row,) = [row for row in table if (row["id"], row["source"]) == ("2", "speech")]
    assert row["si_sdr"] == pytest.approx(expected, abs=1e-9)
    assert row["si_sdr_input"] == pytest.approx(si_sdr(s, x), abs=1e-9)
    assert row["si_sdr_gain"] == pytest.approx(expected - si_sdr(s, x), abs=1e-9)
    assert (row["class"], row["duration_s"]) == ("<u>", 0.5)
    assert 0 < row["real_time_factor"] < 100
    found = load_summary(tmp_path)
    (entry,) = [e for e in found["all"] if (e["source"], e["column"]) == ("speech", "si_sdr")]
    values = [row["si_sdr"] for row in table if row["source"] == "speech"]
    assert (entry["n"], entry["missing"]) == (6, 0)
    assert entry["median"] == pytest.approx(np.median(values))
    assert entry["ci_low"] < entry["mean"] == pytest.approx(np.mean(values))
    assert {e["group"] for e in found["by_class"]} == set(CLASSES)
    assert sum(e["n"] for e in found["by_snr"] if (e["source"], e["column"]) == ("speech", "si_sdr")) == 6
    assert found["made"]["versions"]["numpy"] == np.__version__
    out = capsys.readouterr().out
    (gain,) = [e for e in found["all"] if (e["source"], e["column"]) == ("speech", "si_sdr_gain")]
    assert out.startswith(found["finding"])
    assert f"{gain['mean']:+.1f} ({gain['ci_low'] + 0.0:.1f} to {gain['ci_high']:.1f})" in out
    for name in ("files.csv", "files.json", "summary.json", "report.png", "report.html"):
        assert str(tmp_path / name) in out


def test_the_table_of_files_is_also_csv_with_reasons_for_what_is_empty(corpus, tmp_path):
    write(corpus / "noise" / "0.wav", np.zeros(N, np.float32))
    assert evaluate(corpus, tmp_path / "out", *QUICK) == 0
    with open(tmp_path / "out" / "files.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    silent = [line for line in table if line["si_sdr"] == ""]
    assert [(line["id"], line["source"]) for line in silent] == [("0", "noise")]
    assert silent[0]["reasons"] == "si_sdr si_sdr_input si_sdr_gain: reference is silent"
    for line, row in zip(table, rows(tmp_path / "out"), strict=True):
        assert line["si_sdr"] == ("" if row["si_sdr"] is None else str(row["si_sdr"]))


def test_one_bad_file_does_not_stop_the_rest(corpus, tmp_path, capsys):
    (corpus / "mixture" / "1.wav").write_bytes((corpus / "mixture" / "1.wav").read_bytes()[:5_000])
    (corpus / "speech" / "3.wav").unlink()
    write(corpus / "noise" / "4.wav", np.zeros(10, np.float32))
    assert evaluate(corpus, tmp_path / "out", *QUICK) == 2
    assert {row["id"] for row in rows(tmp_path / "out")} == {"0", "2", "5"}
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert re.match(r"rtsep: denoise\+mixture: 1: .*1.wav: ends early", errors[0])
    assert re.match(r"rtsep: denoise\+mixture: 3: .*3.wav: No such file", errors[1])
    assert re.match(r"rtsep: denoise\+mixture: 4: .*4.wav has 10 samples, ", errors[2])
    assert [entry["id"] for entry in load_summary(tmp_path / "out")["failed"]] == ["1", "3", "4"]
    shutil.copy(corpus / "mixture" / "0.wav", corpus / "mixture" / "1.wav")
    assert evaluate(corpus, tmp_path / "out", *QUICK) == 2  # what failed is tried again
    assert {row["id"] for row in rows(tmp_path / "out")} == {"0", "1", "2", "5"}


def test_nothing_that_can_be_scored_is_one_line_and_status_2(corpus, tmp_path, capsys):
    shutil.rmtree(corpus / "mixture")
    assert evaluate(corpus, tmp_path / "out", *QUICK) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("rtsep: nothing to summarise")


def test_a_run_goes_on_where_it_was_and_a_torn_line_does_no_harm(mixtures, tmp_path, capsys):
    assert evaluate(mixtures, tmp_path, *QUICK) == 0
    done = tmp_path / "done.jsonl"
    lines = done.read_text().splitlines(keepends=True)
    marked = re.sub(r'"si_sdr": [-\d.]+', '"si_sdr": 77.5', lines[0], count=1)
    done.write_text(marked + lines[1] + lines[2][:50])
    capsys.readouterr()
    assert evaluate(mixtures, tmp_path, *QUICK) == 0
    assert "2 are done from before" in capsys.readouterr().err
    table = rows(tmp_path)
    assert len(table) == 12
    assert table[0]["si_sdr"] == 77.5  # not done again
    assert len(done.read_text().splitlines()) == 6


def test_another_evaluation_in_the_folder_is_refused_and_replaced_if_told(mixtures, tmp_path, capsys):
    assert evaluate(mixtures, tmp_path, *QUICK) == 0
    assert evaluate(mixtures, tmp_path, *QUICK, "--scores", "sdr") == 2
    assert "holds another evaluation (--overwrite replaces it)" in capsys.readouterr().err
    assert evaluate(mixtures, tmp_path, *QUICK, "--scores", "sdr", "--overwrite") == 0
    assert "si_sdr" not in rows(tmp_path)[0]


def test_setups_side_by_side_have_paired_differences_and_the_oracle_wins(mixtures, tmp_path):
    options = ("--compare", "denoise+mixture", "oracle+omisi", "--jobs", 2, "--scores", "si-sdr,delay")
    assert evaluate(mixtures, tmp_path, *options) == 0
    table, found = rows(tmp_path), load_summary(tmp_path)
    assert len(table) == 2 * 12
    assert [setup["estimator"]["name"] for setup in found["evaluation"]["setups"]] == ["denoise", "oracle"]
    differences = {(e["setup"], e["source"], e["column"]): e for e in found["differences"]}
    assert all(e["baseline"] == "denoise+mixture" for e in differences.values())
    oracle = differences["oracle+omisi", "speech", "si_sdr"]
    assert (oracle["n"], oracle["higher"]) == (6, 1.0)
    values = {(row["setup"], row["id"]): row["si_sdr"] for row in table if row["source"] == "speech"}
    expected = np.mean([values["oracle+omisi", str(i)] - values["denoise+mixture", str(i)] for i in range(6)])
    assert oracle["mean"] == pytest.approx(expected)
    assert 0 < oracle["ci_low"] < expected < oracle["ci_high"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compare", "magic"], "--compare magic: estimator 'magic' is not one of"),
        (["--compare", "denoise+magic"], "--compare denoise+magic: phase 'magic' is not one of"),
        (["--compare", "denoise+omisi:x"], "--compare denoise+omisi:x: is not ESTIMATOR[+PHASE"),
        (["--compare", "denoise+omisi:1:2:3"], "is not ESTIMATOR[+PHASE"),
        (["--compare", "denoise", "denoise"], "the same is asked for twice"),
        (["--compare", "denoise+omisi:9999"], "omisi:9999: iterations 9999 is not between 0 and 1000"),
        (["--scores", "magic"], "--scores='magic' is not one of"),
        (["--jobs", "0"], "jobs=0 is not between 1 and 1024"),
    ],
)
def test_bad_options_are_refused_in_one_line_with_the_value(mixtures, tmp_path, capsys, options, message):
    assert evaluate(mixtures, tmp_path / "out", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_sources_without_common_names_are_matched_by_their_signals(corpus, tmp_path, capsys):
    (corpus / "manifest.jsonl").unlink()
    (corpus / "noise").rename(corpus / "a")
    (corpus / "speech").rename(corpus / "b")
    assert evaluate(corpus, tmp_path / "out", *QUICK) == 0
    table = rows(tmp_path / "out")
    assert {row["source"] for row in table} == {"a", "b"}
    assert np.median([row["si_sdr"] for row in table if row["source"] == "b"]) > 5
    shutil.copytree(corpus / "b", corpus / "c")
    assert evaluate(corpus, tmp_path / "three", *QUICK) == 2
    assert "denoise+mixture makes speech, noise, the mixture has a, b, c" in capsys.readouterr().err


def test_the_residual_of_an_estimator_is_compared_with_all_that_it_does_not_name(corpus, tmp_path):
    entries = []
    for i in range(2):
        talkers = signals.voices(N, n_src=2, seed=i)
        noises = 0.02 * np.random.default_rng(i).normal(size=(2, N))
        sources = dict(zip(("speech1", "speech2", "hum", "hiss"), [*talkers, *noises], strict=True))
        for name, x in (sources | {"mixture": sum(sources.values())}).items():
            write(corpus / f"{i}.{name}.wav", np.float32(x))
        files = {name: f"{i}.{name}.wav" for name in sources}
        entries.append(json.dumps({"id": str(i), "mixture": f"{i}.mixture.wav", "sources": files}))
    (corpus / "two.jsonl").write_text("\n".join(entries) + "\n")
    item = read_corpus(corpus / "two.jsonl")[0]
    scene = separate_item(item, Setup("t", Talkers(models.tiny(Talkers)), MixturePhase())).scene
    assert scene.sources == ("speech1", "speech2", "residual")
    hum, hiss = (sf.read(item.sources[name])[0] for name in ("hum", "hiss"))
    np.testing.assert_allclose(scene.references[2, 0], hum + hiss, atol=1e-6)
    np.testing.assert_allclose(scene.estimates.sum((0, 1)), scene.mixture[0], atol=1e-5)
    # One that is left keeps its name, so that engines with and without a residual are compared.
    item = read_corpus(corpus / "manifest.jsonl")[0]
    assert separate_item(item, Setup("s", Speech(models.tiny(Speech)), MixturePhase())).scene.sources == (
        "speech",
        "noise",
    )


def test_a_corpus_is_a_manifest_or_folders_of_the_same_names(corpus):
    from_manifest = read_corpus(corpus)
    assert read_corpus(corpus / "manifest.jsonl") == from_manifest
    assert from_manifest[1].sources == {name: corpus / name / "1.wav" for name in ("speech", "noise")}
    assert from_manifest[1].label == "wind"
    (corpus / "manifest.jsonl").unlink()
    from_folders = read_corpus(corpus)
    assert [item.mixture for item in from_folders] == [item.mixture for item in from_manifest]
    assert from_folders[0].snr_db is None
    assert from_folders[0].sources == {name: corpus / name / "0.wav" for name in ("noise", "speech")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words\n", "line 1: JSONDecodeError"),
        ('{"mixture": "a.wav"}\n', "line 1: KeyError: 'sources'"),
        ('{"mixture": "a.wav", "sources": ["b.wav"]}\n', "line 1: AttributeError"),
        ("\n", "no mixtures"),
        ('{"id": "1", "mixture": "a.wav", "sources": {}}\n' * 2, "id '1' is there twice"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_corpus(tmp_path)


def test_a_folder_without_mixtures_is_refused(tmp_path, capsys):
    assert evaluate(tmp_path, tmp_path / "out") == 2
    assert "no manifest.jsonl, and no folders 'mixture' and one for each source" in capsys.readouterr().err
    assert evaluate(tmp_path / "nowhere", tmp_path / "out") == 2


# --- statistics


def test_the_interval_of_the_mean_is_that_of_theory():
    x = np.random.default_rng(3).normal(2, 3, 400)
    low, high = summary.bootstrap_interval(x)
    half = 1.96 * x.std() / np.sqrt(x.size)
    assert low == pytest.approx(x.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.15 * half)
    assert summary.bootstrap_interval(x) == (low, high)
    assert np.isnan(summary.bootstrap_interval(x[:1])).all()


def test_missing_values_are_counted_and_left_out():
    found = summary.describe_values([1, np.nan, 3, np.nan, 8])
    assert (found["n"], found["missing"], found["median"], found["mean"]) == (3, 2, 3, 4)


@pytest.mark.parametrize(("snr_db", "group"), [(-0.01, "-5 to 0 dB"), (0.0, "0 to 5 dB"), (12, "10 to 15 dB")])
def test_snrs_are_grouped_by_5_db(snr_db, group):
    assert summary.snr_group({"snr_db": snr_db}) == group
    assert summary.snr_group({"snr_db": None}) is None


# --- processes


def square(x: int) -> int:
    if x == 13:
        os._exit(1)
    return x * x


def test_a_process_that_dies_takes_its_task_alone():
    tasks = [Task(x, (x,)) for x in range(20)]
    results = list(run_local(square, tasks, 2))
    assert len(results) == 20
    found = dict(results)
    assert found.pop(13) == Failure("the process died of it, twice")
    assert found == {x: x * x for x in range(20) if x != 13}


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rtsep", "evaluate", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@posix
def test_an_interrupted_run_says_so_and_is_completed_by_the_next(corpus, tmp_path):
    lines = (corpus / "manifest.jsonl").read_text().splitlines()
    many = [json.loads(line) | {"id": f"{k}-{i}"} for k in range(15) for i, line in enumerate(lines)]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in many))
    out, options = tmp_path / "out", ("--phase", "mixture", "--jobs", "2")
    run = start(corpus, "-o", out, *options)
    try:
        done = out / "done.jsonl"
        while not (done.exists() and done.stat().st_size > 1_000):
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        stdout, stderr = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert (run.returncode, stdout, stderr) == (130, "", "rtsep: interrupted\n")
    assert 0 < len(done.read_text().splitlines()) < 90
    run = start(corpus, "-o", out, *options)
    stdout, stderr = run.communicate(timeout=100)
    assert run.returncode == 0
    assert "are done from before" in stderr
    assert len({(row["id"], row["source"]) for row in rows(out)}) == len(rows(out)) == 180


@posix
def test_workers_end_with_their_parent_however_it_ends(corpus, tmp_path):
    lines = (corpus / "manifest.jsonl").read_text().splitlines()
    many = [json.loads(line) | {"id": f"{k}-{i}"} for k in range(50) for i, line in enumerate(lines)]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in many))
    run = start(corpus, "-o", tmp_path / "out", "--phase", "mixture", "--jobs", "2")
    done = tmp_path / "out" / "done.jsonl"
    try:
        while not (done.exists() and done.stat().st_size > 1_000):
            assert run.poll() is None
            time.sleep(0.01)
        children = descendants(run.pid)
    finally:
        run.kill()
        run.communicate()
    assert len(children) >= 2
    wait_for_end(children)


def descendants(pid: int) -> list[int]:
    """Processes below one; Linux tells them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    if not found and not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    return found


@pytest.mark.parametrize(("text", "reason"), [("", "is empty"), ("{", "is not JSON: ")])
def test_a_damaged_record_of_the_run_is_named_and_can_be_replaced(mixtures, tmp_path, capsys, text, reason):
    (tmp_path / "run.json").write_text(text)
    assert evaluate(mixtures, tmp_path, *QUICK) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rtsep: {tmp_path / 'run.json'} {reason}")
    assert "(--overwrite begins anew)" in line
    assert evaluate(mixtures, tmp_path, *QUICK, "--overwrite") == 0


@posix
def test_what_no_longer_fits_is_one_line_with_the_file(mixtures, tmp_path):
    code = "import resource, sys; from rtsep.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    code += "sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "evaluate", mixtures, "-o", tmp_path, *QUICK]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    done = tmp_path / "done.jsonl"
    assert run.returncode == 2
    assert re.fullmatch(rf"rtsep: {re.escape(str(done))} cannot be written: (File too large|No space.*)\n", run.stderr)
    assert evaluate(mixtures, tmp_path, *QUICK) == 0  # with room it goes on
    assert len(done.read_text().splitlines()) == 6


def test_dask_without_its_package_is_one_line(mixtures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rtsep.cli.evaluate.find_spec", lambda name: None)
    assert evaluate(mixtures, tmp_path / "out", "--dask", "tcp://127.0.0.1:9") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == 'rtsep: --dask needs the package distributed: pip install "rtsep[dask]"'
    assert not (tmp_path / "out").exists()


def test_what_does_not_exist_is_named_without_a_number(tmp_path, capsys):
    assert evaluate(tmp_path / "nowhere", tmp_path / "out") == 2
    assert capsys.readouterr().err == f"rtsep: {tmp_path / 'nowhere'}: No such file or directory\n"


def test_the_report_for_machines_is_json_alone(mixtures, tmp_path, capsys):
    assert evaluate(mixtures, tmp_path, *QUICK, "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["summary"]["finding"] in captured.err
    assert Path(report["files"]["report.html"]).exists()


# --- the page


@pytest.fixture(scope="module")
def page(mixtures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page")
    assert evaluate(mixtures, out, "--compare", "denoise+mixture", "oracle+mixture", "--jobs", 1) == 0
    return out / "report.html"


def test_the_page_needs_nothing_else_and_names_cannot_break_it(page):
    text = page.read_text(encoding="utf-8")
    assert "<u>" not in text
    assert not re.search(r"""<\w+[^>]*\s(src|href)=(?!["']?data:)""", text)
    assert "http" not in text.lower()
    assert len(text) < 10_000_000
    assert page.with_name("report.png").read_bytes().startswith(b"\x89PNG")


PROBE = """
<pre id="probe"></pre>
<script>
function column(i) {
  return [...document.querySelectorAll("#table tbody tr")].map(line => line.cells[i].textContent);
}
const heads = [...document.querySelectorAll("#table th")];
const si = heads.findIndex(head => head.textContent === "SI-SDR, dB");
const before = column(si);
heads[si].firstChild.click();
const rising = column(si);
heads[si].firstChild.click();
const falling = column(si);
const order = [...document.querySelectorAll("main > *")].map(x => x.className || x.tagName);
const classes = column(heads.findIndex(head => head.textContent === "class"));
const loaded = players.map(x => x.readyState > 0 ? 0 : new Promise(ok => x.addEventListener("loadedmetadata", ok)));
const example = document.querySelector(".example");
const lines = () => [...example.querySelectorAll(".spectrogram i")].map(x => x.getBoundingClientRect().left -
  x.parentElement.getBoundingClientRect().left);
const wait = (x, name) => new Promise(ok => x.addEventListener(name, ok, {once: true}));
function press(key) { example.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); }
async function report() {
  await Promise.all(loaded);
  for (const player of players) player.muted = true;
  const box = example.querySelectorAll(".spectrogram")[2].getBoundingClientRect();
  example.querySelectorAll(".spectrogram")[2].dispatchEvent(
    new MouseEvent("click", {clientX: box.left + box.width / 2, bubbles: true}));
  await wait(players[2], "play");
  const clicked = players[2].currentTime;
  const moved = lines();
  press("2");
  await wait(players[1], "play");
  const other = [players[1].currentTime, players[2].paused, players[1].paused];
  press(" ");
  await wait(players[1], "pause");
  const found = {before, rising, falling, order, classes, clicked, moved, other,
    stopped: players[1].paused, durations: players.map(x => x.duration), width: box.width,
    names: [...example.querySelectorAll("figcaption b")].map(x => x.textContent),
    pictures: [...document.images].map(x => x.naturalWidth), plots: document.querySelectorAll(".plots svg").length,
    beyond: document.documentElement.scrollWidth - window.innerWidth,
    ink: getComputedStyle(document.querySelector(".plots svg text")).fill, body: getComputedStyle(document.body).color};
  document.getElementById("probe").textContent = JSON.stringify(found);
}
report();
</script>
"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (420, "dark")])
def test_a_real_browser_shows_sorts_and_plays(page, tmp_path, width, scheme):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs chromium")
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--window-size={width},900"]
    command += ["--autoplay-policy=no-user-gesture-required", "--timeout=60000", "--virtual-time-budget=20000"]
    command += ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    command += ["--dump-dom", f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', run.stdout, re.DOTALL)[1]))
    assert len(found["before"]) == 24
    numbers = [float(x) for x in found["rising"]]
    assert numbers == sorted(numbers) != [float(x) for x in found["before"]]
    assert [float(x) for x in found["falling"]] == numbers[::-1]
    # The result, then the table, then what it looks and sounds like, then everything else.
    places = [found["order"].index(name) for name in ("finding", "overview", "plots", "SECTION", "DETAILS")]
    assert places == sorted(places)
    assert set(found["classes"]) == set(CLASSES)
    assert found["durations"] == [0.5] * 3 * 4  # true speech, mixture and two setups of median, best, worst
    assert found["names"] == ["true speech", "mixture", "denoise+mixture", "oracle+mixture"]
    assert found["pictures"] == [480] * 3 * 4
    assert found["plots"] == 3
    assert found["beyond"] <= 0  # nothing stands beside the screen
    assert found["ink"] == found["body"]  # plots are written in the colour of the text
    dark = int(re.search(r"\d+", found["body"])[0]) > 128
    assert dark == (scheme == "dark")
    # A click into the third spectrogram plays from its middle, the lines of all are there, and the next one goes on.
    assert 0.24 <= found["clicked"] < 0.5
    assert all(0.45 * found["width"] < place < found["width"] for place in found["moved"])
    assert max(found["moved"]) - min(found["moved"]) < 1
    assert found["other"][0] >= 0.24
    assert found["other"][1:] == [True, False]
    assert found["stopped"]


def test_help_of_the_commands_loads_neither_scores_nor_plots():
    code = "import sys; from rtsep.cli import main; status = main(sys.argv[1:]); "
    code += "print({'matplotlib', 'scipy.signal', 'rich', 'distributed'} & set(sys.modules), status)"
    for command in ("score", "mix", "evaluate"):
        text = subprocess.check_output([sys.executable, "-c", code, command, "--help"], text=True)
        assert text.startswith(f"usage: rtsep {command}")
        assert text.endswith("set() 0\n")
