"""`rtsep train`: a model from folders of recordings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.cli.inputs import given_path
from rtsep.cli.machine import add_json_option
from rtsep.cli.progress import progress_bar
from rtsep.cli.signals import gently
from rtsep.cli.skipped import saying_skipped
from rtsep.errors import ConfigError
from rtsep.staging import alone

if TYPE_CHECKING:
    from rtsep.estimators.enrolment import Voices
    from rtsep.estimators.model_file import Model
    from rtsep.training.corpus import Split
    from rtsep.training.recipe import Recipe
    from rtsep.training.train import Training

DESCRIPTION = """\
Train a learned estimator from folders of recordings, on the processor, in hours; or adapt one to recordings of a voice
or noise, in minutes, or of two voices, in about an hour. Needs PyTorch, and to select by PESQ and ESTOI, as the recipes
speech and speech_small do, their packages: pip install 'rtsep[train,eval]'.
"""
EPILOG = """\
examples:
  rtsep train speech --speech voices/ --noise noises/ -o my_speech.npz --hours 4
  rtsep train speech --speech voices/ --noise noises/ -o my_speech.npz --resume
  rtsep train speech --speech voices/ --noise noises/ --music music/ --pack -o corpus.zip
  rtsep train speech --packed corpus.zip -o my_speech.npz
  rtsep train --adapt speech --speech me/ -o me.npz
  rtsep train --adapt talkers --speech us/ -o us.npz         (a folder for each voice in us/)
  rtsep separate --model my_speech.npz talk.wav
  rtsep separate --estimator talkers --model us.npz talk.wav

A recipe names its corpora with their licences, and where to get them; each is a folder below DIR. Folders of your own,
with a subfolder for each speaker and for each kind of noise, take their place. Speakers and noises for validation are
taken out of the training. The model is written after each validation in which it is the best so far, of its stage or,
with a start of its kind, of all; beside it a picture of all validations, FILE.png, and a checkpoint, from which
--resume goes on exactly. Ctrl-C ends the training after the step under way; a second one ends it at once, and loses a
minute at most.
"""


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "train",
        help="train a learned estimator, or adapt one to known voices or noises",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        type=given_path,
        metavar="RECIPE",
        help="a TOML file, or speech, speech_small, talkers or target",
    )
    parser.add_argument(
        "--adapt", type=given_path, metavar="MODEL", help="adapt this model: a file, or the name of a shipped one"
    )
    recordings = parser.add_argument_group("recordings", "Folders.")
    recordings.add_argument(
        "--speech", type=given_path, metavar="DIR", help="speech; to adapt: a subfolder for a voice"
    )
    recordings.add_argument("--noise", type=given_path, metavar="DIR", help="noise")
    recordings.add_argument("--music", type=given_path, metavar="DIR", help="music, which is one more noise")
    recordings.add_argument(
        "--packed", type=given_path, metavar="FILE", help="all of them, packed before: in place of the folders"
    )
    recordings.add_argument(
        "--general-speech",
        type=given_path,
        metavar="DIR",
        help="with --adapt: other speech, so that it is not forgotten",
    )
    recordings.add_argument("--general-noise", type=given_path, metavar="DIR", help="with --adapt: other noise")
    recordings.add_argument(
        "--test",
        type=given_path,
        metavar="DIR",
        action="append",
        default=[],
        help="refuse to train on what is in this folder; may be repeated",
    )
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="FILE", help="the model, *.npz")
    parser.add_argument(
        "--pack", action="store_true", help="do not train: write the recordings into one small file, *.zip"
    )
    parser.add_argument("--hours", type=float, metavar="H", help="stop after so many, over all runs (default: never)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace model and checkpoint")
    parser.add_argument("--jobs", type=int, metavar="N", help="threads (default: cores)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read recordings, train, write."""
    _check(args)
    # First, for the error without PyTorch.
    from rtsep.training.train import checkpoint_of, picture_of

    suffix = ".zip" if args.pack else ".npz"
    if args.output.suffix != suffix:
        raise ConfigError(f"{args.output} does not end in {suffix}")
    if not args.output.parent.is_dir():
        raise ConfigError(f"{args.output}: there is no such folder")
    kept = checkpoint_of(args.output)
    if args.resume and not kept.exists():
        raise ConfigError(f"checkpoint {kept}: there is none to resume from")
    written = (args.output,) if args.pack else (args.output, kept, picture_of(args.output))
    with alone(args.output):
        for path in written:
            if path.is_dir():
                raise ConfigError(f"{path} is a folder")
            if path.exists() and not (args.resume or args.overwrite):
                goes_on = "--resume goes on, " if kept.exists() and not args.pack else ""
                again = "replaces it" if args.pack else "starts again"
                raise ConfigError(f"{path} exists ({goes_on}--overwrite {again})")
        return _run(args, kept)


