"""`--json` for commands that say what they do as they do it."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import Any

from rtsep.plain import plain


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`. The command puts what it has to report into `args.report`."""
    parser.add_argument("--json", action="store_true", help="print a machine-readable report, all else as errors are")
    parser.set_defaults(report={})


def run_command(args: argparse.Namespace) -> int:
    """Run the command of `args`; with `--json` its lines go to standard error, and its report is printed."""
    if not (getattr(args, "json", False) and hasattr(args, "report")):
        return int(args.run(args))
    args.report = {}
    with redirect_stdout(sys.stderr):
        status = int(args.run(args))
    print_json(args.report)
    return status


def print_json(value: Any) -> None:
    """Print plain values; what is not finite becomes null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))
