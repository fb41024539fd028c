"""Simulated rooms: early reflections, and noise that decays."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from rtsep.training.corpus import SR

T60_S = (0.15, 0.8)  # small offices to lecture halls
LATE_DB = (-20.0, -3.0)  # energy of the late part against the early one
EARLY_S = 0.03  # single reflections until then
N_REFLECTIONS = (3, 10)
DECAY = 3 * np.log(10)  # of the amplitude over T60: 60 dB
LONGEST_S = 0.5  # of a response


def draw_room(rng: np.random.Generator) -> float:
    """Reverberation time T60 in seconds."""
    return float(rng.uniform(*T60_S))


def draw_response(rng: np.random.Generator, t60: float) -> np.ndarray:
    """Response of a room from one place to the microphone.

    Parameters
    ----------
    rng : Generator
    t60 : float
        Reverberation time in seconds.

    Returns
    -------
    response : ndarray, float32, (n_taps,)
        The direct sound is at the first sample with a height of 1.
    """
    n, n_early = int(min(t60, LONGEST_S) * SR), int(EARLY_S * SR)
    early, late = np.zeros(n, np.float32), np.zeros(n, np.float32)
    early[0] = 1
    at = rng.integers(SR // 1000, n_early, rng.integers(*N_REFLECTIONS))
    early[at] += rng.uniform(-0.5, 0.5, at.size) * np.exp(-DECAY * at / (t60 * SR))
    decay = np.exp(-DECAY / (t60 * SR) * np.arange(n - n_early, dtype=np.float32))
    tail = rng.standard_normal(n - n_early, np.float32)
    # Walls and air take the high frequencies first: a mild low-pass.
    tail[1:] += 0.5 * tail[:-1]
    late[n_early:] = tail * decay
    energy = 10 ** (rng.uniform(*LATE_DB) / 10) * float(early @ early)
    late *= np.sqrt(energy / float(late @ late))
    return early + late


def in_room(x: np.ndarray, response: np.ndarray) -> np.ndarray:
    """What the microphone hears of `x`, as long as `x`; float32."""
    n = next_fast_len(x.size + response.size, True)
    return irfft(rfft(x, n) * rfft(response, n), n)[: x.size].astype(np.float32)
