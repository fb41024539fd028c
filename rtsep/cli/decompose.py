"""`rtsep decompose`: which of the sounds of a model sound when, and each of them in a file."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.progress import progress_bar
from rtsep.errors import ConfigError

if TYPE_CHECKING:
    from rtsep.dds import Decomposition, SourceModel
    from rtsep.notes import Note

DESCRIPTION = """\
Decompose a recording into the sounds of a model, such as the notes of a piano: which of them sound when, as a piano
roll and as tables, and those that sound, one file each. Offline, in seconds to minutes; needs PyTorch:
pip install 'rtsep[train]'.
"""
EPILOG = """\
examples:
  rtsep learn --method dds3 notes/ -o piano.npz                 # files or folders in notes/ named by pitch: c4, eb5, 60
  rtsep decompose chord.wav --model piano.npz -o out

outputs: STEM.roll.png, STEM.notes.csv (onset, offset, source, MIDI number, level), STEM.notes.json (the same, the
activations, the losses), and STEM.SOURCE.wav of each source that sounds, of the length, rate and channels of the input;
together they are the input.
"""
FOREIGN = 0.5  # left of the mixture: then it is likely to be something else


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "decompose",
        help="which notes of a model sound when, and each in a file",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=given_path, metavar="INPUT", help="an audio file that libsndfile reads")
    parser.add_argument(
        "--model", type=given_path, required=True, metavar="FILE", help="from `rtsep learn --method`, *.npz"
    )
    parser.add_argument(
        "-o", "--output", type=given_path, required=True, metavar="DIR", help="folder for the outputs, made if needed"
    )
    parser.add_argument(
        "--method",
        choices=("nmf", "dds1", "dds2", "dds3"),
        help="what to search by (default: what the model was learned for; dds1 and dds2 share theirs)",
    )
    parser.add_argument("--atoms", type=int, metavar="N", help="for each source, dds2 and dds3 (default: 10)")
    parser.add_argument("--iterations", type=int, metavar="N", help="of the search, at most (default: 300)")
    parser.add_argument("--squared", action="store_true", help="square the norm of what is left of the mixture")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another start (default: 0)")
    parser.add_argument("--phase", default="mixture", metavar="NAME", help="phase recovery (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.offline",))


def run(args: argparse.Namespace) -> int:
    """Read, search, write."""
    from rtsep.audio_files import FORMATS, FileError, StagedFiles, read_audio, write_sources
    from rtsep.choose import choose
    from rtsep.dds import dictionary_search, read_model
    from rtsep.dds.model import check_method
    from rtsep.notes import find_notes
    from rtsep.offline import separate
    from rtsep.plots import plot_roll

    model = read_model(args.model)
    method = check_method(model, args.method, str(args.model))
    config = model.spectra.config
    choose(None, args.phase, config.window_s, config.hop_s)  # an unknown one is said before the search
    x, sr = read_audio(args.input)
    if sr != model.spectra.sr:
        raise FileError(
            f"{args.input} has {sr} Hz, {args.model} is for {model.spectra.sr} Hz: learn one with --rate {sr}, or "
            "convert the recording"
        )
    reports = {kind: args.output / f"{args.input.stem}.{kind}" for kind in ("roll.png", "notes.csv", "notes.json")}
    StagedFiles(list(reports.values()), args.overwrite)  # what exists is said before the search
    options = {"n_atoms": args.atoms, "n_iter": args.iterations}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        with progress_bar(f"{method} {args.input.name}") as progress:
            found = dictionary_search(
                x, sr, model, method, **options, squared=args.squared, seed=args.seed, progress=progress
            )
    except ConfigError as problem:
        if str(problem).startswith("audio"):
            raise FileError(f"{args.input}: {problem}") from None
        raise
    notes = find_notes(found.activations, found.times, found.sources)
    outputs = {name: args.output / f"{args.input.stem}.{name}.wav" for name in found.active}
    mixture = model.spectra.config_for(len(x))
    separated = separate(x, sr, found.estimator(), args.phase, config=mixture)
    with StagedFiles([*reports.values(), *outputs.values()], args.overwrite) as staged:
        write_sources(staged, outputs, iter([separated]), sr, len(x), x.shape[1], FORMATS["wav"])
        plot_roll(staged.part(reports["roll.png"]), found.activations, found.times, found.sources, notes)
        staged.part(reports["notes.csv"]).write_text(_csv(notes))
        staged.part(reports["notes.json"]).write_text(_json(args, model, found, notes))
        staged.commit()
    first, last = found.losses[0], found.losses.min()
    args.report = {"input": str(args.input), "method": method, "notes": len(notes), "unexplained": found.unexplained}
    args.report["outputs"] = {name: str(path) for name, path in (outputs | reports).items()}
    print(
        f"{args.input}: {method}, {len(found.losses)} iterations, loss {first:.3g} -> {last:.3g}, "
        f"{100 * found.unexplained:.0f} % of the spectrum is left; {len(notes)} notes"
    )
    for name, path in (outputs | reports).items():
        print(f"  {name:10} {path}")
    if found.unexplained > FOREIGN:
        print(
            f"rtsep: {args.input}: {100 * found.unexplained:.0f} % of its spectrum is nothing that {args.model} knows: "
            "other sounds, or more of them at once than it can tell apart?",
            file=sys.stderr,
        )
    return 0


def _csv(notes: list[Note]) -> str:
    from rtsep.notes import pitch_of

    lines = ["onset_s,offset_s,source,midi,level"]
    for note in notes:
        midi = pitch_of(note.source)
        name = f'"{note.source.replace(chr(34), chr(34) * 2)}"' if set(note.source) & set(',"') else note.source
        lines.append(f"{note.onset:.3f},{note.offset:.3f},{name},{'' if midi is None else midi},{note.level:.4f}")
    return "\n".join(lines) + "\n"


def _json(args: argparse.Namespace, model: SourceModel, found: Decomposition, notes: list[Note]) -> str:
    from rtsep.notes import pitch_of

    report = {
        "input": str(args.input),
        "model": str(args.model),
        "method": found.method,
        "seed": args.seed,
        "sr": model.spectra.sr,
        "hop_s": model.spectra.hop_s,
        "sources": list(found.sources),
        "notes": [{**note._asdict(), "midi": pitch_of(note.source)} for note in notes],
        "times": [round(float(t), 5) for t in found.times],
        "activations": [[round(float(a), 5) for a in row] for row in found.activations],
        "losses": [round(float(loss), 6) for loss in found.losses],
        "unexplained": round(found.unexplained, 5),
    }
    return json.dumps(report, allow_nan=False) + "\n"
