"""Noises from generators: what no folder of recordings has enough of."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import oaconvolve

from rtsep.training.corpus import SR

SLOPES = (0.0, 2.0)  # the power falls by f^-slope: 0 is white, 1 pink, 2 brown
FLAT_HZ = 30.0  # below it is flat
HILLS_DB = 15.0  # of noise with a shape of its own


def coloured(rng: np.random.Generator, n: int) -> np.ndarray:
    """White, pink or brown noise, or anything in between; float32 (n,)."""
    size = next_fast_len(n, True)
    f = np.arange(size // 2 + 1) * (SR / size)
    shape = (np.maximum(f, FLAT_HZ) / FLAT_HZ) ** (-rng.uniform(*SLOPES) / 2)
    return irfft(rfft(rng.standard_normal(size, np.float32)) * shape.astype(np.float32), size)[:n]


def shaped(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise with hills and valleys in its spectrum, like that of fans, engines and crowds; float32 (n,)."""
    size = next_fast_len(n, True)
    octaves = np.log2(np.maximum(np.arange(size // 2 + 1) * (SR / size), FLAT_HZ))
    count = int(rng.integers(4, 16))
    at = np.sort(rng.uniform(np.log2(FLAT_HZ), np.log2(SR / 2), count))
    level_db = np.interp(octaves, at, rng.uniform(-HILLS_DB, HILLS_DB, count)) - rng.uniform(0, 6) * octaves
    shape = 10 ** ((level_db - level_db.max()) / 20)
    return irfft(rfft(rng.standard_normal(size, np.float32)) * shape.astype(np.float32), size)[:n]


def modulated(rng: np.random.Generator, n: int) -> np.ndarray:
    """Coloured noise whose level rises and falls 0.5 to 16 times a second."""
    depth, rate, phase = rng.uniform(0.3, 1), np.exp(rng.uniform(np.log(0.5), np.log(16))), rng.uniform(0, 2 * np.pi)
    envelope = 1 + depth * np.sin(2 * np.pi * rate / SR * np.arange(n) + phase)
    return (shaped(rng, n) * envelope).astype(np.float32)


def gusts(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise whose level wanders by tens of dB within seconds: wind, waves, passing vehicles; float32 (n,)."""
    knots = np.cumsum(rng.exponential(rng.uniform(0.1, 1.0), 2 + 10 * n // SR)) * SR
    level_db = np.interp(np.arange(n), knots, rng.uniform(-30, 0, knots.size))
    return (shaped(rng, n) * 10 ** (level_db / 20)).astype(np.float32)


def clatter(rng: np.random.Generator, n: int) -> np.ndarray:
    """Knocks, clicks and dishes: impulses at random times through resonances that die away; float32 (n,)."""
    out = np.zeros(n, np.float32)
    t = np.arange(int(0.2 * SR), dtype=np.float32) / SR
    for _ in range(rng.integers(1, 4)):
        hits = np.zeros(n, np.float32)
        at = rng.integers(0, n, rng.poisson(np.exp(rng.uniform(np.log(0.5), np.log(30))) * n / SR) + 1)
        np.add.at(hits, at, rng.lognormal(0, 0.7, at.size).astype(np.float32))
        sound = np.zeros(t.size, np.float32)
        for _ in range(rng.integers(2, 6)):
            f, decay_s = (
                np.exp(rng.uniform(np.log(150), np.log(7000))),
                np.exp(rng.uniform(np.log(0.001), np.log(0.05))),
            )
            sound += rng.uniform(0.2, 1) * np.exp(-t / decay_s) * np.sin(2 * np.pi * f * t + rng.uniform(0, 6))
        sound += rng.uniform(0, 2) * np.exp(-t / rng.uniform(0.001, 0.02)) * rng.standard_normal(t.size)
        out += oaconvolve(hits, sound.astype(np.float32))[:n]
    return out


def calls(rng: np.random.Generator, n: int) -> np.ndarray:
    """Tones with harmonics that glide and pause: sirens, birds, cries, alarms; float32 (n,)."""
    knots = np.cumsum(rng.exponential(np.exp(rng.uniform(np.log(0.03), np.log(1.0))), 2 + 60 * n // SR)) * SR
    low, span = np.log2(rng.uniform(150, 2000)), rng.uniform(0.05, 2)
    f = 2 ** (low + np.interp(np.arange(n), knots, rng.uniform(0, span, knots.size))).astype(np.float32)
    turns = np.cumsum(f / SR, dtype=np.float64)
    x = np.zeros(n, np.float32)
    for k in range(1, min(int(rng.integers(1, 9)), int(0.45 * SR / f.max())) + 1):
        x += np.float32(rng.uniform(0.1, 1) / k) * np.sin(2 * np.pi * ((k * turns) % 1).astype(np.float32))
    pauses = np.interp(np.arange(n), knots, rng.random(knots.size) < rng.uniform(0.4, 1)).astype(np.float32)
    return x * pauses


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


GENERATORS = (coloured, shaped, shaped, modulated, gusts, gusts, clatter, clatter, calls, hum, tones)


def synthetic(rng: np.random.Generator, n: int) -> np.ndarray:
    """One of the above; float32 (n,)."""
    x = GENERATORS[rng.integers(len(GENERATORS))](rng, n)
    # Tones never come alone.
    return x + coloured(rng, n) * np.float32(0.05 * rng.random() * (x.std() + 1e-9))
