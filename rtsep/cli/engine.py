"""Options of the engine, the same for every command that separates."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.stages.output import Output

# Estimators that the command line cannot offer, and why.
LIBRARY_ONLY = {"oracle": "it needs the true sources"}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `engine_settings` reads, and `--window-ms` and `--hop-ms`."""
    group = parser.add_argument_group("engine", "`rtsep list` names the estimators and phase-recovery algorithms.")
    group.add_argument(
        "--estimator",
        metavar="NAME",
        help="what tells the sources apart (default: speech; denoise for other windows and hops)",
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


def engine_settings(args: argparse.Namespace) -> tuple[Any, Any, Output]:
    """Settings of estimator, phase recovery and output. Raises `ConfigError`."""
    import rtsep.separator  # noqa: F401  registers all of them
    from rtsep.estimators import default_estimator
    from rtsep.phase import OMISI
    from rtsep.stages.output import Output
    from rtsep.stages.registry import ESTIMATORS, PHASES, create, create_phase

    if args.estimator in LIBRARY_ONLY:
        raise ConfigError(f"estimator={args.estimator!r} is for the library: {LIBRARY_ONLY[args.estimator]}")
    own = {} if args.model is None else {"model": args.model}
    chosen = args.estimator
    if chosen is None:
        hop_ms = args.window_ms / 4 if args.hop_ms is None else args.hop_ms
        # Who gives a model means an estimator that takes one.
        chosen = "speech" if own else default_estimator(args.window_ms / 1e3, hop_ms / 1e3)
    _refuse_unknown("estimator", ESTIMATORS, chosen, own)
    options = {} if args.iterations is None else {"n_iter": args.iterations}
    if hasattr(args, "lookahead"):
        options["lookahead"] = args.lookahead
    # Who asks for iterations wants a phase recovery that has some.
    name = "omisi" if options and args.phase is None else args.phase
    _refuse_unknown("phase", PHASES, name, options)
    estimator = create("estimator", ESTIMATORS, chosen, own)
    try:
        if not options:
            phase = create_phase(name, estimator)
        elif args.phase is None and isinstance(suits := create_phase(None, estimator), OMISI):
            phase = replace(suits, **options)
        else:
            phase = create("phase", PHASES, name, options)
    except ConfigError:
        if options.get("lookahead", 0) is None:
            raise ConfigError(f"phase={name!r} does not take lookahead=all") from None
        raise
    return estimator, phase, Output(strength_db=args.strength)


def takes(settings: type, option: str) -> bool:
    """Whether an estimator or a phase recovery has a setting of this name."""
    return option in {field.name for field in fields(settings)}


def _refuse_unknown(kind: str, names: dict[str, type], name: str | None, options: dict[str, Any]) -> None:
    if name in names:
        for option, value in options.items():
            if not takes(names[name], option):
                raise ConfigError(f"{kind}={name!r} does not take {option}={value}")
