"""`rtsep service`: the virtual microphone from log-in on, by systemd."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rtsep.cli.presets import with_preset
from rtsep.cli.virtual import asked_devices
from rtsep.errors import ConfigError, LiveError

UNIT = "rtsep.service"
PATIENCE_S = 30.0

# A failure of the devices (3) may pass, settings that are wrong (2) stay so. SIGTERM is how it is stopped. A line a
# second is nothing for a journal; what goes wrong is.
TEXT = """\
# Written by `rtsep service install`.
[Unit]
Description=rtsep between the microphone and other programs
After=pipewire.service pipewire-pulse.service wireplumber.service
Wants=pipewire.service pipewire-pulse.service wireplumber.service
StartLimitIntervalSec=0

[Service]
ExecStart={command}
WorkingDirectory={folder}
StandardOutput=null
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
SuccessExitStatus=143

[Install]
WantedBy=default.target
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "service",
        help="let the virtual microphone be there from log-in on",
        description="Write, or remove, a unit of systemd for this user, which runs `rtsep live` from log-in on.",
    )
    actions = parser.add_subparsers(metavar="install|remove", required=True)
    install = actions.add_parser(
        "install",
        parents=[commands.choices["live"]],
        add_help=False,
        help="run `rtsep live` with these options from now on and after every log-in",
        description="Run `rtsep live` with these options, and --virtual-mic if no virtual device is among them, from "
        "now on and after every log-in. A second `install` replaces the first.",
    )
    install.set_defaults(run=_install, modules=())
    remove = actions.add_parser("remove", help="stop it, and do not start it any more")
    remove.set_defaults(run=_remove)


def unit_text(words: list[str], folder: Path) -> str:
    """The unit that runs `rtsep live` with these words in that folder."""
    script = shutil.which("rtsep", path=str(Path(sys.executable).parent))
    command = [*([script] if script else [sys.executable, "-m", "rtsep"]), "live", "--plain", *words]
    return TEXT.format(command=" ".join(map(_quoted, command)), folder=_specified(str(folder)))


def _install(args: argparse.Namespace) -> int:
    from rtsep.cli.engine import engine_settings

    if args.save is not None:
        raise ConfigError("--save is for `rtsep live`: keep the preset first, then `rtsep service install PRESET`")
    words = args.argv[2:]
    args.argv = args.argv[1:]
    args = with_preset(args)
    engine_settings(args)  # what is wrong is said now, and not to the journal
    if not asked_devices(args):
        words = [*words, "--virtual-mic"]
    if not shutil.which("systemctl"):
        command = shlex.join(["rtsep", "live", "--plain", *words])
        raise LiveError(f"systemd is not on this system; let your desktop run this at log-in: {command}")
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit_text(words, Path.cwd()), encoding="utf-8")
    print(f"written: {path}", flush=True)
    for action in (["daemon-reload"], ["enable", UNIT], ["restart", UNIT]):
        _systemctl(*action)
    print(f"it runs, and will after every log-in; `systemctl --user status {UNIT}` says how it is")
    print("`rtsep service remove` ends that")
    return 0


def _remove(args: argparse.Namespace) -> int:
    path = _path()
    if not path.exists():
        print("there is no service to remove")
        return 0
    if shutil.which("systemctl"):
        try:
            _systemctl("disable", "--now", UNIT)
        except LiveError:  # without systemd's bus; what would start it at log-in goes all the same
            (path.parent / "default.target.wants" / UNIT).unlink(missing_ok=True)
    path.unlink()
    print(f"removed: {path}")
    return 0


def _path() -> Path:
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "systemd/user" / UNIT


def _systemctl(*command: str) -> None:
    try:
        subprocess.run(
            ["systemctl", "--user", *command], check=True, capture_output=True, text=True, timeout=PATIENCE_S
        )
    except (OSError, subprocess.SubprocessError) as problem:
        reason = (getattr(problem, "stderr", None) or str(problem)).strip().splitlines()[0]
        raise LiveError(
            f"systemd did not do `systemctl --user {' '.join(command)}`: {reason}; in a session of yours, "
            f"`systemctl --user enable --now {UNIT}` starts it"
        ) from problem


def _quoted(word: str) -> str:
    """A word of systemd's command lines."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + _specified(escaped).replace("$", "$$") + '"'


def _specified(text: str) -> str:
    """Nothing in it is a specifier of systemd's."""
    return text.replace("%", "%%")
