"""The command line, one file a command; the only place that prints.

A command is a module with `add_parser(commands)`, which describes it and sets `run(args) -> int`; `COMMANDS`
names the modules. What takes time to import is imported in `run`, and before it if named in `modules`.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import sys
from importlib import import_module
from typing import NoReturn

from rtsep import __version__
from rtsep.cli.machine import run_command
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
    "enrol",
    "decompose",
    "restore",
    "export",
)

EXIT_ERROR = 2
EXIT_DEVICE = 3  # no sound device can be used as asked
EXIT_UNHEARD = 128 + 13  # SIGPIPE

JSON = "--json"  # of the commands that take it
# Settings whose options have another name.
OPTIONS = {
    "n_iter": "iterations",
    "strength_db": "strength",
    "sr": "rate",
    "block_size": "block",
    "n_channels": "channels",
    "level_db": "level",
    "duration_s": "duration",
    "snr_db": "snr",
    "score": "scores",
    "n_atoms": "atoms",
    "min_presence": "gate",
    "input_gain_db": "input_gain",
    "output_gain_db": "output_gain",
}


class Misused(Exception):
    """Arguments that no command takes; the message is the whole line."""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise Misused(f"{self.prog}: {message} (see {self.prog} --help)")


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
    if colours := sys.modules.get("colorama.initialise"):  # numba has it reset the terminal at the end
        atexit.unregister(colours.reset_all)
    if argv is None and (devices := sys.modules.get("rtsep.live.devices")):
        devices.end_portaudio()
    return status


def _main(argv: list[str] | None) -> int:
    args = argparse.Namespace()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    with_json = JSON in (sys.argv[1:] if argv is None else argv)

    def ended(status: int, reason: object, prefix: str = "rtsep: ") -> int:
        return _ended(status, reason, prefix, with_json)

    with stoppable(last=argv is None) as started:
        try:
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")  # file names need not be text
            words = sys.argv[1:] if argv is None else argv
            args = make_parser().parse_args(_with_signs(words))
            args.argv = words
            on_compiling(_compiling)
            for name in getattr(args, "modules", ()):
                import_module(name)
            started()
            status = run_command(args)
            sys.stdout.flush()
            return status
        except SystemExit as stop:
            status = int(stop.code or 0)
            return ended(status, WORDS.get(status))
        except KeyboardInterrupt:
            return ended(EXIT_INTERRUPTED, WORDS[EXIT_INTERRUPTED])
        except BrokenPipeError:
            return _ended(EXIT_UNHEARD, None)
        except Misused as problem:
            return ended(EXIT_ERROR, problem, "")
        except ConfigError as problem:
            return ended(EXIT_ERROR, _as_options(str(problem), args))
        except OSError as problem:
            return ended(EXIT_ERROR, _of_system(problem))
        except StepError as problem:
            return ended(EXIT_ERROR, problem)
        except LiveError as problem:
            return ended(EXIT_DEVICE, problem)


def _with_signs(argv: list[str]) -> list[str]:
    """`--strength -inf` as `--strength=-inf`: argparse would take a number that begins with a letter for an option."""
    words: list[str] = []
    for word in argv:
        if re.fullmatch(r"-(inf(inity)?|nan|[\d.]+e[-+]?\d+)", word, re.IGNORECASE) and words and words[-1][:2] == "--":
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _compiling(kept: bool) -> None:
    """Say to who waits why; elsewhere only that it will be so again."""
    if not kept:
        print("rtsep: compiling, for ten seconds or so, as at every start: see `rtsep doctor`", file=sys.stderr)
    elif sys.stderr.isatty():
        print("rtsep: compiling, for ten seconds or so, this once; later starts take one second", file=sys.stderr)


def _ended(status: int, reason: object, prefix: str = "rtsep: ", with_json: bool = False) -> int:
    """Say the reason, as JSON too where that is asked for, and give the status."""
    said = f"{prefix}{reason}\n" if reason is not None else ""
    for_machines = said and with_json
    report = f"{json.dumps({'error': str(reason), 'status': status}, indent=2)}\n" if for_machines else ""
    for stream, text in ((sys.stdout, report), (sys.stderr, said)):
        try:
            stream.write(text)
            stream.flush()
        except OSError:  # nobody reads it any more: nothing more to say, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status


def _of_system(problem: OSError) -> str:
    """File and cause, without the number of the error."""
    if problem.strerror is None or isinstance(problem.filename, int):
        return str(problem)
    files = [os.fsdecode(name) for name in (problem.filename, problem.filename2) if name]
    return ": ".join([*files, problem.strerror])


def _as_options(message: str, args: argparse.Namespace) -> str:
    """The message with settings of the library, `n_iter=99`, as the options they were given by: `--iterations=99`."""

    def option(found: re.Match[str]) -> str:
        name = OPTIONS.get(found[1], found[1])
        return f"--{name.replace('_', '-')}=" if name in args else found[0]

    return re.sub(r"(?<!\S)(\w+)=", option, message)
