"""`rtsep export`: a separator without Python."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from rtsep.cli.engine import add_engine_options, engine_settings, times_ms
from rtsep.cli.machine import add_json_option

DESCRIPTION = """\
Make a C library of a separator: the same machine code that runs in Python, for any processor that LLVM knows, without
Python, without memory allocation, without an operating system. Or a plug-in, or a page for browsers.
"""

EPILOG = """\
examples:
  rtsep export speech -o out
  rtsep export speech -o out --target aarch64-linux-gnu
  rtsep export denoise -o out --target thumbv7em-none-eabi --cpu cortex-m7 --rate 16000 --latency-ms 8
  rtsep export speech --format lv2 -o ~/.lv2
  rtsep export speech --format web -o site
  rtsep export speech -o out --target thumbv8.1m.main-none-eabi --rate 16000 --hop-ms 8 --weights int8
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "export",
        help="make a C library, a plug-in or a page of a separator",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", metavar="ESTIMATOR", help="the same as --estimator (default: speech)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where to, made if need be")
    parser.add_argument("--target", default="", metavar="TRIPLE", help="processor and system (default: this machine)")
    parser.add_argument("--cpu", default="", metavar="NAME", help="the processor more closely")
    parser.add_argument("--rate", type=int, default=48_000, metavar="HZ", help="sample rate (default: %(default)s)")
    parser.add_argument(
        "--channels", type=int, metavar="N", help="channels (default: 1; of plug-ins one for 1 and one for 2)"
    )
    parser.add_argument(
        "--format",
        choices=("library", "lv2", "ladspa", "web"),
        default="library",
        help="a C library, plug-ins, which need a C compiler, or a page for browsers (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        choices=("float32", "int8"),
        help="of a network: int8 takes a quarter of the memory (default: float32; int8 for talkers and target)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier export")
    add_json_option(parser)
    add_engine_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.export.library",))


def run(args: argparse.Namespace) -> int:
    """Compile, and write the folder."""
    from rtsep.config import ConfigError, StreamConfig
    from rtsep.export.library import write_library
    from rtsep.export.plugin import FORMATS, Plugin, write_plugins
    from rtsep.export.target import Target
    from rtsep.export.web import TRIPLE, write_page
    from rtsep.separator import Separator

    if args.what is not None:
        if args.estimator not in (None, args.what):
            raise ConfigError(f"{args.what!r} and --estimator {args.estimator!r}: one of them")
        args.estimator = args.what
    web = args.format == "web"
    if web and (args.cpu or args.target not in ("", TRIPLE)):
        raise ConfigError("--format web is for browsers: it takes neither --target nor --cpu")
    target = Target(TRIPLE if web else args.target, args.cpu)
    estimator, phase, output = engine_settings(args)
    if args.weights:
        if not hasattr(estimator, "weights"):
            raise ConfigError(f"--weights {args.weights} is for networks; estimator={estimator.name!r} has none")
        estimator = replace(cast(Any, estimator), weights=args.weights)
    plug_in = args.format in FORMATS
    channels = [args.channels] if args.channels is not None else [1, 2] if plug_in else [1]
    separators = [
        Separator(StreamConfig.from_ms(args.rate, n_channels=n, **times_ms(args)), estimator, phase, output)
        for n in channels
    ]
    if plug_in:
        written = write_plugins(separators, target, args.output, args.format, args.overwrite)
    elif web:
        written = [(args.output, write_page(separators[0], args.output, args.overwrite))]
    else:
        written = [(args.output, write_library(separators[0], target, args.output, args.overwrite))]
    args.report = {"estimator": estimator.name, "phase": phase.name, "target": target.triple, "cpu": target.cpu}
    args.report |= {"sr": args.rate, "latency": separators[0].latency, "programs": []}
    for separator, (path, sizes) in zip(separators, written, strict=True):
        args.report["programs"].append(
            {
                "path": str(path),
                "n_channels": separator.config.n_channels,
                "code": sizes.code,
                "constants": sizes.constants,
                "memory": sizes.memory,
            }
        )
        print(
            f"{path}: {estimator.name} + {phase.name} for {target.triple}, {target.cpu}; {separator.config.sr} Hz, "
            f"latency {1e3 * separator.latency / separator.config.sr:.4g} ms; code {sizes.code:,}, constants "
            f"{sizes.constants:,}, memory {sizes.memory:,} bytes"
            + (f"; {Plugin(separator, args.format).uri}" if args.format == "lv2" else "")
        )
    return 0
