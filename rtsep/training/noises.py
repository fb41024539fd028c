"""Noises from generators: what no folder of recordings has enough of."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from rtsep.training.corpus import SR

SLOPES = (0.0, 2.0)  # the power falls by f^-slope: 0 is white, 1 pink, 2 brown
FLAT_HZ = 30.0  # below it is flat


def coloured(rng: np.random.Generator, n: int) -> np.ndarray:
    """White, pink or brown noise, or anything in between; float32 (n,)."""
    size = next_fast_len(n, True)
    f = np.arange(size // 2 + 1) * (SR / size)
    shape = (np.maximum(f, FLAT_HZ) / FLAT_HZ) ** (-rng.uniform(*SLOPES) / 2)
    return irfft(rfft(rng.standard_normal(size, np.float32)) * shape.astype(np.float32), size)[:n]


def modulated(rng: np.random.Generator, n: int) -> np.ndarray:
    """Coloured noise whose level rises and falls 0.5 to 16 times a second."""
    depth, rate, phase = rng.uniform(0.3, 1), np.exp(rng.uniform(np.log(0.5), np.log(16))), rng.uniform(0, 2 * np.pi)
    envelope = 1 + depth * np.sin(2 * np.pi * rate / SR * np.arange(n) + phase)
    return (coloured(rng, n) * envelope).astype(np.float32)


def hum(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mains at 50 or 60 Hz, or a motor up to 200 Hz, with up to 30 harmonics."""
    f0 = rng.choice([50.0, 60.0]) if rng.random() < 0.5 else rng.uniform(40, 200)
    count = min(int(rng.integers(3, 30)), int(0.45 * SR / f0))
    k = np.arange(1, count + 1)
    size = rng.uniform(0.1, 1, count) * k ** -rng.uniform(0.5, 2)
    return _tones(f0 * k, size, rng.uniform(0, 2 * np.pi, count), n)


def tones(rng: np.random.Generator, n: int) -> np.ndarray:
    """One to four steady or beeping tones from 100 to 7000 Hz."""
    count = int(rng.integers(1, 5))
    f = np.exp(rng.uniform(np.log(100), np.log(7000), count))
    x = _tones(f, rng.uniform(0.2, 1, count), rng.uniform(0, 2 * np.pi, count), n)
    if rng.random() < 0.5:
        x *= (np.arange(n) * rng.uniform(0.5, 4) / SR + rng.random()) % 1 < rng.uniform(0.2, 0.8)
    return x


def _tones(f: np.ndarray, size: np.ndarray, phase: np.ndarray, n: int) -> np.ndarray:
    t = np.arange(n, dtype=np.float32) * np.float32(2 * np.pi / SR)
    x = np.zeros(n, np.float32)
    for one in zip(f, size, phase, strict=True):
        w, a, p = (np.float32(value) for value in one)
        x += a * np.sin(w * t + p)
    return x


GENERATORS = (coloured, coloured, modulated, hum, tones)


def synthetic(rng: np.random.Generator, n: int) -> np.ndarray:
    """One of the above; float32 (n,)."""
    x = GENERATORS[rng.integers(len(GENERATORS))](rng, n)
    # Tones never come alone.
    return x + coloured(rng, n) * np.float32(0.05 * rng.random() * (x.std() + 1e-9))
