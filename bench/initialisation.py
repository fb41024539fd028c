"""First phases of a frame: those of the mixture or those of the sinusoidal model, and why.

    python bench/initialisation.py [--pairs FOLDER]

Mixtures of two synthetic tonal sources each and of two voices; with a folder also its pairs (see `material.py`).
Magnitudes are the true ones.

The first tables give the SI-SDR improvement of oMISI. The last ones predict every frame's phases from the true ones of
the frame before and give the squared error of exp(i phase), weighted by energy, in dB: by the share of the source
in the sum of the magnitudes, and by how far the lobe around the bin departs from that of a single sinusoid.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
from material import SR, add_pairs, gain, pairs, spectra
from study import table

from rtsep import StreamConfig
from rtsep.estimators import Oracle
from rtsep.phase import OMISI
from rtsep.phase.sinusoidal import advance_phasors, lobe_curvature, prepare_sinusoids

HALF, QUARTER = StreamConfig(SR, 256, 128), StreamConfig(SR)
# Overlap, and settings without and with the model.
SETTINGS = {
    "50 %, 15 iterations, as published": (HALF, {"n_iter": 15, "tail": 1.0, "order": "published"}),
    "50 %, 15 iterations, tail 1": (HALF, {"n_iter": 15, "tail": 1.0, "gate": False}),
    "50 %, 5 iterations": (HALF, {"n_iter": 5}),
    "75 %, 5 iterations (default)": (QUARTER, {"n_iter": 5}),
    "75 %, 15 iterations": (QUARTER, {"n_iter": 15}),
    "75 %, 7 iterations, K=1": (QUARTER, {"n_iter": 7, "lookahead": 1}),
}
SHARES = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.001)
DEPARTURES = (0, 0.05, 0.15, 0.4, 1, np.inf)


def plucked(rng: np.random.Generator, lowest_hz: float, stiffness: float, n_samples: int) -> np.ndarray:
    """Notes of stiff strings, four to twelve a second apart: a piano, or with less stiffness a guitar."""
    time, out, start = np.arange(n_samples) / SR, np.zeros(n_samples), 0.0
    while start < n_samples / SR:
        f0 = lowest_hz * 2 ** (rng.integers(0, 18) / 12)
        since = np.clip(time - start, 0, None)
        for h in range(1, 30):
            hz = f0 * h * np.sqrt(1 + stiffness * h**2)
            if hz < 7_500:
                level = np.exp(-since * (2 + 0.7 * h)) * (1 - np.exp(-since / 0.002)) / h
                out += level * np.sin(2 * np.pi * hz * since + rng.uniform(0, 6))
        start += rng.uniform(0.25, 0.6)
    return out


def sustained(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """A voice that holds a note with vibrato."""
    time = np.arange(n_samples) / SR
    f0 = rng.uniform(180, 400) * (1 + 0.012 * np.sin(2 * np.pi * 5.3 * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(f0) / SR
    harmonics = range(1, int(7_000 / f0.max()))
    voice = sum((1 + 0.5 * np.sin(h)) * np.sin(h * phase + rng.uniform(0, 6)) / h**1.2 for h in harmonics)
    return voice * np.clip(time / 0.1, 0, 1)


def tonal(n_samples: int = 48_000) -> dict[str, np.ndarray]:
    """Mixtures of two tonal sources over a floor of noise, (2, n_samples) each."""
    rng = np.random.default_rng(0)
    pianos = [plucked(rng, 220, 4e-4, n_samples) for _ in range(2)]
    guitars = [plucked(rng, 110, 1e-4, n_samples) for _ in range(2)]
    voices = [sustained(rng, n_samples) for _ in range(2)]
    mixtures = {
        "two pianos": pianos,
        "two guitars": guitars,
        "two held voices": voices,
        "voice and piano": [voices[0], pianos[1]],
    }
    levelled = {name: np.stack([0.3 * s / np.abs(s).max() for s in pair]) for name, pair in mixtures.items()}
    return {name: pair + 1e-5 * rng.normal(size=pair.shape) for name, pair in levelled.items()}


def departures(magnitudes: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Relative error of the curvature at the nearest peak, for each bin of (n_frames, n_src, n_bins)."""
    log = np.log(np.maximum(magnitudes, 1e-12))
    curvature = np.diff(log, 2) / lobe_curvature(config)
    inner = magnitudes[..., 1:-1]
    is_peak = (inner > magnitudes[..., :-2]) & (inner > magnitudes[..., 2:])
    found = np.full(magnitudes.shape, np.nan)
    for index in np.ndindex(magnitudes.shape[:2]):
        peaks = np.flatnonzero(is_peak[index])
        if peaks.size:
            bins = np.arange(magnitudes.shape[2])
            nearest = peaks[np.abs(bins[:, None] - 1 - peaks).argmin(1)]
            found[index] = np.abs(curvature[index][nearest] - 1)
    return found


