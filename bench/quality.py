"""SI-SDR improvement of phase recovery with true magnitudes.

    python bench/quality.py [--pairs FOLDER]

Without a folder: four synthetic two-voice mixtures (`tests/signals.py`). With one: every subfolder holds
`sig1.*`, `sig2.*`, two sources of equal length. The score is the mean over sources and mixtures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile

from rtsep import Output, StreamConfig, separate
from rtsep.estimators import Oracle
from rtsep.phase import MISI, OMISI

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import signals

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


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    return 10 * float(np.log10((target @ target) / ((estimate - target) @ (estimate - target))))


def scenes(folder: Path | None) -> list[np.ndarray]:
    if folder is None:
        return [signals.voices(48_000, seed=seed).astype(float) for seed in range(4)]
    found = []
    for pair in sorted(p for p in folder.iterdir() if p.is_dir()):
        sources = [soundfile.read(next(pair.glob(f"sig{j}.*"))) for j in (1, 2)]
        assert all(sr == 16_000 for _, sr in sources), pair
        n = min(len(s) for s, _ in sources)
        found.append(np.stack([s[:n] for s, _ in sources]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="SI-SDR improvement with true magnitudes, 16 ms window")
    parser.add_argument("--pairs", type=Path, help="folder of folders with sig1.* and sig2.*")
    pairs = scenes(parser.parse_args().pairs)
    print(f"| SI-SDRi dB, {len(pairs)} mixtures | " + " | ".join(f"{o} overlap" for o in OVERLAPS) + " |")
    print("|---|" + "---|" * len(OVERLAPS))
    for name, phase in PHASES.items():
        row = []
        for win_length, hop in OVERLAPS.values():
            config = StreamConfig(16_000, win_length, hop)
            gains = []
            for sources in pairs:
                x = sources.sum(0)
                output = Output(ceiling_db=float("inf"))
                heard = separate(x, 16_000, Oracle(sources), phase, config=config, output=output)
                gains += [si_sdr(e, s) - si_sdr(x, s) for e, s in zip(heard, sources, strict=True)]
            row.append(f"{np.mean(gains):.1f}")
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
