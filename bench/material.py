"""What the studies of phase recovery separate: pairs of sources, magnitudes good and bad, and what is gained.

Pairs are four synthetic two-voice mixtures (`tests/signals.py`), or with `--pairs` the subfolders of a folder: each
holds `sig1.*` and `sig2.*` at 16 kHz. Magnitudes are degraded by log-normal errors, independent from bin to bin or
smooth over 16 ms and 125 Hz, or are what a ratio mask leaves of the mixture.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.ndimage import gaussian_filter

from rtsep import Output, PythonEstimator, StreamConfig, separate
from rtsep.evaluation import si_sdr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import signals

SR = 16_000
CONFIG = StreamConfig(SR)
UNLIMITED = Output(ceiling_db=float("inf"))
N_HOPS = 200  # of what is timed


def add_pairs(parser: ArgumentParser) -> None:
    """The option for recorded pairs."""
    parser.add_argument("--pairs", type=Path, help="folder of folders with sig1.* and sig2.*")


def pairs(folder: Path | None) -> dict[str, np.ndarray]:
    """Sources of each mixture, (2, n_samples), by name."""
    if folder is None:
        return {f"two voices {seed}": signals.voices(48_000, seed=seed).astype(float) for seed in range(4)}
    found = {}
    for pair in sorted(p for p in folder.iterdir() if p.is_dir()):
        sources = [soundfile.read(next(pair.glob(f"sig{j}.*"))) for j in (1, 2)]
        assert all(sr == SR for _, sr in sources), pair
        n = min(len(s) for s, _ in sources)
        found[pair.name] = np.stack([s[:n] for s, _ in sources])
    return found


def hops(config: StreamConfig) -> tuple[np.ndarray, np.ndarray]:
    """200 hops of a two-voice mixture, (200, 1, hop), and the true magnitudes of its frames."""
    sources = signals.voices(N_HOPS * config.hop, config.sr)
    magnitudes = np.abs(spectra(sources, config)[:N_HOPS]).astype(np.float32)
    return np.ascontiguousarray(sources.sum(0).reshape(N_HOPS, 1, config.hop)), magnitudes


def spectra(sources: np.ndarray, config: StreamConfig = CONFIG) -> np.ndarray:
    """(n_frames, n_src, n_bins), the frames of a stream with its sources, until its last sample has left."""
    lead = config.analysis - config.hop
    padded = np.pad(sources, ((0, 0), (lead, 2 * config.analysis)))
    starts = range(0, sources.shape[1] + lead, config.hop)
    frames = np.stack([padded[:, i : i + config.analysis] for i in starts])
    return np.fft.rfft(frames * config.windows.analysis, config.n_fft)


def independent(true: np.ndarray, error_db: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=true.shape)
    return np.abs(true) * 10 ** (error_db * noise / 20)


def smooth(true: np.ndarray, error_db: float) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=true.shape), (4, 0, 4))
    return np.abs(true) * 10 ** (error_db * noise / noise.std() / 20)


def ratio_mask(true: np.ndarray, exponent: float) -> np.ndarray:
    power = np.abs(true) ** exponent
    return power / (power.sum(1, keepdims=True) + 1e-12) * np.abs(true.sum(1, keepdims=True))


class Given(PythonEstimator):
    """An estimator that plays back magnitudes, (n_frames, n_src, n_bins)."""

    sources = ("first", "second")

    def __init__(self, magnitudes: np.ndarray) -> None:
        self.magnitudes = magnitudes.astype(np.float32)

    def prepare(self, config: StreamConfig) -> Iterator[np.ndarray]:
        return iter(self.magnitudes)

    def step(self, state: Iterator[np.ndarray], mixture: np.ndarray, power: np.ndarray, magnitudes: np.ndarray) -> None:
        magnitudes[:] = next(state, 0)


def gain(sources: np.ndarray, estimator: Any, phase: Any, config: StreamConfig = CONFIG) -> float:
    """SI-SDR improvement in dB, mean over the sources."""
    x = sources.sum(0)
    heard = separate(x, SR, estimator, phase, config=config, output=UNLIMITED)
    return float(np.mean([si_sdr(s, e) - si_sdr(s, x) for e, s in zip(heard, sources, strict=True)]))


def mean_gain(scenes: list[np.ndarray], magnitudes: list[np.ndarray], phase: Any) -> float:
    """Over mixtures whose magnitudes are given."""
    return float(np.mean([gain(s, Given(v), phase) for s, v in zip(scenes, magnitudes, strict=True)]))
