"""The results of an evaluation as files: tables, a page of plots, and a page for the browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import soundfile as sf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rtsep.audio_files import FileError, StagedFiles
from rtsep.errors import ConfigError
from rtsep.evaluation.evaluate import Evaluation, separate_item
from rtsep.evaluation.scores import SCORES, columns_of
from rtsep.evaluation.summary import full_summary, snr_group
from rtsep.plain import plain

TEMPLATE = Path(__file__).resolve().parents[1] / "data" / "report.html"
HEAD = ("setup", "id", "source", "class", "snr_db", "duration_s", "real_time_factor")
MAX_PLOTTED = 4  # scores on the page of plots
MAX_CLASSES = 12
MAX_ROWS = 5_000  # in the browser
MAX_HEARD_S = 10.0  # of an example: ten seconds at 16 kHz are 0.4 MB of text
PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "soundfile",
    "fast-bss-eval",
    "museval",
    "pesq",
    "pystoi",
    "speechmos",
    "pyclarity",
)


def write_report(evaluation: Evaluation) -> dict[str, Path]:
    """Write all tables and pages into the folder of an evaluation, in place of earlier ones.

    Returns
    -------
    dict of str to Path
        What was written: files.csv, files.json, files.parquet (with pandas and pyarrow), summary.json, report.png,
        report.html.

    Raises
    ------
    ConfigError
        If nothing was separated and scored.
    OSError
        If a file cannot be written.
    """
    rows = evaluation.table()
    columns = ["real_time_factor", *columns_of(evaluation.scores, True)]
    labels = [setup.label for setup in evaluation.setups]
    compared = ["real_time_factor", *columns_of(evaluation.scores, False)]
    summary = full_summary(rows, columns, compared, labels) | {
        "failed": [{"setup": key[0], "id": key[1], "reason": reason} for key, reason in evaluation.failed.items()],
        "evaluation": plain(evaluation.plain()),
        "made": provenance(),
    }
    names = ["files.csv", "files.json", "summary.json", "report.png", "report.html"]
    with_parquet = find_spec("pandas") is not None and find_spec("pyarrow") is not None
    names += ["files.parquet"] if with_parquet else []
    paths = {name: evaluation.folder / name for name in names}
    with StagedFiles(list(paths.values()), overwrite=True) as staged:
        part = {name: staged.part(path) for name, path in paths.items()}
        write_csv(part["files.csv"], rows, columns)
        _write_json(part["files.json"], {"rows": rows, "failed": summary["failed"]})
        _write_json(part["summary.json"], summary)
        if with_parquet:
            import pandas

            # The reasons are words for some columns: one text for each row.
            flat = [{column: row.get(column) for column in (*HEAD, *columns)} for row in rows]
            pandas.DataFrame(flat).drop_duplicates().to_parquet(part["files.parquet"], index=False)
        picture = draw(rows, evaluation.scores, labels)
        part["report.png"].write_bytes(picture)
        page = make_page(rows, columns, summary, picture, examples(evaluation, rows))
        part["report.html"].write_text(page, encoding="utf-8")
        staged.commit()
    return paths


def provenance() -> dict[str, Any]:
    """Date, machine and versions: what a figure needs to be believed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """A line for each row; what is NaN is an empty field, with its reason in the last column."""
    names = list(dict.fromkeys([*HEAD, *columns, "reasons"]))
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        for row in rows:
            by_reason: dict[str, list[str]] = {}
            for column, reason in row["reasons"].items():
                by_reason.setdefault(reason, []).append(column)
            reasons = "; ".join(f"{' '.join(those)}: {reason}" for reason, those in by_reason.items())
            values = [plain(row.get(name)) for name in names[:-1]]
            table.writerow(["" if value is None else value for value in values] + [reasons])


def primary_columns(scores: Sequence[str]) -> list[str]:
    """The first column of each score."""
    return [SCORES[name].columns[0] for name in scores]


