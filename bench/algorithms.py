"""Every registered phase recovery in one table: latency, FFTs, time, and quality with magnitudes good and bad.

    python bench/algorithms.py -o docs [--pairs FOLDER] [--data FOLDER]

Writes algorithms.json, algorithms.md and algorithms.png. Two sources at 16 kHz, window 16 ms, 75 % overlap; settings
are the default ones but for those named. Without folders the mixtures are synthetic (`tests/signals.py`): two voices,
and one voice in noise for `denoise`. `--pairs` as in `quality.py`; `--data` is a folder made by `rtsep mix` with a
source called speech. Magnitudes are degraded as in `degraded.py`. The rows at 50 % overlap are the published settings.

Times are those of the processor, medians over short pieces of signal in which all algorithms take turns, on one pinned
core: analysis and phase recovery; offline the time of the whole signal over its number of hops.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from time import thread_time
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from degraded import Given, improvement, independent, ratio_mask, smooth, spectra
from hop_time import scene
from initialisation import improvement as improvement_with_true
from quality import scenes, si_sdr

from rtsep import Output, Separator, StreamConfig, separate
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.line import prepare_line, take_in
from rtsep.engine.registry import PHASES, recover
from rtsep.evaluation.audio import read_alike
from rtsep.evaluation.corpus import read_corpus
from rtsep.evaluation.report import provenance
from rtsep.kernels.jit import kernel
from rtsep.phase import MISI, OMISI, RTPGHI, Bregman, ConsistentAnisotropicWiener, ConsistentWiener, MixturePhase
from rtsep.phase.griffin_lim import GriffinLim
from rtsep.phase.mixture import MixtureState
from rtsep.phase.omisi import OMISIState
from rtsep.phase.repeated_events import RepeatedEvents
from rtsep.phase.window import Online

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import signals

RATES = (16_000, 48_000)
# Hops in a row, with which the algorithms take turns: as many to get going, as many timed. Short, since the time of a
# long piece on a busy machine is that of all who share the core.
PIECE = 10
ROUNDS = 100
OFFLINE_HOPS, OFFLINE_ROUNDS = 50, 5
N_SRC = 2
UNLIMITED = Output(ceiling_db=float("inf"))
NOISE_DB = -5.0  # of the synthetic noise, relative to the voice

DEGRADED = {
    "3 dB": lambda true: independent(true, 3),
    "6 dB": lambda true: independent(true, 6),
    "3 dB smooth": lambda true: smooth(true, 3),
    "ratio mask": lambda true: ratio_mask(true, 1),
}
# What each source gets from its own magnitudes alone; the spectral convergence is theirs.
SINGLE_SOURCE = (
    "rtisi_la",
    "gsrtisi_la",
    "rtpghi",
    "spsi",
    "unwrapping",
    "griffin_lim",
    "fast_griffin_lim",
    "bregman_gradient",
    "bregman_admm",
)
PUBLISHED_SOURCE = (
    "slides of Magron and Virtanen, ICASSP 2021, p. 32: mean over male-female, male-male and female-female pairs of "
    "the Danish HINT, true magnitudes"
)


class Row(NamedTuple):
    """A phase recovery and how it is framed."""

    phase: Any
    options: dict[str, Any]  # settings that are not the default ones
    overlap: int = 75  # %
    published: float | None = None  # SI-SDR improvement in dB

    @property
    def label(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return self.phase.name + (f" ({settings})" if settings else "")

    @property
    def offline(self) -> bool:
        return bool(getattr(self.phase, "offline", False))

    def config(self, sr: int = RATES[0]) -> StreamConfig:
        length = sr * 16 // 1000
        return StreamConfig(sr, length, length * (100 - self.overlap) // 100)


def rows() -> list[Row]:
    def row(kind: type, overlap: int = 75, published: float | None = None, **options: Any) -> Row:
        return Row(kind(**options), options, overlap, published)

    found = [row(kind) for kind in PHASES.values()]
    found += [
        row(OMISI, n_iter=15),
        row(OMISI, init="sinusoidal"),
        row(OMISI, n_iter=7, lookahead=1),
        row(OMISI, n_iter=5, lookahead=2),
        row(Bregman, lookahead=1),
        row(Bregman, n_iter=15, lookahead=None),
        row(MISI, lookahead=1),
        row(RTPGHI, lookahead=1),
        row(ConsistentWiener, n_iter=20, lookahead=None, consistency=30.0),
        row(ConsistentAnisotropicWiener, n_iter=20, lookahead=None, consistency=30.0),
        row(MixturePhase, 50, 7.9),
        row(OMISI, 50, 16.4, n_iter=15, tail=1.0, order="published"),
        row(OMISI, 50, 19.7, n_iter=7, lookahead=1, tail=1.0, order="published"),
        row(OMISI, 50, 20.8, n_iter=5, lookahead=2, tail=1.0, order="published"),
        # The mask counts as the first of 15 iterations there.
        row(MISI, 50, 23.0, n_iter=14, tail=1.0, order="published"),
    ]
    return found


def transforms(phase: Any, n_src: int = N_SRC) -> int:
    """Real FFTs per hop and channel, forward and inverse, from the loops of the kernels; 1 is the analysis."""
    frames = (phase.lookahead or 0) + 1
    n_iter = getattr(phase, "n_iter", 0)
    if getattr(phase, "State", None) is OMISIState:
        # Differences of the sources alone: to signals and back for every frame of the window, then once more to
        # signals. T once a frame, if there are iterations; in the published order it is the mixture, and the sum of
        # the sources is transformed at the end, too.
        published = getattr(phase, "order", "paper") == "published"
        targets = frames if n_iter and not published else 0
        return 1 + targets + frames * (2 * n_iter * (n_src - 1) + (n_src if published else n_src - 1))
    if getattr(phase, "State", None) is MixtureState:
        return 1 + n_src - 1  # the differences become signals
    if isinstance(phase, (ConsistentWiener, ConsistentAnisotropicWiener)) and phase.offline:
        # The window opens with all sources; the forces on their differences: before the iterations, and in each. The
        # mixture is transformed for the estimator and for the algorithm.
        return 2 + n_src + 2 * (n_src - 1) * (n_iter + 1)
    if isinstance(phase, Online):
        # A frame that enters becomes signals once; each iteration takes every frame of the window to spectra and back.
        # Offline every frame is iterated on once, and the mixture is transformed as above.
        offline = phase.lookahead is None
        return 1 + offline + n_src * (1 + 2 * n_iter * (1 if offline else frames))
    if isinstance(phase, RepeatedEvents):
        # As everything else, and the spectra of the mixture once more; delays cost FFTs per event, not per hop.
        return 2 + n_src
    if isinstance(phase, GriffinLim):
        return 1 + (phase.init == "mixture") + n_src * (1 + 2 * n_iter)
    # Everything else works on spectra, and each source becomes a signal once.
    return 1 + n_src


@kernel
def run(line, analysis, state, hops, magnitudes, out):
    for t in range(len(hops)):
        take_in(line, hops[t])
        analyse(analysis, line.samples)
        recover(state, analysis.mixture, analysis.power, line.samples, magnitudes[t], out)


class Stream:
    """Pieces of a stream at one rate, timed."""

    def __init__(self, row: Row, sr: int) -> None:
        config = row.config(sr)
        hops, magnitudes = scene(config)
        self.pieces = [(hops[i : i + PIECE], magnitudes[i : i + PIECE]) for i in range(0, len(hops), PIECE)]
        self.line = prepare_line(1, config.win_length + row.phase.lookahead * config.hop)
        self.analysis = prepare_analysis(config)
        self.state = row.phase.prepare(config, N_SRC)
        self.out = np.zeros((N_SRC, 1, config.hop), np.float32)
        self.n = 0

    def __call__(self) -> float:
        for _ in range(2):
            hops, magnitudes = self.pieces[self.n % len(self.pieces)]
            self.n += 1
            start = thread_time()
            run(self.line, self.analysis, self.state, hops, magnitudes, self.out)
            taken = thread_time() - start
        return taken / len(hops)


class Offline:
    """One piece at one rate, timed as a whole."""

    def __init__(self, row: Row, sr: int) -> None:
        self.phase, self.config = row.phase, row.config(sr)
        hops, magnitudes = scene(self.config)
        lead = np.zeros(self.config.win_length - self.config.hop)
        self.line = np.concatenate([lead, hops[:OFFLINE_HOPS].ravel()]).astype(np.float32)
        self.magnitudes = np.ascontiguousarray(magnitudes[:OFFLINE_HOPS])

    def __call__(self) -> float:
        start = thread_time()
        self.phase.run(self.config, self.line, self.magnitudes)
        return (thread_time() - start) / OFFLINE_HOPS


def times(table: list[Row]) -> list[dict[str, float]]:
    """Microseconds per hop of each row at each rate."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found: list[dict[str, float]] = [{} for _ in table]
    for sr in RATES:
        stages = [(Offline if row.offline else Stream)(row, sr) for row in table]
        taken: list[list[float]] = [[] for _ in table]
        for n in range(ROUNDS + 1):
            for stage, values in zip(stages, taken, strict=True):
                if isinstance(stage, Stream) or n <= OFFLINE_ROUNDS:
                    values.append(stage())
        for entry, values in zip(found, taken, strict=True):
            entry[str(sr)] = 1e6 * float(np.median(values[1:]))  # the first compiles
    return found


