"""Every registered phase recovery in one table: latency, FFTs, time, and quality with magnitudes good and bad.

    python bench/algorithms.py -o docs [--pairs FOLDER] [--data FOLDER]

Writes algorithms.json, algorithms.md and algorithms.png. Two sources at 16 kHz, window 16 ms, 75 % overlap; settings
are the default ones but for those named; those of the rows at 50 % overlap are published. Pairs and their magnitudes
are those of `material.py`; `denoise` hears synthetic voices in noise, or with `--data` mixtures of `rtsep mix`.

Times are those of the processor, medians over short pieces of signal in which all algorithms take turns, on one pinned
core: analysis and phase recovery; offline the time of the whole signal over its number of hops.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from time import thread_time
from typing import Any, NamedTuple

import numpy as np
from material import (
    SR,
    UNLIMITED,
    Given,
    add_pairs,
    gain,
    hops,
    independent,
    mean_gain,
    pairs,
    ratio_mask,
    signals,
    smooth,
    spectra,
)
from study import measured, medians, one_core, parser, publish, pyplot, save, table

from rtsep import Separator, StreamConfig, separate
from rtsep.audio_files import read_alike
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.line import prepare_line, take_in
from rtsep.engine.registry import PHASES, recover
from rtsep.estimators import Oracle
from rtsep.evaluation import si_sdr
from rtsep.evaluation.corpus import read_corpus
from rtsep.evaluation.report import provenance
from rtsep.kernels.jit import kernel
from rtsep.phase import MISI, OMISI, RTPGHI, Bregman, ConsistentAnisotropicWiener, ConsistentWiener, MixturePhase
from rtsep.phase.griffin_lim import GriffinLim
from rtsep.phase.mixture import MixtureState
from rtsep.phase.omisi import OMISIState
from rtsep.phase.repeated_events import RepeatedEvents
from rtsep.phase.window import Online

RATES = (SR, 48_000)
# Hops in a row, with which the algorithms take turns: as many to get going, as many timed. Short, since the time of a
# long piece on a busy machine is that of all who share the core.
PIECE = 10
ROUNDS = 100
OFFLINE_HOPS, OFFLINE_ROUNDS = 50, 5
N_SRC = 2
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
        return self.phase.lookahead is None

    def config(self, sr: int = SR) -> StreamConfig:
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
    if isinstance(phase, (ConsistentWiener, ConsistentAnisotropicWiener)) and phase.lookahead is None:
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


def stream(row: Row, sr: int) -> Callable[[], float]:
    """Takes pieces of a stream one after the other; seconds per hop."""
    config = row.config(sr)
    mixture, magnitudes = hops(config)
    line = prepare_line(1, config.analysis + row.phase.lookahead * config.hop)
    analysis, state = prepare_analysis(config), row.phase.prepare(config, N_SRC)
    out, places = np.zeros((N_SRC, 1, config.hop), np.float32), cycle(range(0, len(mixture), PIECE))

    def call() -> float:
        for _ in range(2):
            piece = slice(start := next(places), start + PIECE)
            begin = thread_time()
            run(line, analysis, state, mixture[piece], magnitudes[piece], out)
            taken = thread_time() - begin
        return taken / PIECE

    return call


def whole(row: Row, sr: int) -> Callable[[], float]:
    """Takes a signal at once; seconds per hop."""
    config = row.config(sr)
    mixture, magnitudes = (np.ascontiguousarray(x[:OFFLINE_HOPS]) for x in hops(config))
    line = np.pad(mixture.ravel(), (config.analysis - config.hop, 0))

    def call() -> float:
        begin = thread_time()
        row.phase.run(config, line, magnitudes)
        return (thread_time() - begin) / OFFLINE_HOPS

    return call


def times(rows: list[Row]) -> list[dict[str, float]]:
    """Microseconds per hop of each row at each rate."""
    found: list[dict[str, float]] = [{} for _ in rows]
    with one_core():
        for sr in RATES:
            online = {i: stream(row, sr) for i, row in enumerate(rows) if not row.offline}
            offline = {i: whole(row, sr) for i, row in enumerate(rows) if row.offline}
            for i, seconds in (medians(online, ROUNDS) | medians(offline, OFFLINE_ROUNDS)).items():
                found[i][str(sr)] = 1e6 * seconds
    return found


def convergence(scenes: list[np.ndarray], true: list[np.ndarray], phase: Any) -> float:
    """Spectral convergence in dB, lower is better: of each source before the mixing error is shared."""
    kind = type(phase)
    alone = type(kind.__name__, (kind,), {"consistent": False})(**asdict(phase))
    found = []
    for sources, wanted in zip(scenes, true, strict=True):
        given = Given(np.abs(wanted))
        heard = spectra(separate(sources.sum(0), SR, given, alone, output=UNLIMITED))
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
            assert sr == SR, item.mixture
            found.append((heard[0, 0], heard[1, 0]))
    return found


def improvement_of_speech(mixtures: list[tuple[np.ndarray, np.ndarray]], phase: Any) -> float:
    """SI-SDR improvement of the speech by `denoise`."""
    gains = []
    for x, speech in mixtures:
        heard = separate(x, SR, "denoise", phase, output=UNLIMITED)[0]
        gains.append(si_sdr(speech, heard) - si_sdr(speech, x))
    return float(np.mean(gains))


def measure(pairs_folder: Path | None, data: Path | None, count: int) -> dict[str, Any]:
    scenes, mixtures, found = list(pairs(pairs_folder).values()), noisy(data, count), rows()
    true = [spectra(sources) for sources in scenes]
    given = {name: [degrade(t) for t in true] for name, degrade in DEGRADED.items()}
    entries = []
    for row in found:
        phase, config = row.phase, row.config()
        latency = None if row.offline else 1000 * Separator(config, "denoise", phase).latency / config.sr
        entry = {
            "algorithm": row.label,
            "name": phase.name,
            "settings": asdict(phase) if hasattr(phase, "__dataclass_fields__") else {},
            "overlap": row.overlap,
            "latency_ms": latency,
            "ffts": transforms(phase),
            "si_sdri": {"true": float(np.mean([gain(s, Oracle(s), phase, config) for s in scenes]))},
            "convergence": None,
            "published": row.published if pairs_folder else None,
        }
        if row.overlap == 75:
            entry["si_sdri"] |= {name: mean_gain(scenes, magnitudes, phase) for name, magnitudes in given.items()}
            entry["si_sdri"]["denoise"] = improvement_of_speech(mixtures, phase)
            if phase.name in SINGLE_SOURCE:
                entry["convergence"] = convergence(scenes, true, phase)
        print(row.label, {k: round(v, 1) for k, v in entry["si_sdri"].items()}, entry["convergence"], file=sys.stderr)
        entries.append(entry)
    for row, entry, taken in zip(found, entries, times(found), strict=True):
        entry["us_per_hop"] = taken
        entry["share"] = {sr: us / (1e6 * row.config(int(sr)).hop_s) for sr, us in taken.items()}
    command = "python bench/algorithms.py -o docs"
    command += f" --pairs {pairs_folder.name}" if pairs_folder else ""
    command += f" --data {data.name}" if data else ""
    return {
        "made": provenance(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "command": command,
        "pairs": f"{len(scenes)} {'pairs of recordings' if pairs_folder else 'synthetic two-voice mixtures'}",
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
    lines = [
        "# Phase recovery: every algorithm",
        "",
        f"{measured(result, 'numpy', 'numba')}, load {result['load']:.1f}.",
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
        *table(COLUMNS, ([column(e) for column in COLUMNS.values()] for e in result["algorithms"])),
    ]
    return "\n".join([*lines, "", "![Quality and time of every algorithm](algorithms.png)", ""])


def draw(result: dict[str, Any], path: Path) -> None:
    entries = [e for e in result["algorithms"] if e["overlap"] == 75][::-1]
    height = np.arange(len(entries))
    figure, (quality, cost) = pyplot().subplots(
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
    save(figure, path)


def main() -> None:
    options = parser("algorithms", "Every phase recovery in one table")
    add_pairs(options)
    options.add_argument("--data", type=Path, help="mixtures of `rtsep mix`, with a source called speech, 16 kHz")
    options.add_argument("--count", type=int, default=10, help="mixtures of --data to use (default: 10)")
    args = options.parse_args()
    publish(args.output, "algorithms", measure(args.pairs, args.data, args.count), render, draw)


if __name__ == "__main__":
    main()