def _run(args: argparse.Namespace, kept: Path) -> int:
    from rtsep.evaluation.checks import require
    from rtsep.evaluation.workers import cores
    from rtsep.training.adapt import adapt_recipe
    from rtsep.training.corpus import check_folder, check_unseen, load_corpora, split_corpora
    from rtsep.training.mixer import Mixer
    from rtsep.training.pack import read_pack, write_pack
    from rtsep.training.recipe import KINDS, read_recipe
    from rtsep.training.train import Training

    teacher = None
    start: Model | Voices | None
    if args.adapt:
        start = _model_to_start_from(args.adapt)
        own = tuple(kind for kind in ("speech", "noise") if getattr(args, kind))
        general = tuple(kind for kind in ("speech", "noise") if getattr(args, f"general_{kind}"))
        recipe = adapt_recipe(start, own, general)
        if "noise" not in own + general:
            _say("without --noise or --general-noise, noise is synthetic")
    else:
        recipe = _with_own(args, read_recipe(args.recipe))
        for name in ("start", "teacher"):
            if (given := getattr(recipe, name)) and Path(given).resolve() == args.output.resolve():
                raise ConfigError(f"{args.output} is the {name} of the recipe: another name for the new one, please")
        start = _start_of(recipe)
        teacher = _model_to_start_from(Path(recipe.teacher)) if recipe.teacher else None
        if teacher and not teacher.shape.hears_and_says_as(recipe.network):
            raise ConfigError(f"recipe {recipe.name!r}: the bands are not those of its teacher, {recipe.teacher}")
    if recipe.select == "all":
        require("pesq", "eval")
        require("pystoi", "eval")
    jobs = args.jobs or cores()
    with saying_skipped() as skipped:
        if args.packed:
            loaded = read_pack(args.packed, {kind: recipe.corpora.get(kind, ()) for kind in KINDS}, jobs)
        else:
            loaded = {}
            places = {kind: _places(args, recipe, kind) for kind in KINDS}
            for kind in KINDS:  # all of them, before one is read for minutes
                for corpus, below in places[kind]:
                    check_folder(corpus, below)
            for kind in KINDS:
                with progress_bar(f"reading {kind}") as progress:
                    loaded[kind] = load_corpora(places[kind], kind, skipped, progress)
        for corpora in loaded.values():
            check_unseen((clip for _, clips in corpora for clip in clips), args.test, skipped)
    if args.pack:
        with progress_bar("packing") as progress:
            write_pack(args.output, loaded, jobs, progress)
        hours = (
            sum(clip.samples.size for some in loaded.values() for _, clips in some for clip in clips) / 16_000 / 3600
        )
        args.report = {"packed": str(args.output), "hours": hours}
        _say(f"{args.output}: {hours:.2f} h in {args.output.stat().st_size / 2**20:.0f} MiB")
        return 0
    splits: dict[str, Split] = {}
    for kind, corpora in loaded.items():
        splits[kind] = split_corpora(corpora, recipe.mixtures.speakers if kind == "speech" else 1)
        for side in ("training", "validation"):
            if corpora:
                _say(f"{kind}, {side}: {_describe(splits[kind], side)}")
    mixers = {}
    for side in ("training", "validation"):
        speech, noise, music = (getattr(splits[kind], side) for kind in KINDS)
        if len(speech) < recipe.mixtures.speakers:
            more = ", or longer recordings" if args.adapt else "; both sides have others"
            raise ConfigError(
                f"speakers for {side}: {len(speech)}, of {recipe.mixtures.speakers} that a mixture needs: "
                f"give more, each in a subfolder{more}"
            )
        enrol_s = recipe.enrolment.seconds if recipe.enrolment else 0.0
        mixers[side] = Mixer(recipe.mixtures, speech, noise, music, recipe.seed + (side == "validation"), enrol_s)
    if known := [voice.split("/", 1)[1] for voice in mixers["training"].known]:
        _say(f"talker1 is the lower voice; from low to high: {', '.join(known)}")
    data = {kind: split.as_dict() for kind, split in splits.items() if len(split.training)}
    training = Training(recipe, mixers["training"], mixers["validation"], args.output, data, jobs, start, teacher)
    if args.overwrite:
        kept.unlink(missing_ok=True)  # so that --resume never goes on with what was to be replaced
    if args.resume:
        there = training.resume()
        _say(f"resumed at step {training.progress.step} of {recipe.steps}")
        if training.progress.history and not there:
            state = "damaged" if args.output.exists() else "gone"
            _say(f"{args.output} is {state}: the best model from here on is kept")
        if args.jobs not in (None, training.jobs):
            _say(f"--jobs {args.jobs} has no effect: to go on exactly, it keeps the {training.jobs} of its start")
    seconds = 3600 * args.hours if args.hours else float("inf")
    with gently() as stopped:
        work = f"{training.jobs} threads" + (", the network on a GPU" if training.device.type == "cuda" else "")
        _say(f"{recipe.network.n_parameters:,} weights, {recipe.steps} steps, {work}; Ctrl-C stops")
        with progress_bar("training") as progress:
            complete = training.run(seconds, _say_scores, progress, stopped)
        done = training.progress
        args.report = {"model": str(args.output), "complete": complete, "steps": done.step, "of": recipe.steps}
        args.report |= {"hours": done.elapsed_s / 3600, "validation": list(done.history)}
        _say(
            f"{args.output}: {'complete' if complete else 'stopped'} after {done.step} of {recipe.steps} steps, "
            f"{done.audio_s / 3600:.1f} h of mixtures in {done.elapsed_s / 3600:.2f} h; {_describe_best(training)}"
            f"{'' if complete else '; --resume goes on'}"
        )
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.recipe is None) == (args.adapt is None):
        raise ConfigError("give either a RECIPE or --adapt MODEL")
    if args.resume and args.overwrite:
        raise ConfigError("--resume goes on, --overwrite starts again: give one of them")
    if args.hours is not None and not args.hours > 0:
        raise ConfigError(f"hours={args.hours:g} is not above 0")
    if args.jobs is not None and not 1 <= args.jobs <= 64:
        raise ConfigError(f"jobs={args.jobs} is not between 1 and 64")
    given = (args.speech, args.noise, args.music, args.general_speech, args.general_noise)
    for folder in (*given, *args.test):
        if folder and not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder")
    if args.packed and any(given):
        raise ConfigError("--packed has all recordings: leave out the folders")
    if args.pack and args.resume:
        raise ConfigError("--resume goes on with a training: --pack is none")
    if args.adapt and (args.pack or args.packed):
        raise ConfigError("--pack and --packed are for a RECIPE")
    if args.adapt:
        if not (args.speech or args.noise):
            raise ConfigError("what is there to adapt to? --speech DIR, --noise DIR or both")
        if args.adapt.resolve() == args.output.resolve():
            raise ConfigError(f"{args.output} is the model to adapt: another name for the new one, please")
        if args.music:
            raise ConfigError("--music is not for --adapt: --noise and --general-noise take music as well")
    elif args.general_speech or args.general_noise:
        raise ConfigError("--general-speech and --general-noise are for --adapt")


