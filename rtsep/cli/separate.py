"""`rtsep separate`: files and folders, one file per source."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.cli.engine import add_engine_options, add_gate_options, engine_settings, gate_settings, times_ms
from rtsep.cli.inputs import given_path
from rtsep.cli.progress import progress_bar
from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.files import FileReport, FileSeparator

DESCRIPTION = """\
Separate audio files: one file per source, STEM.SOURCE.wav, of the same length, rate and channels,
aligned with the input. The sources add up to the input.
"""
EPILOG = """\
examples:
  rtsep separate interview.wav -o separated
  rtsep separate recordings/ -o separated --format flac --plot
  rtsep separate song.mp3 -o . --estimator hpss --iterations 10 --lookahead 1

Exit status: 0 if all files are done, 2 if one is not, 129, 130 or 143 if interrupted.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "separate",
        help="separate audio files",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=given_path,
        metavar="INPUT",
        help="an audio file that libsndfile reads (WAV, FLAC, Ogg, MP3, AIFF ...), 8 to 192 kHz; or a folder of them",
    )
    parser.add_argument(
        "-o", "--output", type=given_path, required=True, metavar="DIR", help="folder for the outputs, made if needed"
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--format",
        default="wav",
        choices=("wav", "wav24", "wav16", "flac"),
        help="32-bit float, 24-bit or 16-bit WAV, or 24-bit FLAC (default: %(default)s)",
    )
    files.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    files.add_argument("--plot", action="store_true", help="draw the spectrograms of mixture and sources: STEM.png")
    files.add_argument("--json", action="store_true", help="print a machine-readable report")
    add_engine_options(parser)
    add_gate_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.files",))


def run(args: argparse.Namespace) -> int:
    """Separate the files, report those that failed at the end."""
    from rtsep.cli.inputs import find_jobs
    from rtsep.factorise.factors import told_to
    from rtsep.files import FileSeparator
    from rtsep.plain import plain

    estimator, phase, output = engine_settings(args)
    separator = FileSeparator(
        estimator,
        phase,
        output,
        gate_settings(args),
        **times_ms(args),
        format=args.format,
        overwrite=args.overwrite,
        plot=args.plot,
    )
    jobs = find_jobs(args.inputs, args.output, separator.outputs)
    reports: list[FileReport] = []
    failed: dict[Path, str] = {}
    for number, job in enumerate(jobs, 1):
        label = f"{number}/{len(jobs)} {job.path.name}" if len(jobs) > 1 else job.path.name
        try:
            with progress_bar(label) as progress, told_to(progress):
                report = separator.separate(*job, progress)
        except (ConfigError, OSError) as problem:
            failed[job.path] = str(problem)
        else:
            reports.append(report)
            if not args.json:
                print(_text(report), flush=True)
    if args.json:
        print(json.dumps(plain(_report(separator, reports, failed)), indent=2, allow_nan=False))
    for path, reason in failed.items():
        print(f"rtsep: {path}: {reason}", file=sys.stderr)
    return 2 if failed else 0


def _text(report: FileReport) -> str:
    channels = "1 channel" if report.n_channels == 1 else f"{report.n_channels} channels"
    minutes, seconds = divmod(report.duration_s, 60)
    speed = f"{1 / report.real_time_factor:.3g} x real time"
    lines = [f"{report.input}: {minutes:.0f}:{seconds:06.3f}, {report.sr} Hz, {channels}, {speed}"]
    lines += [f"  {name:10} {path}" for name, path in report.outputs.items()]
    if report.plot:
        lines.append(f"  {'plot':10} {report.plot}")
    return "\n".join(lines + [f"  note: {remark}" for remark in report.remarks])


def _report(separator: FileSeparator, reports: list[FileReport], failed: dict[Path, str]) -> dict[str, Any]:
    return {
        "settings": separator.settings(),
        "files": [
            {
                "input": str(report.input),
                "outputs": {name: str(path) for name, path in report.outputs.items()},
                "plot": str(report.plot) if report.plot else None,
                "sr": report.sr,
                "n_channels": report.n_channels,
                "n_samples": report.n_samples,
                "duration_s": report.duration_s,
                "elapsed_s": report.elapsed_s,
                "real_time_factor": report.real_time_factor,
                "counts": report.counts,
                "remarks": report.remarks,
            }
            for report in reports
        ],
        "failed": [{"input": str(path), "error": reason} for path, reason in failed.items()],
    }
