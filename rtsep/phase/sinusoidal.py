"""Phases from a sinusoidal model: each peak of a magnitude spectrum is a sinusoid that goes on.

phi_t = phi_{t-1} + 2 pi hop nu, with one normalised frequency nu (cycles per sample) for the region of
influence of each peak. Sources: P. Magron, R. Badeau, B. David, "Model-based STFT phase recovery for audio
source separation", IEEE/ACM TASLP 26(6), 2018, section III; quadratic interpolation (QIFFT) after
M. Abe and J. O. Smith, "Design criteria for simple sinusoidal parameter estimation", AES 117, 2004.
The regions of two peaks p and q meet half-way, as in the code released with oMISI, or, weighted by magnitude
as in the article, at (v_q p + v_p q) / (v_p + v_q), nearer to the weaker peak.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.kernels.jit import inlined, kernel

PEAK_FLOOR = np.float32(0.01)  # of the largest magnitude; weaker maxima are no peaks
LOG_FLOOR = np.float32(1e-6)  # of the largest magnitude; keeps zeros beside a peak out of the logarithm


class SinusoidState(NamedTuple):
    """Sizes that the model needs."""

    hop: np.ndarray  # float64 (1,) samples
    n_fft: np.ndarray  # float64 (1,) samples
    weighted: np.ndarray  # bool (1,): regions of influence weighted by magnitude


def prepare_sinusoids(config: StreamConfig, weighted: bool = False) -> SinusoidState:
    """Constants for `config`."""
    return SinusoidState(np.array([float(config.hop)]), np.array([float(config.n_fft)]), np.array([weighted]))


@inlined
def interpolate_peak(v, j, k, floor):
    """Bin of the top of the parabola through the log magnitudes of row `j` at k - 1, k, k + 1."""
    a = math.log(max(v[j, k - 1], floor))
    b = math.log(max(v[j, k], floor))
    c = math.log(max(v[j, k + 1], floor))
    curvature = a - 2 * b + c
    if curvature > -1e-9:
        return float(k)
    return k + min(max(0.5 * (a - c) / curvature, -0.5), 0.5)


@inlined
def _rotate_region(previous, phasors, j, low, high, cycles):
    """Advance the bins low <= k < high of source `j` by `cycles` turns."""
    angle = 2 * math.pi * (cycles - math.floor(cycles))
    wr, wi = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    for k in range(low, high):
        re, im = previous[j, 0, k], previous[j, 1, k]
        phasors[j, 0, k] = re * wr - im * wi
        phasors[j, 1, k] = re * wi + im * wr


@kernel
def advance_phasors(state, magnitudes, previous, phasors):
    """Phases of a frame from those of the frame before.

    Parameters
    ----------
    state : SinusoidState
    magnitudes : ndarray, float32, (n_src, n_bins)
        Of the new frame. Read only.
    previous : ndarray, float32, (n_src, 2, n_bins)
        exp(i phase) of the frame before. Read only.
    phasors : ndarray, float32, (n_src, 2, n_bins)
        exp(i phase) of the new frame, overwritten; may be `previous`. Where there is no peak, and always in
        the first bin, a bin advances by its own centre frequency or, the first bin, not at all.

    Notes
    -----
    Real-time safe.
    """
    hop, n_fft = state.hop[0], state.n_fft[0]
    n_src, n_bins = magnitudes.shape
    for j in range(n_src):
        v = magnitudes[j]
        largest = np.float32(0)
        for k in range(n_bins):
            largest = max(largest, v[k])
        threshold, floor = PEAK_FLOOR * largest, max(LOG_FLOOR * largest, np.float32(1e-30))
        peak, low = 0, 1  # last peak found, start of its region; bin 0 is no peak
        _rotate_region(previous, phasors, j, 0, 1, 0.0)
        k = 1
        while k < n_bins - 1:
            # A plateau counts as one peak, in its middle.
            end = k
            while end < n_bins - 1 and v[end + 1] == v[k]:
                end += 1
            if v[k] > v[k - 1] and end < n_bins - 1 and v[k] > v[end + 1] and v[k] >= threshold:
                middle = (k + end) // 2
                if peak:
                    boundary = (peak + middle) // 2
                    if state.weighted[0]:
                        share = v[peak] / (v[peak] + v[middle])
                        boundary = int(peak + share * (middle - peak)) + 1
                    cycles = hop * interpolate_peak(magnitudes, j, peak, floor) / n_fft
                    _rotate_region(previous, phasors, j, low, boundary, cycles)
                    low = boundary
                peak = middle
            k = end + 1
        if peak:
            _rotate_region(
                previous, phasors, j, low, n_bins, hop * interpolate_peak(magnitudes, j, peak, floor) / n_fft
            )
        else:
            for bin_ in range(1, n_bins):
                _rotate_region(previous, phasors, j, bin_, bin_ + 1, hop * bin_ / n_fft)
