"""`rtsep doctor`: whether this machine is fit for live sound, and what to do if not."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rtsep.cli import EXIT_DEVICE
from rtsep.cli.engine import add_engine_options, engine_settings, times_given, times_ms
from rtsep.quiet import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from rtsep.live.health import Finding

SECONDS = 5.0  # of hops
FALLBACK_RATE = 48_000  # where no device says its own
COLUMNS = (10, 14)  # status, name
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "unknown": "dim"}


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="check this machine for live sound",
        description="Check software, machine and sound for `rtsep live`, and measure for five seconds how long the "
        "hops take with these settings. Exit status 3 if no stream can run.",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.add_argument("--rate", type=int, metavar="HZ", help="sample rate (default: that of the input device)")
    add_engine_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.live", "rtsep.live.health"))


def run(args: argparse.Namespace) -> int:
    """Print what is found as it is found."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    findings: list[Finding] = []
    for finding in _examine(args):
        if not args.json:
            if not findings or findings[-1].section != finding.section:
                console.print(finding.section)
            _show(console, finding)
        findings.append(finding)
    can_stream = not any(finding.section == "sound" and finding.status == "problem" for finding in findings)
    counts = Counter(finding.status for finding in findings)
    found = [f"{counts[kind]} {kind}{'s' * (counts[kind] > 1)}" for kind in ("problem", "note") if counts[kind]]
    verdict = f"`rtsep live` {'can' if can_stream else 'cannot'} run; {', '.join(found) or 'nothing to improve'}"
    if args.json:
        report = {"can_stream": can_stream, "verdict": verdict, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        console.print(verdict, markup=False)
    return 0 if can_stream else EXIT_DEVICE


def _show(console: Console, finding: Finding) -> None:
    """One line with the columns status, name and text; what is too long goes on below its beginning."""
    from rich.text import Text

    indent, width = 2 + sum(COLUMNS), min(shutil.get_terminal_size().columns, 120)
    lines = textwrap.wrap(finding.text, max(30, width - indent), break_long_words=False, break_on_hyphens=False)
    for advice in finding.advice:
        # Lines that begin with spaces are to be copied and stay whole.
        lines += [advice] if advice.startswith(" ") else textwrap.wrap(f"-> {advice}", max(30, width - indent))
    first = Text(f"  {finding.status:{COLUMNS[0]}}", style=STYLES[finding.status])
    console.print(first.append(f"{finding.name:{COLUMNS[1]}}{lines[0]}", style="default"))
    for line in lines[1:]:
        console.print(Text(" " * indent + line))


def _examine(args: argparse.Namespace) -> Iterator[Finding]:
    from rtsep.config import StreamConfig
    from rtsep.live import LiveError
    from rtsep.live.budget import USUAL_MS, Fitted, fitting_separator, try_devices
    from rtsep.live.health import check_engine, check_machine, check_sound
    from rtsep.separator import Separator

    estimator, phase, _ = engine_settings(args)
    asked = FALLBACK_RATE if args.rate is None else args.rate
    StreamConfig.from_ms(asked, **times_ms(args))  # what is wrong is said at once
    yield from check_machine()
    with quiet():
        sound = list(check_sound(args.rate))
    yield from sound
    device = next((finding.values for finding in sound if finding.name == "input"), {})
    sr = args.rate or device.get("sr", FALLBACK_RATE)
    usable = all(finding.status == "ok" for finding in sound if finding.name in ("PortAudio", "input", "output"))

    def make(**times: Any) -> Separator:
        return Separator(StreamConfig.from_ms(sr, **times), estimator, phase)

    def fitting() -> Fitted:
        asked = times_given(args)
        separator = make(**times_ms(args)) if asked else make(latency_ms=USUAL_MS)
        if not usable:
            return Fitted(separator, "" if asked else "no device to fit it to", 0)
        try:
            with quiet():
                if asked:
                    return Fitted(separator, "", try_devices(separator)[1])
                return fitting_separator(lambda latency_ms: make(latency_ms=latency_ms))
        except LiveError as problem:
            return Fitted(separator, f"not fitted to the devices: {problem}", 0)

    yield from check_engine(fitting, device.get("host_api", ""), SECONDS)
