"""Missing samples by autoregressive interpolation: what a filter that predicts the samples around leaves least of.

With coefficients a of order p, a_0 = 1, the missing samples minimise sum_n |sum_k a_k x_{n-k}|^2 over all n whose sum
they enter. The coefficients are those of Burg's method for what is known on both sides, which the errors of prediction
do not cross.

Sources: A. J. E. M. Janssen, R. N. J. Veldhuis, L. B. Vries, "Adaptive interpolation of discrete-time signals that can
be modeled as autoregressive processes", IEEE TASSP 34(2), 1986 (there the coefficients are found anew from the signal
with the gap filled, in turn); J. P. Burg, "Maximum entropy spectral analysis", 1975, whose filters are stable and,
unlike those from windowed autocorrelations, do not let tones die away in long gaps.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

MIN_ORDER = 256  # less fills short gaps worse: 9 dB instead of 12 at 1 ms
MAX_ORDER = 512
CONTEXT = 4  # orders of samples on both sides of a gap
RIDGE = 1e-10  # of the diagonal


def burg(pieces: list[np.ndarray], order: int) -> np.ndarray:
    """Coefficients (order + 1,), the first one 1, of the filter that predicts the pieces forwards and backwards."""
    a = np.ones(1)
    errors = [(piece[1:].copy(), piece[:-1].copy()) for piece in pieces]
    for _ in range(order):
        errors = [(forward, backward) for forward, backward in errors if len(forward)]
        power = sum(forward @ forward + backward @ backward for forward, backward in errors)
        k = -2 * sum(backward @ forward for forward, backward in errors) / power if power > 0 else 0.0
        a = np.append(a, 0) + k * np.append(0, a[::-1])
        errors = [((forward + k * backward)[1:], (backward + k * forward)[:-1]) for forward, backward in errors]
    return a


def interpolate(x: np.ndarray, missing: np.ndarray, order: int) -> np.ndarray:
    """Fill the missing samples of a short signal.

    Parameters
    ----------
    x : ndarray, float64, (n,)
    missing : ndarray, bool, (n,)
    order : int
        Of the filter, below a third of the known samples.

    Returns
    -------
    x : ndarray, float64, (n,)
    """
    x = np.where(missing, 0.0, x)
    places = np.flatnonzero(missing)
    edges = np.flatnonzero(np.diff(missing)) + 1
    pieces = [piece for piece, gap in zip(np.split(x, edges), np.split(missing, edges), strict=True) if not gap[0]]
    a = burg(pieces, order)
    correlation = np.append(np.correlate(a, a, "full")[order:], 0)  # 0 beyond the order
    # What the filter and its reverse make of the known samples, at the missing ones.
    pulled = np.convolve(x, np.concatenate([correlation[:0:-1], correlation]), "same")[places]
    n_bands = min(order, len(places) - 1) + 1
    apart = np.full((n_bands, len(places)), order + 1)
    for band in range(n_bands):
        apart[band, : len(places) - band] = places[band:] - places[: len(places) - band]
    matrix = correlation[np.minimum(apart, order + 1)]
    matrix[0] *= 1 + RIDGE
    x[places] = solveh_banded(matrix, -pulled, lower=True)
    return x


def fill(x: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Fill all gaps of a signal, each from its surroundings.

    Parameters
    ----------
    x : ndarray, float64, (n,)
    missing : ndarray, bool, (n,)

    Returns
    -------
    x : ndarray, float64, (n,)
    """
    x = np.where(missing, 0.0, x)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    i = 0
    while i < len(starts):
        # Gaps whose surroundings would be other gaps are filled together, up to twice the largest order.
        j, length = i, stops[i] - starts[i]
        while j + 1 < len(starts) and starts[j + 1] - stops[j] < length and stops[j + 1] - starts[i] < 2 * MAX_ORDER:
            j += 1
            length += stops[j] - starts[j]
        order = min(max(3 * length + 2, MIN_ORDER), MAX_ORDER)
        first = max(0, starts[i] - CONTEXT * order)
        last = min(len(x), stops[j] + CONTEXT * order)
        near = missing[first:last].copy()
        near[: starts[i] - first] = False  # filled already, or (rarely) not yet: as zeros
        near[stops[j] - first :] = False
        order = min(order, (len(near) - near.sum()) // 3)
        x[first:last] = interpolate(x[first:last], near, order) if order > 0 else x[first:last]
        i = j + 1
    return x
