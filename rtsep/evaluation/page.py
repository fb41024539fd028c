"""The report of an evaluation as one HTML page that needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rtsep.evaluation.drawing import Panel, draw_panel
from rtsep.evaluation.overview import (
    BEST,
    TIME,
    Cell,
    Measure,
    Overview,
    finding,
    latency_line,
    make_overview,
    measures_of,
    missing_lines,
)
from rtsep.plain import plain

TEMPLATE = Path(__file__).resolve().parents[1] / "data" / "report.html"
HEAD = {"setup": "setup", "id": "mixture", "source": "source", "class": "class", "snr_db": "SNR, dB", "duration_s": "s"}
MAX_ROWS = 5_000  # of single files
MAX_FIELDS = 60_000  # of their table: about a megabyte


def make_page(
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
    plots: Sequence[Sequence[Panel]],
    heard: Sequence[dict[str, Any]],
) -> str:
    """The page.

    Parameters
    ----------
    rows : sequence of dict
        The table of the evaluation.
    summary : dict
        As in summary.json.
    plots : sequence of sequence of Panel
        A line for each score.
    heard : sequence of dict
        Of `rtsep.evaluation.listening.examples`.
    """
    measures = measures_of(summary["evaluation"]["scores"], summary["all"])
    n_mixtures = len({row["id"] for row in rows})
    files = _files(rows, measures)
    few = (
        f"The first {len(files['rows'])} of {len(rows)} rows; files.csv has all."
        if len(files["rows"]) < len(rows)
        else ""
    )
    fields = {
        "TITLE": f"{n_mixtures} mixture{'s' if n_mixtures > 1 else ''}",
        "FINDING": _code(f"{finding(summary)} {latency_line(summary)}"),
        "TABLE": _table(make_overview(summary)),
        "MISSING": "".join(f"<li>{_code(line)}</li>" for line in missing_lines(summary)),
        "PLOTS": "".join(_figure(panel) for line in plots for panel in line),
        "DETAILS": _details(summary),
        "MORE": escape(few),
        "NOTE": escape(_note(summary)),
        # In a script element only "</" could end it early, and "<!--" could change how it is read.
        "DATA": json.dumps({"files": files, "heard": heard}, allow_nan=False).replace("<", "\\u003c"),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: fields[found[1]], page)


def _code(text: str) -> str:
    """Text for HTML; what stands between backquotes is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _table(overview: Overview, groups: str = "") -> str:
    """A table with a column for each measure; `groups` is the heading of the groups of mixtures, if there are any."""
    measures, parts = overview
    first = groups or "setup"
    heads = "".join(f"<th scope=col>{escape(m.title)}<small>{escape(m.unit)}</small></th>" for m in measures)
    lines = [f"<table class=overview><thead><tr><th scope=col>{first}</th>{heads}</tr></thead>"]
    for part in parts:
        title = " · ".join(filter(None, (part.source, part.group if groups else "")))
        lines.append(f"<tbody><tr class=part><th scope=rowgroup colspan={len(measures) + 1}>{escape(title)}")
        lines.append(f"<small>{part.n} mixture{'s' if part.n > 1 else ''}</small></th></tr>")
        if any(part.before):
            befores = "".join(_cell(Cell(text), m) for text, m in zip(part.before, measures, strict=True))
            lines.append(f"<tr class=before><th scope=row>mixture</th>{befores}</tr>")
        for label, cells in part.rows:
            shown = "".join(map(_cell, cells, measures))
            lines.append(f"<tr><th scope=row><code>{escape(label)}</code></th>{shown}</tr>")
        lines.append("</tbody>")
    return "".join([*lines, "</table>"])


def _cell(cell: Cell, measure: Measure) -> str:
    text = f"<b>{escape(cell.value)}</b>" if cell.value else ""
    text += f" <span>({escape(cell.interval)})</span>" if cell.interval else ""
    text += "".join(f" <em>{escape(said)}</em>" for said in (cell.remark, cell.note) if said)
    kind = " class=best" if cell.remark == BEST else " class=none" if not text else ""
    return f'<td{kind} data-label="{escape(", ".join(filter(None, (measure.title, measure.unit))))}">{text}</td>'


def _figure(panel: Panel) -> str:
    picture = draw_panel(panel).replace("@LABEL@", escape(f"{panel.label} {panel.title}"), 1)
    return f"<figure>{picture}<figcaption><b>{escape(panel.label)}</b> {escape(panel.title)}</figcaption></figure>"


def _details(summary: dict[str, Any]) -> str:
    """What few look for, folded."""
    said = []
    for title, key in (("By SNR of the mixture", "by_snr"), ("By class", "by_class")):
        if summary[key]:
            said.append((title, _table(make_overview(summary, summary[key]), "group and setup")))
    if summary["differences"]:
        said.append(("Differences between setups, mixture by mixture", _differences(summary)))
    if summary["failed"]:
        lines = (
            f"<li><code>{escape(f['setup'])}</code>, {escape(f['id'])}: {escape(f['reason'])}"
            for f in summary["failed"]
        )
        said.append((f"What could not be done ({len(summary['failed'])})", f"<ul>{''.join(lines)}</ul>"))
    return "".join(f"<details><summary>{escape(title)}</summary>{text}</details>" for title, text in said)


def _differences(summary: dict[str, Any]) -> str:
    by_column = {m.absolute: m for m in measures_of(summary["evaluation"]["scores"], summary["all"])}
    lines = ["<div class=wide><table><thead><tr>"]
    lines += [
        f"<th scope=col>{name}</th>" for name in ("setup", "less", "source", "score", "mean", "95 %", "higher in")
    ]
    lines.append("</tr></thead><tbody>")
    for entry in summary["differences"]:
        m = by_column.get(entry["column"])
        if m is not None:
            fields = (entry["setup"], entry["baseline"], entry["source"], ", ".join(filter(None, (m.label, m.unit))))
            numbers = (m.number(entry["mean"], True), m.interval(entry), f"{100 * entry['higher']:.0f} %")
            lines.append(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in (*fields, *numbers))}</tr>")
    return "".join([*lines, "</tbody></table></div>"])


def _files(rows: Sequence[dict[str, Any]], measures: Sequence[Measure]) -> dict[str, Any]:
    """Heads, digits and values of the table of files, which the page builds and sorts."""
    columns: dict[str, tuple[str, int | None, float]] = {key: (title, None, 1.0) for key, title in HEAD.items()}
    columns |= {"snr_db": (HEAD["snr_db"], 1, 1.0), "duration_s": (HEAD["duration_s"], 2, 1.0)}
    for m in measures:
        unit = f", {m.unit}" if m.unit and m.column != TIME else ""
        columns[m.absolute] = ("time, %" if m.column == TIME else m.label + unit, m.digits, m.factor)
        if m.is_gain:
            columns[m.column] = (f"gain{unit}", m.digits, m.factor)
    shown = [key for key in columns if any(row.get(key) not in (None, "") for row in rows)]

    def value(row: dict[str, Any], key: str) -> Any:
        found = plain(row.get(key))
        return columns[key][2] * found if isinstance(found, float) else found

    n_rows = min(MAX_ROWS, MAX_FIELDS // len(shown))
    return {
        "heads": [columns[key][0] for key in shown],
        "digits": [columns[key][1] for key in shown],
        "rows": [[value(row, key) for key in shown] for row in rows[:n_rows]],
    }


def _note(summary: dict[str, Any]) -> str:
    made = summary["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    rtsep = f"rtsep {summary['evaluation']['rtsep']}"
    return f"{rtsep}, {made['date']}, {made['machine']}, Python {made['python']}, {versions}"
