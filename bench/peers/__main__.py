"""This engine beside the noise suppressors that people use: quality, latency and cost under one accounting.

    pip install ".[eval,peers]"
    rtsep mix --speech DIR --noise DIR -o mixtures
    python bench/peers mixtures -o peers [--count 20] [--gtcrn gtcrn_simple.onnx] [--dtln model_1.onnx model_2.onnx]

Writes peers.json, peers.md and peers.png. Everything is measured here, in one run, engines taking turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from study import parser, publish, pyplot, save, table

ROUNDS = 3  # of the cost, each in processes of their own; the median round counts
COST_S = 20.0
LATENCY_S = 2.0
NEAR_MS, NEAR_DB = 8.0, 0.8  # points whose names would cover each other
SCORES = ("si_sdr", "sdr", "stoi", "estoi", "pesq", "dnsmos")
OURS = "rtsep speech"  # with which the others are compared, mixture by mixture
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    options = parser("peers", "This engine beside noise suppressors that people use")
    options.add_argument("corpus", type=Path, help="mixtures of `rtsep mix`, with a source called speech, 16 kHz")
    options.add_argument("--count", type=int, default=20, help="mixtures to score (default: 20)")
    options.add_argument("--gtcrn", nargs=1, default=[], metavar="FILE", help="ONNX of streaming GTCRN")
    options.add_argument("--dtln", nargs=2, default=[], metavar="FILE", help="ONNX of both networks of DTLN, in order")
    args = options.parse_args()
    for file in (*args.gtcrn, *args.dtln):
        if not Path(file).is_file():
            options.error(f"{file} is no file")
    os.environ.update(ONE_THREAD)  # of the processes whose cost is measured
    result = compare(args.corpus, args.count, {"GTCRN": args.gtcrn, "DTLN": args.dtln})
    publish(args.output, "peers", result, page, draw)


def compare(folder: Path, count: int, files: dict[str, list[str]]) -> dict[str, Any]:
    import measure
    import numpy as np
    from engines import find_engines

    from rtsep.evaluation.corpus import read_corpus
    from rtsep.evaluation.report import provenance
    from rtsep.evaluation.summary import describe_values

    items = read_corpus(folder)[:count]
    engines, missing = find_engines(files)
    if OURS not in engines:
        sys.exit(f"{OURS} is not there: {missing.get(OURS, 'it has no model')}")
    found: dict[str, Any] = {name: {} for name in engines}
    for name, make in engines.items():
        x = signal(items, make().sr, LATENCY_S)
        found[name]["latency"] = measure.latency(make, x)
        print(name, found[name]["latency"], file=sys.stderr)
    costs: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as work:
        for name, make in engines.items():
            np.save(Path(work, f"{name}.npy"), signal(items, make().sr, COST_S))
        for _ in range(ROUNDS):
            for name in engines:
                script = Path(__file__).with_name("cost.py")
                command = [sys.executable, script, Path(work, f"{name}.npy"), name, *files.get(name, [])]
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                costs[name].append(json.loads(run.stdout.splitlines()[-1]))
    for name, rounds in costs.items():
        found[name]["cost"] = sorted(rounds, key=lambda cost: cost["median"])[len(rounds) // 2]
        print(name, found[name]["cost"], file=sys.stderr)
    values: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for item in items:
        mixture, reference, sr = read(item)
        for name, make in engines.items():
            values[name].append(measure.quality(make, reference, mixture, sr))

    def over(name: str, other: str) -> dict[str, Any]:
        pairs = list(zip(values[name], values[other], strict=True))
        return {score: describe_values([a[score] - b[score] for a, b in pairs]) for score in SCORES}

    for name, rows in values.items():
        found[name]["scores"] = {score: describe_values([row[score] for row in rows]) for score in SCORES}
        found[name]["gain"] = over(name, "unprocessed")
        if name != OURS:
            found[name]["lead"] = over(OURS, name)
        found[name]["delay_of_files"] = float(np.median([row["delay"] for row in rows]))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    head = {"n_mixtures": len(items), "corpus": folder.name, "load": load, "missing": missing}
    return {"made": provenance()} | head | {"engines": found}


def read(item: Any) -> tuple[Any, Any, int]:
    from rtsep.audio_files import read_alike

    signals, sr = read_alike([item.mixture, item.sources["speech"]])
    return signals[0, 0], signals[1, 0], sr


def signal(items: list[Any], sr: int, seconds: float) -> Any:
    """Mixtures one after the other, at a rate."""
    import measure
    import numpy as np

    parts, n = [], 0
    while n < seconds * sr:
        for item in items:
            x, _, rate = read(item)
            parts.append(measure.to_rate(x, rate, sr))
            n += parts[-1].size
            if n >= seconds * sr:
                break
    return np.ascontiguousarray(np.concatenate(parts)[: round(seconds * sr)])


def page(result: dict[str, Any]) -> str:
    """The page peers.md."""
    made, rows = result["made"], []
    for name, engine in result["engines"].items():
        latency, cost = engine["latency"]["latency_ms"], engine["cost"]
        row = {
            "": name,
            "latency ms": "whole file" if latency is None else f"{latency:.1f}",
            "SI-SDR dB": f"{engine['scores']['si_sdr']['mean']:.2f}",
            "gain dB": with_interval(engine["gain"]["si_sdr"], "+.2f"),
            **{name: with_interval(engine["scores"][name.lower()], ".3f") for name in ("STOI", "ESTOI")},
            **{name: with_interval(engine["scores"][name.lower()], ".2f") for name in ("PESQ", "DNSMOS")},
            "cost median": f"{100 * cost['median']:.2f} %",
            "p99": f"{100 * cost['p99']:.2f} %",
            "max": f"{100 * cost['max']:.1f} %",
            "block ms": f"{cost['block_ms']:.0f}",
            "MiB": f"{cost['memory_mib']:.0f}",
            "start s": f"{cost['start_s']:.2f}",
        }
        rows.append(row)
    lines = [
        f"{result['n_mixtures']} mixtures, {made['date']}, {made['machine']}, Python {made['python']}, load "
        f"{result['load']:.1f}. Scores: mean of the speech after alignment, and where it lies with 95 % confidence; "
        "cost: share of one core.",
        "",
        *table(rows[0], (row.values() for row in rows)),
        "",
        f"What `{OURS}` has more than each, mixture by mixture: mean, and where it lies with 95 % confidence. All "
        "engines had the same mixtures, so this tells more than the intervals above, in which loud noise and bad "
        "voices are, too. Bold: zero is not within; elsewhere nothing is settled. Of so many intervals one or two are "
        "expected to miss.",
        "",
        *leads(result),
        "",
        *(f"{name}: {reason}." for name, reason in result["missing"].items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def leads(result: dict[str, Any]) -> list[str]:
    """What ours has more than each of the others, as a table."""
    forms = {"SI-SDR dB": ("si_sdr", "+.2f"), "ESTOI": ("estoi", "+.3f"), "PESQ": ("pesq", "+.2f")}
    rows = []
    for name, lead in ((name, engine["lead"]) for name, engine in result["engines"].items() if "lead" in engine):
        cells = [(with_interval(lead[score], form), lead[score]) for score, form in forms.values()]
        rows.append((name, *(f"**{cell}**" if at["ci_low"] > 0 or at["ci_high"] < 0 else cell for cell, at in cells)))
    return table((f"{OURS} against", *forms), rows)


def with_interval(found: dict[str, float], form: str) -> str:
    """A mean, and where it lies with 95 % confidence."""
    plain = form.removeprefix("+")
    return f"{found['mean']:{form}} ({found['ci_low']:{plain}} to {found['ci_high']:{plain}})"


def draw(result: dict[str, Any], path: Path) -> None:
    """Gain in SI-SDR against latency; the area is the share of a core."""
    figure, axis = pyplot().subplots(figsize=(7, 4.5), layout="constrained")
    known = [e["latency"]["latency_ms"] for e in result["engines"].values() if e["latency"]["latency_ms"] is not None]
    right = 1.4 * max([*known, 20])
    placed: list[tuple[float, float]] = []
    for k, (name, engine) in enumerate(result["engines"].items()):
        latency = engine["latency"]["latency_ms"]
        x = right if latency is None else latency
        y = engine["gain"]["si_sdr"]["mean"]
        axis.scatter(x, y, 20 + 4000 * engine["cost"]["median"], color=f"C{k}", alpha=0.6)
        crowded = any(abs(x - a) < NEAR_MS and abs(y - b) < NEAR_DB for a, b in placed)
        placed.append((x, y))
        beside = {"xytext": (-10, -3), "ha": "right"} if crowded else {"xytext": (0, 12), "ha": "center"}
        axis.annotate(name, (x, y), textcoords="offset points", fontsize=8, **beside)
    axis.margins(0.1)
    axis.axvline(0.5 * (right + max([*known, 20])), color="0.7", lw=0.8)
    axis.set_xlabel("algorithmic latency / ms, by experiment (far right: needs the whole file)")
    axis.set_ylabel("mean gain in SI-SDR / dB")
    axis.set_title(f"{result['n_mixtures']} mixtures; area: share of one core")
    save(figure, path)


if __name__ == "__main__":
    main()
