"""What the gate lets through and what it silences: python bench/gate.py --speech FOLDER --noise FOLDER

Utterances in noise, with two seconds of noise alone before and three after each; the estimator is `speech`. Prints a
table: of the speech (frames within 40 dB of the loudest), the share of its energy that is let through; of the pauses,
from 0.5 s after the speech, the share that is silent. Means over the mixtures, ± standard error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile as sf

import rtsep
from rtsep.recordings import find_recordings

SR, BEFORE_S, AFTER_S = 16_000, 2.0, 3.0
SNRS_DB, PRESENCES = (20, 10, 5, 0, -5), (0.3, 0.5, 0.7)


def read(path: Path, n: int) -> np.ndarray:
    """`n` samples of the first channel, repeated if it is shorter."""
    x, sr = sf.read(path, dtype="float32", always_2d=True)
    if sr != SR:
        from scipy.signal import resample_poly

        x = resample_poly(x, SR, sr, axis=0)
    return np.resize(x[:, 0], n)


def measure(speech: np.ndarray, noise: np.ndarray, snr_db: float, min_presence: float) -> tuple[float, float]:
    """Shares of the speech let through, and of the pauses silent."""
    lead = round(BEFORE_S * SR)
    s = np.zeros_like(noise)
    s[lead : lead + len(speech)] = speech
    noise = noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    scale = 0.1 / np.std(s + noise)
    x = (scale * (s + noise)).astype(np.float32)
    heard = rtsep.separate(x, SR, "speech", gate=rtsep.Gate(min_presence))[0]
    n = 64 * (len(x) // 64)
    energy, is_open = (scale * s[:n].reshape(-1, 64)) ** 2, heard[:n].reshape(-1, 64).any(1)
    energy = energy.mean(1)
    loud = energy > 1e-4 * energy.max()
    pause = np.ones(len(energy), bool)
    pause[: SR // 64] = False  # the gate of a stream that begins, and the network, have a second to settle
    pause[lead // 64 : (lead + len(speech) + SR // 2) // 64] = False
    return float(energy[loud & is_open].sum() / energy[loud].sum()), float(1 - is_open[pause].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("-n", type=int, default=20, help="mixtures for each SNR")
    args = parser.parse_args()
    speech, noises = (find_recordings(folder, print) for folder in (args.speech, args.noise))
    print("| SNR | " + " | ".join(f"{p}: speech kept, pauses silent" for p in PRESENCES) + " |")
    print("|---|" + "---|" * len(PRESENCES))
    for snr_db in SNRS_DB:
        cells = []
        for min_presence in PRESENCES:
            rng, shares = np.random.default_rng(snr_db + 100), []
            for i in range(args.n):
                s = read(speech[i % len(speech)].path, 5 * SR)
                noise = read(noises[rng.integers(len(noises))].path, round((BEFORE_S + 5 + AFTER_S) * SR))
                shares.append(measure(s, noise, snr_db, min_presence))
            mean, error = np.mean(shares, 0), np.std(shares, 0, ddof=1) / np.sqrt(args.n)
            cells.append(", ".join(f"{100 * m:.0f} ± {100 * e:.0f} %" for m, e in zip(mean, error, strict=True)))
        print(f"| {snr_db} dB | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
