"""Recipes: everything that makes a model, in one TOML file."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from rtsep.config import ConfigError, check_choice
from rtsep.estimators.learned import Speech, Talkers
from rtsep.estimators.model_file import HOPS_MS, Shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent / "recipes"
KINDS = ("speech", "noise", "music")
FAINTEST_DB = 200.0  # of levels: beyond, nothing is left in float32


@dataclass(frozen=True)
class Corpus:
    """Recordings of one origin.

    Parameters
    ----------
    name, licence, source : str
        What it is, under which licence, and where anyone can get it.
    folder : str
        Below the folder of its kind.
    group : str
        Regular expression; what it finds in the name of a file below `folder` (its first group, if it has one) names
        the speaker, or whatever else must not be both in training and in validation. Default: the subfolder; without
        subfolders all speech is of one speaker, and every other recording is a group of its own.
    exclude : str
        Regular expression for names of files that are left out.
    weight : float
        How often it is drawn, against the other corpora of its kind.
    validation : float
        Share of the groups that are held out for validation, 0 to 1.
    range_db : float
        Recordings whose loudest frames are less than that above their quietest ones are left out: they are noisy.
    known : bool
        Validate with known voices: not groups are held out, but the end of every recording.
    """

    name: str
    licence: str
    source: str
    folder: str = "."
    group: str = ""
    exclude: str = ""
    weight: float = 1.0
    validation: float = 0.1
    known: bool = False
    range_db: float = 0.0

    def __post_init__(self) -> None:
        for name in ("group", "exclude"):
            try:
                re.compile(getattr(self, name))
            except (re.error, OverflowError, RecursionError) as problem:
                raise ConfigError(f"{name}={getattr(self, name)!r} is no regular expression: {problem}") from None
        _check("weight", self.weight, 0, 1e6)
        _check("validation", self.validation, 0, 1)
        _check("range_db", self.range_db, 0, 120)


@dataclass(frozen=True)
class Mixtures:
    """How recordings are mixed; shares are of the mixtures, 0 to 1.

    Parameters
    ----------
    talkers : int
        1 or 2. Their sources are those of the estimators `speech` and `talkers`.
    snr_db : list of 4 numbers
        Active speech to noise in dB: mean and standard deviation, least and most.
    talkers_db : list of 2 numbers
        Range of the level of the second talker against the first.
    level_db : list of 2 numbers
        Range of the RMS of the mixture in dBFS.
    speed : float
        Largest change of speed and pitch of speech, 0 to 0.2.
    noise_speed : float
        Largest change of speed and pitch of recorded noise and music, a factor from 1 to 3.
    noise : float
        Mixtures with noise; the others have that of a microphone alone.
    noise_only : float
        Mixtures without speech.
    pauses : float
        Talkers that are silent for a stretch, and noises for half as many.
    rooms : float
        Mixtures in a simulated room; speech in a room stays speech in that room.
    clipping : float
        Mixtures that are clipped; the distortion belongs to the residual.
    synthetic, babble, music : float
        Noises made by a generator, made of training speech, and taken from music.
    others : float
        Mixtures in which somebody else speaks, who belongs to the residual, as loud as `talkers_db` says.
    """

    talkers: int = 1
    snr_db: tuple[float, float, float, float] = (5.0, 7.0, -7.0, 20.0)
    talkers_db: tuple[float, float] = (-5.0, 5.0)
    level_db: tuple[float, float] = (-45.0, -10.0)
    speed: float = 0.08
    noise_speed: float = 1.6
    noise: float = 0.9
    noise_only: float = 0.05
    pauses: float = 0.3
    rooms: float = 0.3
    clipping: float = 0.03
    synthetic: float = 0.2
    babble: float = 0.1
    music: float = 0.1
    others: float = 0.0

    def __post_init__(self) -> None:
        if self.talkers not in (1, 2):
            raise ConfigError(f"talkers={self.talkers} is neither 1 nor 2")
        for name in ("noise", "noise_only", "pauses", "rooms", "clipping", "synthetic", "babble", "music", "others"):
            _check(name, getattr(self, name), 0, 1)
        _check("speed", self.speed, 0, 0.2)
        _check("noise_speed", self.noise_speed, 1, 3)
        for name, n in (("snr_db", 4), ("talkers_db", 2), ("level_db", 2)):
            values: tuple[float, ...] = getattr(self, name)
            if len(values) != n or not all(map(math.isfinite, values)) or values[-2] > values[-1]:
                raise ConfigError(f"{name}={list(values)} is not {n} numbers that end in a range")
            for value in values:
                _check(name, value, -FAINTEST_DB, FAINTEST_DB)
        _check("deviation in snr_db", self.snr_db[1], 0, 100)
        if self.synthetic + self.babble + self.music > 1:
            raise ConfigError("synthetic, babble and music are together more than 1")

    @property
    def speakers(self) -> int:
        """That a mixture needs."""
        return self.talkers + (self.others > 0)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources: those of the estimator."""
        return (Speech if self.talkers == 1 else Talkers).sources


