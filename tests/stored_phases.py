"""What the NumPy twins make of a fixed mixture of two voices, stored so that neither they nor the kernels drift.

    python tests/stored_phases.py        # make tests/data/phases.npz anew

The file holds float32 arrays: `sources` (n_src, n_samples), `wrong` (n_frames, n_src, n_bins), which are their
magnitudes with an error, and the signals of every case, (n_src, n_samples). oMISI is given true magnitudes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import naive
import naive_window as twin
import numpy as np
import signals

STORED = Path(__file__).parent / "data" / "phases.npz"

OMISI_SIZES = (256, 128, 512)
OMISI: dict[str, dict[str, Any]] = {
    "omisi, no iterations": {"n_iter": 0},
    "omisi, 1": {"n_iter": 1},
    "omisi, 5": {"n_iter": 5},
    "omisi, 15": {"n_iter": 15},
    "omisi, 7, look-ahead 1": {"n_iter": 7, "lookahead": 1},
    "omisi, 5, look-ahead 2": {"n_iter": 5, "lookahead": 2},
    "omisi, 1, sinusoidal": {"n_iter": 1, "init": "sinusoidal"},
    "omisi, 15, sinusoidal": {"n_iter": 15, "init": "sinusoidal"},
    "omisi, 5, look-ahead 2, sinusoidal": {"n_iter": 5, "lookahead": 2, "init": "sinusoidal"},
}

SIZES = (256, 64, 256)
WINDOW: dict[str, twin.Update] = {
    "misi": twin.misi,
    "mix_incons": twin.mix_incons(1.0, 1),
    "mix_incons_hardmag": twin.mix_incons(1.0, 1, hard=True),
    "mag_incons_hardmix": twin.mag_incons_hardmix(1.0),
}
# Every step is taken, however far it goes.
BREGMAN: dict[str, dict[str, Any]] = {
    "bregman, 2, 1, right": {"beta": 2.0, "d": 1, "side": "right", "step_size": 1.0, "ridge": 1e-8},
    "bregman, 1, 1, left": {"beta": 1.0, "d": 1, "side": "left", "step_size": 0.02, "ridge": 1e-4},
    "bregman, 1, 1, right": {"beta": 1.0, "d": 1, "side": "right", "step_size": 0.02, "ridge": 1e-4},
    "bregman, 0.5, 1, left": {"beta": 0.5, "d": 1, "side": "left", "step_size": 0.002, "ridge": 1e-4},
    "bregman, 1.25, 2, left": {"beta": 1.25, "d": 2, "side": "left", "step_size": 0.03, "ridge": 1e-8},
    "bregman, 1.25, 2, right": {"beta": 1.25, "d": 2, "side": "right", "step_size": 0.03, "ridge": 1e-8},
}
UNBOUND = 1e9  # no step overshoots by as much


def spectra_of(x: np.ndarray, sizes: tuple[int, int, int]) -> np.ndarray:
    """Spectra of the frames that start at t * hop, (n_frames, ..., n_bins) of (..., n_samples)."""
    win_length, hop, n_fft = sizes
    frames = [x[..., i : i + win_length] for i in range(0, x.shape[-1] - win_length + 1, hop)]
    return np.fft.rfft(np.stack(frames) * naive.hann(win_length), n_fft)


def make() -> dict[str, np.ndarray]:
    """All arrays of the file, in float64 where they are computed."""
    sources = signals.voices(4_000)[:, -2_048:]
    spectra = spectra_of(sources.astype(float), SIZES)
    error = np.exp(0.3 * np.random.default_rng(0).normal(size=spectra.shape))
    arrays = {"sources": sources, "wrong": (np.abs(spectra) * error).astype(np.float32)}
    x, wrong = spectra.sum(1), arrays["wrong"].astype(float)
    for name, update in WINDOW.items():
        arrays[name] = twin.offline(wrong, x, SIZES, update, twin.mask, 5)
    for name, settings in BREGMAN.items():
        step = (settings[key] for key in ("beta", "d", "step_size", "side", "ridge"))
        arrays[name] = twin.offline(wrong, x, SIZES, twin.bregman(*step, UNBOUND), twin.mask, 5)
    spectra = spectra_of(sources.astype(float), OMISI_SIZES)
    x, true = spectra.sum(1), np.abs(spectra)
    for name, settings in OMISI.items():
        arrays[name] = naive.omisi(x, true, *OMISI_SIZES, order="published", **settings)
    arrays["misi, 14"] = twin.offline(true, x, OMISI_SIZES, twin.misi_published, twin.mask, 14)
    return arrays


def load() -> dict[str, np.ndarray]:
    return dict(np.load(STORED, allow_pickle=False))


if __name__ == "__main__":
    np.savez_compressed(STORED, **{name: array.astype(np.float32) for name, array in make().items()})
