"""The results of an evaluation as files: tables, a page of plots, and a page for the browser."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rtsep.audio_files import StagedFiles
from rtsep.evaluation.drawing import draw_page, panels
from rtsep.evaluation.evaluate import Evaluation
from rtsep.evaluation.listening import examples
from rtsep.evaluation.overview import finding, make_overview
from rtsep.evaluation.page import make_page
from rtsep.evaluation.scores import columns_of
from rtsep.evaluation.summary import full_summary
from rtsep.plain import plain
from rtsep.staging import writing

HEAD = ("setup", "id", "source", "class", "snr_db", "duration_s", "real_time_factor")
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
    summary = {"finding": finding(summary)} | summary
    names = ["files.csv", "files.json", "summary.json", "report.png", "report.html"]
    with_parquet = find_spec("pandas") is not None and find_spec("pyarrow") is not None
    names += ["files.parquet"] if with_parquet else []
    paths = {name: evaluation.folder / name for name in names}
    with writing(evaluation.folder), StagedFiles(list(paths.values()), overwrite=True) as staged:
        part = {name: staged.part(path) for name, path in paths.items()}
        write_csv(part["files.csv"], rows, columns)
        _write_json(part["files.json"], {"rows": rows, "failed": summary["failed"]})
        _write_json(part["summary.json"], summary)
        if with_parquet:
            import pandas

            # The reasons are words for some columns: one text for each row.
            flat = [{column: row.get(column) for column in (*HEAD, *columns)} for row in rows]
            pandas.DataFrame(flat).drop_duplicates().to_parquet(part["files.parquet"], index=False)
        measures, (first, *_) = make_overview(summary)
        plots = list(panels(rows, evaluation.scores, labels, first.source))
        title = f"{first.source}: {len({row['id'] for row in rows})} mixtures"
        part["report.png"].write_bytes(draw_page(plots, title))
        page = make_page(rows, summary, plots, examples(evaluation, rows, measures[0], first.source))
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


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
