"""The command line, one file a command; the only place that prints.

A command is a module with `add_parser(commands)`, which describes it and sets `run(args) -> int`; `COMMANDS`
names the modules. What takes time to import is imported in `run`, and before it if named in `modules`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from importlib import import_module
from typing import NoReturn

from rtsep import __version__
from rtsep.cli.signals import EXIT_INTERRUPTED, WORDS, stoppable
from rtsep.compiling import on_compiling
from rtsep.errors import ConfigError, LiveError, StepError

COMMANDS = (
    "demo",
    "separate",
    "live",
    "presets",
    "service",
    "devices",
    "latency",
    "doctor",
    "warm",
    "listing",
    "score",
    "mix",
    "evaluate",
    "train",
    "learn",
    "restore",
    "export",
)

EXIT_ERROR = 2
EXIT_DEVICE = 3  # no sound device can be used as asked
EXIT_UNHEARD = 128 + 13  # SIGPIPE

# Settings whose options have another name.
OPTIONS = {
    "n_iter": "iterations",
    "strength_db": "strength",
    "sr": "rate",
    "block_size": "block",
    "level_db": "level",
    "min_presence": "gate",
    "input_gain_db": "input_gain",
    "output_gain_db": "output_gain",
}


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
    """Run the command line; status 0, 2 for an error, 3 without a usable device, 129, 130 or 143 if interrupted."""
    status = _main(argv)
    if argv is None and (devices := sys.modules.get("rtsep.live.devices")):
        devices.end_portaudio()
    return status


def _main(argv: list[str] | None) -> int:
    args = argparse.Namespace()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    with stoppable(last=argv is None) as started:
        try:
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")  # file names need not be text
            args = make_parser().parse_args(argv)
            args.argv = sys.argv[1:] if argv is None else argv
            on_compiling(_compiling)
            for name in getattr(args, "modules", ()):
                import_module(name)
            started()
            status = args.run(args)
            sys.stdout.flush()
            return status
        except SystemExit as stop:
            status = int(stop.code or 0)
            return _ended(status, WORDS.get(status))
        except KeyboardInterrupt:
            return _ended(EXIT_INTERRUPTED, WORDS[EXIT_INTERRUPTED])
        except BrokenPipeError:
            return _ended(EXIT_UNHEARD, None)
        except ConfigError as problem:
            return _ended(EXIT_ERROR, _as_options(str(problem), args))
        except (OSError, StepError) as problem:
            return _ended(EXIT_ERROR, problem)
        except LiveError as problem:
            return _ended(EXIT_DEVICE, problem)


def _compiling(kept: bool) -> None:
    """Say to who waits why; elsewhere only that it will be so again."""
    if not kept:
        print("rtsep: compiling, for ten seconds or so, as at every start: see `rtsep doctor`", file=sys.stderr)
    elif sys.stderr.isatty():
        print("rtsep: compiling, for ten seconds or so, this once; later starts take one second", file=sys.stderr)


def _ended(status: int, reason: object) -> int:
    said = f"rtsep: {reason}\n" if reason is not None else ""
    for stream, text in ((sys.stdout, ""), (sys.stderr, said)):
        try:
            stream.write(text)
            stream.flush()
        except OSError:  # nobody reads it any more: nothing more to say, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status


def _as_options(message: str, args: argparse.Namespace) -> str:
    """The message with settings of the library, `n_iter=99`, as the options they were given by: `--iterations=99`."""

    def option(found: re.Match[str]) -> str:
        name = OPTIONS.get(found[1], found[1])
        return f"--{name.replace('_', '-')}=" if name in args else found[0]

    return re.sub(r"(?<!\S)(\w+)=", option, message)
