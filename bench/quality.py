"""SI-SDR improvement of phase recovery with true magnitudes, mean over sources and mixtures (see `material.py`).

python bench/quality.py [--pairs FOLDER]
"""

from __future__ import annotations

import argparse

import numpy as np
from material import SR, add_pairs, gain, pairs
from study import table

from rtsep import StreamConfig
from rtsep.estimators import Oracle
from rtsep.phase import MISI, OMISI

OVERLAPS = {"50 %": (256, 128), "75 %": (256, 64)}
PHASES = {
    "amplitude mask": "mixture",
    "omisi K=0, 15 iterations, tail 1, no gate (as published)": OMISI(15, tail=1.0, gate=False),
    "omisi K=0, 5 iterations (default)": OMISI(),
    "omisi K=0, 15 iterations": OMISI(15),
    "omisi K=0, 15, sinusoidal": OMISI(15, init="sinusoidal"),
    "omisi K=1, 7 iterations": OMISI(7, 1),
    "omisi K=2, 5 iterations": OMISI(5, 2),
    "misi offline, 15 iterations": MISI(15),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="SI-SDR improvement with true magnitudes, 16 ms window")
    add_pairs(parser)
    scenes = pairs(parser.parse_args().pairs).values()
    heads = [f"SI-SDRi dB, {len(scenes)} mixtures", *(f"{overlap} overlap" for overlap in OVERLAPS)]
    configs = [StreamConfig(SR, *sizes) for sizes in OVERLAPS.values()]
    rows = []
    for name, phase in PHASES.items():
        gains = (np.mean([gain(s, Oracle(s), phase, config) for s in scenes]) for config in configs)
        rows.append([name, *(f"{value:.1f}" for value in gains)])
    print("\n".join(table(heads, rows)))


if __name__ == "__main__":
    main()