def _start_of(recipe: Recipe) -> Model | Voices | None:
    from rtsep.estimators.enrolment import SHIPPED, Voices, read_voices

    if not recipe.start:
        return None
    given = Path(recipe.start)
    start: Model | Voices
    if recipe.enrolment and _is_target(given):
        start = read_voices(given if given.is_file() else SHIPPED)
    else:
        start = _model_to_start_from(given)
    of_start: tuple[Any, ...] = (start.shape,)
    expected: tuple[Any, ...] = (recipe.network,)
    if isinstance(start, Voices):
        assert recipe.enrolment
        of_start += (start.voice, start.channels)
        expected += (recipe.enrolment.voice, recipe.enrolment.channels)
    else:  # of however many talkers
        expected = (replace(recipe.network, n_src=start.shape.n_src),)
    if of_start != expected:
        raise ConfigError(f"recipe {recipe.name!r}: the network is not that of its start, {recipe.start}")
    return start


def _is_target(given: Path) -> bool:
    from rtsep.estimators.enrolment import FORMAT
    from rtsep.models import header_of

    return header_of(given)["format"] == FORMAT if given.is_file() else str(given) == "target"


def _model_to_start_from(given: Path) -> Model:
    from rtsep.estimators.learned import Speech, SpeechSmall, Talkers
    from rtsep.estimators.model_file import read_model

    if _is_target(given):
        raise ConfigError(f"{given} is fitted to people by rtsep enrol, and learns from many by rtsep train target")
    shipped = {estimator.name: estimator for estimator in (Speech(), SpeechSmall(), Talkers())}
    return shipped[str(given)].load() if str(given) in shipped and not given.is_file() else read_model(given)


