"""Deterministic test signals: float32, (n_src, n_samples)."""

from __future__ import annotations

import numpy as np


def voices(n_samples: int = 16_000, sr: int = 16_000, n_src: int = 2, seed: int = 0) -> np.ndarray:
    """Gliding harmonic voices with syllables over a floor of noise; peaks below 0.5."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / sr
    sources = []
    for j in range(n_src):
        f0 = 110 * 1.6**j * (1 + 0.1 * np.sin(2 * np.pi * (0.7 + 0.3 * j) * t))
        phase = 2 * np.pi * np.cumsum(f0) / sr
        harmonics = range(1, int(min(20, 0.45 * sr / f0.max())) + 1)
        voice = sum(np.sin(h * phase + rng.uniform(0, 6)) / h for h in harmonics)
        syllables = np.clip(np.sin(2 * np.pi * (2 + j) * t + j), 0, 1) ** 0.5
        sources.append(0.15 * voice * syllables + 1e-3 * rng.normal(size=n_samples))
    return np.array(sources, np.float32)


def struck(seed: int, count: int = 8) -> np.ndarray:
    """Two sources (2, n_samples), each one sound that comes `count` times; the sources begin 20 ms apart at most."""
    rng, n, period = np.random.default_rng(seed), np.arange(4_000), 4_500
    sources = np.zeros((2, count * period + 3_000))
    for source in sources:
        hz, decay = rng.uniform(150, 500), rng.uniform(6, 12)
        sound = rng.normal(size=n.size) * np.exp(-n / 100)
        for h in range(1, 14):
            partial = h * hz * (1 + rng.uniform(-0.02, 0.02)) / 16_000
            sound += np.sin(2 * np.pi * partial * n + rng.uniform(0, 6)) * np.exp(-n / 16_000 * (decay + 2 * h)) / h
        sound *= np.cos(np.pi / 2 * n / n.size) ** 2
        for start in 1_000 + period * np.arange(count) + rng.integers(-160, 160, count):
            source[start : start + n.size] += rng.uniform(0.3, 1) * sound
        source *= 0.3 / np.abs(source).max()
    return sources.astype(np.float32)


def hostile(n_samples: int = 4_000) -> dict[str, np.ndarray]:
    """Signals that break careless code, (n_samples,) each."""
    rng = np.random.default_rng(1)
    t = np.arange(n_samples)
    noise = (0.1 * rng.normal(size=n_samples)).astype(np.float32)
    impulse = np.zeros(n_samples, np.float32)
    impulse[n_samples // 3] = 1
    broken = noise.copy()
    broken[1000:1010], broken[1500], broken[1501] = np.nan, np.inf, -np.inf
    huge = noise.copy()
    huge[1000] = 3e38
    return {
        "silence": np.zeros(n_samples, np.float32),
        "constant": np.full(n_samples, 0.5, np.float32),
        "impulse": impulse,
        "square": np.where(t // 50 % 2, 1, -1).astype(np.float32),
        "denormals": (1e-42 * rng.normal(size=n_samples)).astype(np.float32),
        "quiet": 1e-6 * noise,
        "loud": 1e3 * noise,
        "nyquist": np.where(t % 2, 0.5, -0.5).astype(np.float32),
        "not finite": broken,
        "huge": huge,
        "gaps": np.where(t // 700 % 2, noise, 0).astype(np.float32),
    }
