"""`rtsep restore`: recordings without their clicks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.progress import progress_bar
from rtsep.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from rtsep.audio_files import FileFormat, StagedFiles

DESCRIPTION = """\
Take the clicks out of a recording, or fill its gaps. Nothing is separated: one file goes in, one comes out, of the same
length, rate and channels; samples that are not damaged stay as they are.
"""
EPILOG = """\
examples:
  rtsep restore record.flac -o clean.wav
  rtsep restore record.flac -o clean.wav --threshold 8          # finds smaller clicks, and takes more for one
  rtsep restore stream.wav -o filled.wav --missing 3.2 3.25     # seconds; may be given several times
  rtsep restore side_a.wav -o clean.wav --stream                # of any length, as a stream would be restored live

Exit status: 0 if it is done, 2 if not, 129, 130 or 143 if interrupted.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "restore",
        help="take clicks out of a recording, fill its gaps",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=given_path, metavar="INPUT", help="an audio file that libsndfile reads")
    parser.add_argument(
        "-o", "--output", type=given_path, required=True, metavar="FILE", help="a .wav (32-bit float) or .flac (24-bit)"
    )
    parser.add_argument(
        "--missing",
        type=float,
        nargs=2,
        action="append",
        metavar=("FROM", "TO"),
        help="a gap, in seconds; then no clicks are looked for",
    )
    parser.add_argument(
        "--method",
        choices=("autoregressive", "unwrapping"),
        default="autoregressive",
        help="what missing samples are made by (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=12.0,
        metavar="X",
        help="how many times larger than usual an unpredicted sample must be, to be a click (default: %(default)g)",
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="clicks alone, a block at a time, by what rtsep.restoration.ClickRemover does 100 ms late: in little "
        "memory, whatever the length",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.restoration", "rtsep.audio_files"))


def run(args: argparse.Namespace) -> int:
    """Read, restore, write."""
    import numpy as np

    from rtsep.audio_files import FORMATS, StagedFiles, read_audio, write_sources
    from rtsep.restoration import find_clicks, restore

    suffix = args.output.suffix.lower()
    if suffix not in (".wav", ".flac"):
        raise ConfigError(f"{args.output} ends neither in .wav nor in .flac")
    if args.output.resolve() == args.input.resolve():
        raise ConfigError(f"{args.output} is the input; choose another name")
    staged = StagedFiles([args.output], args.overwrite)
    if args.stream:
        return _stream(args, staged, FORMATS[suffix[1:]])
    x, sr = read_audio(args.input)
    missing = _gaps(args.missing, sr, x.shape[1]) if args.missing else find_clicks(x, sr, threshold=args.threshold)
    restored = np.empty_like(x)
    with progress_bar(args.input.name) as progress:
        for c, channel in enumerate(x):
            gap = np.broadcast_to(missing, x.shape)[c]
            restored[c] = restore(channel, sr, missing=gap, method=args.method)
            if progress:
                progress(c + 1, len(x))
    with staged:
        write_sources(staged, {"": args.output}, iter([restored[None]]), sr, len(x), x.shape[1], FORMATS[suffix[1:]])
        staged.commit()
    damaged = np.broadcast_to(missing, x.shape)
    count = int((np.diff(damaged.astype(np.int8), prepend=0, axis=1) == 1).sum())
    args.report = {"input": str(args.input), "output": str(args.output), "count": count}
    args.report |= {"kind": "gap" if args.missing else "click", "samples": int(damaged.sum()), "sr": sr}
    print(_summary(args.output, count, int(damaged.sum()), bool(args.missing), sr))
    return 0


def _stream(args: argparse.Namespace, staged: StagedFiles, format: FileFormat) -> int:
    """Clicks, a block at a time."""
    from rtsep.audio_files import FileError, open_audio, read_blocks, write_sources
    from rtsep.restoration import ClickRemover

    if args.missing or args.method != "autoregressive":
        raise ConfigError("--stream removes clicks as they come; leave --missing and --method out")
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar(args.input.name))
        try:
            file = stack.enter_context(open_audio(args.input))
        except FileError as problem:
            raise FileError(f"{args.input}: {problem}") from None
        n, sr, n_channels = file.frames, file.samplerate, file.channels
        remover = ClickRemover(sr, n_channels, threshold=args.threshold)

        def blocks() -> Iterator[np.ndarray]:
            try:
                yield from read_blocks(file, n)
            except FileError as problem:
                raise FileError(f"{args.input}: {problem}") from None

        def pieces() -> Iterator[np.ndarray]:
            early = remover.latency  # samples of silence that come out before the first
            for block in blocks():
                yield remover.process(block).reshape(block.shape)[None, :, early:]
                early = max(0, early - block.shape[1])
            yield remover.flush().reshape(n_channels, -1)[None, :, early:]

        stack.enter_context(staged)
        told = None if progress is None else (lambda done: progress(done, n))
        write_sources(staged, {"": args.output}, pieces(), sr, n_channels, n, format, told)
        staged.commit()
    args.report = {"input": str(args.input), "output": str(args.output), "samples": remover.n_replaced, "sr": sr}
    latency_ms = 1e3 * remover.latency / sr
    print(
        f"{args.output}: {remover.n_replaced} samples ({1e3 * remover.n_replaced / sr:.1f} ms) made anew; "
        f"as a stream {latency_ms:.0f} ms late"
    )
    return 0


def _gaps(spans: list[list[float]], sr: int, n_samples: int) -> Any:
    import numpy as np

    missing = np.zeros(n_samples, bool)
    for start, stop in spans:
        if not 0 <= start < stop <= n_samples / sr + 1e-9:
            raise ConfigError(f"--missing {start:g} {stop:g} is no span within {n_samples / sr:.3f} s")
        missing[round(start * sr) : round(stop * sr)] = True
    return missing


def _summary(path: Path, count: int, n_samples: int, given: bool, sr: int) -> str:
    what = ("gap" if given else "click") + ("" if count == 1 else "s")
    return f"{path}: {count} {what}, {n_samples} samples ({1e3 * n_samples / sr:.1f} ms) made anew"
