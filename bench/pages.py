"""Tables of the README and of docs/evaluation.md, from the JSON files in docs that hold what was measured.

    python bench/pages.py

What stands between `<!-- measured: NAME -->` and `<!-- end -->` is replaced. `peers` comes from docs/peers.json
(`python bench/peers CORPUS -o docs`), `evaluation` from docs/evaluation.json (summary.json of `rtsep evaluate`).
"""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

from rtsep.cli.evaluate import _print_summary

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "evaluation.md")
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


MEASURED = {"peers": peers, "evaluation": evaluation}


def fill(page: str) -> str:
    """The text of a page with what was measured last."""
    return BLOCK.sub(lambda found: f"{found[1]} -->\n{MEASURED[found[1]]()}\n", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(fill(path.read_text()))
