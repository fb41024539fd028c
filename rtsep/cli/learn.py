"""`rtsep learn`: a dictionary of sounds from recordings of each, in seconds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rtsep.cli.inputs import given_path
from rtsep.cli.progress import progress_bar
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

It needs the very instruments, few timbres and little overlap: other recordings, of other instruments of the same name,
teach it next to nothing. For voices and noises in general use the estimators `speech` and `talkers`.
"""


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
        help="name of a sound, and a recording of it alone, or a folder of recordings",
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
    parser.set_defaults(run=run, modules=("rtsep.learn",))


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
    if args.output.exists() and not args.overwrite:
        raise FileError(f"{args.output} exists (--overwrite replaces it)")
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
    print(
        f"{args.output}: {learned}; {args.atoms} atoms each, for streams of {framing.sr} Hz with hops of {framing.hop}"
    )
    if args.plot:
        from rtsep.plots import plot_dictionary

        picture = args.output.with_suffix(".png")
        plot_dictionary(picture, dictionary)
        print(f"{picture}: atoms, frames, activations and cost")
    return 0


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
        files = [r.path for r in find_recordings(place, _say_skipped)] if place.is_dir() else [place]
        found[name] = files
    return found


def _say_skipped(path: Path, reason: str) -> None:
    print(f"rtsep: {path}: {reason}; skipped", file=sys.stderr)
