"""Triangular bands on the ERB-rate scale, defined in Hz: what the learned estimators hear and speak in.

Neighbouring triangles overlap by half, so that every frequency belongs to two bands with shares that sum to one.
The scale is that of B. R. Glasberg and B. C. J. Moore, Hearing Research 47, 1990.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.kernels.memory import constant

TOP_HZ = 8_000.0  # centre of the uppermost band
MIN_SPACING_HZ = 62.5  # a window of 16 ms resolves no more
MAX_BANDS = 128  # as many as fit below TOP_HZ with that spacing


class Bands(NamedTuple):
    """To which two bands a bin belongs: `lower[k]` and the next one."""

    lower: np.ndarray  # int64 (n,)
    share: np.ndarray  # float32 (n,): of the upper one of the two, 0 to 1


@cache
def band_centres(n_bands: int) -> np.ndarray:
    """Centres in Hz, float64 (n_bands,): from 0 to `TOP_HZ`, equally far apart in ERB but for the least spacing.

    Read only. Training asks for them for every mixture, and the search takes milliseconds.
    """

    def walk(step: float) -> np.ndarray:
        centres = np.zeros(n_bands)
        for i in range(1, n_bands):
            erb = 24.7 * (1 + 0.00437 * centres[i - 1])
            centres[i] = min(centres[i - 1] + max(MIN_SPACING_HZ, step * erb), 2 * TOP_HZ)
        return centres

    low, high = 0.0, TOP_HZ
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if walk(middle)[-1] > TOP_HZ else (middle, high)
    centres = walk(high)
    centres *= TOP_HZ / centres[-1]
    centres.setflags(write=False)
    return centres


def expansion_bands(n_bands: int, config: StreamConfig) -> Bands:
    """How values of bands become values of all bins, by linear interpolation.

    Beyond the uppermost band there is one more, number `n_bands`, for all bins above: whoever expands gives it
    a value.
    """
    centres = band_centres(n_bands)
    beyond = 2 * centres[-1] - centres[-2]
    position = np.interp(bin_frequencies(config), [*centres, beyond], np.arange(n_bands + 1))
    position = position.round(6)  # rounding must not give a bin at a centre a share of the next band
    lower = np.minimum(position.astype(np.int64), n_bands - 1)
    return Bands(constant(lower, np.int64), constant(position - lower))


def bin_frequencies(config: StreamConfig) -> np.ndarray:
    """Hz, float64 (n_bins,)."""
    return np.arange(config.n_bins) * (config.sr / config.n_fft)
