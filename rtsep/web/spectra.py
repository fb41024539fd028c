"""Moving spectrograms in few numbers: levels of mel bands, in whole dBFS."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 50  # columns in a second
N_BANDS = 96
LOWEST_HZ, HIGHEST_HZ = 50.0, 16_000.0
FLOOR_DB = -100
BACKLOG = 25  # columns, half a second; who was away longer does not get the rest


class Spectra:
    """Columns of spectrograms from blocks of any size.

    Parameters
    ----------
    n_rows, sr : int
        Signals, and their rate in Hz.

    Attributes
    ----------
    frequencies_hz : list of float
        Centres of the bands.
    column : int
        Number of the next column since the start.
    """

    def __init__(self, n_rows: int, sr: int) -> None:
        self._hop = sr // RATE_HZ
        n = 2 * self._hop
        self._window = np.hanning(n + 1)[:n]
        mel = np.linspace(_mel(LOWEST_HZ), _mel(min(HIGHEST_HZ, sr / 2)), N_BANDS + 2)
        edges = 700 * (10 ** (mel / 2595) - 1)
        self.frequencies_hz = [round(float(hz), 1) for hz in edges[1:-1]]
        bins = np.arange(n // 2 + 1) * sr / n
        # Low bands are narrower than a bin: each reaches at least over the two next to it.
        below = np.minimum(edges[:-2], edges[1:-1] - 2 * sr / n)[:, None]
        above = np.maximum(edges[2:], edges[1:-1] + 2 * sr / n)[:, None]
        centre = edges[1:-1, None]
        weights = np.clip(np.minimum((bins - below) / (centre - below), (above - bins) / (above - centre)), 0, 1)
        # A sine of full scale is at 0 dBFS: the window spreads it over bins whose powers add up to this.
        self._weights = weights.T / (0.25 * n * (self._window**2).sum())
        self._rest = np.zeros((n_rows, 1, 0), np.float32)
        self.column = 0

    def add(self, block: np.ndarray) -> NDArray[np.int64]:
        """The columns that a block completes.

        Parameters
        ----------
        block : ndarray, float32, (n_rows, n_channels, n_samples)

        Returns
        -------
        columns : ndarray, int64, (n_rows, n_columns, N_BANDS)
            dBFS, mean power of the channels, from -100 to 0.
        """
        if self._rest.shape[1] != block.shape[1]:
            self._rest = np.zeros((len(block), block.shape[1], 0), np.float32)
        self._rest = signal = np.concatenate([self._rest, block], 2)
        n = len(self._window)
        n_columns = 1 + (signal.shape[2] - n) // self._hop
        if n_columns < 1:
            return np.zeros((len(block), 0, N_BANDS), np.int64)
        self._rest = signal[:, :, n_columns * self._hop :]
        first = max(0, n_columns - BACKLOG)
        self.column += n_columns
        frames = np.lib.stride_tricks.sliding_window_view(signal, n, 2)[:, :, first * self._hop :: self._hop]
        spectra = np.fft.rfft(np.nan_to_num(frames) * self._window, axis=-1)
        power = (np.abs(spectra) ** 2).mean(1) @ self._weights
        levels = 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
        return np.clip(np.rint(levels), FLOOR_DB, 0).astype(np.int64)


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)
