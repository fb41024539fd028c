"""`rtsep score`: two sets of files, made by anything."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.cli import EXIT_ERROR
from rtsep.cli.inputs import given_path
from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.evaluation.scores import Scene, SourceScores

DEFAULT = "si-sdr,si-parts,sdr,delay"
DESCRIPTION = """\
Score estimates against the true sources. As many references as estimates: all sources of one mixture and
their estimates, in the same order. Or two folders: files of the same name are compared, each on its own.
"""
EPILOG = """\
examples:
  rtsep score speech.wav noise.wav separated/speech.wav separated/noise.wav --mixture noisy.wav
  rtsep score clean/ denoised/ --scores si-sdr,stoi,pesq --json

A score that is not defined, of silence for example, is left out with the reason. Files that cannot be read or
do not match are named, and the others scored. Exit status: 0, or 2 if there were such files.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "score",
        help="score separated files against the true sources",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=given_path, metavar="REFERENCE... ESTIMATE", help="files or folders")
    parser.add_argument(
        "--mixture", type=given_path, metavar="FILE", help="what was separated: its scores, and the gain over them"
    )
    parser.add_argument(
        "--any-order", action="store_true", help="the estimates are in any order: find the one with the best SI-SDR"
    )
    add_scores_option(parser, DEFAULT)
    parser.add_argument("--json", action="store_true", help="print a machine-readable report")
    parser.set_defaults(run=run, modules=("rtsep.evaluation.scores",))


def add_scores_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--scores`, the same for every command that scores."""
    parser.add_argument(
        "--scores",
        type=lambda text: [name for name in text.split(",") if name],
        default=default.split(","),
        metavar="NAMES",
        help=f"comma-separated (default: {default}); also fw-sdr, fw-sdr-level, ild, itd, and, with "
        "`pip install rtsep[eval]`, bss3, bss4, pesq, stoi, estoi, dnsmos, with rtsep[hearing] haspi, hasqi",
    )


def run(args: argparse.Namespace) -> int:
    """Score all pairs and print."""
    from rtsep.audio_files import FileError
    from rtsep.evaluation.scores import check_scores, measure
    from rtsep.plain import plain

    check_scores(args.scores)
    reports: list[dict[str, Any]] = []
    status = 0
    for references, estimates in _groups(args):
        pairs = [
            {"reference": str(reference), "estimate": str(estimate)}
            for reference, estimate in zip(references, estimates, strict=True)
        ]
        try:
            scene = _scene(references, estimates, args.mixture)
            if args.any_order:
                scene, estimates = _in_order(scene, estimates)
            rows = measure(scene, args.scores)
        except (FileError, ConfigError) as problem:
            # The others go on; status and report say that this one is not there.
            status = EXIT_ERROR
            print(f"rtsep: {problem}", file=sys.stderr)
            reports += [pair | {"error": str(problem)} for pair in pairs]
            continue
        for row, reference, estimate in zip(rows, references, estimates, strict=True):
            paths = {"reference": str(reference), "estimate": str(estimate)}
            reports.append(paths | {"scores": row.values, "reasons": row.reasons})
            if not args.json:
                print(_text(reference, estimate, row), flush=True)
    if args.json:
        print(json.dumps(plain(reports), indent=2, allow_nan=False))
    return status


def _groups(args: argparse.Namespace) -> list[tuple[list[Path], list[Path]]]:
    paths: list[Path] = args.paths
    folders = [path for path in paths if path.is_dir()]
    if folders:
        if len(paths) != 2 or len(folders) != 2:
            raise ConfigError("give two folders, or files alone")
        if args.mixture or args.any_order:
            raise ConfigError("--mixture and --any-order are for the files of one mixture, not for folders")
        return [([reference], [estimate]) for reference, estimate in _same_names(*paths)]
    if len(paths) % 2:
        raise ConfigError(f"{len(paths)} files: give as many estimates as references")
    half = len(paths) // 2
    return [(paths[:half], paths[half:])]


def _same_names(references: Path, estimates: Path) -> list[tuple[Path, Path]]:
    from rtsep.audio_files import find_audio

    names = find_audio(references)
    if not any((estimates / name).is_file() for name in names):
        raise ConfigError(f"{references} and {estimates} have no audio files of the same name")
    for name in sorted({*find_audio(estimates)} - {*names}):
        print(f"rtsep: {estimates / name}: has no reference, and is left out", file=sys.stderr)
    return [(references / name, estimates / name) for name in names]


def _scene(references: list[Path], estimates: list[Path], mixture: Path | None) -> Scene:
    from rtsep.audio_files import read_alike
    from rtsep.evaluation.scores import Scene

    signals, sr = read_alike([*references, *estimates, *([mixture] if mixture else [])])
    n = len(references)
    names = tuple(str(path) for path in references)
    return Scene(sr, names, signals[:n], signals[n : 2 * n], signals[2 * n] if mixture else None)


def _in_order(scene: Scene, estimates: list[Path]) -> tuple[Scene, list[Path]]:
    """The scene with its estimates in the order of the references."""
    import numpy as np

    from rtsep.evaluation import ScoreError, match, si_sdr

    try:
        # All channels in one: a source stands in all of them.
        table = [[si_sdr(s.ravel(), e.ravel()) for e in scene.estimates] for s in scene.references]
    except ScoreError as problem:
        raise ConfigError(f"--any-order: {problem}") from None
    order = match(np.array(table))
    return scene._replace(estimates=scene.estimates[order]), [estimates[k] for k in order]


def _text(reference: Path, estimate: Path, row: SourceScores) -> str:
    from rtsep.evaluation.scores import SCORES

    lines = [f"{reference} <- {estimate}"]
    for score in SCORES.values():
        for column in score.columns:
            if column not in row.values:
                continue
            if column in row.reasons:
                lines.append(f"  {column:12} none: {row.reasons[column]}")
                continue
            text = f"  {column:12} {row.values[column]:9.3f} {score.unit}".rstrip()
            if f"{column}_input" in row.values and f"{column}_input" not in row.reasons:
                text += f"   mixture {row.values[f'{column}_input']:.3f}, gain {row.values[f'{column}_gain']:+.3f}"
            lines.append(text)
    if row.values.get("delay", 0) != 0 and "delay" not in row.reasons:
        lines.append("  note: the estimate is not aligned with the reference, which most scores take for distortion")
    return "\n".join(lines)
