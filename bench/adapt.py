r"""What `rtsep train --adapt` is worth: one known noise, one known voice, two known voices.

    python bench/adapt.py -o docs --speech DIR --noise DIR --voices DIR --known DIR \
        --general-speech DIR --general-noise DIR

Writes adapt.json and adapt.md after each adaptation; started again it goes on with the first one that is missing, or
that is trained otherwise now. Needs `.[dev,train,eval]`, and minutes for each adaptation, about an hour for two voices.

A known noise is a file of --noise of at least 20 s: its first half is adapted to, its second half is mixed with
--speech. A known voice is one of --voices (`VOICE_F_NUMBER.*`), adapted to, and tested with its files in --known in the
noises of --noise. Two voices are the first pair of each kind, with the model of `talkers`. Speakers of
--general-speech are told apart by the start of the name (`SPEAKER_*`). What is forgotten is measured with --speech in
all of --noise, or with pairs from --speech. Mixtures are those of `rtsep mix`; figures are means of the SI-SDR
improvement, with the default phase recovery of the estimator.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from learned import by_sex, group_by_voice, hear_pair, kinds_known, mixtures, pairs, voice_of
from material import SR
from study import earlier, measured, parser, publish, table

from rtsep import StreamConfig, separate
from rtsep.estimators import Speech, Talkers
from rtsep.evaluation import si_sdr
from rtsep.evaluation.perceptual import estoi
from rtsep.evaluation.report import provenance
from rtsep.evaluation.workers import cores
from rtsep.phase import MISI, OMISI
from rtsep.recordings import Recording, find_recordings
from rtsep.training.adapt import STAGES

SNRS_DB = (0, 5, 10)
LEAST_S = 20.0  # of a noise that is halved
HEARD = ("before", "after", "others_before", "others_after")
MASK, ONLINE = "mask, mixture's phase", "oMISI 1"
PHASES = {
    "magnitudes, mixture's phase": "mixture",
    ONLINE: OMISI(1),
    "oMISI 1, one hop later": OMISI(1, lookahead=1),
    "MISI 3, offline": MISI(3),
}
FOLDERS = ("speech", "noise", "voices", "known", "general-speech", "general-noise")

Scenes = list[tuple[np.ndarray, np.ndarray]]  # two signals each, whose sum is the mixture


@dataclass(frozen=True)
class Case:
    """An adaptation: what it is to, the folders for `rtsep train`, and mixtures with what it knows."""

    kind: str
    name: str
    own: Path
    minutes: float
    scenes: Scenes


def noisy(count: int, speech: list[Recording], noise: list[Recording]) -> Scenes:
    return [pair for snr_db in SNRS_DB for pair in mixtures(count, speech, noise, snr_db)]


def copy_start(recordings: list[Recording], folder: Path, stop: float = 1.0) -> float:
    """Copy the beginnings of recordings; minutes."""
    folder.mkdir(parents=True)
    total = 0.0
    for recording in recordings:
        x, sr = sf.read(recording.path, frames=round(stop * recording.n_samples), dtype="float32")
        sf.write(folder / f"{recording.path.stem}.wav", x, sr)
        total += len(x) / sr / 60
    return total


def noise_cases(count: int, speech: list[Recording], noise: list[Recording], work: Path) -> Iterator[Case]:
    for recording in noise:
        if recording.n_samples < LEAST_S * recording.sr:
            continue
        name = recording.path.stem
        minutes = copy_start([recording], work / "noise" / name, 0.5)
        rest = work / "rest" / f"{name}.wav"
        rest.parent.mkdir(exist_ok=True)
        x, sr = sf.read(recording.path, start=recording.n_samples // 2, dtype="float32")
        sf.write(rest, x, sr)
        known = [Recording(rest, rest.name, sr, len(x))]
        yield Case("noise", name, work / "noise" / name, minutes, noisy(count, speech, known))


def voice_cases(
    count: int, voices: list[Recording], known: list[Recording], noise: list[Recording], work: Path
) -> Iterator[Case]:
    tests = {voice_of(same[0]): same for same in group_by_voice(known)}
    for same in group_by_voice(voices):
        name = voice_of(same[0])
        minutes = copy_start(same, work / "voice" / name / name)
        yield Case("voice", name, work / "voice" / name, minutes, noisy(count, tests[name], noise))


def pair_cases(count: int, voices: list[Recording], known: list[Recording], work: Path) -> Iterator[Case]:
    trained = {voice_of(same[0]): same for same in group_by_voice(voices)}
    for kind, pools in kinds_known(known).items():
        names = [voice_of(pool[0]) for pool in pools[0]]
        own = work / "pair" / kind
        minutes = sum(copy_start(trained[name], own / name) for name in names)
        scenes = [tuple(talkers) for talkers in pairs(3 * count, pools[:1])]
        yield Case("pair", f"{' and '.join(names)} ({kind})", own, minutes, scenes)


def adapt(case: Case, general_speech: Path, args: Namespace, output: Path) -> float:
    """Seconds that `rtsep train --adapt` took."""
    model = "talkers" if case.kind == "pair" else "speech"
    command = [sys.executable, "-m", "rtsep", "train", "--adapt", model, "-o", str(output)]
    command += ["--noise" if case.kind == "noise" else "--speech", str(case.own)]
    command += ["--general-noise", str(args.general_noise)]
    if case.kind != "pair":
        command += ["--general-speech", str(general_speech)]
    command += ["--jobs", str(args.jobs)]
    start = time.monotonic()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - start


def hear(estimator: Any, scenes: Scenes) -> dict[str, float]:
    """SI-SDR improvement in dB: of the speech, with its ESTOI, or of two talkers in their best order, with the percent
    that are swapped.
    """
    if isinstance(estimator, Talkers):
        setups = {"default": (estimator, estimator.phase, StreamConfig(SR))}
        found = [hear_pair(setups, np.stack(talkers))["default"] for talkers in scenes]
        swapped, seconds = (sum(row[name] for row in found) for name in ("swapped", "seconds"))
        return {"": float(np.mean([row["improvement"] for row in found])), "swapped_": 100 * swapped / max(1, seconds)}
    gains, understood = [], []
    for speech, noise in scenes:
        heard = separate(speech + noise, SR, estimator)
        gains.append(si_sdr(speech, heard[0]) - si_sdr(speech, speech + noise))
        understood.append(estoi(speech, heard[0], SR))
    return {"": float(np.mean(gains)), "estoi_": float(np.mean(understood))}


def hear_phases(model: Path, scenes: Scenes) -> dict[str, float]:
    """SI-SDR improvement of two talkers in dB, by what is made of the heads."""
    mask, magnitudes = (Talkers(model, target) for target in ("mask", "magnitudes"))
    setups = {MASK: (mask, "mixture", StreamConfig(SR))}
    for name, phase in PHASES.items():
        setups[name] = (magnitudes, phase, StreamConfig(SR))
    found = [hear_pair(setups, np.stack(talkers)) for talkers in scenes]
    return {name: float(np.mean([row[name]["improvement"] for row in found])) for name in setups}


def trained(kind: str) -> dict[str, Any]:
    """Model and stages of an adaptation, but for the hops, of which the model has a say, and losses of no weight."""
    settings, talkers = (Talkers, 2) if kind == "pair" else (Speech, 1)
    stages = [
        {name: value for name, value in asdict(stage).items() if name != "hop_ms" and value != 0}
        for stage in STAGES[talkers]
    ]
    return {"model": settings().load().sha256, "stages": stages}


def measure(args: Namespace) -> None:
    heard = ("speech", "noise", "voices", "known", "general-speech")
    found = {name: find_recordings(getattr(args, name.replace("-", "_")), print) for name in heard}
    folders = {name: getattr(args, name.replace("-", "_")).resolve().parts[-2:] for name in FOLDERS}
    given = " ".join(f"--{name} {'/'.join(parts)}" for name, parts in folders.items())
    command = f"python bench/adapt.py -o docs {given} --count {args.count}"
    before = earlier(args.output, "adapt", command).get("rows", ())
    rows = [row for row in before if row["trained"] == trained(row["kind"])]
    with tempfile.TemporaryDirectory(prefix="rtsep_adapt_") as folder:
        work = Path(folder)
        general_speech = work / "general"  # a folder for each speaker
        for same in group_by_voice(found["general-speech"]):
            copy_start(same, general_speech / voice_of(same[0]))
        sexes = by_sex(found["speech"])
        general: dict[type, Scenes] = {
            Speech: noisy(args.count, found["speech"], found["noise"]),
            Talkers: [tuple(t) for t in pairs(3 * args.count, [(sexes["F"], sexes["M"])])],
        }
        cases = [
            *noise_cases(args.count, found["speech"], found["noise"], work),
            *voice_cases(args.count, found["voices"], found["known"], found["noise"], work),
            *pair_cases(args.count, found["voices"], found["known"], work),  # they take most of the time
        ]
        places = {(case.kind, case.name): number for number, case in enumerate(cases)}
        unadapted = {settings: hear(settings(), scenes) for settings, scenes in general.items()}
        for number, case in enumerate(cases):
            if any((row["kind"], row["name"]) == (case.kind, case.name) for row in rows):
                continue
            settings = Talkers if case.kind == "pair" else Speech
            adapted = work / f"adapted{number}.npz"
            seconds = adapt(case, general_speech, args, adapted)
            row = {"kind": case.kind, "name": case.name, "trained": trained(case.kind)}
            row |= {"minutes": case.minutes, "seconds": seconds, "jobs": args.jobs}
            for name, scores in {
                "before": hear(settings(), case.scenes),
                "after": hear(settings(adapted), case.scenes),
                "others_before": unadapted[settings],
                "others_after": hear(settings(adapted), general[settings]),
            }.items():
                row |= {f"{which}{name}": score for which, score in scores.items()}
            if settings is Talkers:
                row["phases"] = hear_phases(adapted, case.scenes)
                row["default"] = MASK if settings(adapted).phase == "mixture" else ONLINE
            rows.append(row)
            rows.sort(key=lambda row: places[row["kind"], row["name"]])
            result = {"command": command, "rows": rows, "made": provenance(), "cases": len(cases)}
            publish(args.output, "adapt", result, render)


def render(result: dict[str, Any]) -> str:
    """The page."""
    missing = result["cases"] - len(result["rows"])
    adapted = {"talkers" if row["kind"] == "pair" else "speech": row["trained"]["model"] for row in result["rows"]}
    models = ", ".join(f"`{name}`, SHA-256 {sha256[:12]}" for name, sha256 in sorted(adapted.items()))
    lines = [
        "# Adaptation: what known noises and voices are worth",
        "",
        f"{measured(result)}. SI-SDR improvement in dB, before and after "
        "`rtsep train --adapt`: with what was adapted to (other recordings of the voice, the other half of the noise), "
        "and with unknown voices in all the noises, or unknown pairs of a woman and a man. The voices are in the "
        "training of the shipped models, the noises are not. To one voice or noise `speech` is adapted, with "
        "`--general-speech` and `--general-noise`; to two voices `talkers`, with `--general-noise` alone. "
        f"Models: {models}. {f'Cases still missing: {missing}. ' if missing else ''}In brackets: ESTOI; "
        "for two talkers the seconds in which they are swapped, in percent of those in which both talk.",
        "",
    ]
    rows = []
    for row in result["rows"]:
        heard = [f"{row[name]:+.2f}" for name in HEARD]
        bracket = "({swapped_%s:.0f} %%)" if row["kind"] == "pair" else "({estoi_%s:.3f})"
        heard = [f"{text} {(bracket % name).format(**row)}" for text, name in zip(heard, HEARD, strict=True)]
        took = [f"{row['minutes']:.1f}", f"{row['seconds']:.0f}, {row['jobs']}"]
        rows.append([f"{row['kind']}: {row['name']}", *took, *heard])
    heads = ["known", "recordings, minutes", "training, s, threads", "before", "after", "unknown before", "after"]
    lines += table(heads, rows)
    pairs_heard = [row for row in result["rows"] if "phases" in row]
    if pairs_heard:
        lines += [
            "",
            "After the adaptation, by what is made of the network's heads; in bold the default, which its validation "
            "found best:",
            "",
        ]
        rows = []
        for name in pairs_heard[0]["phases"]:
            heard = ((f"{row['phases'][name]:+.2f}", name == row["default"]) for row in pairs_heard)
            rows.append([name, *(f"**{text}**" if default else text for text, default in heard)])
        lines += table(["SI-SDR improvement, dB", *(row["name"] for row in pairs_heard)], rows)
    return "\n".join([*lines, ""])


def main() -> None:
    options = parser("adapt", "What adaptation is worth")
    options.add_argument("--speech", type=Path, required=True, help="recordings of speakers that no model has heard")
    options.add_argument("--noise", type=Path, required=True, help="recordings of noise that no model has heard")
    options.add_argument("--voices", type=Path, required=True, help="voices to adapt to, VOICE_SEX_NUMBER.*")
    options.add_argument("--known", type=Path, required=True, help="other recordings of these voices")
    options.add_argument(
        "--general-speech", type=Path, required=True, help="speech of the training, not to be forgotten"
    )
    options.add_argument("--general-noise", type=Path, required=True, help="noise of the training")
    options.add_argument("--count", type=int, default=8, help="mixtures at each ratio")
    options.add_argument("--jobs", type=int, default=cores(), help="threads of the training (default: %(default)s)")
    args = options.parse_args()
    measure(args)


if __name__ == "__main__":
    main()
