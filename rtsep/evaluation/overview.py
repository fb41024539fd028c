"""What an evaluation found, for people: a sentence, and one table with a row for each setup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rtsep.evaluation.scores import NOT_SPEECH, SCORES, is_speech

TIME = "real_time_factor"
MAX_NAMED = 3  # setups that the best is compared with in the sentence
BEST, SAME = "best", "no difference"

Entry = dict[str, Any]  # of `rtsep.evaluation.summary.full_summary`


@dataclass(frozen=True)
class Measure:
    """A column of the table.

    Parameters
    ----------
    column : str
        Its name in the results, such as "si_sdr_gain".
    absolute : str
        The one that setups are compared by, "si_sdr".
    label, unit : str
        For people.
    digits : int
        Behind the point.
    better : int
        1 if more is better, -1 if less is, 0 if neither.
    factor : float
        From what is stored to the unit.
    """

    column: str
    absolute: str
    label: str
    unit: str
    digits: int
    better: int = 0
    factor: float = 1

    @property
    def is_gain(self) -> bool:
        """Whether it is the difference from the mixture."""
        return self.column != self.absolute

    @property
    def title(self) -> str:
        """Label, and what of it."""
        return f"{self.label} gain" if self.is_gain else self.label

    def number(self, value: float, sign: bool = False) -> str:
        """A value in the unit, rounded; never "-0.0"."""
        rounded = round(self.factor * value, self.digits) + 0.0
        return f"{rounded:{'+' if sign else ''}.{self.digits}f}"

    def interval(self, entry: Entry, sign: int = 1) -> str:
        """Its confidence interval as words, or nothing."""
        if entry["ci_low"] is None:
            return ""
        low, high = sorted((sign * entry["ci_low"], sign * entry["ci_high"]))
        return f"{self.number(low)} to {self.number(high)}"

    def amount(self, value: float) -> str:
        """A difference, without its sign, and its name: "3.2 dB SI-SDR", "0.012 ESTOI"."""
        return " ".join(filter(None, (self.number(abs(value)), self.unit)))


class Cell(NamedTuple):
    """Value with its interval; `remark`: the best, or no difference from it; `note`: how many there are, if not all."""

    value: str
    interval: str = ""
    remark: str = ""
    note: str = ""


class Part(NamedTuple):
    """The rows of one source, or of one source and one group of mixtures."""

    source: str
    group: str
    n: int
    before: list[str]  # the mixture, for each measure
    rows: list[tuple[str, list[Cell]]]


class Overview(NamedTuple):
    """The table: measures, and rows for each source."""

    measures: list[Measure]
    parts: list[Part]


def measures_of(scores: Sequence[str], entries: Sequence[Entry]) -> list[Measure]:
    """The columns of the table: of each score what was gained, where there is that, and the time at the end."""
    there = {entry["column"] for entry in entries}
    found = []
    for name in scores:
        score = SCORES[name]
        for column, label in zip(score.columns, score.labels, strict=True):
            gain = f"{column}_gain"
            shown = gain if gain in there else column
            if shown in there:
                found.append(Measure(shown, column, label, score.unit, score.digits, score.better))
    if TIME in there:
        found.append(Measure(TIME, TIME, "time", "% of the sound", 1, factor=100))
    return found


def make_overview(summary: dict[str, Any], entries: Sequence[Entry] | None = None) -> Overview:
    """The table of a summary.

    Parameters
    ----------
    summary : dict
        `rtsep.evaluation.summary.full_summary`, with `evaluation` as in summary.json.
    entries : sequence of dict, optional
        Of `summary`, to make the table of. Default: those of all mixtures, in which the best are marked.
    """
    marked = entries is None
    entries = summary["all"] if entries is None else entries
    measures = measures_of(summary["evaluation"]["scores"], entries)
    labels = [setup["label"] for setup in summary["evaluation"]["setups"]]
    cells: dict[tuple[str, str], dict[tuple[str, str], Entry]] = {}
    for entry in entries:
        cells.setdefault((entry["source"], entry["group"]), {})[entry["setup"], entry["column"]] = entry
    # What the user wants first: speech, if there is any.
    order = sorted(cells, key=lambda key: not is_speech(key[0]))
    parts: list[Part] = []
    for source, group in order:
        found = cells[source, group]
        remarks = _remarks(summary, source, found, measures) if marked else {}
        # The time is that of all sources together: it is said once.
        shown = {m: entry for m, entry in found.items() if not (marked and parts and m[1] == TIME)}
        rows = [
            (label, [_cell(shown.get((label, m.column)), m, remarks.get((label, m.column), "")) for m in measures])
            for label in labels
            if any(setup == label for setup, _ in found)
        ]
        before = [_before(found, m, labels) for m in measures]
        n = max(entry["n"] + entry["missing"] for entry in found.values())
        parts.append(Part(source, group, n, before, rows))
    return Overview(measures, parts)


def finding(summary: dict[str, Any]) -> str:
    """The result as a sentence; names of setups stand between backquotes."""
    entries = summary["all"]
    source = min((entry["source"] for entry in entries), key=lambda name: not is_speech(name))
    mine = {(e["setup"], e["column"]): e for e in entries if e["source"] == source}
    measure = next((m for m in measures_of(summary["evaluation"]["scores"], entries) if _ranked(mine, m)), None)
    if measure is None:
        return "No score has a value."
    best, *others = _ranked(mine, measure)
    entry = mine[best, measure.column]
    n, lead = entry["n"], measure.amount(entry["mean"])
    name = measure.label if is_speech(source) else f"{measure.label} of {source}"
    interval = measure.interval(entry)
    certain = interval and not _may_be_nothing(entry)
    if not measure.is_gain:
        text = f"`{best}` has {name} {measure.number(entry['mean'])} {measure.unit}".rstrip()
    elif certain or not interval:
        text = f"`{best}` {'gains' if entry['mean'] > 0 else 'loses'} {lead} {name}"
    else:
        text = f"`{best}` changes {name} by {measure.number(entry['mean'], True)} {measure.unit}".rstrip()
    text += f" (95 %: {interval})" if interval else ""
    text += "" if certain or not interval or not measure.is_gain else ", which may be nothing"
    text += _compared(summary, source, best, others[:MAX_NAMED], measure)
    mixtures = "one mixture, too little to know more" if n == 1 else f"{n} mixtures"
    return f"{text}; {mixtures}."


def missing_lines(summary: dict[str, Any]) -> list[str]:
    """What has no value, and why: one line each."""
    labels = {m.absolute: m.label for m in measures_of(summary["evaluation"]["scores"], summary["all"])}
    lines = []
    for entry in summary.get("missing", []):
        if entry["column"] in labels and entry["reason"] != NOT_SPEECH:
            of = f"{entry['n']} mixture{'s' if entry['n'] > 1 else ''}"
            what = f"`{entry['setup']}`, {entry['source']}: no {labels[entry['column']]} of {of}"
            lines.append(f"{what}: {entry['reason']}")
    failed = len(summary["failed"])
    if failed:
        lines.append(f"{failed} separation{'s' if failed > 1 else ''} could not be done, and are left out")
    return lines


def latency_line(summary: dict[str, Any]) -> str:
    """The latency of every setup, "whole signal" where there can be no stream; earlier versions did not store it."""
    by_latency: dict[str, list[str]] = {}
    for setup in summary["evaluation"]["setups"]:
        if "latency" in setup:
            by_latency.setdefault(setup["latency"], []).append(f"`{setup['label']}`")
    if not by_latency:
        return ""
    if len(by_latency) == 1:
        return f"Latency: {next(iter(by_latency))}."
    return f"Latency: {'; '.join(f'{latency}, {_listed(labels)}' for latency, labels in by_latency.items())}."


def overview_text(summary: dict[str, Any], width: int | None = None) -> str:
    """Sentence and table as lines to print; measures that do not fit into `width` columns stand in further tables."""
    measures, parts = make_overview(summary)
    lines: list[tuple[str, list[str]]] = [("", [m.title for m in measures]), ("", [m.unit for m in measures])]
    for part in parts:
        lines += [(part.source, [""] * len(measures)), ("  mixture", part.before)]
        lines += [(f"  {label}", [_cell_text(cell) for cell in cells]) for label, cells in part.rows]
    first = max(len(name) for name, _ in lines) + 2
    widths = [max(len(texts[i]) for _, texts in lines) + 3 for i in range(len(measures))]
    tables = [
        "\n".join(
            f"{name:{first}}{''.join(f'{texts[i]:{widths[i]}}' for i in chosen)}".rstrip() for name, texts in lines
        )
        for chosen in _fitting(widths, first, width)
    ]
    said = filter(None, [latency_line(summary), *missing_lines(summary)])
    return "\n\n".join(filter(None, [finding(summary), *tables, "\n".join(said)]))


def _fitting(widths: list[int], first: int, width: int | None) -> Iterator[list[int]]:
    """Columns in groups, each as wide as fits."""
    chosen: list[int] = []
    for i, this in enumerate(widths):
        if chosen and width is not None and first + sum(widths[k] for k in chosen) + this > width:
            yield chosen
            chosen = []
        chosen.append(i)
    yield chosen


def _cell_text(cell: Cell) -> str:
    interval = f"({cell.interval})" if cell.interval else ""
    return "  ".join(filter(None, [f"{cell.value} {interval}".rstrip(), cell.remark, cell.note]))


def _cell(entry: Entry | None, measure: Measure, remark: str) -> Cell:
    if entry is None:
        return Cell("")
    total = entry["n"] + entry["missing"]
    note = f"{entry['n']} of {total}" if entry["missing"] else ""
    return Cell(measure.number(entry["mean"], measure.is_gain), measure.interval(entry), remark, note)


def _before(found: dict[tuple[str, str], Entry], measure: Measure, labels: Sequence[str]) -> str:
    """The score of the mixture."""
    entries = (found.get((label, f"{measure.absolute}_input")) for label in labels)
    entry = next(filter(None, entries), None)
    return f"from {measure.number(entry['mean'])}" if measure.is_gain and entry else ""


def _ranked(mine: dict[tuple[str, str], Entry], measure: Measure) -> list[str]:
    """Setups that have the measure, the best first; in their order if neither more nor less is better."""
    there = [setup for setup, column in mine if column == measure.column]
    return sorted(there, key=lambda setup: -measure.better * mine[setup, measure.column]["mean"])


def _remarks(
    summary: dict[str, Any], source: str, found: dict[tuple[str, str], Entry], measures: Sequence[Measure]
) -> dict[tuple[str, str], str]:
    """For setup and column: the best, and those that no interval tells apart from it."""
    remarks = {}
    for measure in measures:
        ranked = _ranked(found, measure)
        if measure.better and len(ranked) > 1 and found[ranked[0], measure.column]["ci_low"] is not None:
            remarks[ranked[0], measure.column] = BEST
            for other in ranked[1:]:
                difference = _difference(summary, source, ranked[0], other, measure)
                if difference and difference[0]["ci_low"] is not None and _may_be_nothing(difference[0]):
                    remarks[other, measure.column] = SAME
    return remarks


def _difference(
    summary: dict[str, Any], source: str, one: str, other: str, measure: Measure
) -> tuple[Entry, int] | None:
    """The paired difference of two setups as it is stored, and its sign for `one` less `other`."""
    for entry in summary["differences"]:
        if (entry["source"], entry["column"]) == (source, measure.absolute):
            if (entry["setup"], entry["baseline"]) == (one, other):
                return entry, 1
            if (entry["setup"], entry["baseline"]) == (other, one):
                return entry, -1
    return None


def _may_be_nothing(entry: Entry) -> bool:
    return bool(entry["ci_low"] <= 0 <= entry["ci_high"])


def _compared(summary: dict[str, Any], source: str, best: str, others: Sequence[str], measure: Measure) -> str:
    """How much more the best has than others, and which are not told apart from it."""
    parts: list[str] = []
    same: list[str] = []
    for other in others:
        found = _difference(summary, source, best, other, measure)
        if found is None:
            continue
        entry, sign = found
        interval = measure.interval(entry, sign)
        between = f" ({interval})" if interval else ""
        if interval and _may_be_nothing(entry):
            same.append(f"`{other}`{between}")
        else:
            more = "more" if sign * entry["mean"] > 0 else "less"
            parts.append(f"{measure.amount(entry['mean'])} {more} than `{other}`{between}")
    parts += [f"no different from {_listed(same)}"] if same else []
    return f", {_listed(parts)}" if parts else ""


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
