"""Tables of the README and of pages in docs, from the JSON files in docs that hold what was measured.

    python bench/pages.py

What stands between `<!-- measured: NAME -->` and `<!-- end -->` is replaced. `peers` comes from docs/peers.json
(`python bench/peers CORPUS -o docs`), `evaluation` from docs/evaluation.json (summary.json of `rtsep evaluate`),
`latency` from docs/latency.json (`python bench/latency.py -o docs ...`), `cost` and `talkers` from docs/learned.json
(`python bench/learned.py -o docs ...`), `adaptation` from docs/adapt.json (`python bench/adapt.py -o docs ...`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

from latency import plus_minus
from study import table

from rtsep.evaluation.overview import overview_text

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("evaluation", "training", "speed")))
HOP_US = 4000
PAIRS = {"F+M": "a woman and a man", "F+F": "two women", "M+M": "two men"}
BLOCK = re.compile(r"(?<=<!-- measured: )(\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL)


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "docs" / f"{name}.json").read_text())


def peers() -> list[str]:
    """The engines of bench/peers by latency, those that need the whole file last."""
    result = load("peers")
    latencies = {name: engine["latency"]["latency_ms"] for name, engine in result["engines"].items()}
    rows = []
    for name, ms in sorted(latencies.items(), key=lambda item: float("inf") if item[1] is None else item[1]):
        engine = result["engines"][name]
        rows.append(
            [
                f"**{name}**" if name.startswith("rtsep") else name,
                "whole file" if ms is None else f"{ms:.0f}",
                with_interval(engine["gain"]["si_sdr"], "+.1f") if name != "unprocessed" else "0",
                with_interval(engine["scores"]["estoi"], ".3f"),
                with_interval(engine["scores"]["pesq"], ".2f"),
                f"{100 * engine['cost']['median']:.1f} %",
            ]
        )
    heads = [f"{result['n_mixtures']} mixtures, {result['made']['date']}"]
    return table([*heads, "latency, ms", "SI-SDR gain, dB", "ESTOI", "PESQ", "share of a core"], rows)


def with_interval(found: dict[str, float], form: str) -> str:
    """A mean, and where it lies with 95 % confidence."""
    plain = form.removeprefix("+")
    return f"{found['mean']:{form}} ({found['ci_low']:{plain}} to {found['ci_high']:{plain}})"


def evaluation() -> list[str]:
    """What `rtsep evaluate` printed."""
    return ["```", overview_text(load("evaluation")), "```"]


def cost() -> list[str]:
    """What the networks take at 16 and 48 kHz."""
    result = load("learned")
    rows = []
    for name, rates in result["cost"].items():
        network, hop = ([rates[sr][part] for sr in ("16000", "48000")] for part in ("network", "hop"))
        times = (", ".join(f"{us:.0f} us" for us in both) for both in (network, hop))
        shares = ", ".join(f"{100 * us / HOP_US:.1f} %" for us in hop)
        rows.append([f"`{name}`", f"{result['models'][name]['parameters']:,}", *times, shares])
    heads = [result["made"]["date"], "weights", "features and network, 16 kHz, 48 kHz", "whole hop with oMISI 3"]
    return table([*heads, "of a hop"], rows)


def talkers() -> list[str]:
    """Two talkers, as `talkers` separates them if not told otherwise."""
    result = load("learned")
    rows = []
    for title, label in (("unknown", "unknown voices"), ("known", "the five voices that it knows best")):
        found = [result["talkers"][title][kind]["mask"] for kind in PAIRS]
        rows.append([label, *(f"{f['improvement']:+.1f} ({100 * f['swapped'] / f['seconds']:.0f} %)" for f in found)])
    head = f"two talkers, {result['count']} mixtures of each kind, {result['made']['date']}"
    return table([head, *PAIRS.values()], rows)


def adaptation() -> list[str]:
    """What `rtsep train --adapt` is worth: means of the noises and of the voices, and each pair."""
    result = load("adapt")
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        found = re.search(r"[(](.\+.)[)]", row["name"])
        title = f"one pair of voices, {PAIRS[found[1]]}" if found else f"a {row['kind']}"
        cases.setdefault(title, []).append(row)
    lines = []
    for title, rows in cases.items():
        many = f" (mean of {len(rows)})" if len(rows) > 1 else ""
        gains = (mean(row[name] for row in rows) for name in ("before", "after", "others_before", "others_after"))
        minutes = mean(row["seconds"] for row in rows) / 60
        lines.append([f"{title}{many}", f"{minutes:.0f}", *(f"{gain:+.1f}" for gain in gains)])
    missing = result["cases"] - len(result["rows"])
    head = f"adapted to, {result['made']['date']}" + (f", {missing} case{'s' * (missing > 1)} missing" * (missing > 0))
    return table([head, "training took, min", "gain before", "after", "with others before", "after"], lines)


def latency() -> list[str]:
    """Quality beside each latency."""
    rows = []
    for ms, row in load("latency")["rows"].items():
        noisy, voices = row["noisy"], row["voices"]
        samples = [f"{round(float(ms) * khz)} / {round(row['times_ms']['hop_ms'] * khz)}" for khz in (16, 48)]
        gains = [plus_minus(noisy[name]["si_sdr"]) for name in ("denoise", "speech", "ideal mask")]
        estois = f"{noisy['speech']['estoi'][0]:.3f}"
        rows.append(
            [f"{ms} ms", *samples, *gains, estois, plus_minus(voices["oMISI 1"]), plus_minus(voices["oMISI 5"])]
        )
    heads = ("`--latency-ms`", "samples / hop at 16 kHz", "at 48 kHz", "`denoise`", "`speech`", "ideal mask")
    more = ("ESTOI of `speech`", "oMISI 1, true magnitudes", "oMISI 5")
    return table([*heads, *more], rows)


MEASURED = {
    "latency": latency,
    "peers": peers,
    "evaluation": evaluation,
    "cost": cost,
    "talkers": talkers,
    "adaptation": adaptation,
}


def fill(page: str) -> str:
    """The text of a page with what was measured last."""
    return BLOCK.sub(lambda found: f"{found[1]} -->\n" + "\n".join(MEASURED[found[1]]()) + "\n", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(fill(path.read_text()))
