"""Tables of the README and of docs/evaluation.md, from the JSON files in docs that hold what was measured.

    python bench/pages.py

What stands between `<!-- measured: NAME -->` and `<!-- end -->` is replaced. `peers` comes from docs/peers.json
(`python bench/peers CORPUS -o docs`), `evaluation` from docs/evaluation.json (summary.json of `rtsep evaluate`),
`cost` and `talkers` from docs/learned.json (`python bench/learned.py -o docs ...`), `adaptation` from docs/adapt.json
(`python bench/adapt.py -o docs ...`).
"""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean
from typing import Any

from rtsep.cli.evaluate import _print_summary

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "evaluation.md")
HOP_US = 4000
PAIRS = {"F+M": "a woman and a man", "F+F": "two women", "M+M": "two men"}
BLOCK = re.compile(r"(?<=<!-- measured: )(\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL)


def peers() -> str:
    """The engines of bench/peers by latency, those that need the whole file last."""
    result = json.loads((ROOT / "docs" / "peers.json").read_text())
    made, engines = result["made"], result["engines"]

    def latency(name: str) -> float:
        found = engines[name]["latency"]["latency_ms"]
        return float("inf") if found is None else found

    heads = [f"{result['n_mixtures']} mixtures, {made['date']}"]
    heads += ["latency, ms", "SI-SDR gain, dB", "ESTOI", "PESQ", "share of a core"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in sorted(engines, key=latency):
        engine, ms = engines[name], latency(name)
        fields = [
            f"**{name}**" if name.startswith("rtsep") else name,
            "whole file" if ms == float("inf") else f"{ms:.0f}",
            f"{engine['gain']['si_sdr']['mean']:+.1f}",
            f"{engine['scores']['estoi']['mean']:.3f}",
            f"{engine['scores']['pesq']['mean']:.2f}",
            f"{100 * engine['cost']['median']:.1f} %",
        ]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines)


def evaluation() -> str:
    """What `rtsep evaluate` printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        _print_summary((ROOT / "docs" / "evaluation.json").read_text())
    return "```\n" + printed.getvalue() + "```"


def cost() -> str:
    """What the networks take at 16 and 48 kHz."""
    result = json.loads((ROOT / "docs" / "learned.json").read_text())
    heads = [
        result["made"]["date"],
        "weights",
        "features and network, 16 kHz, 48 kHz",
        "whole hop with oMISI 3",
        "of a hop",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, rates in result["cost"].items():
        network, hop = ([rates[sr][part] for sr in ("16000", "48000")] for part in ("network", "hop"))
        fields = [
            f"`{name}`",
            f"{result['models'][name]['parameters']:,}",
            ", ".join(f"{us:.0f} us" for us in network),
            ", ".join(f"{us:.0f} us" for us in hop),
            ", ".join(f"{100 * us / HOP_US:.1f} %" for us in hop),
        ]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines)


def talkers() -> str:
    """Two talkers, as `talkers` separates them if not told otherwise."""
    result = json.loads((ROOT / "docs" / "learned.json").read_text())
    made, count = result["made"], result["count"]
    heads = [f"two talkers, {count} mixtures of each kind, {made['date']}", *PAIRS.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, label in (("unknown", "unknown voices"), ("known", "the five voices that it knows best")):
        found = [result["talkers"][title][kind]["mask"] for kind in PAIRS]
        fields = (f"{f['improvement']:+.1f} ({100 * f['swapped'] / f['seconds']:.0f} %)" for f in found)
        lines.append(f"| {label} | {' | '.join(fields)} |")
    return "\n".join(lines)


def adaptation() -> str:
    """What `rtsep train --adapt` is worth: means of the noises and of the voices, and each pair."""
    result = json.loads((ROOT / "docs" / "adapt.json").read_text())
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        found = re.search(r"[(](.\+.)[)]", row["name"])
        title = f"one pair of voices, {PAIRS[found[1]]}" if found else f"a {row['kind']}"
        cases.setdefault(title, []).append(row)
    missing = result["cases"] - len(result["rows"])
    heads = [
        f"adapted to, {result['made']['date']}" + (f", {missing} case{'s' * (missing > 1)} missing" if missing else "")
    ]
    heads += ["training took, min", "gain before", "after", "with others before", "after"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, rows in cases.items():
        many = f" (mean of {len(rows)})" if len(rows) > 1 else ""
        gains = (mean(row[name] for row in rows) for name in ("before", "after", "others_before", "others_after"))
        minutes = mean(row["seconds"] for row in rows) / 60
        lines.append(f"| {title}{many} | {minutes:.0f} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |")
    return "\n".join(lines)


MEASURED = {"peers": peers, "evaluation": evaluation, "cost": cost, "talkers": talkers, "adaptation": adaptation}


def fill(page: str) -> str:
    """The text of a page with what was measured last."""
    return BLOCK.sub(lambda found: f"{found[1]} -->\n{MEASURED[found[1]]()}\n", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(fill(path.read_text()))
