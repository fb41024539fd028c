"""`rtsep demo`: a noisy recording, hop by hop through the engine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option

if TYPE_CHECKING:
    import numpy as np

    from rtsep.separator import Separator

RECORDING = Path(__file__).resolve().parents[1] / "data" / "noisy_speech.flac"


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "demo",
        help="separate a recording that comes with rtsep, and measure",
        description="Stream a short noisy recording through the engine, hop by hop as live audio would come; write "
        "the sources and a picture of them; print latency and load.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=given_path,
        default=Path("rtsep-demo"),
        metavar="DIR",
        help="folder for the outputs (default: %(default)s); those of an earlier demo are replaced",
    )
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.audio_files", "rtsep.separator"))


def run(args: argparse.Namespace) -> int:
    """Separate, measure, write, print."""
    import numpy as np

    from rtsep.audio_files import FORMATS, StagedFiles, read_audio, write_sources
    from rtsep.config import StreamConfig
    from rtsep.separator import Separator

    (mixture,), sr = read_audio(RECORDING)
    n_samples = mixture.size
    _show("recording", f"{RECORDING}, {n_samples / sr:.1f} s at {sr} Hz")
    _show("kernels", "are being made ready; the first start compiles them, which takes some seconds")
    separator = Separator(StreamConfig(sr))
    _show("engine", f"{separator.estimator.name} + {separator.phase.name}: {', '.join(separator.sources)}")
    _show_latency(separator)

    sources, load = _run_hops(separator, mixture)
    median, p99, top = (f"{100 * share:.1f} %" for share in np.quantile(load, (0.5, 0.99, 1)))
    _show("load", f"median {median}, p99 {p99}, max {top} of the {1000 * separator.config.hop_s:g} ms of a hop")

    outputs = {name: args.output / f"{RECORDING.stem}.{name}.wav" for name in separator.sources}
    plot = args.output / f"{RECORDING.stem}.png"
    with StagedFiles([*outputs.values(), plot], overwrite=True) as staged:
        write_sources(staged, outputs, iter([sources[:, None]]), sr, 1, n_samples, FORMATS["wav"])
        from rtsep.plots import plot_files

        parts = {name: staged.part(path) for name, path in outputs.items()}
        plot_files(staged.part(plot), {"mixture": RECORDING} | parts, n_samples)
        staged.commit()
    args.report = {"recording": str(RECORDING), "estimator": separator.estimator.name, "phase": separator.phase.name}
    args.report |= {"outputs": {name: str(path) for name, path in outputs.items()}, "plot": str(plot)}
    args.report |= {"sr": sr, "latency": separator.latency, "hop": separator.config.hop, "load": float(np.median(load))}
    for label, path in (outputs | {"picture": plot}).items():
        _show(label, str(path))
    return 0


def _run_hops(separator: Separator, mixture: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Sources aligned with the mixture, (n_src, n_samples), and the share of its time that each hop took."""
    import numpy as np

    hop, latency, n_samples = separator.config.hop, separator.latency, mixture.size
    n_hops = -(-(n_samples + latency) // hop)
    line = np.zeros(n_hops * hop, np.float32)
    line[:n_samples] = mixture
    heard = np.zeros((separator.n_src, line.size), np.float32)
    out = np.zeros((separator.n_src, hop), np.float32)
    load = []
    for start in range(0, line.size, hop):
        begin = time.perf_counter_ns()
        separator.process(line[start : start + hop], out)
        load.append(1e-9 * (time.perf_counter_ns() - begin) / separator.config.hop_s)
        heard[:, start : start + hop] = out
    return heard[:, latency : latency + n_samples], load


def _show_latency(separator: Separator) -> None:
    ledger = separator.ledger
    for label, samples in (("window", ledger.window), ("look-ahead", ledger.lookahead), ("latency", ledger.samples)):
        note = "  (live, the sound card adds its own)" if label == "latency" else ""
        _show(label, f"{samples:4} samples {1000 * samples / ledger.sr:5.1f} ms{note}")


def _show(label: str, text: str) -> None:
    print(f"{label:11} {text}", flush=True)
