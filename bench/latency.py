"""What latency costs: 16, 8, 4 and 2 ms beside one another, from masks to learned ones to phase recovery.

    python bench/latency.py -o docs --data FOLDER [--pairs FOLDER]

Writes latency.json, latency.md and latency.png. FOLDER holds `speech` and `noise`, recordings that nothing was trained
on: of speech in noise, 24 excerpts of 4 s (one speaker each, ratios of -5 to 15 dB in turns), and of two voices 12 of
4 s (24 other speakers). `--pairs` as in `material.py`, for true magnitudes only.

Speech in noise: SI-SDR improvement, PESQ and ESTOI of the unprocessed mixture, `denoise`, `speech`, the ideal
phase-sensitive mask with the phase of the mixture, and of the filter of `minimum_phase.py`. Two voices: SI-SDR
improvement, mean over both, of `talkers` (the better assignment), the ideal mask, and oMISI with true magnitudes and 0,
1, 5 and 15 iterations, without its gate; the last also with an analysis window as short as the latency. Standard errors
are over mixtures. Costs are medians of a hop on one core, the calls in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import permutations
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from material import SR, UNLIMITED, Given, add_pairs, pairs, spectra
from minimum_phase import separate_speech
from oracle import phase_sensitive_mask
from scipy.signal import resample_poly
from study import measured, medians, one_core, parser, publish, pyplot, save, table

from rtsep import Separator, StreamConfig, separate
from rtsep.estimators import Oracle
from rtsep.evaluation import estoi, pesq, si_sdr
from rtsep.evaluation.report import provenance
from rtsep.phase import OMISI

LATENCIES = (16, 8, 4, 2)
ITERATIONS = (0, 1, 5, 15)
FILTER_MS = (1.0, 0.5)
RATIOS_DB = (-5, 0, 5, 10, 15)
N = 4 * SR
N_NOISY, N_PAIRS = 24, 12


def read(path: Path) -> np.ndarray:
    """4 s at 16 kHz from the middle of a recording, the mean of its channels, repeated if it is shorter."""
    x, sr = soundfile.read(path, always_2d=True)
    x = x.mean(1)
    if sr != SR:
        x = resample_poly(x, SR // gcd(SR, sr), sr // gcd(SR, sr))
    start = max(0, (x.size - N) // 2)
    return np.resize(x[start : start + N] if x.size >= N else x, N)


def level(x: np.ndarray, db: float) -> np.ndarray:
    return x * 10 ** (db / 20) / np.sqrt(np.mean(x**2) + 1e-20)


def scenes(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Speech and noise, and two voices, (2, n_samples) each."""
    speech = sorted(path for path in (folder / "speech").rglob("*") if path.is_file())
    noise = sorted(path for path in (folder / "noise").rglob("*") if path.is_file())
    step = max(1, len(noise) // N_NOISY)
    noisy = [
        np.stack([level(read(speech[i]), -26), level(read(noise[i * step % len(noise)]), -26 - RATIOS_DB[i % 5])])
        for i in range(N_NOISY)
    ]
    voices = [read(path) for path in speech[N_NOISY : N_NOISY + 2 * N_PAIRS]]
    return noisy, [np.stack([level(voices[i], -26), level(voices[i + N_PAIRS], -26)]) for i in range(N_PAIRS)]


def heard(sources: np.ndarray, estimator: Any, phase: Any, config: StreamConfig) -> np.ndarray:
    return separate(sources.sum(0), SR, estimator, phase, config=config, output=UNLIMITED)


def gains(sources: np.ndarray, estimates: np.ndarray) -> float:
    x = sources.sum(0)
    return float(np.mean([si_sdr(s, e) - si_sdr(s, x) for s, e in zip(sources, estimates, strict=True)]))


def mean(values: list[float]) -> list[float]:
    """Mean and its standard error."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))]


def speech_scores(noisy: list[np.ndarray], estimate: Callable[[np.ndarray], np.ndarray]) -> dict[str, list[float]]:
    """Of what is made of the sources of each mixture."""
    scores: dict[str, list[float]] = {"si_sdr": [], "pesq": [], "estoi": []}
    for sources in noisy:
        s, x, e = sources[0], sources.sum(0), estimate(sources)
        scores["si_sdr"].append(si_sdr(s, e) - si_sdr(s, x))
        scores["pesq"].append(pesq(s, e, SR))
        scores["estoi"].append(estoi(s, e, SR))
    return {score: mean(values) for score, values in scores.items()}


def noisy_scores(noisy: list[np.ndarray], config: StreamConfig) -> dict[str, dict[str, list[float]]]:
    def ideal(sources: np.ndarray) -> np.ndarray:
        return heard(sources, Given(phase_sensitive_mask(spectra(sources, config))), "mixture", config)[0]

    estimates = {
        "denoise": lambda sources: heard(sources, "denoise", None, config)[0],
        "speech": lambda sources: heard(sources, "speech", None, config)[0],
        "ideal mask": ideal,
    }
    return {name: speech_scores(noisy, estimate) for name, estimate in estimates.items()}


def voice_scores(voices: list[np.ndarray], config: StreamConfig) -> dict[str, list[float]]:
    talkers = []
    for sources in voices:
        estimates = heard(sources, "talkers", None, config)[:2]
        talkers.append(max(gains(sources, estimates[list(order)]) for order in permutations(range(2))))
    masks = [
        gains(sources, heard(sources, Given(phase_sensitive_mask(spectra(sources, config))), "mixture", config))
        for sources in voices
    ]
    return {"talkers": mean(talkers), "ideal mask": mean(masks)}


def true_magnitudes(voices: list[np.ndarray], config: StreamConfig) -> dict[str, list[float]]:
    return {
        f"oMISI {n}": mean([gains(s, heard(s, Oracle(s), OMISI(n, gate=False), config)) for s in voices])
        for n in ITERATIONS
    }


def costs(configs: dict[int, StreamConfig]) -> dict[int, dict[str, float]]:
    """Microseconds per hop."""
    calls = {}
    for ms, config in configs.items():
        for name, settings in (("speech", ("speech", "mixture")), ("denoise", ("denoise", "mixture"))):
            calls[ms, name] = timer(Separator(config, *settings))
        calls[ms, "oMISI 5"] = timer(Separator(config, "denoise", OMISI(5)))
    with one_core():
        found = medians(calls, rounds=9)
    return {ms: {name: 1e6 * s for (of, name), s in found.items() if of == ms} for ms in configs}


def timer(separator: Separator) -> Any:
    block = np.random.default_rng(0).normal(0, 0.1, 200 * separator.config.hop).astype(np.float32)
    out = np.empty((separator.n_src, block.size), np.float32)

    def call() -> float:
        start = time.thread_time()
        separator.process(block, out)
        return (time.thread_time() - start) / 200

    return call


def study(noisy: list[np.ndarray], voices: list[np.ndarray], others: dict[str, np.ndarray]) -> dict[str, Any]:
    configs = {ms: StreamConfig.from_ms(SR, latency_ms=ms) for ms in LATENCIES}
    rows = {}
    for ms, config in configs.items():
        one_length = StreamConfig.from_ms(SR, ms)
        rows[str(ms)] = {
            "times_ms": config.times_ms,
            "noisy": noisy_scores(noisy, config),
            "voices": voice_scores(voices, config) | true_magnitudes(voices, config),
            "one length": true_magnitudes(voices, one_length),
            "pairs": true_magnitudes(list(others.values()), config) if others else {},
            "pairs, one length": true_magnitudes(list(others.values()), one_length) if others else {},
        }
    for ms, cost in costs(configs).items():
        rows[str(ms)]["us_per_hop"] = cost
    filtered = {
        str(ms): speech_scores(noisy, lambda sources, ms=ms: separate_speech(sources.sum(0), ms)) for ms in FILTER_MS
    }
    unprocessed = speech_scores(noisy, lambda sources: sources.sum(0))
    return {
        "rows": rows,
        "unprocessed": unprocessed,
        "filtered": filtered,
        "n_noisy": len(noisy),
        "n_voices": len(voices),
        "n_pairs": len(others),
    }


def plus_minus(value: list[float], digits: int = 1) -> str:
    return f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def scored(latency: str, hop: str, name: str, scores: dict[str, list[float]]) -> tuple[str, ...]:
    digits = {"si_sdr": 1, "pesq": 2, "estoi": 3}
    return (latency, hop, name, *(plus_minus(scores[score], n) for score, n in digits.items()))


def render(result: dict[str, Any]) -> str:
    rows = result["rows"]
    lines = [
        "# What latency costs",
        "",
        measured(result),
        "",
        "Latency is the length of the synthesis window; the analysis window, which the networks know, stays at 16 ms "
        "([rtsep/windows.py](../rtsep/windows.py)). Means ± standard errors over mixtures, which `bench/latency.py` "
        "describes.",
        "",
        f"## Speech in noise ({result['n_noisy']} mixtures)",
        "",
    ]
    heads = ("latency", "hop", "", "SI-SDR improvement, dB", "PESQ", "ESTOI")
    body = [scored("", "", "unprocessed", result["unprocessed"])]
    for ms, row in rows.items():
        for name, scores in row["noisy"].items():
            label = name if name == "ideal mask" else f"`{name}`"
            body.append(scored(f"{ms} ms", f"{row['times_ms']['hop_ms']:g} ms", label, scores))
    for ms, scores in result["filtered"].items():
        body.append(scored(f"{float(ms):g} ms", f"{float(ms):g} ms", "`speech` as a filter (see below)", scores))
    lines += table(heads, body)
    lines += [
        "",
        "Below 2 ms an experiment, not in the package: a minimum-phase filter follows the masks of `speech`, without "
        "overlap-add (`bench/minimum_phase.py`). Its latency is one hop, and what the filter itself delays.",
    ]
    lines += ["", f"## Two voices ({result['n_voices']} mixtures), SI-SDR improvement in dB", ""]
    names = ["talkers", "ideal mask", *(f"oMISI {n}" for n in ITERATIONS)]
    heads = (
        "latency",
        "windows",
        "`talkers`",
        "ideal mask",
        *(f"oMISI {n}, true magnitudes" for n in ITERATIONS),
    )
    body = []
    for ms, row in rows.items():
        pair = ms != "16"
        body.append(
            (f"{ms} ms", f"16 and {ms} ms" if pair else "16 ms", *(plus_minus(row["voices"][n]) for n in names))
        )
        if pair:
            body.append((f"{ms} ms", f"{ms} ms", "", "", *(plus_minus(row["one length"][n]) for n in names[2:])))
    lines += table(heads, body)
    if result["n_pairs"]:
        lines += ["", f"The {result['n_pairs']} recorded pairs of the oMISI article:", ""]
        body = []
        for ms, row in rows.items():
            pair = ms != "16"
            windows = f"16 and {ms} ms" if pair else "16 ms"
            body.append((f"{ms} ms", windows, *(plus_minus(row["pairs"][n]) for n in names[2:])))
            if pair:
                body.append((f"{ms} ms", f"{ms} ms", *(plus_minus(row["pairs, one length"][n]) for n in names[2:])))
        lines += table(("latency", "windows", *(f"{n} iterations" for n in ITERATIONS)), body)
    lines += ["", "## Cost of a hop", ""]
    body = [
        (
            f"{ms} ms",
            f"{row['times_ms']['hop_ms']:g} ms",
            *(f"{row['us_per_hop'][n]:.0f} us" for n in ("denoise", "oMISI 5", "speech")),
            f"{row['us_per_hop']['speech'] / row['times_ms']['hop_ms'] / 10:.1f} %",
        )
        for ms, row in rows.items()
    ]
    lines += table(("latency", "hop", "`denoise`", "`denoise`, oMISI 5", "`speech`", "`speech`, of one core"), body)
    return "\n".join([*lines, "", "![Quality over latency](latency.png)", ""])


def draw(result: dict[str, Any], path: Path) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    rows = result["rows"]
    x = np.arange(len(rows))

    def line(axis: Any, of: list[list[float]], label: str, **style: Any) -> None:
        axis.errorbar(x, [v[0] for v in of], [v[1] for v in of], marker="o", capsize=3, label=label, **style)

    for name in ("ideal mask", "speech", "denoise"):
        line(axes[0], [row["noisy"][name]["si_sdr"] for row in rows.values()], name)
        line(axes[1], [row["noisy"][name]["estoi"] for row in rows.values()], name)
    axes[1].axhline(result["unprocessed"]["estoi"][0], color="gray", ls=":", label="unprocessed")
    for n in ITERATIONS:
        (drawn,) = axes[2].plot([], [])
        line(axes[2], [row["voices"][f"oMISI {n}"] for row in rows.values()], f"oMISI {n}", color=drawn.get_color())
        before = [row["one length"][f"oMISI {n}"] for row in rows.values()]
        axes[2].plot(x, [v[0] for v in before], ls=":", color=drawn.get_color())
    titles = ("Speech in noise", "Speech in noise", "Two voices, true magnitudes\n(dotted: windows of one length)")
    labels = ("SI-SDR improvement, dB", "ESTOI", "SI-SDR improvement, dB")
    for axis, title, label in zip(axes, titles, labels, strict=True):
        axis.set_xticks(x, [f"{ms} ms" for ms in rows])
        axis.set_title(title, fontsize=9)
        axis.set_ylabel(label)
        axis.set_xlabel("latency")
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=4, handlelength=1.2)
        axis.grid(alpha=0.3)
    save(figure, path)


def main() -> None:
    options = parser("latency", __doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True, help="folder with speech and noise for tests")
    add_pairs(options)
    args = options.parse_args()
    noisy, voices = scenes(args.data)
    others = pairs(args.pairs) if args.pairs else {}
    result = study(noisy, voices, others)
    more = " --pairs FOLDER" if args.pairs else ""
    command = f"python bench/latency.py -o docs --data FOLDER{more}"
    publish(args.output, "latency", result | {"command": command, "made": provenance()}, render, draw)


if __name__ == "__main__":
    main()