def prediction_errors(sources: np.ndarray, config: StreamConfig) -> list[np.ndarray]:
    """Energy, squared errors of the mixture's phase and of the model's times energy, share, departure; all flat."""
    frames = spectra(sources, config)[: sources.shape[1] // config.hop]
    true, mixture = np.stack([frames.real, frames.imag], 2).astype(np.float32), frames.sum(1)
    magnitudes = np.abs(frames).astype(np.float32)
    phasors = true / np.maximum(magnitudes, 1e-12)[:, :, None]
    state, predicted = prepare_sinusoids(config, len(sources)), np.zeros_like(phasors)
    for t in range(1, len(frames)):
        unused = np.zeros((2, config.n_bins), np.float32)
        advance_phasors(state, magnitudes[t], unused, 0, phasors[t - 1], predicted[t])
    of_mixture = mixture / np.maximum(np.abs(mixture), 1e-12)
    of_mixture = np.stack([of_mixture.real, of_mixture.imag], 1)[:, None]
    energy = magnitudes.astype(float) ** 2
    errors = [energy * ((guess - phasors) ** 2).sum(2) for guess in (of_mixture, predicted)]
    share = magnitudes / np.maximum(magnitudes.sum(1, keepdims=True), 1e-12)
    return [a[1:].ravel() for a in (energy, *errors, share, departures(magnitudes, config))]


def print_errors(title: str, parts: np.ndarray, axis: int, edges: tuple[float, ...]) -> None:
    energy, of_mixture, of_model = parts[:3]
    rows = []
    for low, high in pairwise(edges):
        inside = (parts[axis] >= low) & (parts[axis] < high)
        total = energy[inside].sum()
        row = [10 * np.log10(error[inside].sum() / total) for error in (of_mixture, of_model)]
        share = 100 * total / energy.sum()
        rows.append([f"{low:g} to {min(high, 99):g}", f"{share:.0f}", *(f"{value:.1f}" for value in row)])
    print("", *table([title, "energy, %", "mixture, dB", "model, dB"], rows), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="oMISI from the mixture's phase and from the sinusoidal model")
    add_pairs(parser)
    folder = parser.parse_args().pairs
    voices = {"two voices": pairs(None)["two voices 0"]} | (pairs(folder) if folder else {})
    mixtures = tonal() | voices
    for title, (config, settings) in SETTINGS.items():
        rows = []
        for init in ("mixture", "sinusoidal"):
            gains = (gain(s, Oracle(s), OMISI(init=init, **settings), config) for s in mixtures.values())
            rows.append([init, *(f"{value:.1f}" for value in gains)])
        print("", *table([f"{title}, SI-SDRi dB", *mixtures], rows), sep="\n")
    for name, config in {"50 %": HALF, "75 %": QUARTER}.items():
        errors = [prediction_errors(s, config) for s in voices.values()]
        parts = np.stack([np.concatenate([e[i] for e in errors]) for i in range(5)])
        print_errors(f"{name} overlap, share of the source", parts, 3, SHARES)
        print_errors(f"{name} overlap, departure of the lobe", parts, 4, DEPARTURES)


if __name__ == "__main__":
    main()
