"""What the learned estimators are worth: noise, two talkers, clean speech, level, hours, cost.

    python bench/learned.py -o docs --speech FOLDER --noise FOLDER --known FOLDER

Writes learned.json, learned.md and learned.png (`learned_page.py` makes the last two). Files of the folders are named
`SPEAKER_F.*` or `SPEAKER_M.*` for speech, `VOICE_F_NUMBER.*` or `VOICE_M_NUMBER.*` for known voices. Mixtures are
those of `rtsep mix`, so that the same files give the same mixtures anywhere.

`speech` and `talkers` are heard three ways: masks with the phase of the mixture, magnitudes with that phase, and
magnitudes with three iterations of oMISI. Everything at 16 kHz, window 16 ms, no look-ahead, 75 % overlap but for the
masks of `speech` in noise, which are heard with a hop of 8 ms, too.
"""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, groupby, product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from learned_page import columns, draw, render, summarise_noise, summarise_pairs
from material import SR, UNLIMITED, hops
from study import medians, one_core, parser, publish

from rtsep import Separator, StreamConfig, separate
from rtsep.estimators import Speech, SpeechSmall, Talkers, Target
from rtsep.estimators.enrolment import nobody
from rtsep.estimators.learned import estimate_learned
from rtsep.evaluation import match, si_sdr
from rtsep.evaluation.mix import Mixer, Mixtures
from rtsep.evaluation.report import provenance
from rtsep.evaluation.scores import Scene, measure
from rtsep.evaluation.workers import Failure, Task, cores, run_local
from rtsep.kernels.jit import kernel
from rtsep.phase import OMISI
from rtsep.recordings import Recording, find_recordings

DURATION_S = 5.0
SNRS_DB = (-5, 0, 5, 10, 15)
SCORES = ("si-sdr", "pesq", "estoi")
FULL_SCALE = 1 << 23  # of the mixtures' integers
ACTIVE_DB = -20.0  # level of a source in a second, against that in the file, from which on it is active
LEVELS_DBFS = (-50, -10)
N_LEVELS = 10  # mixtures that are heard at both levels
N_PIECES, N_ROUNDS = 60, 24  # five minutes, two hours
COST_ROUNDS = 40  # of 200 hops

Setup = tuple[Any, Any, StreamConfig]  # estimator, phase recovery, framing
Setups = dict[str, Setup]  # by what a table calls it
Kinds = dict[str, list[tuple[list[Recording], list[Recording]]]]  # of pairs: pools of the first and the second


def figures(kind: type, model: Path | None) -> Setups:
    """The three ways to hear a network; the first is what `rtsep` does if not told otherwise."""
    return {
        "mask": (kind(model, "mask"), "mixture", StreamConfig(SR)),
        "magnitudes": (kind(model, "magnitudes"), "mixture", StreamConfig(SR)),
        "oMISI": (kind(model, "magnitudes"), OMISI(3), StreamConfig(SR)),
    }


def more_figures(model: Path | None) -> Setups:
    """What else is heard in noise: one that has learned nothing, the small network, and half as many frames."""
    return {
        "denoise": ("denoise", None, StreamConfig(SR)),
        "small": ("speech_small", None, StreamConfig(SR)),
        "mask_8ms": (Speech(model, "mask"), "mixture", StreamConfig.from_ms(SR, hop_ms=8)),
    }


def hear(setup: Setup, mixture: np.ndarray, **options: Any) -> np.ndarray:
    estimator, phase, config = setup
    return separate(mixture, SR, estimator, phase, config=config, **options)


