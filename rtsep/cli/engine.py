"""Options of the engine, the same for every command that separates."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.engine.gate import Gate
    from rtsep.engine.output import Output
    from rtsep.engine.protocols import Estimator, PhaseRecovery

# Estimators that the command line cannot offer, and why.
LIBRARY_ONLY = {"oracle": "it needs the true sources"}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `engine_settings` and `times_ms` read."""
    group = parser.add_argument_group("engine", "`rtsep list` names the estimators and phase-recovery algorithms.")
    group.add_argument(
        "--estimator",
        metavar="NAME",
        help="what tells the sources apart, also FILE.py:CLASS (default: speech; denoise for other windows and hops)",
    )
    group.add_argument(
        "--model",
        "--voice",
        metavar="FILE",
        help="model file from `rtsep train`, `learn` or `enrol`, which says its estimator; network for `onnx`",
    )
    group.add_argument(
        "--components",
        type=int,
        metavar="N",
        help="without a model: how many sources to look for, with nmf (the default then), levy_nmf, em_isnmf, hrnmf",
    )
    group.add_argument(
        "--with-rest",
        action="store_true",
        help="one more source for whatever the model does not know, by atoms that adapt (nmf, levy_nmf, whole_nmf)",
    )
    group.add_argument("--phase", metavar="NAME", help="phase-recovery algorithm (default: what suits the estimator)")
    group.add_argument("--iterations", type=int, metavar="N", help="iterations of the phase recovery")
    group.add_argument(
        "--lookahead",
        type=lookahead,
        default=argparse.SUPPRESS,
        metavar="HOPS",
        help="future hops that the phase recovery waits for; with `separate` also `all`, for many algorithms",
    )
    group.add_argument(
        "--latency-ms",
        "--synthesis-ms",
        dest="latency_ms",
        type=float,
        metavar="MS",
        help="latency of the engine, the length of its synthesis window: 16, 8, 4 or 2, or any other (default: 16; "
        "live, what the devices leave of 16 in all: 8 or 4, as a rule)",
    )
    group.add_argument(
        "--window-ms", type=float, metavar="MS", help="analysis window (default: 16, or the latency if that is longer)"
    )
    group.add_argument(
        "--hop-ms", type=float, metavar="MS", help="hop (default: a quarter of the latency; half of it below 8 ms)"
    )
    group.add_argument(
        "--strength",
        type=float,
        default=math.inf,
        metavar="DB",
        help="lower what does not belong to a source by DB in its output, e.g. 12 to keep some of the noise "
        "with the speech (default: %(default)s, as far as possible)",
    )


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `gate_settings` reads."""
    group = parser.add_argument_group("gate", "It silences a source that is not there; the last source gets the rest.")
    group.add_argument(
        "--gate",
        type=float,
        default=0.0,
        metavar="P",
        help="close where less than P, 0 to 1, of the source is there: 0.6 makes the pauses of speech still "
        "(default: %(default)g, never)",
    )
    group.add_argument(
        "--gate-hold-ms",
        type=float,
        default=250.0,
        metavar="MS",
        help="stay open for so long after that (default: %(default)g)",
    )


def gate_settings(args: argparse.Namespace) -> Gate:
    """Settings of the gate. Raises `ConfigError`."""
    from rtsep.engine.gate import Gate

    return Gate(args.gate, args.gate_hold_ms)


def lookahead(text: str) -> int | None:
    """Hops, or None for the whole signal."""
    return None if text == "all" else int(text)


def times_ms(args: argparse.Namespace) -> dict[str, Any]:
    """The options that `StreamConfig.from_ms` takes."""
    return {"window_ms": args.window_ms, "hop_ms": args.hop_ms, "latency_ms": args.latency_ms}


def times_given(args: argparse.Namespace) -> bool:
    """Whether any of them was asked for."""
    return any(value is not None for value in times_ms(args).values())


def engine_settings(args: argparse.Namespace) -> tuple[Estimator, PhaseRecovery, Output]:
    """Settings of estimator, phase recovery and output. Raises `ConfigError`."""
    from rtsep.choose import choose, usual_times
    from rtsep.config import MAX_SR, StreamConfig
    from rtsep.engine.output import Output

    if args.estimator in LIBRARY_ONLY:
        raise ConfigError(f"estimator={args.estimator!r} is for the library: {LIBRARY_ONLY[args.estimator]}")
    options = {} if args.iterations is None else {"n_iter": args.iterations}
    if hasattr(args, "lookahead"):
        options["lookahead"] = args.lookahead
    given = {"model": args.model, "components": args.components, "with_rest": args.with_rest or None}
    own = {name: value for name, value in given.items() if value is not None}
    finest = StreamConfig.from_ms(MAX_SR, **times_ms(args))  # what is wrong at any rate is said here
    chosen = choose(
        args.estimator, args.phase, finest.window_s, finest.hop_s, estimator_options=own, phase_options=options
    )
    if not times_given(args):  # a model that is for a window of its own says so
        vars(args).update(usual_times(chosen.estimator))
    return chosen.estimator, chosen.phase, Output(strength_db=args.strength)
