"""Options of the engine, the same for every command that separates."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.engine.output import Output
    from rtsep.engine.protocols import Estimator, PhaseRecovery

# Estimators that the command line cannot offer, and why.
LIBRARY_ONLY = {"oracle": "it needs the true sources"}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `engine_settings` reads, and `--window-ms` and `--hop-ms`."""
    group = parser.add_argument_group("engine", "`rtsep list` names the estimators and phase-recovery algorithms.")
    group.add_argument(
        "--estimator",
        metavar="NAME",
        help="what tells the sources apart, also FILE.py:CLASS (default: speech; denoise for other windows and hops)",
    )
    group.add_argument(
        "--model", metavar="FILE", help="model file for `speech` or `talkers`, from `rtsep train`; network for `onnx`"
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
        "--window-ms", type=float, default=16.0, metavar="MS", help="window in ms (default: %(default)g)"
    )
    group.add_argument("--hop-ms", type=float, metavar="MS", help="hop in ms (default: a quarter of the window)")
    group.add_argument(
        "--strength",
        type=float,
        default=math.inf,
        metavar="DB",
        help="lower what does not belong to a source by DB in its output, e.g. 12 to keep some of the noise "
        "with the speech (default: %(default)s, as far as possible)",
    )


def lookahead(text: str) -> int | None:
    """Hops, or None for the whole signal."""
    return None if text == "all" else int(text)


def engine_settings(args: argparse.Namespace) -> tuple[Estimator, PhaseRecovery, Output]:
    """Settings of estimator, phase recovery and output. Raises `ConfigError`."""
    from rtsep.choose import choose
    from rtsep.engine.output import Output

    if args.estimator in LIBRARY_ONLY:
        raise ConfigError(f"estimator={args.estimator!r} is for the library: {LIBRARY_ONLY[args.estimator]}")
    options = {} if args.iterations is None else {"n_iter": args.iterations}
    if hasattr(args, "lookahead"):
        options["lookahead"] = args.lookahead
    hop_ms = args.window_ms / 4 if args.hop_ms is None else args.hop_ms
    chosen = choose(
        args.estimator, args.phase, args.window_ms / 1e3, hop_ms / 1e3, model=args.model, phase_options=options
    )
    return *chosen, Output(strength_db=args.strength)