def _with_own(args: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The recipe on the user's own folders, if the one with speech has none of the recipe's corpora in it."""
    from rtsep.training.recipe import KINDS, Corpus

    known = [corpus.folder for corpus in recipe.corpora["speech"]]
    if (
        args.packed
        or args.speech is None
        or not args.speech.is_dir()
        or any((args.speech / name).is_dir() for name in known)
    ):
        return recipe
    given = [kind for kind in KINDS if getattr(args, kind)]
    _say(f"{args.speech} has none of {', '.join(known)}: network and stages of the recipe, recordings of your own")
    if "noise" not in given:
        _say("without --noise, noise is synthetic" + (" or music" if "music" in given else ""))
    own: dict[str, tuple[Corpus, ...]] = {
        kind: (Corpus("own", "as given", "as given"),) if kind in given else () for kind in KINDS
    }
    return replace(recipe, corpora=own)


def _places(args: argparse.Namespace, recipe: Recipe, kind: str) -> list[tuple[Any, Path]]:
    """The corpora of a kind, with the folders they are in."""
    corpora = recipe.corpora.get(kind, ())
    if args.adapt:
        folders = {"own": getattr(args, kind), "general": getattr(args, f"general_{kind}", None)}
        return [(corpus, folders[corpus.name]) for corpus in corpora]
    folder = getattr(args, kind)
    if corpora and folder is None:
        raise ConfigError(f"recipe {recipe.name!r} needs {kind}: --{kind} DIR")
    if folder and not corpora:
        raise ConfigError(f"recipe {recipe.name!r} has no [[{kind}]]: leave out --{kind}")
    return [(corpus, folder / corpus.folder) for corpus in corpora]


def _describe(split: Split, side: str) -> str:
    pool = getattr(split, side)
    return f"{pool.seconds / 3600:.2f} h, {sum(1 for _ in pool.clips)} recordings, {len(pool)} speakers or origins"


def _describe_best(training: Training) -> str:
    best = next((entry for entry in reversed(training.progress.history) if entry.get("best")), None)
    if best is None:
        return "not validated yet, so there is no model"
    select = training.recipe.select
    better = "" if best["step"] else ", the model it came from: nothing here is better"
    return f"best {select} {best['score']:.2f} dB{better}"


def _say_scores(entry: dict[str, Any]) -> None:
    scores = ", ".join(f"{name} {entry[name]:+.2f}" for name in ("mask", "magnitudes", "misi", "omisi"))
    others = "".join(f"; {name.upper()} {entry[name]:+.3f}" for name in ("pesq", "estoi") if name in entry)
    if "silence" in entry:
        others += f"; {-entry['silence']:.1f} dB less where the talker is silent"
    loss = f"loss {entry['loss']:.3f}; " if "loss" in entry else ""
    _say(
        f"step {entry['step']} ({entry['stage']}, {entry['audio_h']:.1f} h of mixtures in {entry['hours']:.2f} h): "
        f"{loss}SI-SDR {scores} dB{others}"
        f"{' *' if entry.get('best') else ''}"
    )


def _say(text: str) -> None:
    print(text, flush=True)
