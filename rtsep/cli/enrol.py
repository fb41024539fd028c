"""`rtsep enrol`: a model that listens to one person, from a few seconds of that person."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote
from typing import Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.skipped import saying_skipped
from rtsep.errors import ConfigError

DESCRIPTION = """\
Make a model that listens to one person, from 5 to 30 s of this person alone, in a few seconds. The
estimator `target` then gives two sources, this person and the rest: whatever else is there, other voices as well.
"""
EPILOG = """\
examples:
  rtsep enrol anna.wav -o anna.npz
  rtsep live --voice anna.npz
  rtsep separate meeting.wav -o separated --voice anna.npz      # meeting.anna.wav, meeting.rest.wav
  rtsep enrol recordings/of/ben/ --name ben -o voices/b.npz

Voices that are alike are hard to tell apart: docs/target.md says how well that goes.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "enrol",
        help="make a model that listens to one person, from a few seconds of them",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recordings", nargs="+", type=given_path, metavar="PATH", help="a recording of the person, or a folder of them"
    )
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="FILE", help="the model, *.npz")
    parser.add_argument("--name", metavar="NAME", help="of the person's source (default: that of FILE)")
    parser.add_argument(
        "--voices", type=given_path, metavar="FILE", help="a file of `rtsep train target` (default: the shipped one)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.enrol",))


def run(args: argparse.Namespace) -> int:
    """Find the recordings, enrol, write."""
    from rtsep.audio_files import FileError, make_folder
    from rtsep.enrol import ENOUGH_S, enrol, write_person
    from rtsep.recordings import find_recordings

    if args.output.suffix != ".npz":
        raise ConfigError(f"{args.output} does not end in .npz")
    if args.output.is_dir():
        raise FileError(f"{args.output} is a folder")
    if args.output.exists() and not args.overwrite:
        raise FileError(f"{args.output} exists (--overwrite replaces it)")
    files: list[Path] = []
    for path in args.recordings:
        if str(path) == "-":
            raise ConfigError("enrol reads files and folders, not a pipe: -")
        with saying_skipped() as skipped:
            files += [r.path for r in find_recordings(path, skipped)] if path.is_dir() else [path]
    model = enrol(files, args.output.stem if args.name is None else args.name, voices=args.voices)
    make_folder(args.output.parent)
    write_person(args.output, model)
    told = model.manifest["enrolled"]
    args.report = {"model": str(args.output), "sources": list(model.sources)}
    args.report |= {name: told[name] for name in ("files", "seconds", "speech_s")}
    name, speech_s = model.sources[0], told["speech_s"]
    print(f"{args.output}: {name}, from {speech_s:.1f} s of speech; try: rtsep live --voice {quote(str(args.output))}")
    if speech_s < ENOUGH_S - 0.05:
        print(f"{ENOUGH_S:g} s and more are better")
    return 0
