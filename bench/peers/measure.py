"""What is measured of an engine: latency by experiment, and scores after alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from engines import run
from scipy.signal import resample_poly

from rtsep.evaluation import ScoreError, delay, dnsmos, estoi, pesq, sdr, si_sdr, stoi

MAX_DELAY_S = 0.1
LOUD = 0.9  # of full scale: the edge of a window passes a thousandth of it, and 16 bits hold a thirtieth of that
SETTLED_S = 0.5  # after the start, where no engine changes its mind about the past any more
N_CHANGES = 40
FLOOR = 2.1 / 32768  # two steps of 16 bits: smaller differences are rounding


def latency(make: Callable[[], Any], x: np.ndarray) -> dict[str, float | None]:
    """Delay of the output, and how far ahead of it the input must be, in ms; None: the whole signal.

    Parameters
    ----------
    make : callable
        Gives fresh engines.
    x : ndarray, float32, (n_samples,)
        Speech at the rate of the engine.

    Notes
    -----
    `delay_ms` is where the cross-correlation of output and input is largest. `ahead_ms`: the
    input from one place on becomes loud noise, and the earliest sample of the output that differs is looked for; the
    largest distance over 40 places is how long a sample of the output must wait for the input that it depends on.
    `wait_ms`: how long the first sample of the smallest block waits for the last one. The algorithmic latency is the
    delay and the longer of the two: the age of what is heard at the time when it can be heard first.
    """
    engine = make()
    sr, block = engine.sr, engine.block
    y = run(engine, x)
    found = delay(x, y, round(MAX_DELAY_S * sr))
    first = round(SETTLED_S * sr)
    places = np.linspace(first, x.size - 1 - (block or 1), N_CHANGES).astype(int)
    # In different places of a block, its last sample among them.
    places += np.array([(17 * k + block - 1 - places[k]) % block for k in range(N_CHANGES)]) if block else 0
    ahead = 0
    for place in places:
        other = x.copy()
        other[place:] = np.random.default_rng(place).choice([-LOUD, LOUD], x.size - place)
        changed = np.flatnonzero(np.abs(run(make(), other) - y) > FLOOR)
        if changed.size:
            ahead = max(ahead, int(place - changed[0]))
    whole = ahead > first
    ms = 1000 / sr
    wait = engine.least - 1
    return {
        "delay_ms": found * ms,
        "ahead_ms": None if whole else ahead * ms,
        "wait_ms": wait * ms,
        "latency_ms": None if whole else (found + max(ahead, wait)) * ms,
    }


SCORES: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "si_sdr": lambda s, e, sr: si_sdr(s, e),
    "sdr": lambda s, e, sr: sdr(s, e),
    "stoi": stoi,
    "estoi": estoi,
    "pesq": pesq,
    "dnsmos": lambda s, e, sr: dnsmos(e, sr).ovrl,
}


def quality(
    make: Callable[[], Any], reference: np.ndarray, mixture: np.ndarray, sr: int, names: Sequence[str] = tuple(SCORES)
) -> dict[str, float]:
    """Scores of the speech of one mixture at 16 kHz, the output aligned with the input by its delay."""
    y, late = heard(make, mixture, sr)
    n = mixture.size - abs(late)
    y, reference = (y[late:], reference[:n]) if late >= 0 else (y[:n], reference[-n:])
    scores: dict[str, float] = {"delay": late}
    for name in names:
        try:
            scores[name] = SCORES[name](reference, y, sr)
        except ScoreError:
            scores[name] = float("nan")
    return scores


def heard(make: Callable[[], Any], mixture: np.ndarray, sr: int) -> tuple[np.ndarray, int]:
    """What an engine makes of a mixture at 16 kHz, as long as it, and by how many samples it is late."""
    engine = make()
    y = to_rate(run(engine, to_rate(mixture, sr, engine.sr)), engine.sr, sr)[: mixture.size]
    return y, round(delay(mixture, y, round(MAX_DELAY_S * sr)))


def to_rate(x: np.ndarray, sr: int, rate: int) -> np.ndarray:
    """`x` at another rate, with linear phase and in place: resampling adds no delay to an engine."""
    divisor = int(np.gcd(sr, rate))
    return x if sr == rate else resample_poly(x, rate // divisor, sr // divisor).astype(np.float32)
