"""What weights of eight bits cost and save: `python bench/int8.py --speech FOLDER --noise FOLDER`.

Of `speech`, `speech_small` and `talkers`; the folders are those of `learned.py`. SI-SDR improvement of speech in noise
at 5 dB, and of pairs of talkers, with weights as they are; what is lost with eight bits, and where that lies with 95 %
confidence; microseconds of features and network in a hop of 4 ms, medians on one core.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from learned import COST_ROUNDS, best_order, kinds_unknown, mixtures, network_and_hop, pairs
from material import SR
from study import medians, one_core

from rtsep import StreamConfig, separate
from rtsep.estimators import Speech, SpeechSmall, Talkers
from rtsep.evaluation import si_sdr
from rtsep.recordings import find_recordings

WEIGHTS = ("float32", "int8")


def improvement(estimator: Any, sources: np.ndarray) -> float:
    """SI-SDR in dB, mean over what is heard of `sources` but the residual, in the best order."""
    heard, mixture = separate(sources.sum(0), SR, estimator)[:-1], sources.sum(0)
    if len(heard) == 1:
        return si_sdr(sources[0], heard[0]) - si_sdr(sources[0], mixture)
    return best_order(sources, heard)[1] - float(np.mean([si_sdr(source, mixture) for source in sources]))


def costs(kinds: Sequence[type]) -> dict[tuple[str, str], float]:
    """Microseconds of each network with each kind of weights."""
    calls: dict[tuple[str, str], Callable[[], float]] = {
        (kind.name, weights): network_and_hop(kind(weights=weights), StreamConfig(SR))[0]  # type: ignore[attr-defined]
        for kind in kinds
        for weights in WEIGHTS
    }
    with one_core():
        return medians(calls, COST_ROUNDS)


def main() -> None:
    """Print a line for each network."""
    options = ArgumentParser(description=__doc__)
    options.add_argument("--speech", type=Path, required=True)
    options.add_argument("--noise", type=Path, required=True)
    options.add_argument("--count", type=int, default=40, help="mixtures of each kind (default: %(default)s)")
    args = options.parse_args()
    speech, noise = (find_recordings(folder, print) for folder in (args.speech, args.noise))
    noisy = [np.stack(pair) for pair in mixtures(args.count, speech, noise, 5)]
    voices = list(chain.from_iterable(pairs(args.count, pools) for pools in kinds_unknown(speech).values()))
    us = costs((Speech, SpeechSmall, Talkers))
    for kind, material in ((Speech, noisy), (SpeechSmall, noisy), (Talkers, voices)):
        plain, rounded = (
            np.array([improvement(kind(weights=weights), sources) for sources in material]) for weights in WEIGHTS
        )
        lost = plain - rounded
        error = 1.96 * lost.std(ddof=1) / np.sqrt(lost.size)
        name = kind.name
        print(
            f"{name}: {plain.mean():+.2f} dB; int8 loses {lost.mean():.3f} +- {error:.3f} dB ({lost.size} mixtures), "
            f"takes {us[name, 'int8']:.0f} us instead of {us[name, 'float32']:.0f} us"
        )


if __name__ == "__main__":
    main()
