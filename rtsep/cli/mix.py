"""`rtsep mix`: mixtures from folders of recordings."""

from __future__ import annotations

import argparse
from typing import Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.progress import progress_bar
from rtsep.cli.skipped import saying_skipped

DESCRIPTION = """\
Mix recordings from folders: mixture and true sources as files, and a manifest that `rtsep evaluate` reads.
The same recordings, options and seed give the same samples on any machine.
"""
EPILOG = """\
examples:
  rtsep mix --speech voices/ --noise street/ -o mixtures --count 100 --snr -5 15
  rtsep mix --speech voices/ --talkers 2 -o two_talkers --seed 1
  rtsep mix --speech voices/ --noise street/ --rooms responses/ -o reverberant

Recordings that are too long are cut, speech that is too short stands in silence, noise and music are repeated.
Files that cannot be read are named and left out. Lossy recordings (MP3, Ogg) may be decoded differently elsewhere.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "mix",
        help="make mixtures of recordings to evaluate with",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recordings = parser.add_argument_group("recordings", "Folders; at least two sources.")
    recordings.add_argument("--speech", type=given_path, metavar="DIR", help="speech")
    recordings.add_argument("--noise", type=given_path, metavar="DIR", help="noise; its subfolders are its classes")
    recordings.add_argument("--music", type=given_path, metavar="DIR", help="music")
    recordings.add_argument(
        "--rooms", type=given_path, metavar="DIR", help="room responses: sources are as these rooms make them"
    )
    recordings.add_argument(
        "--talkers", type=int, default=1, metavar="N", help="pieces of speech in a mixture (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="mixtures (default: %(default)s)")
    parser.add_argument(
        "--duration", type=float, default=5.0, metavar="S", help="of each, in seconds (default: %(default)g)"
    )
    parser.add_argument("--rate", type=int, default=16_000, metavar="HZ", help="sample rate (default: %(default)s)")
    parser.add_argument(
        "--snr",
        type=float,
        nargs=2,
        default=(-5.0, 15.0),
        metavar=("MIN", "MAX"),
        help="range of speech to noise, and to music, in dB (default: -5 15)",
    )
    parser.add_argument(
        "--level",
        type=float,
        nargs=2,
        default=(-30.0, -20.0),
        metavar=("MIN", "MAX"),
        help="range of the level of the mixture, RMS in dBFS (default: -30 -20)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other mixtures (default: 0)")
    parser.add_argument(
        "--format",
        default="flac",
        choices=("flac", "wav24", "wav16"),
        help="24-bit FLAC, 24-bit or 16-bit WAV (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_json_option(parser)
    parser.set_defaults(run=run, modules=("rtsep.evaluation.mix",))


def run(args: argparse.Namespace) -> int:
    """Find recordings, mix, write."""
    from rtsep.evaluation.mix import Mixer, Mixtures, write_mixtures
    from rtsep.recordings import find_recordings

    mixtures = Mixtures(
        args.count, args.duration, args.rate, args.talkers, tuple(args.snr), tuple(args.level), args.seed, args.format
    )
    folders = {"speech": args.speech, "noise": args.noise, "music": args.music, "rooms": args.rooms}
    with saying_skipped() as skipped:
        pools = {name: find_recordings(folder, skipped) if folder else [] for name, folder in folders.items()}
        mixer = Mixer(mixtures, **pools, skipped=skipped)
        with progress_bar("mixing") as progress:
            manifest = write_mixtures(mixer, args.output, args.overwrite, progress)
    args.report = {"manifest": str(manifest), "count": mixtures.count, "sources": list(mixer.pools)}
    args.report |= {"duration_s": mixtures.duration_s, "sr": mixtures.sr, "seed": mixtures.seed}
    print(f"{manifest}: {mixtures.count} mixtures of {', '.join(mixer.pools)}, {mixtures.duration_s:g} s each")
    return 0
