"""`rtsep separate`: files, folders and pipes; one file per source, or one source into a pipe."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rtsep.cli.engine import add_engine_options, add_gate_options, engine_settings, gate_settings, times_ms
from rtsep.cli.inputs import given_path
from rtsep.cli.jobs import run_jobs
from rtsep.cli.progress import progress_of_files
from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.cli.inputs import Found, Job
    from rtsep.files import FileReport, FileSeparator

DESCRIPTION = """\
Separate audio files: one file per source, STEM.SOURCE.wav, of the same length, rate and channels,
aligned with the input. The sources add up to the input.
"""
EPILOG = """\
examples:
  rtsep separate talk.mp3                       # talk.speech.wav and talk.residual.wav beside it
  rtsep separate recordings/ -o separated --format same --skip-existing
  rtsep separate song.mp3 -o . --estimator hpss --iterations 10 --lookahead 1
  ffmpeg -i in.mkv -f wav - | rtsep separate - -o - --source speech | ffplay -

WAV, FLAC, Ogg, MP3, AIFF and more are read by libsndfile; M4A, MP4, MOV, WebM, WMA and films by PyAV, if that is there
(pip install 'rtsep[media]'). Exit status: 0 if all files are done, 2 if one is not, 129, 130 or 143 if interrupted.
"""
PIPE = Path("-")
ABOUT = 8  # names that are listed


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "separate",
        help="separate audio files, folders of them, or a pipe",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=given_path,
        metavar="INPUT",
        help="an audio file of 8 to 192 kHz; a folder of them; or - for a WAV from a pipe",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=given_path,
        metavar="DIR",
        help="folder for the outputs, made if needed (default: that of each input); - for a pipe",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--format",
        choices=("wav", "wav24", "wav16", "flac", "opus", "mp3", "m4a", "same"),
        help="32-bit float (default), 24-bit or 16-bit WAV, 24-bit FLAC; Opus, MP3 or M4A, with PyAV; or that of the "
        "input, with its depth and tags",
    )
    files.add_argument("--source", metavar="NAME", help="write this source only")
    files.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    files.add_argument("--skip-existing", action="store_true", help="leave inputs alone that have outputs already")
    files.add_argument("--plot", action="store_true", help="draw the spectrograms of mixture and sources: STEM.png")
    files.add_argument("--json", action="store_true", help="print a machine-readable report")
    files.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="files that are separated at the same time (default: one per processor core)",
    )
    files.add_argument(
        "--raw",
        metavar="SAMPLES:RATE:CHANNELS",
        help="the pipe has bare samples, such as s16le:48000:2; so has a pipe that is written to",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--channels",
        choices=("linked", "independent"),
        default="linked",
        help="one mask for all channels, which keeps the stereo image (default), or each channel for itself, for those "
        "that have nothing in common",
    )
    parser.add_argument(
        "--ceiling",
        type=float,
        metavar="DB",
        help="a limiter turns down what would exceed DB dBFS, -60 to 0 (default: none for 32-bit float, else -1)",
    )
    add_gate_options(parser)
    parser.set_defaults(run=run, modules=("rtsep.files",))


class Outcome(NamedTuple):
    """What became of all files."""

    reports: dict[Path, FileReport]
    failed: dict[Path, str]
    existing: list[Path]  # with outputs, which were not replaced


def run(args: argparse.Namespace) -> int:
    """Separate the files, report those that failed at the end."""
    from dataclasses import replace

    from rtsep.files import FileSeparator

    estimator, phase, output = engine_settings(args)
    output = replace(output, ceiling_db=math.inf if args.ceiling is None else args.ceiling)
    if args.overwrite and args.skip_existing:
        raise ConfigError("--overwrite and --skip-existing cannot both be meant")
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs={args.jobs} is less than 1")
    piped = PIPE in args.inputs
    if piped and (len(args.inputs) > 1 or args.plot):
        raise ConfigError("- is the only input, and has no --plot")
    if args.raw is not None and not piped:
        raise ConfigError(f"--raw {args.raw} is for a pipe: the input is -")
    if piped and args.output is None:
        raise ConfigError("where do the outputs go? -o DIR, or -o - for a pipe")
    separator = FileSeparator(
        estimator,
        phase,
        output,
        gate_settings(args),
        **times_ms(args),
        channels=args.channels,
        format=args.format or "wav",
        source=args.source,
        overwrite=args.overwrite,
        plot=args.plot,
    )
    if args.output == PIPE:
        from rtsep.cli.pipe import run_pipe

        return run_pipe(args, separator, _engine(separator, args))
    if not args.json:
        print(_engine(separator, args), flush=True)
    return _separate_files(args, separator)


def _separate_files(args: argparse.Namespace, separator: FileSeparator) -> int:
    from rtsep.cli.inputs import Found, Job, find_jobs
    from rtsep.plain import plain

    if PIPE in args.inputs:
        found = Found([Job(PIPE, args.output, "stdin")], [])
    else:
        found = find_jobs(args.inputs, args.output, separator.outputs)
    if not args.json:
        _announce(args, found)
    outcome = _work(args, separator, found.jobs)
    if args.json:
        print(json.dumps(plain(_report(separator, found, outcome, args)), indent=2, allow_nan=False))
    elif outcome.existing and args.skip_existing:
        print(f"{_count(len(outcome.existing), 'file')} had outputs already and stayed as they are")
    for path, reason in outcome.failed.items():
        print(f"rtsep: {path}: {reason}", file=sys.stderr)
    if not args.skip_existing:
        _say_existing(outcome.existing, separator, found)
    return 2 if outcome.failed or (outcome.existing and not args.skip_existing) else 0


def _work(args: argparse.Namespace, separator: FileSeparator, jobs: list[Job]) -> Outcome:
    from rtsep.factorise.factors import told_to
    from rtsep.pipes import PipeReader, Raw

    outcome = Outcome({}, {}, [])
    todo = []
    for job in jobs:
        outputs = separator.outputs(*job).values()
        there = [path for path in outputs if path.exists()]
        if there and not args.overwrite and (not args.skip_existing or len(there) == len(outputs)):
            outcome.existing.append(job.path)
        else:
            todo.append(job)

    with progress_of_files(len(todo)) as of_file:

        def separate(job: Job, alive: Any) -> FileReport | Exception:
            try:
                with of_file(job.path.name) as progress:

                    def moved(done: int, total: int, cost: float | None = None) -> None:
                        alive()
                        if progress:
                            progress(done, total, cost)

                    reader = None
                    if job.path == PIPE:
                        reader = PipeReader(sys.stdin.buffer, Raw.parse(args.raw) if args.raw else None)
                    with told_to(moved):
                        return separator.separate(job.path, job.folder, moved, stem=job.stem, reader=reader)
            except (ConfigError, OSError) as problem:
                return problem

        n_jobs = args.jobs if separator.parallel else 1
        for job, result in run_jobs(separate, todo, n_jobs):
            if isinstance(result, Exception):
                outcome.failed[job.path] = str(result)
            else:
                outcome.reports[job.path] = result
                if not args.json:
                    print(_text(result), flush=True)
    failed = {job.path: outcome.failed[job.path] for job in todo if job.path in outcome.failed}
    reports = {job.path: outcome.reports[job.path] for job in todo if job.path in outcome.reports}
    return Outcome(reports, failed, outcome.existing)


def _engine(separator: FileSeparator, args: argparse.Namespace) -> str:
    """What was chosen, and why if that is not what one would expect."""
    settings = separator.settings()
    text = (
        f"estimator {settings['estimator']['name']}, phase {settings['phase']['name']}, latency "
        f"{settings['latency_ms']:g} ms (window {settings['window_ms']:g} ms, hop {settings['hop_ms']:g} ms)"
    )
    if args.estimator is None and args.model is None and separator.estimator.name != "speech":
        text += "\n  note: the network of `speech` is not made for these windows, so that nothing learned is used"
    return text


def _announce(args: argparse.Namespace, found: Found) -> None:
    if args.output is None:
        folders = sorted({str(job.folder) for job in found.jobs})
        where = folders[0] if len(folders) == 1 else "the folder of each input"
        print(f"outputs go beside the input, to {where}")
    if found.left_out:
        names = [path.name for path in found.left_out]
        more = f" and {len(names) - ABOUT} more" if len(names) > ABOUT else ""
        print(f"left out, whose names are not of audio files: {', '.join(names[:ABOUT])}{more}")
    longer = [job for job in found.jobs if job.path.suffix and job.stem == job.path.name]
    if longer:
        print(
            f"{_count(len(longer), 'input')} of the same name keep their suffix: {longer[0].path.name} becomes "
            f"{longer[0].stem}.SOURCE..."
        )


def _say_existing(existing: list[Path], separator: FileSeparator, found: Found) -> None:
    if len(existing) == 1:
        job = next(job for job in found.jobs if job.path == existing[0])
        there = next(path for path in separator.outputs(*job).values() if path.exists())
        print(f"rtsep: {job.path}: {there} exists (--overwrite replaces it)", file=sys.stderr)
    elif existing:
        print(
            f"rtsep: {len(existing)} files have outputs already, {existing[0]} first (--skip-existing leaves them, "
            "--overwrite replaces them)",
            file=sys.stderr,
        )


def _count(n: int, what: str) -> str:
    return f"1 {what}" if n == 1 else f"{n} {what}s"


def _text(report: FileReport) -> str:
    channels = "1 channel" if report.n_channels == 1 else f"{report.n_channels} channels"
    minutes, seconds = divmod(report.duration_s, 60)
    speed = f"{1 / report.real_time_factor:.3g} x real time"
    lines = [f"{report.input}: {minutes:.0f}:{seconds:06.3f}, {report.sr} Hz, {channels}, {speed}"]
    lines += [f"  {name:10} {path}" for name, path in report.outputs.items()]
    if report.plot:
        lines.append(f"  {'plot':10} {report.plot}")
    return "\n".join(lines + [f"  note: {remark}" for remark in report.remarks])


def _report(separator: FileSeparator, found: Found, outcome: Outcome, args: argparse.Namespace) -> dict[str, Any]:
    skipped, failed = outcome.existing, [{"input": str(p), "error": reason} for p, reason in outcome.failed.items()]
    if not args.skip_existing:
        reason = "has outputs already (--overwrite replaces them)"
        failed += [{"input": str(path), "error": reason} for path in outcome.existing]
        skipped = []
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
                "peak_db": report.peak_db,
                "counts": report.counts,
                "remarks": report.remarks,
            }
            for report in outcome.reports.values()
        ],
        "failed": failed,
        "skipped": [str(path) for path in skipped],
        "left_out": [str(path) for path in found.left_out],
    }