def mixtures(
    count: int, speech: Sequence[Recording], noise: Sequence[Recording], snr_db: float, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Speech and noise, float32 (n_samples,). All ratios have the same pieces."""
    mixer = Mixer(Mixtures(count, DURATION_S, SR, 1, (snr_db, snr_db), seed=seed), speech, noise)
    for index in range(count):
        yield tuple(np.float32(source[0] / FULL_SCALE) for source in mixer.make(index)[1].values())


def pairs(count: int, pools: list[tuple[list[Recording], list[Recording]]]) -> Iterator[np.ndarray]:
    """Two talkers, float32 (2, n_samples), from each two pools in turn; which of them is the louder alternates."""
    mixer = Mixer(Mixtures(count, DURATION_S, SR, 2), [*pools[0][0], *pools[0][1]])
    for index in range(count):
        first, second = pools[index // 2 % len(pools)][:: 1 - 2 * (index % 2)]
        mixer.pools = {"speech1": first, "speech2": second}
        yield np.concatenate(list(mixer.make(index)[1].values())).astype(np.float32) / FULL_SCALE


def scores(reference: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    return measure(Scene(SR, ("speech",), reference[None, None], estimate[None, None], None), SCORES)[0].values


def hear_speech(setups: Setups, speech: np.ndarray, noise: np.ndarray) -> dict[str, dict[str, float]]:
    """Scores of the mixture and of what each setup makes of it."""
    found = {"unprocessed": scores(speech, speech + noise)}
    for name, setup in setups.items():
        found[name] = scores(speech, hear(setup, speech + noise)[0])
    return found


def hear_clean(setups: Setups, speech: np.ndarray) -> dict[str, float]:
    return {name: si_sdr(speech, hear(setup, speech)[0]) for name, setup in setups.items()}


def hear_pair(setups: Setups, talkers: np.ndarray) -> dict[str, dict[str, float]]:
    """SI-SDR improvement with the best order of the file, and the seconds in which another would be better."""
    mixture = talkers.sum(0)
    before = np.mean([si_sdr(talker, mixture) for talker in talkers])
    level = np.sqrt(np.mean(talkers**2, 1)) * 10 ** (ACTIVE_DB / 20)
    found = {}
    for name, setup in setups.items():
        heard = hear(setup, mixture)[:2]
        order, after = best_order(talkers, heard)
        swapped = n_seconds = 0
        for start in range(0, mixture.size - SR + 1, SR):
            second = np.s_[:, start : start + SR]
            if (np.sqrt(np.mean(talkers[second] ** 2, 1)) > level).all():
                n_seconds += 1
                swapped += list(best_order(talkers[second], heard[second])[0]) != list(order)
        found[name] = {"improvement": after - before, "swapped": swapped, "seconds": n_seconds}
    return found


def best_order(talkers: np.ndarray, heard: np.ndarray) -> tuple[np.ndarray, float]:
    """The estimate of each talker, and the mean SI-SDR in that order."""
    table = np.array([[si_sdr(talker, estimate) for estimate in heard] for talker in talkers])
    order = match(table)
    return order, float(np.mean(table[range(2), order]))


def hear_levels(setups: Setups, mixture: np.ndarray) -> dict[str, float]:
    """Largest difference of the outputs at two levels, both scaled to the same, in dB of the peak of the louder."""
    rms, found = np.sqrt(np.mean(mixture**2)), {}
    for name, setup in setups.items():
        gains = [10 ** (level / 20) / rms for level in LEVELS_DBFS]
        quiet, loud = (hear(setup, mixture * gain, output=UNLIMITED)[0] / gain for gain in gains)
        found[name] = float(20 * np.log10(max(np.abs(quiet - loud).max() / np.abs(loud).max(), 1e-10)))
    return found


def hear_hours(setup: Setup, pieces: np.ndarray) -> list[float]:
    """SI-SDR improvement in each round through the pieces (n_pieces, 2, n_samples) of speech and noise, one stream."""
    estimator, phase, config = setup
    separator, draws = Separator(config, estimator, phase), np.random.default_rng(0)
    n, rounds = pieces.shape[2], []
    for _ in range(N_ROUNDS):
        speech, noise = np.concatenate(draws.permutation(pieces), 1)
        mixture = speech + noise
        heard = separator.process(mixture)[0, separator.latency :]
        parts = [slice(start, min(start + n, heard.size)) for start in range(0, mixture.size, n)]
        rounds.append(np.mean([si_sdr(speech[p], heard[p]) - si_sdr(speech[p], mixture[p]) for p in parts]))
    return [float(value) for value in rounds]


@kernel
def run_estimates(state, mixture, powers, magnitudes):
    for t in range(len(powers)):
        estimate_learned(state, mixture, powers[t], magnitudes)


def cost(estimators: Sequence[Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds per hop, medians, on one core: of each estimator, at each rate."""
    calls: dict[tuple[str, str, str], Callable[[], float]] = {}
    for estimator, sr in product(estimators, (SR, 48_000)):
        name = type(estimator).name
        calls[name, str(sr), "network"], calls[name, str(sr), "hop"] = network_and_hop(estimator, StreamConfig(sr))
    found: dict[str, dict[str, dict[str, float]]] = {}
    with one_core():
        for (name, rate, part), us in medians(calls, COST_ROUNDS).items():
            found.setdefault(name, {}).setdefault(rate, {})[part] = us
    return found


def network_and_hop(estimator: Any, config: StreamConfig) -> tuple[Callable[[], float], Callable[[], float]]:
    """The network alone, and whole hops; microseconds per hop."""
    mixture, true = hops(config)
    state, powers = estimator.prepare(config), true[:, 0] ** 2
    spectrum = np.random.default_rng(0).normal(size=(1, 2, config.n_bins)).astype(np.float32)
    magnitudes = np.zeros((len(estimator.sources), config.n_bins), np.float32)
    separator = Separator(config, estimator, OMISI(3))
    out = np.zeros((separator.n_src, config.hop), np.float32)

    def network() -> float:
        start = perf_counter()
        run_estimates(state, spectrum, powers, magnitudes)
        return 1e6 * (perf_counter() - start) / len(mixture)

    def whole() -> float:
        start = perf_counter()
        for hop in mixture[:, 0]:
            separator.process(hop, out)
        return 1e6 * (perf_counter() - start) / len(mixture)

    return network, whole


def by_sex(recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """Those whose name says F or M."""
    return {
        sex: [recording for recording in recordings if re.search(rf"_{sex}(?=_|$)", recording.path.stem)]
        for sex in "FM"
    }


def kinds_unknown(speech: Sequence[Recording]) -> Kinds:
    pools = by_sex(speech)
    return {f"{a}+{b}": [(pools[a], pools[b])] for a, b in ("FM", "FF", "MM")}


def kinds_known(known: Sequence[Recording]) -> Kinds:
    """All pairs of two voices, whose recordings begin with the same word."""
    voices = {sex: group_by_voice(recordings) for sex, recordings in by_sex(known).items()}
    return {
        "F+M": list(product(voices["F"], voices["M"])),
        "F+F": list(combinations(voices["F"], 2)),
        "M+M": list(combinations(voices["M"], 2)),
    }


def group_by_voice(recordings: Sequence[Recording]) -> list[list[Recording]]:
    return [list(same) for _, same in groupby(recordings, voice_of)]


def voice_of(recording: Recording) -> str:
    return recording.path.stem.split("_")[0]


def run(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def tasks(args: Namespace, speech_setups: Setups, talkers_setups: Setups) -> Iterator[Task]:
    """All that is heard, the longest first; mixtures are made as they are needed."""
    speech, noise, known = (find_recordings(folder, print) for folder in (args.speech, args.noise, args.known))
    pieces = np.stack([np.stack(pair) for pair in mixtures(N_PIECES, speech, noise, 5, seed=1)])
    yield Task(("hours",), (hear_hours, speech_setups["oMISI"], pieces))
    for snr_db in SNRS_DB:
        for index, pair in enumerate(mixtures(args.count, speech, noise, snr_db)):
            setups = speech_setups | more_figures(args.speech_model)
            yield Task(("noise", snr_db, index), (hear_speech, setups, *pair))
            if snr_db == max(SNRS_DB):
                yield Task(("clean", index), (hear_clean, speech_setups, pair[0]))
            if snr_db == 5 and index < N_LEVELS:
                yield Task(("level", index), (hear_levels, speech_setups, sum(pair)))
    for title, kinds in (("unknown", kinds_unknown(speech)), ("known", kinds_known(known))):
        for kind, pools in kinds.items():
            for index, pair in enumerate(pairs(args.count, pools)):
                yield Task((title, kind, index), (hear_pair, talkers_setups, pair))


def measure_all(args: Namespace) -> dict[str, Any]:
    speech = Speech(args.speech_model)
    talkers = Talkers(args.talkers_model)
    networks = [speech, SpeechSmall(), talkers, Target(nobody())]
    setups = figures(Speech, args.speech_model), figures(Talkers, args.talkers_model)
    costs = cost(networks)
    found: dict[tuple[Any, ...], Any] = {}
    for key, result in run_local(run, tasks(args, *setups), args.jobs):
        if isinstance(result, Failure):
            raise RuntimeError(f"{key}: {result.reason}")
        found[key] = result
        print(f"\r{len(found)} done", end="", file=sys.stderr)
    print(file=sys.stderr)

    def select(*head: Any) -> list[Any]:
        return [result for key, result in sorted(found.items(), key=str) if key[: len(head)] == head]

    return {
        "made": provenance(),
        "command": f"python bench/learned.py -o docs --speech {args.speech.parent.name}/{args.speech.name} "
        f"--noise {args.noise.parent.name}/{args.noise.name} --known {args.known.parent.name}/{args.known.name}"
        f" --count {args.count}",
        "count": args.count,
        "models": {
            type(network).name: {"parameters": model.shape.n_parameters, "sha256": model.sha256}
            for network, model in ((network, network.load()) for network in networks)
        },
        "noise": summarise_noise({snr_db: select("noise", snr_db) for snr_db in SNRS_DB}),
        "clean": {
            name: {"mean": float(np.mean(values)), "worst": min(values)} for name, values in columns(select("clean"))
        },
        "level": {name: max(values) for name, values in columns(select("level"))},
        "hours": found[("hours",)],
        "cost": costs,
        "talkers": {
            title: summarise_pairs({kind: select(title, kind) for kind in ("F+M", "F+F", "M+M")})
            for title in ("unknown", "known")
        },
    }


def main() -> None:
    options = parser("learned", "What the learned estimators are worth")
    options.add_argument("--speech", type=Path, required=True, help="recordings of speakers that no model has heard")
    options.add_argument("--noise", type=Path, required=True, help="recordings of noise that no model has heard")
    options.add_argument("--known", type=Path, required=True, help="other recordings of voices that were trained on")
    options.add_argument("--count", type=int, default=40, help="mixtures at each ratio and of each kind of pair")
    options.add_argument("--speech-model", type=Path, help="model file in place of the shipped one")
    options.add_argument("--talkers-model", type=Path, help="model file in place of the shipped one")
    options.add_argument("--jobs", type=int, default=cores(), help="processes (default: %(default)s)")
    args = options.parse_args()
    publish(args.output, "learned", measure_all(args), render, draw)


if __name__ == "__main__":
    main()
