"""`rtsep list`: names of estimators and phase-recovery algorithms."""

from __future__ import annotations

import argparse
from typing import Any

from rtsep.cli.engine import LIBRARY_ONLY
from rtsep.cli.machine import add_json_option


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "list",
        help="name the estimators and phase-recovery algorithms",
        description="Name the estimators and the phase-recovery algorithms, one a line.",
    )
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.separator",))


def run(args: argparse.Namespace) -> int:
    """Print both lists."""
    from rtsep.choose import list_estimators, list_phases

    estimators, phases = list_estimators(), list_phases()
    args.report = {
        "estimators": [
            {"name": name, "summary": summary, "command_line": name not in LIBRARY_ONLY}
            for name, summary in estimators.items()
        ],
        "phases": [{"name": name, "summary": summary} for name, summary in phases.items()],
    }
    for name, reason in LIBRARY_ONLY.items():
        estimators[name] += f" Not on the command line: {reason}."
    width = max(map(len, (*estimators, *phases)))
    for title, names in (("estimators (--estimator)", estimators), ("phase recovery (--phase)", phases)):
        print(title)
        for name, summary in names.items():
            print(f"  {name:{width}}  {summary}")
    return 0
