"""What the estimator `target` is worth: one person, enrolled by another stretch of speech, among others.

    python bench/target.py -o docs --speech FOLDER --noise FOLDER [--several FOLDER]

Writes target.json and target.md. Files of the first folder are named `SPEAKER_F.*` or `SPEAKER_M.*`, one of each
speaker; their last five seconds are mixed, what is before enrols. Of those that `--several` has, `SPEAKER__*`, the
longest recording is mixed, and others enrol. 16 kHz, as `rtsep separate --voice` does it;
`talkers` beside it has the better of its two orders for the whole file. Intervals are those of the mean, 95 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study import measured, parser, publish, table

from rtsep import StreamConfig, separate
from rtsep.enrol import enrol
from rtsep.estimators import Target
from rtsep.estimators.enrolment import SHIPPED, read_voices
from rtsep.evaluation import si_sdr
from rtsep.evaluation.report import provenance
from rtsep.recordings import find_recordings, read_mono

SR = 16_000
MIXED_S, LEAST_S, MOST_S = 5, 6, 10  # seconds of a mixture, and of an enrolment
LATENCIES_MS = (16, 8)
OTHERS_DB, NOISE_DB, BABBLE_DB = (-5, 5), 5, 5  # the person over each
N_BABBLE = 6
ACTIVE_DB = -20.0  # level of a voice in a second, against that in the file, from which on it is active
SILENT = 1e-10


class Speaker(NamedTuple):
    sex: str
    enrolment: np.ndarray
    speech: np.ndarray  # of power one


class Scene(NamedTuple):
    """What is mixed; `other` is the only other voice, or nothing."""

    speaker: Speaker
    person: np.ndarray
    rest: np.ndarray
    other: np.ndarray | None


def speakers(folder: Path) -> list[Speaker]:
    found = []
    for recording in find_recordings(folder, print):
        x = read_mono(recording.path, SR)[0]
        if x.size >= (MIXED_S + LEAST_S) * SR:
            before, speech = x[: -MIXED_S * SR][: MOST_S * SR], x[-MIXED_S * SR :]
            found.append(Speaker(recording.path.stem[-1], before, speech / speech.std()))
    return found


def speakers_of_several(folder: Path) -> list[Speaker]:
    """Each with the beginning of the longest recording, enrolled by others."""
    of: dict[str, list[np.ndarray]] = {}
    for recording in find_recordings(folder, print):
        of.setdefault(recording.path.name.partition("__")[0], []).append(read_mono(recording.path, SR)[0])
    found = []
    for some in of.values():
        longest, *others = sorted(some, key=len, reverse=True)
        enrolment = np.concatenate([*others, np.zeros(0)])[: MOST_S * SR]
        if longest.size >= MIXED_S * SR and enrolment.size >= LEAST_S * SR:
            speech = longest[: MIXED_S * SR]
            found.append(Speaker("", enrolment, speech / speech.std()))
    return found


def gain(db: float) -> float:
    return 10 ** (db / 20)


def noise_piece(rng: np.random.Generator, noises: Sequence[np.ndarray]) -> np.ndarray:
    x = np.resize(noises[rng.integers(len(noises))], max(MIXED_S * SR, 1))
    return x / x.std()


def scenes(kind: str, people: list[Speaker], noises: list[np.ndarray], count: int) -> list[Scene]:
    rng, made = np.random.default_rng(0), []
    sexes = {"a woman and a man": "FM", "two women": "FF", "two men": "MM"}
    while len(made) < count:
        one, *rest = (people[i] for i in rng.permutation(len(people)))
        if kind in sexes:
            wanted = sexes[kind] if len(made) % 2 else sexes[kind][::-1]
            if one.sex != wanted[0]:
                continue
            rest = [speaker for speaker in rest if speaker.sex == wanted[1]]
        voice = rest[0].speech * gain(-rng.uniform(*OTHERS_DB))
        silence = np.zeros_like(voice)
        if kind == "babble":
            sum_ = np.sum([speaker.speech for speaker in rest[:N_BABBLE]], 0)
            made.append(Scene(one, one.speech, sum_ / sum_.std() * gain(-BABBLE_DB), None))
        elif kind == "noise":
            made.append(Scene(one, one.speech, noise_piece(rng, noises) * gain(-NOISE_DB), None))
        elif kind == "noise and somebody else":
            made.append(Scene(one, one.speech, voice + noise_piece(rng, noises) * gain(-NOISE_DB), voice))
        elif kind == "the person alone":
            made.append(Scene(one, one.speech, silence, None))
        elif kind == "somebody else alone":
            made.append(Scene(one, silence, voice, None))
        elif kind == "noise alone":
            made.append(Scene(one, silence, noise_piece(rng, noises), None))
        else:
            made.append(Scene(one, one.speech, voice, voice))
    return made


KINDS = (
    "a woman and a man",
    "two women",
    "two men",
    "noise",
    "noise and somebody else",
    "babble",
)
ANOTHER = "two people, other recordings enrol"
ABSENT = ("somebody else alone", "noise alone")
ALONE = "the person alone"


def wrong_seconds(scene: Scene, heard: np.ndarray) -> tuple[int, int]:
    """Seconds in which the other voice is heard rather than the person, and those in which both speak."""
    if scene.other is None:
        return 0, 0
    wrong = both = 0
    for start in range(0, heard.size - SR + 1, SR):
        second = slice(start, start + SR)
        voices = (scene.person, scene.other)
        if all(voice[second].std() > voice.std() * gain(ACTIVE_DB) for voice in voices):
            both += 1
            wrong += si_sdr(scene.other[second], heard[second]) > si_sdr(scene.person[second], heard[second])
    return wrong, both


def hear_scene(separators: dict[str, Callable[[Scene, np.ndarray], np.ndarray]], scene: Scene) -> dict[str, Any]:
    """SI-SDR improvement, level of what is heard against the mixture, and wrong seconds, for each separator."""
    mixture = (scene.person + scene.rest).astype(np.float32) * np.float32(0.05)
    found = {}
    for name, separator in separators.items():
        heard = separator(scene, mixture)
        wrong, both = wrong_seconds(scene, heard)
        level = float(10 * np.log10((np.mean(heard**2) + SILENT) / np.mean(mixture**2)))
        present = scene.person.any()
        before = si_sdr(scene.person, mixture) if present and scene.rest.any() else 0.0
        score = si_sdr(scene.person, heard) - before if present else None
        found[name] = {"score": score, "level_db": level, "wrong": wrong, "both": both}
    return found


def listen(voices: Path | None, latency_ms: float, scene: Scene, mixture: np.ndarray) -> np.ndarray:
    model = enrol([scene.speaker.enrolment], sr=SR, voices=voices)
    return separate(mixture, SR, Target(model), config=StreamConfig.from_ms(SR, latency_ms=latency_ms))[0]


def best_talker(scene: Scene, mixture: np.ndarray) -> np.ndarray:
    """The output of `talkers` that is nearer to the person."""
    heard = separate(mixture, SR, "talkers")[:2]
    return heard[int(np.argmax([si_sdr(scene.person, x) for x in heard]))] if scene.person.any() else heard[0]


def speech(scene: Scene, mixture: np.ndarray) -> np.ndarray:
    return separate(mixture, SR, "speech")[0]


def mean(values: Sequence[float]) -> dict[str, float]:
    """Mean, and half of its 95 % interval."""
    values = np.asarray(values, float)
    return {"mean": values.mean(), "half": 1.96 * values.std(ddof=1) / np.sqrt(values.size)}


def measure_all(args: Any) -> dict[str, Any]:
    people = speakers(args.speech)
    noises = [read_mono(recording.path, SR)[0] for recording in find_recordings(args.noise, print)]
    separators: dict[str, Callable[[Scene, np.ndarray], np.ndarray]] = {
        f"target, {ms} ms": partial(listen, args.voices, ms) for ms in LATENCIES_MS
    }
    result: dict[str, Any] = {
        "made": provenance(),
        "command": f"python bench/target.py -o docs --speech {args.speech.parent.name}/{args.speech.name} "
        f"--noise {args.noise.parent.name}/{args.noise.name} --count {args.count}",
        "count": args.count,
        "speakers": len(people),
        "sha256": read_voices(args.voices or SHIPPED).sha256,
        "kinds": {},
    }
    others = speakers_of_several(args.several) if args.several else []
    if others:
        result["command"] += f" --several {args.several.parent.name}/{args.several.name}"
        result["speakers_of_several"] = len(others)
    for kind in (*KINDS, *([ANOTHER] if others else []), *ABSENT, ALONE):
        beside = {} if kind in (*ABSENT, ALONE) else {"talkers, better order": best_talker, "speech": speech}
        of_kind = scenes(kind, others if kind == ANOTHER else people, noises, args.count)
        found = [hear_scene(separators | beside, scene) for scene in of_kind]
        rows = result["kinds"][kind] = {}
        for name in found[0]:
            parts = [scene[name] for scene in found]
            key = "level_db" if kind in ABSENT else "score"
            values = [part[key] for part in parts]
            rows[name] = mean(values) | {"worst": (max if kind in ABSENT else min)(values)}
            rows[name] |= {of: sum(part[of] for part in parts) for of in ("wrong", "both")}
    return result


def render(result: dict[str, Any]) -> str:
    """The page target.md."""
    kinds, names = result["kinds"], list(result["kinds"][KINDS[0]])

    def gained(row: dict[str, Any]) -> str:
        wrong = f" ({100 * row['wrong'] / row['both']:.0f} %)" if row["both"] else ""
        return f"{row['mean']:+.1f} ± {row['half']:.1f}{wrong}"

    lines = [
        "# One person among others: what `target` is worth",
        "",
        f"{measured(result, 'numba')}. Model `target`, SHA-256 {result['sha256'][:12]}; {result['speakers']} speakers "
        f"that it has never heard, each enrolled by {LEAST_S} to {MOST_S} s of the same recording; {result['count']} "
        f"mixtures of {MIXED_S} s of each kind, the other voice within {OTHERS_DB[1]} dB, noise and babble of "
        f"{N_BABBLE} voices {NOISE_DB} dB below."
        + (
            f" Other recordings: {result['speakers_of_several']} speakers of another corpus, women and men as it "
            "comes; the training chose its best step by voices of this corpus."
            if ANOTHER in kinds
            else ""
        ),
        "",
        "SI-SDR gain of the person in dB, with the 95 % interval of the mean; in brackets the share of the seconds in "
        "which both speak and the other one is heard rather than the person.",
        "",
        *table(
            ["", *names],
            ([kind, *(gained(kinds[kind][name]) for name in names)] for kind in (*KINDS, ANOTHER) if kind in kinds),
        ),
        "",
        "Where the person is silent: level of the output against the input in dB, and the worst. Alone: SI-SDR.",
        "",
        *table(
            ["", *names[: len(LATENCIES_MS)]],
            (
                [kind, *(f"{row['mean']:.1f} ± {row['half']:.1f}, {row['worst']:.1f}" for row in kinds[kind].values())]
                for kind in (*ABSENT, ALONE)
            ),
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    options = parser("target", "What the estimator `target` is worth")
    options.add_argument("--speech", type=Path, required=True, help="recordings of speakers that no model has heard")
    options.add_argument("--noise", type=Path, required=True, help="recordings of noise that no model has heard")
    options.add_argument("--several", type=Path, help="recordings of unheard speakers, several of each: SPEAKER__*")
    options.add_argument("--count", type=int, default=40, help="mixtures of each kind (default: %(default)s)")
    options.add_argument("--voices", type=Path, help="a file of `rtsep train target` in place of the shipped one")
    args = options.parse_args()
    publish(args.output, "target", measure_all(args), render)


if __name__ == "__main__":
    main()
