"""`rtsep separate ... -o -`: one source into a pipe, as soon as it is there."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.errors import ConfigError, FileError

if TYPE_CHECKING:
    from rtsep.files import FileSeparator
    from rtsep.reading import AudioReader

SAMPLES = {"wav": "f32le", "wav24": "s24le", "wav16": "s16le"}  # of the formats that a pipe can have


def run_pipe(args: argparse.Namespace, separator: FileSeparator, engine: str) -> int:
    """Read a pipe or a file, write a source to standard output; `engine` is what to say of the engine."""
    from rtsep.files import INTEGER_CEILING_DB
    from rtsep.pipes import PipeReader, PipeWriter, Raw
    from rtsep.reading import read_from

    if len(args.inputs) > 1 or args.inputs[0].is_dir():
        raise ConfigError("-o - is for one input")
    if args.json or args.plot:
        raise ConfigError("-o - has neither --json nor --plot")
    if len(separator.written) > 1:
        raise ConfigError(f"-o - takes one source: --source {' or --source '.join(separator.sources)}")
    if args.format not in (None, *SAMPLES):
        raise ConfigError(f"--format {args.format} cannot be written to a pipe; {', '.join(SAMPLES)} can")
    if sys.stdout.isatty():
        raise ConfigError("-o - writes sound to standard output, which is a terminal here: connect a pipe or a file")
    raw = Raw.parse(args.raw) if args.raw else None
    path = args.inputs[0]
    print(engine, file=sys.stderr, flush=True)
    try:
        opened: Any = nullcontext(PipeReader(sys.stdin.buffer, raw)) if path == Path("-") else read_from(path)
        with opened as reader:
            _stream(reader, separator, raw, SAMPLES[args.format or "wav"], INTEGER_CEILING_DB, PipeWriter, Raw)
            for remark in reader.remarks:
                print(f"rtsep: the input {remark}", file=sys.stderr)
    except FileError as problem:
        raise FileError(f"{path}: {problem}") from None
    return 0


def _stream(
    reader: AudioReader, separator: FileSeparator, raw: Any, samples: str, ceiling_db: float, writer: Any, form: Any
) -> None:
    config = separator.config_of(reader)
    format = replace(raw) if raw else form(samples, config.sr, config.n_channels)
    output = separator.output
    if not format.samples.startswith("f") and output.ceiling_db == float("inf"):
        output = replace(output, ceiling_db=ceiling_db)
    counts: dict[str, int] = {}
    out = writer(sys.stdout.buffer, format, header=raw is None)
    for piece in separator.pieces(reader, config, output, counts):
        if piece.shape[2]:
            out.write(piece[0])
    out.close()