@dataclass(frozen=True)
class Enrolment:
    """How a talker is made known (`rtsep.estimators.enrolment`): the network of `target` is told whom to listen to.

    Parameters
    ----------
    voice : int
        Numbers that a voice becomes.
    channels : int
        Of the network that finds them.
    seconds : float
        Of other recordings of the talker in training.
    """

    voice: int = 32
    channels: int = 80
    seconds: float = 5.0

    def __post_init__(self) -> None:
        _check("voice", self.voice, 1, 256)
        _check("channels", self.channels, 1, 512)
        _check("seconds", self.seconds, 0.5, 60)


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own batches, loss and learning rate.

    Parameters
    ----------
    name : str
    steps, batch : int
        Updates of the weights; mixtures in each.
    seconds : float
        Length of a mixture.
    lr : float
        Learning rate of the matrices (`rtsep.training.optimizer`) after the warm-up; it falls by a cosine to a
        twentieth.
    hop_ms : int
        Between frames, 4 or 8, and not more than that of the network. The engine has 4 if not told otherwise, and with
        8 all is twice as quick.
    magnitude, complex, si_sdr, misi, omisi, perceptual, estoi : float
        Weights of the losses (`rtsep.training.losses`); three are those of the SI-SDR in dB: of the masks, after
        offline MISI, and after online MISI; then that of what listeners notice (`rtsep.training.loudness`), and that of
        what they understand (`rtsep.training.intelligibility`).
    distil : float
        Weight of the squared difference from what the recipe's `teacher` says of the bands, summed over the heads.
    """

    name: str
    steps: int
    batch: int
    seconds: float
    lr: float = 3e-3
    hop_ms: int = 4
    magnitude: float = 10.0
    complex: float = 5.0
    si_sdr: float = 0.1
    misi: float = 0.0
    omisi: float = 0.0
    perceptual: float = 0.0
    estoi: float = 0.0
    distil: float = 0.0

    def __post_init__(self) -> None:
        _check("steps", self.steps, 1, 10_000_000)
        _check("batch", self.batch, 1, 4096)
        _check("seconds", self.seconds, 0.25, 600)
        _check("lr", self.lr, 1e-8, 1)
        check_choice("hop_ms", self.hop_ms, HOPS_MS)
        for name in ("magnitude", "complex", "si_sdr", "misi", "omisi", "perceptual", "estoi", "distil"):
            _check(name, getattr(self, name), 0, 1e4)
        if self.estoi and self.seconds < 0.5:
            raise ConfigError(f"estoi={self.estoi:g} needs mixtures of 0.5 s or more, not seconds={self.seconds:g}")


@dataclass(frozen=True)
class Recipe:
    """What makes a model.

    Parameters
    ----------
    name : str
    network : Shape
    mixtures : Mixtures
    stages : list of Stage
    corpora : dict of str to list of Corpus
        Of the kinds "speech", "noise", "music".
    seed : int
    epoch : int
        Steps from one validation to the next.
    validation, validation_s : int, float
        Mixtures for validation, and the length of each.
    select : {"mask", "misi", "heard", "all", "told"}
        Which score makes the best model of a stage, which the best of the next replaces (with a `start`, of all
        stages); "heard": that of the masks or that after online MISI, whichever is better;
        "all": the masks by SI-SDR, PESQ and ESTOI together, "told": where who is enrolled speaks and where not
        (`rtsep.training.validation.Scores`).
    start : str
        A model file, or the name of a shipped one, whose weights the training begins with; by default random ones.
        Its layers are those of `network`; where its talkers are more or fewer, what it says of them on average is said
        of each. With `enrolment` also a file of voices.
    keep : float
        Share of the weights of `start` in those that are validated and written: what is new is learned, what was known
        before is not lost (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, eq. 1).
    teacher : str
        A model file, or the name of a shipped one, of the same bands: what `distil` learns from.
    enrolment : Enrolment, optional
        Makes a network that is told whom to listen to, for one talker.
    """

    name: str
    network: Shape
    mixtures: Mixtures
    stages: tuple[Stage, ...]
    corpora: dict[str, tuple[Corpus, ...]] = field(default_factory=dict)
    seed: int = 0
    epoch: int = 200
    validation: int = 40
    validation_s: float = 4.0
    select: str = "mask"
    start: str = ""
    keep: float = 0.0
    teacher: str = ""
    enrolment: Enrolment | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("there are no stages")
        if self.network.n_src != len(self.mixtures.sources):
            raise ConfigError(f"n_src={self.network.n_src}, but the mixtures have {len(self.mixtures.sources)} sources")
        for stage in self.stages:
            if stage.hop_ms > self.network.hop_ms:
                raise ConfigError(f"hop_ms={stage.hop_ms} of stage {stage.name!r} is above {self.network.hop_ms}")
        if not self.corpora.get("speech"):
            raise ConfigError("there is no [[speech]]")
        _check("keep", self.keep, 0, 1)
        if self.keep and not self.start:
            raise ConfigError(f"keep={self.keep}, but there is no start")
        if bool(self.teacher) != any(stage.distil for stage in self.stages):
            raise ConfigError("a teacher and stages with distil need each other")
        if self.enrolment and self.mixtures.talkers != 1:
            raise ConfigError("[enrolment] is for one talker")
        if self.select == "told" and not self.enrolment:
            raise ConfigError("select='told', but there is no [enrolment]")
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("epoch", self.epoch, 1, 1_000_000)
        _check("validation", self.validation, 1, 10_000)
        _check("validation_s", self.validation_s, 0.25, 600)
        check_choice("select", self.select, ("mask", "misi", "heard", "all", "told"))

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest of the model: what `recipe_from` takes."""
        values = asdict(self)
        return {k: v for k, v in values.items() if k != "corpora"} | values["corpora"]


