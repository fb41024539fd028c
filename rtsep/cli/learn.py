"""`rtsep learn`: a dictionary of sounds from recordings of each, in seconds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.progress import progress_bar
from rtsep.cli.signals import gently
from rtsep.cli.skipped import saying_skipped
from rtsep.errors import ConfigError

DESCRIPTION = """\
Learn what sounds are made of, from recordings of each alone, in seconds. With the dictionary the estimator `nmf` tells
these very sounds apart, live or in files: your guitar from that trumpet, a machine from the hall around it.
"""
EPILOG = """\
examples:
  rtsep learn guitar=takes/guitar/ trumpet=takes/trumpet/ -o duo.npz
  rtsep separate live.wav -o separated --model duo.npz
  rtsep live --rate 44100 --model duo.npz                       # the rate of the recordings, or learn with --rate
  rtsep learn guitar=takes/ -o guitar.npz                       # one alone, from whatever else there is:
  rtsep separate live.wav -o separated --model guitar.npz --with-rest

  rtsep learn --method dds3 notes/ -o piano.npz                 # for `rtsep decompose`; notes/c4.wav, notes/eb5.wav ...

It needs the very instruments, few timbres and little overlap: other recordings, of other instruments of the same name,
teach it next to nothing. For voices and noises in general use the estimators `speech` and `talkers`.

