"""Where phase recovery stops paying: SI-SDR improvement against the error of the magnitudes and the iterations.

    python bench/degraded.py [--pairs FOLDER] [-o docs/degraded.png]

The true magnitudes of two sources (as in `quality.py`) are degraded: log-normal errors, independent from bin to
bin or smooth over 16 ms and 125 Hz; ratio masks; magnitudes blurred over three frames. oMISI at 16 ms, 75 % overlap.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from quality import scenes, si_sdr
from scipy.ndimage import gaussian_filter, uniform_filter1d

from rtsep import Output, StreamConfig, separate
from rtsep.engine.protocols import PythonEstimator
from rtsep.phase import OMISI

CONFIG = StreamConfig(16_000)
ERRORS_DB = (0, 1, 2, 3, 4.5, 6, 8)
ITERATIONS = (1, 5, 15)


class Given(PythonEstimator):
    """An estimator that plays back magnitudes, (n_frames, n_src, n_bins)."""

    sources = ("first", "second")

    def __init__(self, magnitudes: np.ndarray) -> None:
        self.magnitudes = magnitudes

    def prepare(self, config: StreamConfig) -> Iterator[np.ndarray]:
        return iter(self.magnitudes)

    def step(self, state: Iterator[np.ndarray], mixture: np.ndarray, power: np.ndarray, magnitudes: np.ndarray) -> None:
        magnitudes[:] = next(state, 0)


def spectra(sources: np.ndarray) -> np.ndarray:
    """(n_frames, n_src, n_bins), the frames of a stream."""
    lead = CONFIG.win_length - CONFIG.hop
    padded = np.pad(sources, ((0, 0), (lead, 2 * CONFIG.win_length)))
    starts = range(0, sources.shape[1] + CONFIG.win_length - CONFIG.hop, CONFIG.hop)
    frames = np.stack(
        [padded[:, i : i + CONFIG.win_length] for i in starts if i + CONFIG.win_length <= padded.shape[1]]
    )
    return np.fft.rfft(frames * CONFIG.window, CONFIG.n_fft)


def independent(true: np.ndarray, error_db: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=true.shape)
    return np.abs(true) * 10 ** (error_db * noise / 20)


def smooth(true: np.ndarray, error_db: float) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=true.shape), (4, 0, 4))
    return np.abs(true) * 10 ** (error_db * noise / noise.std() / 20)


def ratio_mask(true: np.ndarray, exponent: float) -> np.ndarray:
    power = np.abs(true) ** exponent
    return power / (power.sum(1, keepdims=True) + 1e-12) * np.abs(true.sum(1, keepdims=True))


def blurred(true: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(uniform_filter1d(np.abs(true) ** 2, 3, axis=0), 0))


def improvement(pairs: list[np.ndarray], magnitudes: list[np.ndarray], phase: OMISI | str) -> float:
    gains = []
    for sources, given in zip(pairs, magnitudes, strict=True):
        x = sources.sum(0)
        heard = separate(x, 16_000, Given(given.astype(np.float32)), phase, output=Output(ceiling_db=float("inf")))
        gains += [si_sdr(e, s) - si_sdr(x, s) for e, s in zip(heard, sources, strict=True)]
    return float(np.mean(gains))


def main() -> None:
    parser = argparse.ArgumentParser(description="SI-SDR improvement against the error of the magnitudes")
    parser.add_argument("--pairs", type=Path, help="folder of folders with sig1.* and sig2.*")
    parser.add_argument("-o", "--output", type=Path, default=Path("degraded.png"), help="figure")
    args = parser.parse_args()
    pairs = scenes(args.pairs)
    true = [spectra(sources) for sources in pairs]
    phases = {"amplitude mask": "mixture"}
    phases |= {f"{n} iterations, no gate": OMISI(n, gate=False) for n in ITERATIONS}
    phases |= {f"{n} iterations": OMISI(n) for n in ITERATIONS}

    curves = {
        title: {
            name: [improvement(pairs, [degrade(t, error) for t in true], phase) for error in ERRORS_DB]
            for name, phase in phases.items()
        }
        for title, degrade in (("independent errors", independent), ("smooth errors", smooth))
    }
    others = {
        "ratio mask": [ratio_mask(t, 1) for t in true],
        "Wiener mask": [ratio_mask(t, 2) for t in true],
        "blurred": [blurred(t) for t in true],
    }
    print(f"SI-SDRi in dB, mean of {len(pairs)} mixtures\n")
    for title, curve in curves.items():
        print(f"| {title}, dB rms | " + " | ".join(f"{e:g}" for e in ERRORS_DB) + " |")
        print("|---|" + "---|" * len(ERRORS_DB))
        for name, row in curve.items():
            print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
        print()
    print("| other magnitudes | " + " | ".join(others) + " |\n|---|" + "---|" * len(others))
    for name, phase in phases.items():
        row = [improvement(pairs, magnitudes, phase) for magnitudes in others.values()]
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row) + " |")

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, (title, curve) in zip(axes, curves.items(), strict=True):
        for number, (name, row) in enumerate(curve.items()):
            colour = "black" if number == 0 else f"C{(number - 1) % len(ITERATIONS)}"
            axis.plot(ERRORS_DB, row, ":" if "no gate" in name else "-", color=colour, marker=".", label=name)
        axis.set(title=title, xlabel="error of the magnitudes in dB rms")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("SI-SDR improvement in dB")
    axes[1].legend(fontsize=8)
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
