"""Clicks: samples that a filter which predicts the signal does not expect.

The signal is filtered by its own prediction error filter, block by block; what sticks out of the residual, compared
with its median size, is a click. As in S. V. Vaseghi, P. J. W. Rayner, "Detection and suppression of impulsive noise
in speech communication systems", IEE Proc. I 137(1), 1990.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_closing, binary_dilation, median_filter
from scipy.signal import lfilter

from rtsep.restoration.autoregressive import burg

ORDER = 32
BLOCK_S = 0.05
MEDIAN_S = 0.02
BRIDGE_S = 0.001  # what lies between two loud residuals so near each other is damaged, too
FLOOR = 1e-3  # of the signal's RMS: least that a residual usually has, or pure tones would be full of clicks
MARGIN = 2  # samples on both sides


def find_clicks(x: np.ndarray, sr: int, threshold: float) -> np.ndarray:
    """Samples that are part of clicks.

    Parameters
    ----------
    x : ndarray, float64, (n,)
    sr : int
        Sample rate in Hz.
    threshold : float
        Times the usual size of the residual, as of a Gaussian one.

    Returns
    -------
    damaged : ndarray, bool, (n,)
    """
    n, block = len(x), max(8 * ORDER, round(BLOCK_S * sr))
    residual = np.zeros(n)
    for start in range(0, n, block):
        first, stop = max(0, start - block // 2), min(n, start + block + block // 2)
        around = x[first:stop]
        if len(around) > 2 * ORDER:
            # A click must not shape the filter that finds it.
            limit = 4 * np.median(np.abs(around)) + 1e-12
            a = burg([np.clip(around, -limit, limit)], ORDER)
            error = lfilter(a, 1, around)
            residual[start : min(start + block, n)] = error[start - first : start - first + block]
    size = np.abs(residual)
    size[:ORDER] = np.median(size)  # there the filter has not heard enough yet
    usual = median_filter(size, max(3, round(MEDIAN_S * sr) | 1), mode="nearest") / 0.6745
    floor = FLOOR * np.sqrt(np.mean(x**2)) + 1e-9
    loud = size > threshold * np.maximum(usual, floor)
    bridged = binary_closing(np.pad(loud, MARGIN), np.ones(max(3, round(BRIDGE_S * sr))))[MARGIN:-MARGIN] | loud
    return binary_dilation(bridged, np.ones(2 * MARGIN + 1)) if bridged.any() else bridged