With --method a model for `rtsep decompose` is learned instead, offline and with PyTorch (pip install 'rtsep[train]'),
in minutes: sounds by name, as above, or a folder of notes, files or folders in it named by pitch (c4, eb5_soft, 60).
Ctrl-C ends the learning after the epoch under way and keeps what is best so far; a second one ends it at once.
"""
STREAMS = ("atoms", "divergence", "context_ms", "exemplars", "window_ms", "latency_ms", "hop_ms", "plot")
SEARCH = ("epochs", "band", "paper", "resume")


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "learn",
        help="learn your sounds from recordings of each, in seconds",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sounds",
        nargs="+",
        metavar="NAME=PATH",
        help="name of a sound, and a recording of it alone, or a folder of recordings; with --method also a folder "
        "of notes named by pitch",
    )
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="FILE", help="the dictionary, *.npz")
    parser.add_argument("--atoms", type=int, default=50, metavar="N", help="for each sound (default: %(default)s)")
    parser.add_argument(
        "--divergence",
        type=_divergence,
        default="kl",
        metavar="NAME",
        help="what measures the fit: kl, is, euclidean, levy, or beta, a number from -2 to 4 (default: %(default)s; "
        "levy: robust to clicks)",
    )
    parser.add_argument(
        "--context-ms",
        type=float,
        nargs="*",
        default=(64.0,),
        metavar="MS",
        help="atoms also know the spectra so long ago (default: 64; nothing for atoms of one frame)",
    )
    parser.add_argument(
        "--exemplars", action="store_true", help="frames of the recordings are the atoms: nothing is factorised"
    )
    parser.add_argument("--rate", type=int, metavar="HZ", help="of the streams it is for (default: the recordings')")
    parser.add_argument("--window-ms", type=float, metavar="MS", help="analysis window of these streams (default: 64)")
    parser.add_argument("--latency-ms", type=float, metavar="MS", help="their latency (default: 16)")
    parser.add_argument("--hop-ms", type=float, metavar="MS", help="their hop (default: as in `rtsep separate`)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another start (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dictionary")
    parser.add_argument(
        "--plot", action="store_true", help="draw what was learned: atoms, frames, activations and cost, FILE.png"
    )
    add_json_option(parser)
    group = parser.add_argument_group("for `rtsep decompose`")
    group.add_argument(
        "--method",
        choices=("nmf", "dds1", "dds2", "dds3"),
        help="learn for this search: all frames of the notes (nmf), a flow for each (dds1, dds2), one for all (dds3)",
    )
    group.add_argument("--epochs", type=int, metavar="N", help="passes through the recordings, at most")
    group.add_argument("--band", type=float, metavar="HZ", help="look up to this frequency (default: 4000)")
    group.add_argument(
        "--resume", action="store_true", help="go on from the flows in FILE, of the same recordings, which it replaces"
    )
    group.add_argument("--paper", action="store_true", help="flows and band of the paper's size: takes days")
    defaults = {name: parser.get_default(name) for name in (*STREAMS, *SEARCH)}
    parser.set_defaults(run=run, modules=("rtsep.learn",), defaults=defaults)


def _divergence(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def run(args: argparse.Namespace) -> int:
    """Find the recordings, learn, write."""
    from rtsep.audio_files import FileError, make_folder
    from rtsep.estimators.dictionary_file import write_dictionary
    from rtsep.learn import learn

    if args.output.suffix != ".npz":
        raise ConfigError(f"{args.output} does not end in .npz")
    if args.output.exists() and not (args.overwrite or args.resume):
        raise FileError(f"{args.output} exists (--overwrite replaces it)")
    if args.method:
        return _learn_for_search(args)
    _refuse(args, SEARCH, "goes with --method")
    with progress_bar("learning") as progress:
        dictionary = learn(
            _recordings(args.sounds),
            sr=args.rate,
            window_ms=args.window_ms,
            hop_ms=args.hop_ms,
            latency_ms=args.latency_ms,
            n_atoms=args.atoms,
            divergence=args.divergence,
            context_ms=args.context_ms,
            exemplars=args.exemplars,
            seed=args.seed,
            progress=progress,
        )
    make_folder(args.output.parent)
    write_dictionary(args.output, dictionary)
    learned = ", ".join(f"{name} from {dictionary.manifest[name]['seconds']:g} s" for name in dictionary.sources)
    framing = dictionary.framing
    args.report = {"model": str(args.output), "sources": dictionary.manifest, "atoms": args.atoms}
    args.report |= {"sr": framing.sr, "hop": framing.hop, "plot": None}
    print(
        f"{args.output}: {learned}; {args.atoms} atoms each, for streams of {framing.sr} Hz with hops of {framing.hop}"
    )
    if args.plot:
        from rtsep.plots import plot_dictionary

        picture = args.output.with_suffix(".png")
        plot_dictionary(picture, dictionary)
        args.report["plot"] = str(picture)
        print(f"{picture}: atoms, frames, activations and cost")
    return 0


def _learn_for_search(args: argparse.Namespace) -> int:
    from rtsep.audio_files import make_folder
    from rtsep.dds import learn_sources, read_model, write_model

    _refuse(args, STREAMS, "is for dictionaries of streams, not for --method")
    options: dict[str, Any] = {
        "sr": args.rate,
        "band_hz": args.band,
        "paper": args.paper,
        "epochs": args.epochs,
        "seed": args.seed,
    }
    options["resume"] = read_model(args.output) if args.resume else None
    recordings = _notes(args.sounds)
    make_folder(args.output.parent)  # what fails there fails before the learning
    with gently() as stopped:
        with progress_bar("learning") as move:

            def told(done: int, total: int, nll: float) -> bool:
                if move:
                    move(done, total, nll)
                return stopped()

            model = learn_sources(recordings, args.method, **options, progress=told)
        write_model(args.output, model)
        frames, history = model.manifest["frames"], model.manifest.get("validation")
        args.report = {"model": str(args.output), "method": args.method, "frames": frames, "sr": model.spectra.sr}
        args.report |= {"validation": history or [], "plot": None}
        learned = f"; validation NLL {history[0]:.3f} -> {min(history):.3f} in {len(history)} epochs" if history else ""
        print(
            f"{args.output}: {len(frames)} sounds from {sum(frames.values())} frames, for {args.method} at "
            f"{model.spectra.sr} Hz up to {model.spectra.band_hz:g} Hz{learned}"
        )
    return 0


def _refuse(args: argparse.Namespace, options: tuple[str, ...], reason: str) -> None:
    for name in options:
        if getattr(args, name) != args.defaults[name]:
            raise ConfigError(f"--{name.replace('_', '-')} {reason}")


def _notes(sounds: list[str]) -> dict[str, list[Path]]:
    """Recordings by name; of a folder without a name, by the pitch that files or folders in it are named by."""
    from rtsep.notes import pitch_name, pitch_of
    from rtsep.recordings import find_recordings

    found: dict[str, list[Path]] = {}
    for text in sounds:
        if "=" in text and not Path(text).is_dir():
            for name, files in _recordings([text]).items():
                pitch = pitch_of(name)
                found.setdefault(name if pitch is None else pitch_name(pitch), []).extend(files)
            continue
        folder = given_path(text)
        if not folder.is_dir():
            raise ConfigError(f"{text!r} is neither a folder of notes nor NAME=PATH, such as c4=takes/c4.wav")
        pitches: dict[int, list[Path]] = {}
        with saying_skipped() as skipped:
            for recording in find_recordings(folder, skipped):
                pitch = pitch_of(recording.name)
                if pitch is None:
                    skipped(recording.path, "its name does not begin with a pitch, such as c4, eb5 or 60")
                else:
                    pitches.setdefault(pitch, []).append(recording.path)
        if not pitches:
            raise ConfigError(f"{folder}: no recordings named by pitch, such as c4.wav, eb5.wav or 60.wav")
        for pitch in sorted(pitches):
            found.setdefault(pitch_name(pitch), []).extend(pitches[pitch])
    return found


def _recordings(sounds: list[str]) -> dict[str, list[Path]]:
    from rtsep.recordings import find_recordings

    found: dict[str, list[Path]] = {}
    for text in sounds:
        name, sign, path = text.partition("=")
        if not (name and sign and path):
            raise ConfigError(f"{text!r} is not NAME=PATH, such as guitar=takes/guitar/")
        if name in found:
            raise ConfigError(f"two sounds have the name {name!r}; put their recordings in one folder")
        place = Path(path)
        with saying_skipped() as skipped:
            found[name] = [r.path for r in find_recordings(place, skipped)] if place.is_dir() else [place]
    return found
