"""The command line, one file a command; the only place that prints.

A command is a module with `add_parser(commands)`, which describes it and sets `run(args) -> int`; `COMMANDS`
names the modules. What takes time to import is imported in `run`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn

from rtsep import __version__
from rtsep.config import ConfigError

COMMANDS = ("demo", "separate", "live", "devices", "listing")

EXIT_ERROR = 2
EXIT_INTERRUPTED = 128 + 2  # SIGINT
EXIT_TERMINATED = 128 + 15  # SIGTERM
EXIT_UNHEARD = 128 + 13  # SIGPIPE


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="rtsep", description="Separate sound while it happens, or from files.")
    parser.add_argument("--version", action="version", version=f"rtsep {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"rtsep.cli.{name}").add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for an error, 130 or 143 if interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        previous = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not in the main thread
        previous = None
    try:
        args = make_parser().parse_args(argv)
        status = args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:
        status = int(stop.code or 0)
        if status == EXIT_TERMINATED:
            print("rtsep: terminated", file=sys.stderr)
    except KeyboardInterrupt:
        print("rtsep: interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say, not even at exit
        status = EXIT_UNHEARD
    except (ConfigError, OSError) as problem:
        print(f"rtsep: {problem}", file=sys.stderr)
        status = EXIT_ERROR
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    return status


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)