def draw(rows: Sequence[dict[str, Any]], scores: Sequence[str], setups: Sequence[str]) -> bytes:
    """A page of plots as PNG: each score by setup, against the SNR, and by class, of the first source."""
    source = rows[0]["source"]
    rows = [row for row in rows if row["source"] == source]
    drawn = [
        (score, column)
        for score, column in zip(scores, primary_columns(scores), strict=True)
        if any(np.isfinite(row.get(column, np.nan)) for row in rows)
    ][:MAX_PLOTTED]
    with mpl.rc_context({"font.size": 8, "axes.titlesize": 9, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(11, 0.6 + 2.7 * max(1, len(drawn))), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{source}: {len({row['id'] for row in rows})} mixtures", fontsize=10)
        axes = figure.subplots(max(1, len(drawn)), 3, squeeze=False)
        for (score, column), line in zip(drawn, axes, strict=False):
            unit = f"{column} / {SCORES[score].unit}" if SCORES[score].unit else column
            line[0].set_ylabel(unit)
            _draw_distributions(line[0], rows, column, setups)
            _draw_against_snr(line[1], rows, column, setups)
            _draw_classes(line[2], rows, column, setups)
        if not drawn:
            for axis in axes[0]:
                axis.set_axis_off()
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def make_page(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    summary: dict[str, Any],
    picture: bytes,
    heard: Sequence[dict[str, Any]],
) -> str:
    """One HTML page that needs nothing else: sortable tables, plots, players."""
    made = summary["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    n_mixtures = len({row["id"] for row in rows})
    shown = [{name: plain(row.get(name)) for name in dict.fromkeys((*HEAD, *columns))} for row in rows[:MAX_ROWS]]
    rtsep = f"rtsep {summary['evaluation']['rtsep']}"
    note = f"{rtsep}, {made['date']}, {made['machine']}, Python {made['python']}, {versions}"
    data = {
        "summary": summary["all"],
        "differences": summary["differences"],
        "by_snr": summary["by_snr"],
        "by_class": summary["by_class"],
        "failed": summary["failed"],
        "files": shown,
        "heard": heard,
    }
    fields = {
        "TITLE": escape(f"{n_mixtures} mixtures"),
        "NOTE": escape(note),
        "MORE": escape(f"The first {MAX_ROWS} of {len(rows)} rows; files.csv has all." if len(rows) > MAX_ROWS else ""),
        "PICTURE": base64.b64encode(picture).decode(),
        # In a script element only "</" could end it early, and "<!--" could change how it is read.
        "DATA": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, value in fields.items():
        page = page.replace(f"@{name}@", value)
    return page


def examples(evaluation: Evaluation, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best, the median and the worst mixture of the first setup, to listen to: files as text."""
    first, source = evaluation.setups[0].label, rows[0]["source"]
    column = next(
        (c for c in _ranking(evaluation.scores) if any(np.isfinite(row.get(c, np.nan)) for row in rows)), None
    )
    if column is None:
        return []
    ranked = sorted(
        (row for row in rows if (row["setup"], row["source"]) == (first, source) and np.isfinite(row[column])),
        key=lambda row: row[column],
    )
    if not ranked:
        return []
    by_id = {item.id: item for item in evaluation.items}
    heard = []
    places = {"best": -1, "median": len(ranked) // 2, "worst": 0}
    for place, index in places.items():
        row = ranked[index]
        players: list[dict[str, str]] = []
        for setup in evaluation.setups:
            try:
                scene, _ = separate_item(by_id[row["id"]], setup)
            except (FileError, ConfigError):
                continue
            j = scene.sources.index(source)
            if not players:
                assert scene.mixture is not None
                players += [_player("mixture", scene.mixture, scene.sr), _player(source, scene.references[j], scene.sr)]
            players.append(_player(setup.label, scene.estimates[j], scene.sr))
        heard.append({"place": place, "id": row["id"], "column": column, "value": row[column], "players": players})
    return heard


def _player(label: str, x: np.ndarray, sr: int) -> dict[str, str]:
    data = io.BytesIO()
    part = x[:2, : round(MAX_HEARD_S * sr)]
    sf.write(data, np.clip(part.T, -1, 1), sr, format="WAV", subtype="PCM_16")
    return {"label": label, "src": "data:audio/wav;base64," + base64.b64encode(data.getvalue()).decode()}


def _ranking(scores: Sequence[str]) -> list[str]:
    """Columns to rank mixtures by: what was gained, so that the easiest mixture is not simply the best."""
    return [
        f"{column}_gain" if SCORES[name].gain else column
        for name, column in zip(scores, primary_columns(scores), strict=True)
    ]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _values(rows: Sequence[dict[str, Any]], setup: str, column: str) -> np.ndarray:
    found = np.array([row.get(column, np.nan) for row in rows if row["setup"] == setup], np.float64)
    return found[np.isfinite(found)]


def _draw_distributions(axis: Any, rows: Sequence[dict[str, Any]], column: str, setups: Sequence[str]) -> None:
    """Boxes of the setups, and of the mixture they started from."""
    groups = {}
    if any(f"{column}_input" in row for row in rows):
        groups["mixture"] = _values(rows, setups[0], f"{column}_input")
    groups |= {setup: _values(rows, setup, column) for setup in setups}
    groups = {label: values for label, values in groups.items() if values.size}
    axis.boxplot(list(groups.values()), showmeans=True, widths=0.6)
    axis.set_xticks(range(1, len(groups) + 1), list(groups), rotation=20 if len(groups) > 2 else 0)
    axis.set_title("by setup (triangle: mean)")


def _draw_against_snr(axis: Any, rows: Sequence[dict[str, Any]], column: str, setups: Sequence[str]) -> None:
    shown = [row for row in rows if row["snr_db"] is not None and np.isfinite(row.get(column, np.nan))]
    if not shown:
        axis.set_axis_off()
        return
    for k, setup in enumerate(setups):
        mine = [row for row in shown if row["setup"] == setup]
        axis.plot([row["snr_db"] for row in mine], [row[column] for row in mine], ".", ms=3, c=f"C{k}", alpha=0.4)
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(mine, key=lambda row: row["snr_db"]):
            groups.setdefault(str(snr_group(row)), []).append(row)
        middles = [np.median([row["snr_db"] for row in group]) for group in groups.values()]
        medians = [np.median([row[column] for row in group]) for group in groups.values()]
        axis.plot(middles, medians, "o-", ms=3, c=f"C{k}", label=setup)
    axis.set_xlabel("SNR of the mixture / dB")
    axis.set_title("by SNR (medians of 5 dB)")
    axis.legend(fontsize=7)


def _draw_classes(axis: Any, rows: Sequence[dict[str, Any]], column: str, setups: Sequence[str]) -> None:
    counts: dict[str, int] = {}
    for row in rows:
        if row["class"]:
            counts[row["class"]] = counts.get(row["class"], 0) + 1
    classes = sorted(sorted(counts, key=lambda label: -counts[label])[:MAX_CLASSES])
    if not classes:
        axis.set_axis_off()
        return
    height = 0.8 / len(setups)
    for k, setup in enumerate(setups):
        values = [_values([row for row in rows if row["class"] == label], setup, column) for label in classes]
        medians = [np.median(v) if v.size else np.nan for v in values]
        axis.barh(np.arange(len(classes)) + k * height - 0.4 + height / 2, medians, height, color=f"C{k}")
    axis.set_yticks(range(len(classes)), classes, fontsize=7)
    axis.invert_yaxis()
    axis.set_title("by class (median)")


def _processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