def convergence(pairs: list[np.ndarray], true: list[np.ndarray], phase: Any) -> float:
    """Spectral convergence in dB, lower is better: of each source before the mixing error is shared."""
    kind = type(phase)
    alone = type(kind.__name__, (kind,), {"consistent": False})(**asdict(phase))
    found = []
    for sources, wanted in zip(pairs, true, strict=True):
        given = Given(np.abs(wanted).astype(np.float32))
        heard = spectra(separate(sources.sum(0), RATES[0], given, alone, output=UNLIMITED))
        for j in range(len(sources)):
            v = np.abs(wanted[:, j])
            found.append(20 * np.log10(np.linalg.norm(np.abs(heard[:, j]) - v) / np.linalg.norm(v)))
    return float(np.mean(found))


def noisy(folder: Path | None, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mixtures and the speech in them."""
    found = []
    if folder is None:
        for seed in range(4):
            voice = signals.voices(48_000, seed=seed)[0].astype(float)
            # White noise through a one-pole low-pass filter.
            white = np.random.default_rng(seed).normal(size=voice.size)
            noise = np.fft.irfft(np.fft.rfft(white) / (1 + 1j * np.linspace(0, 8, voice.size // 2 + 1)), voice.size)
            noise *= 10 ** (NOISE_DB / 20) * np.linalg.norm(voice) / np.linalg.norm(noise)
            found.append((voice + noise, voice))
    else:
        for item in read_corpus(folder)[:count]:
            heard, sr = read_alike([item.mixture, item.sources["speech"]])
            assert sr == RATES[0], item.mixture
            found.append((heard[0, 0], heard[1, 0]))
    return found


def improvement_of_speech(mixtures: list[tuple[np.ndarray, np.ndarray]], phase: Any) -> float:
    """SI-SDR improvement of the speech by `denoise`."""
    gains = []
    for x, speech in mixtures:
        heard = separate(x, RATES[0], "denoise", phase, output=UNLIMITED)[0]
        gains.append(si_sdr(heard, speech) - si_sdr(x, speech))
    return float(np.mean(gains))


def measure(pairs_folder: Path | None, data: Path | None, count: int) -> dict[str, Any]:
    pairs, mixtures, table = scenes(pairs_folder), noisy(data, count), rows()
    true = [spectra(sources) for sources in pairs]
    given = {name: [degrade(t) for t in true] for name, degrade in DEGRADED.items()}
    entries = []
    for row in table:
        phase, config = row.phase, row.config()
        latency = None if row.offline else 1000 * Separator(config, "denoise", phase).latency / config.sr
        entry = {
            "algorithm": row.label,
            "name": phase.name,
            "settings": asdict(phase) if hasattr(phase, "__dataclass_fields__") else {},
            "overlap": row.overlap,
            "latency_ms": latency,
            "ffts": transforms(phase),
            "si_sdri": {"true": float(np.mean([improvement_with_true(s, config, phase) for s in pairs]))},
            "convergence": None,
            "published": row.published if pairs_folder else None,
        }
        if row.overlap == 75:
            entry["si_sdri"] |= {name: improvement(pairs, magnitudes, phase) for name, magnitudes in given.items()}
            entry["si_sdri"]["denoise"] = improvement_of_speech(mixtures, phase)
            if phase.name in SINGLE_SOURCE:
                entry["convergence"] = convergence(pairs, true, phase)
        print(row.label, {k: round(v, 1) for k, v in entry["si_sdri"].items()}, entry["convergence"], file=sys.stderr)
        entries.append(entry)
    for row, entry, taken in zip(table, entries, times(table), strict=True):
        entry["us_per_hop"] = taken
        entry["share"] = {sr: us / (1e6 * row.config(int(sr)).hop_s) for sr, us in taken.items()}
    command = "python bench/algorithms.py -o docs"
    command += f" --pairs {pairs_folder.name}" if pairs_folder else ""
    command += f" --data {data.name}" if data else ""
    return {
        "made": provenance(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "command": command,
        "pairs": f"{len(pairs)} {'pairs of recordings' if pairs_folder else 'synthetic two-voice mixtures'}",
        "noisy": f"{len(mixtures)} {'recordings of speech' if data else 'synthetic voices'} in noise",
        "algorithms": sorted(entries, key=_order),
    }


def _order(entry: dict[str, Any]) -> tuple[Any, ...]:
    """Published settings last, then by latency, the whole signal last, then the best first."""
    latency = entry["latency_ms"]
    return -entry["overlap"], 1e9 if latency is None else latency, -round(entry["si_sdri"]["true"], 3)


COLUMNS = {
    "algorithm": lambda e: f"`{e['algorithm']}`" + ("" if e["overlap"] == 75 else f", {e['overlap']} % overlap"),
    "latency, ms": lambda e: "whole signal" if e["latency_ms"] is None else f"{e['latency_ms']:g}",
    "FFTs per hop": lambda e: str(e["ffts"]),
    "us per hop, 16 kHz": lambda e: _time(e, "16000"),
    "48 kHz": lambda e: _time(e, "48000"),
    "true": lambda e: _db(e["si_sdri"]["true"]),
    **{name: lambda e, name=name: _db(e["si_sdri"].get(name)) for name in [*DEGRADED, "denoise"]},
    "convergence": lambda e: _db(e["convergence"]),
    "published": lambda e: _db(e["published"]),
}


def _time(entry: dict[str, Any], sr: str) -> str:
    us = f"{entry['us_per_hop'][sr]:.3g}" if entry["us_per_hop"][sr] < 1000 else f"{entry['us_per_hop'][sr]:.0f}"
    return us if entry["latency_ms"] is None else f"{us} ({100 * entry['share'][sr]:.2g} %)"


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def render(result: dict[str, Any]) -> str:
    """The page algorithms.md."""
    made = result["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items() if name in ("numpy", "numba"))
    lines = [
        "# Phase recovery: every algorithm",
        "",
        f"`{result['command']}`, {made['date']}, {made['machine']}, Python {made['python']}, {versions}, load "
        f"{result['load']:.1f}.",
        "",
        "Two sources, 16 kHz, window 16 ms, 75 % overlap where nothing else is said, default settings but for those in "
        "brackets. Real FFTs forward and inverse, the analysis among them. Time per hop on one core, in brackets the "
        "share of a hop; offline, the time of the whole signal over its hops. Then SI-SDR improvement in dB, mean over "
        f"the sources of {result['pairs']}: with true magnitudes, with log-normal errors of 3 and 6 dB rms independent "
        "from bin to bin, of 3 dB smooth over 16 ms and 125 Hz, with ratio masks; and of the speech that `denoise` "
        f"finds in {result['noisy']}. Convergence is the spectral convergence in dB, less is better: for algorithms "
        "that look at each source alone, before the sources are made to sum to the mixture; the only measure that "
        "suits `rtpghi`, `spsi` and `unwrapping`, whose phases are not those of the sources. Published: "
        f"{PUBLISHED_SOURCE}; empty where nothing comparable was published or measured.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += [f"| {' | '.join(column(e) for column in COLUMNS.values())} |" for e in result["algorithms"]]
    return "\n".join([*lines, "", "![Quality and time of every algorithm](algorithms.png)", ""])


def draw(result: dict[str, Any], path: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    entries = [e for e in result["algorithms"] if e["overlap"] == 75][::-1]
    height = np.arange(len(entries))
    figure, (quality, cost) = plt.subplots(
        1, 2, figsize=(11, 0.26 * len(entries) + 1.4), sharey=True, layout="constrained", width_ratios=(3, 2)
    )
    shown = {"true": ("black", "o"), "3 dB": ("C0", "o"), "6 dB": ("C1", "o"), "ratio mask": ("C2", "D")}
    for name, (colour, marker) in shown.items():
        values = [e["si_sdri"][name] for e in entries]
        quality.plot(
            values, height, marker, color=colour, markersize=5, label=f"{name} magnitudes".replace("dB", "dB off")
        )
    quality.set(xlabel="SI-SDR improvement in dB", yticks=height, yticklabels=[e["algorithm"] for e in entries])
    quality.tick_params(axis="y", labelsize=8)
    quality.legend(fontsize=8, loc="lower right")
    for sr, marker in (("16000", "o"), ("48000", "s")):
        for online in (True, False):
            at = [i for i, e in enumerate(entries) if (e["latency_ms"] is not None) == online]
            cost.plot(
                [100 * entries[i]["share"][sr] for i in at], height[at], marker, color="C3", markersize=5,
                fillstyle="full" if sr == "48000" else "none", label=f"{int(sr) // 1000} kHz" if online else None,
            )  # fmt: skip
    cost.axvline(10, color="grey", linestyle=":")
    cost.set(xscale="log", xlabel="share of the hop on one core, %")
    cost.legend(fontsize=8, loc="upper right")
    # A line between latencies, and what they are.
    latencies = [e["latency_ms"] for e in entries]
    starts = [0] + [i for i in range(1, len(entries)) if latencies[i] != latencies[i - 1]]
    for start, stop in zip(starts, [*starts[1:], len(entries)], strict=True):
        for axis in (quality, cost):
            axis.axhline(stop - 0.5, color="grey", linewidth=0.6)
        name = "whole signal" if latencies[start] is None else f"{latencies[start]:g} ms"
        cost.text(1.02, (start + stop - 1) / 2, name, transform=cost.get_yaxis_transform(), fontsize=8, va="center")
    for axis in (quality, cost):
        axis.grid(alpha=0.3)
        axis.set_ylim(-0.6, len(entries) - 0.4)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Every phase recovery in one table")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--pairs", type=Path, help="folder of folders with sig1.* and sig2.*")
    parser.add_argument("--data", type=Path, help="mixtures of `rtsep mix`, with a source called speech, 16 kHz")
    parser.add_argument("--count", type=int, default=10, help="mixtures of --data to use (default: 10)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    result = measure(args.pairs, args.data, args.count)
    (args.output / "algorithms.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.output / "algorithms.md").write_text(render(result))
    draw(result, args.output / "algorithms.png")
    print(render(result))


if __name__ == "__main__":
    main()
