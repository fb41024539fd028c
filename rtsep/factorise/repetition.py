"""What repeats in a spectrogram: beat spectra, similar frames, and the mask that keeps the background."""

from __future__ import annotations

import numpy as np

from rtsep.errors import ConfigError
from rtsep.factorise.factors import EPS


def beat_spectrum(power: np.ndarray) -> np.ndarray:
    """Mean over the bins of the unbiased autocorrelation of their powers (n_bins, n_frames) over time: (n_frames,)."""
    n_frames = power.shape[1]
    spectra = np.fft.rfft(power, 2 * n_frames, axis=1)
    return np.fft.irfft((np.abs(spectra) ** 2).mean(0))[:n_frames] / np.arange(n_frames, 0, -1)


def find_period(beats: np.ndarray, shortest: int, longest: int) -> int:
    """The lag, `shortest` to `longest` frames and a third of the time at most, where the beats are largest."""
    longest = min(longest, len(beats) // 3)
    if not 1 <= shortest <= longest:
        raise ConfigError(f"period of {shortest} to {longest} frames: a third of the time must hold the shortest one")
    return shortest + int(np.argmax(beats[shortest : longest + 1]))


def similarity(v: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Cosine between all columns of `v` (n_bins, n_frames) and those of `frames`: (n_frames, n); 0 for silent ones."""

    def directions(columns: np.ndarray) -> np.ndarray:
        size = np.linalg.norm(columns, axis=0)
        return np.divide(columns, size, out=np.zeros_like(columns), where=size > 0)

    return directions(v).T @ directions(frames)


def similar_frames(similarities: np.ndarray, threshold: float, distance: int, number: int) -> np.ndarray:
    """The frames of the `number` largest local maxima, largest first.

    A local maximum is larger than all that are at most `distance` frames away, and not below `threshold`.
    """
    n = len(similarities)
    padded = np.pad(similarities, distance, constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * distance + 1).copy()
    around[:, distance] = -np.inf
    peaks = np.flatnonzero((similarities >= threshold) & (similarities > around.max(1))) if n else np.empty(0, int)
    return peaks[np.argsort(-similarities[peaks], kind="stable")][:number]


def repeating_mask(v: np.ndarray, repeating: np.ndarray) -> np.ndarray:
    """Share of the background in magnitudes `v`: min(repeating, v) / v."""
    return (np.minimum(repeating, v) + EPS) / (v + EPS)
