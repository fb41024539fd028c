"""Settings of `rtsep live` that stay, and `rtsep presets`, which lists them."""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from rtsep.errors import ConfigError

NAME = r"\w[\w.-]{0,63}"
NOT_KEPT = ("preset", "save", "help", "json")
PATHS = ("model", "record")  # that are found from any folder


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "presets",
        help="list the settings that `rtsep live --save NAME` has kept",
        description="List the presets of `rtsep live`: settings kept by `rtsep live --save NAME` and used by `rtsep "
        "live NAME`. Each is a TOML file, which may be edited: its keys are the long options.",
    )
    parser.add_argument("--remove", metavar="NAME", help="remove one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List them as the commands that they stand for, or remove one."""
    if args.remove is not None:
        _existing(args.remove).unlink()
        print(f"removed {args.remove}")
        return 0
    names = preset_names()
    if not names:
        print("no presets; `rtsep live --save NAME`, with any other options, keeps them under that name")
    for name in names:
        try:
            print(f"{name}: rtsep live {shlex.join(read_preset(name))}")
        except ConfigError as problem:
            print(f"{name}: {problem}")
    if names:
        print(f"in {folder()}")
    return 0


def add_preset_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `with_preset` reads to those of `rtsep live`."""
    parser.add_argument(
        "preset",
        nargs="?",
        metavar="PRESET",
        help="settings kept by --save; options beside it win (`rtsep presets` lists them)",
    )
    parser.add_argument("--save", metavar="NAME", help="keep the other options as a preset, and go on")


def with_preset(args: argparse.Namespace) -> argparse.Namespace:
    """What `rtsep live` was asked for with the settings of its preset; `args.argv` are the words of the command line.

    Raises
    ------
    ConfigError
        Where there is no such preset, or it has what options do not allow; for names that cannot be.
    """
    from rtsep.cli.engine import engine_settings

    words = [*(read_preset(args.preset) if args.preset is not None else ()), *args.argv[1:]]
    if args.preset is not None:
        args = _parse(words)
    if args.save is not None:
        engine_settings(args)  # what cannot work is not kept
        print(f"kept as {_write(args.save, _given(words))}; `rtsep live {args.save}` uses it", flush=True)
    return args


def preset_names() -> list[str]:
    """All there are."""
    return sorted(path.stem for path in folder().glob("*.toml") if re.fullmatch(NAME, path.stem))


def folder() -> Path:
    """Where presets are kept: in the user's folder for configuration."""
    from numba.misc.appdirs import user_config_dir

    return Path(user_config_dir("rtsep", appauthor=False)) / "presets"


def read_preset(name: str) -> list[str]:
    """A preset as words of the command line, checked as those are.

    Raises
    ------
    ConfigError
        With the file and what is wrong in it.
    """
    path = _existing(name)
    try:
        toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:
        raise ConfigError("presets need Python 3.11, or the package tomli: pip install tomli") from None
    try:
        settings = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"preset {path}: {problem}") from None
    words = []
    for key, value in settings.items():
        if key in NOT_KEPT or not re.fullmatch("[a-z-]+", key):
            raise ConfigError(f"preset {path}: {key} is not for presets")
        words += _words(path, key, value)
    try:
        _parse(words)
    except ConfigError as problem:
        raise ConfigError(f"preset {path}: {problem}") from None
    return words


def _words(path: Path, key: str, value: Any) -> list[str]:
    """A setting as words of the command line."""
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    if isinstance(value, list):
        return [f"--{key}=" + ",".join(map(str, value))]
    if not isinstance(value, (str, int, float)):
        raise ConfigError(f"preset {path}: {key} = {value} is no text, number, list, true or false")
    return [f"--{key}={value}"]


def _existing(name: str) -> Path:
    path = folder() / f"{_checked(name)}.toml"
    if not path.is_file():
        known = ", ".join(preset_names()) or "none"
        raise ConfigError(f"there is no preset {name!r} (there are: {known}); `rtsep live --save {name}` makes one")
    return path


def _checked(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"preset {name!r}: a name is letters, digits, '-', '_' and '.', at most 64")
    return name


def _write(name: str, given: dict[str, Any]) -> Path:
    """Replace the preset in one go."""
    path = folder() / f"{_checked(name)}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in given.items()), encoding="utf-8")
    part.replace(path)
    return path


def _toml(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # inf, -inf and nan are TOML
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _live_parser() -> argparse.ArgumentParser:
    """The parser of `rtsep live`, which raises instead of ending the process."""
    from rtsep.cli import live

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ConfigError(message)

    commands = Parser(prog="rtsep").add_subparsers()
    live.add_parser(commands)
    return commands.choices["live"]


def _parse(words: list[str]) -> argparse.Namespace:
    return _live_parser().parse_args(words)


def _given(words: list[str]) -> dict[str, Any]:
    """The options among the words, by their long names, and what they say."""
    parser = _live_parser()
    actions = {action.dest: action for action in parser._actions if action.dest not in NOT_KEPT}
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    parser._defaults.clear()
    given = {}
    for dest, value in vars(parser.parse_args(words)).items():
        if dest in actions and value is not None:
            key = max(actions[dest].option_strings, key=len).removeprefix("--")
            if actions[dest].nargs == 0 or value == "":
                value = True
            given[key] = str(Path(value).absolute()) if dest in PATHS else value
    return given
