"""What the model of repeated events is worth, and what each departure from the article brings.

    python bench/repeated_events.py

Mixtures of two sources of eight events each, all alike (`struck` in `tests/signals.py`), and of two voices, which do
not repeat. SI-SDR improvement in dB at 16 kHz, window 16 ms, 75 % overlap; magnitudes are degraded as in `material.py`.
"""

from __future__ import annotations

import argparse
from typing import Any
from unittest.mock import patch

import numpy as np
from material import independent, mean_gain, ratio_mask, signals, spectra
from study import table

from rtsep.phase import MISI, OMISI, MixturePhase, PUIter, RepeatedEvents, Unwrapping, repeated_events
from rtsep.phase.repeated_events import Events, direction

COUNT = 8  # mixtures of each kind
MAGNITUDES = {
    "true": np.abs,
    "1 dB": lambda true: independent(true, 1),
    "3 dB": lambda true: independent(true, 3),
    "ratio mask": lambda true: ratio_mask(true, 1),
}


class FromBinToBin(Events):
    """With the delays as in the article."""

    def shifts(self, y: np.ndarray) -> np.ndarray:
        b = y * self.profile.conj()
        turn = direction((b[..., :-1].conj() * b[..., 1:]).sum((1, 2)), np.ones(len(b)))
        return turn[:, None, None] ** np.arange(y.shape[-1])


class AnyStart(Events):
    """With a random first profile, as in the article."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.profile = np.exp(2j * np.pi * np.random.default_rng(0).uniform(size=self.profile.shape))


ROWS = {
    "`mixture`": (MixturePhase(), Events),
    "`unwrapping`": (Unwrapping(), Events),
    "`pu_iter`": (PUIter(), Events),
    "`repeated_events`": (RepeatedEvents(), Events),
    "strict": (RepeatedEvents(sigma=None), Events),
    "without the model (sigma 0)": (RepeatedEvents(sigma=0.0), Events),
    "an event is one frame": (RepeatedEvents(span=1), Events),
    "delays from bin to bin": (RepeatedEvents(), FromBinToBin),
    "random start": (RepeatedEvents(), AnyStart),
    "100 iterations": (RepeatedEvents(n_iter=100), Events),
    "`omisi`": (OMISI(), Events),
    "`misi`": (MISI(), Events),
}


def main() -> None:
    argparse.ArgumentParser(description="What the model of repeated events is worth").parse_args()
    kinds = {
        "events": [signals.struck(seed) for seed in range(COUNT)],
        "voices": [signals.voices(32_000, seed=seed) for seed in range(COUNT)],
    }
    cases = [("events", name) for name in MAGNITUDES] + [("voices", "true")]
    given = [[MAGNITUDES[name](spectra(sources)) for sources in kinds[kind]] for kind, name in cases]
    rows = []
    for label, (phase, events) in ROWS.items():
        with patch.object(repeated_events, "Events", events):
            found = [mean_gain(kinds[kind], v, phase) for (kind, _), v in zip(cases, given, strict=True)]
        rows.append([label, *(f"{value:.1f}" for value in found)])
    print("\n".join(table(["", *(f"{kind}, {name}" for kind, name in cases)], rows)))


if __name__ == "__main__":
    main()