def read_recipe(path: Path) -> Recipe:
    """A recipe from a file, or a shipped one by its name ("speech"). Raises `ConfigError`."""
    if not path.suffix and not path.is_file():
        path = SHIPPED / f"{path.name}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        reason = getattr(problem, "strerror", None) or "is not text"
        raise ConfigError(f"recipe {path}: {reason}; shipped ones: {names}") from None
    try:
        return recipe_from(tomllib.loads(text))
    except (ValueError, RecursionError) as problem:  # of tomllib, and ours
        raise ConfigError(f"recipe {path}: {problem}") from None


def recipe_from(table: dict[str, Any]) -> Recipe:
    """A recipe from plain values. Raises `ConfigError`."""
    table = dict(table)
    corpora = {kind: _build_all(Corpus, table.pop(kind, ()), f"[[{kind}]]") for kind in KINDS}
    parts = {
        "network": _build(Shape, table.pop("network", {}), "[network]"),
        "mixtures": _build(Mixtures, table.pop("mixtures", {}), "[mixtures]"),
        "stages": _build_all(Stage, table.pop("stages", ()), "[[stages]]"),
    }
    if table.get("enrolment") is not None:
        parts["enrolment"] = _build(Enrolment, table.pop("enrolment"), "[enrolment]")
    return _build(Recipe, table | parts | {"corpora": corpora}, "the recipe")


def _build_all(cls: type, tables: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(tables, (list, tuple)):
        raise ConfigError(f"{where} needs two brackets: there may be several")
    return tuple(_build(cls, table, where) for table in tables)


def _build(cls: type, table: Any, where: str) -> Any:
    """An instance of a dataclass, with all names and types checked."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is not a table")
    known = {f.name: f for f in fields(cls)}
    for name in table:
        if name not in known:
            raise ConfigError(f"{where} has {name!r}; known are {', '.join(known)}")
    hints = get_type_hints(cls)
    values = {}
    for name, f in known.items():
        if name in table:
            values[name] = _convert(table[name], hints[name], f"{where}: {name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where} has no {name!r}")
    try:
        return cls(**values)
    except ConfigError as problem:
        raise ConfigError(f"{where}: {problem}") from None


def _convert(value: Any, kind: Any, where: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and number:
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where} has an integer beyond what a float can be") from None
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}={value!r} is not a list")
        return tuple(_convert(v, get_args(kind)[0], where) for v in value)
    if kind in (int, str, bool, float) and type(value) is not kind:
        raise ConfigError(f"{where}={value!r} is not of type {kind.__name__}")
    return value


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} is not between {low:g} and {high:g}")
