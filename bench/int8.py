"""What weights of eight bits cost `speech`: `python bench/int8.py --data FOLDER`, the folder of training recordings."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import soundfile as sf

import rtsep
from rtsep.estimators import Speech
from rtsep.evaluation import si_sdr

SR, SECONDS, COUNT = 16_000, 4, 24


def main() -> None:
    """Print gain and loss."""
    options = ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    data = options.parse_args().data
    voices = sorted((data / "speech" / "librispeech").glob("*"))[:COUNT]
    noises = sorted((data / "noise").glob("*_[123]-*"))[:COUNT]
    rng, gains, losses = np.random.default_rng(0), [], []
    for voice, noise in zip(voices, noises, strict=True):
        s, n = (sf.read(path)[0] for path in (voice, noise))
        s, n = s[: SECONDS * SR], np.resize(n, min(s.size, SECONDS * SR))
        n *= np.sqrt(np.mean(s**2) / (np.mean(n**2) + 1e-12)) * 10 ** (-rng.uniform(-5, 10) / 20)
        x = (s + n).astype(np.float32)
        scores = [si_sdr(rtsep.separate(x, SR, Speech(weights=w))[0], s) for w in ("float32", "int8")]
        gains.append(scores[0] - si_sdr(x, s))
        losses.append(scores[0] - scores[1])
    error = np.std(losses, ddof=1) / np.sqrt(COUNT)
    print(f"{COUNT} mixtures: gain {np.mean(gains):.2f} dB, int8 loses {np.mean(losses):.3f} +- {error:.3f} dB")


if __name__ == "__main__":
    main()
