"""Plots of an evaluation: each score by setup, against the SNR, and by class."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from rtsep.evaluation.scores import SCORES
from rtsep.evaluation.summary import snr_group

MAX_DRAWN = 4  # scores
MAX_CLASSES = 12
INK = "#010203"  # becomes the colour of the text around a picture
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "patch.edgecolor")
BOXES = ("boxprops", "whiskerprops", "capprops", "flierprops")

Row = dict[str, Any]


class Panel(NamedTuple):
    """One plot: what it shows, and the function that draws it on axes."""

    title: str
    label: str  # of the values
    draw: Callable[[Any], None]


def panels(rows: Sequence[Row], scores: Sequence[str], setups: Sequence[str], source: str) -> Iterator[list[Panel]]:
    """The plots of each score of one source, by setup, against the SNR and by class, where there is something to show.

    Parameters
    ----------
    rows : sequence of dict
        The table of an evaluation.
    scores, setups : sequence of str
        Names and labels; of the scores the first column of the first four that have values is drawn.
    source : str
        One of the table.
    """
    rows = [row for row in rows if row["source"] == source]
    drawn = 0
    for score in (SCORES[name] for name in scores):
        column = score.columns[0]
        there = [row for row in rows if np.isfinite(row.get(column, np.nan))]
        if not there or drawn == MAX_DRAWN:
            continue
        drawn += 1
        label = f"{score.labels[0]} in {score.unit}" if score.unit else score.labels[0]
        found = [Panel("by setup (triangle: mean)", label, _distributions(there, column, setups))]
        if any(row["snr_db"] is not None for row in there):
            found.append(Panel("by SNR of the mixture (medians of 5 dB)", label, _against_snr(there, column, setups)))
        if any(row["class"] for row in there):
            found.append(Panel("by class (medians)", label, _classes(there, column, setups, len(found) < 2)))
        yield found


def draw_page(lines: Sequence[Sequence[Panel]], title: str) -> bytes:
    """All panels on one page, a line for each score, as PNG."""
    n_columns = max((len(line) for line in lines), default=1)
    with mpl.rc_context({"font.size": 8, "axes.titlesize": 9, "axes.linewidth": 0.6}):
        figure = Figure(
            figsize=(3.7 * max(2, n_columns), 0.6 + 2.7 * max(1, len(lines))), dpi=110, layout="constrained"
        )
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=10)
        axes = figure.subplots(max(1, len(lines)), n_columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for places, line in zip(axes, lines, strict=False):
            for axis, panel in zip(places, line, strict=False):
                axis.set_axis_on()
                panel.draw(axis)
                axis.set_title(panel.title)
                (axis.set_xlabel if panel.title.startswith("by class") else axis.set_ylabel)(panel.label)
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def draw_panel(panel: Panel) -> str:
    """One panel as an SVG element to stand in a page, in the colours of its text."""
    style = {key: INK for key in (*INKED, *(f"boxplot.{part}.color" for part in BOXES))}
    style |= {"boxplot.flierprops.markeredgecolor": INK, "legend.framealpha": "0", "axes.facecolor": "none"}
    style |= {
        "font.size": "9",
        "axes.linewidth": "0.6",
        "svg.fonttype": "none",
        "svg.hashsalt": panel.title + panel.label,
    }
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(4.6, 3.1), dpi=110, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        panel.draw(axis)
        (axis.set_xlabel if panel.title.startswith("by class") else axis.set_ylabel)(panel.label)
        data = io.StringIO()
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = data.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # A page needs neither names of namespaces nor a size in points.
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return f'<svg {box[0]} role="img" aria-label="@LABEL@">{rest}'


def _values(rows: Sequence[Row], setup: str, column: str) -> np.ndarray:
    found = np.array([row.get(column, np.nan) for row in rows if row["setup"] == setup], np.float64)
    return found[np.isfinite(found)]


def _distributions(rows: Sequence[Row], column: str, setups: Sequence[str]) -> Callable[[Any], None]:
    """Boxes of the setups, and of the mixture they started from."""
    groups = {"mixture": _values(rows, setups[0], f"{column}_input")} if f"{column}_input" in rows[0] else {}
    groups |= {setup: _values(rows, setup, column) for setup in setups}
    groups = {label: values for label, values in groups.items() if values.size}

    def draw(axis: Any) -> None:
        axis.boxplot(list(groups.values()), showmeans=True, widths=0.6)
        axis.set_xticks(range(1, len(groups) + 1), list(groups), rotation=20 if len(groups) > 2 else 0)

    return draw


def _against_snr(rows: Sequence[Row], column: str, setups: Sequence[str]) -> Callable[[Any], None]:
    shown = sorted((row for row in rows if row["snr_db"] is not None), key=lambda row: row["snr_db"])

    def draw(axis: Any) -> None:
        for k, setup in enumerate(setups):
            mine = [row for row in shown if row["setup"] == setup]
            x, y = [row["snr_db"] for row in mine], [row[column] for row in mine]
            axis.plot(x, y, ".", ms=3, c=f"C{k}", alpha=0.4, rasterized=True)
            groups: dict[str, list[Row]] = {}
            for row in mine:
                groups.setdefault(str(snr_group(row)), []).append(row)
            middles = [np.median([row["snr_db"] for row in group]) for group in groups.values()]
            medians = [np.median([row[column] for row in group]) for group in groups.values()]
            axis.plot(middles, medians, "o-", ms=3, c=f"C{k}", label=setup)
        axis.set_xlabel("SNR of the mixture in dB")
        axis.legend(fontsize=7)

    return draw


def _classes(rows: Sequence[Row], column: str, setups: Sequence[str], with_legend: bool) -> Callable[[Any], None]:
    counts: dict[str, int] = {}
    for row in rows:
        if row["class"]:
            counts[row["class"]] = counts.get(row["class"], 0) + 1
    classes = sorted(sorted(counts, key=lambda label: -counts[label])[:MAX_CLASSES])
    height = 0.8 / len(setups)

    def draw(axis: Any) -> None:
        for k, setup in enumerate(setups):
            values = [_values([row for row in rows if row["class"] == label], setup, column) for label in classes]
            medians = [np.median(v) if v.size else np.nan for v in values]
            places = np.arange(len(classes)) + k * height - 0.4 + height / 2
            axis.barh(places, medians, height, color=f"C{k}", label=setup)
        axis.set_yticks(range(len(classes)), classes, fontsize=7)
        axis.invert_yaxis()
        if len(setups) > 1 and with_legend:
            axis.legend(fontsize=7)

    return draw
