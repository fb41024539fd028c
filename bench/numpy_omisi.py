"""oMISI at K = 0 as one would write it in NumPy: all sources, one rfft and irfft call per iteration.

The yardstick of `hop_time.py`. Order of the paper, window frames of `win_length` samples; float64.
"""

from __future__ import annotations

import numpy as np


class NumpyOMISI:
    """State of one stream; `step` takes a frame of samples and target magnitudes, gives a hop per source."""

    def __init__(self, win_length: int, hop: int, n_fft: int, n_src: int, n_iter: int) -> None:
        self.window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
        overlap = (self.window**2).reshape(-1, hop).sum(0)
        self.synthesis = self.window / np.tile(overlap, win_length // hop)
        self.hop, self.n_fft, self.n_iter = hop, n_fft, n_iter
        self.past = np.zeros((n_src, win_length))

    def step(self, frame: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """(win_length,) and (n_src, n_bins) to (n_src, hop)."""
        n = len(self.window)
        mixture = np.fft.rfft(self.window * frame, self.n_fft)
        spectra = magnitudes * np.exp(1j * np.angle(mixture))
        spectra += (mixture - spectra.sum(0)) / len(spectra)
        for _ in range(self.n_iter):
            signals = self.past + self.synthesis * np.fft.irfft(spectra, self.n_fft)[:, :n]
            spectra = np.fft.rfft(self.window * signals, self.n_fft)
            spectra = magnitudes * np.exp(1j * np.angle(spectra))
            spectra += (mixture - spectra.sum(0)) / len(spectra)
        signals = self.past + self.synthesis * np.fft.irfft(spectra, self.n_fft)[:, :n]
        self.past[:, : n - self.hop] = signals[:, self.hop :]
        self.past[:, n - self.hop :] = 0
        return signals[:, : self.hop]
