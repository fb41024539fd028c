"""Phases from a sinusoidal model: each peak of a magnitude spectrum is a sinusoid that goes on.

phi_t = phi_{t-1} + 2 pi hop nu, with one normalised frequency nu (cycles per sample) for the region of
influence of each peak. Sources: P. Magron, R. Badeau, B. David, "Model-based STFT phase recovery for audio
source separation", IEEE/ACM TASLP 26(6), 2018, section III; quadratic interpolation (QIFFT) after
M. Abe and J. O. Smith, "Design criteria for simple sinusoidal parameter estimation", AES 117, 2004.
The regions of two peaks p and q meet half-way, as in the code released with oMISI, or, weighted by magnitude
as in the article, at (v_q p + v_p q) / (v_p + v_q), nearer to the weaker peak.

*Guard.* Even from the true phases of the frame before, the model finds the phases of speech worse than the mixture
does, for two reasons that `bench/initialisation.py` measures (squared error of exp(i phase) at 75 % overlap, in dB).
Where a source has more than nine tenths of the magnitude, half of all energy, the mixture's phase is right
(-32, the model -4); the model is needed below four tenths (0 against 2). And in 16 ms the harmonics of a voice
below 250 Hz share lobes: only lobes of the shape of a single sinusoid obey the model (-9 against -8), all others
the worse the less they have that shape (0 against -6). Twice the hop doubles what a wrong frequency does, and what
it did stays in the phase. So with the guard a bin takes the phase of the mixture unless the peak of its region has
the curvature of the window's lobe, the region has kept its power, which fails at onsets, and other sources have
their part in the bin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.channels import TINY
from rtsep.kernels.elementary import log, phasor
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import constant, zeros
from rtsep.kernels.simd import move
from rtsep.phase.difference import ONE

PEAK_FLOOR = np.float32(0.01)  # of the largest magnitude; weaker maxima are no peaks
CURVATURE_ERROR = np.float32(0.15)  # relative; more, and the lobe is not that of one steady sinusoid
POWER_CHANGE = np.float32(2)  # of a region from frame to frame, either way; more, and it begins or ends
DOMINANT = np.float32(0.6)  # share of the sum of the magnitudes from which on the mixture's phase is better
LOG_FLOOR = np.float32(1e-6)  # of the largest magnitude; keeps zeros beside a peak out of the logarithm


class SinusoidState(NamedTuple):
    """Constants of the model for J sources, and what the guard remembers."""

    hop: np.ndarray  # float64 (1,) samples
    n_fft: np.ndarray  # float64 (1,) samples
    weighted: np.ndarray  # bool (1,): regions of influence weighted by magnitude
    guarded: np.ndarray  # bool (1,): only where the model holds
    curvature: np.ndarray  # float32 (1,): second difference of the log magnitudes at the top of the window's lobe
    before: np.ndarray  # float32 (n_channels, J, n_bins): magnitudes of the frame before, for the guard


def prepare_sinusoids(config: StreamConfig, n_src: int, weighted: bool = False, guarded: bool = False) -> SinusoidState:
    """Fresh state for `n_src` sources."""
    return SinusoidState(
        hop=constant([float(config.hop)], np.float64),
        n_fft=constant([float(config.n_fft)], np.float64),
        weighted=constant([weighted], np.bool_),
        guarded=constant([guarded], np.bool_),
        curvature=constant([lobe_curvature(config)]),
        before=zeros((config.n_channels, n_src, config.n_bins)),
    )


def lobe_curvature(config: StreamConfig) -> float:
    """Second difference of the log magnitudes at the peak of a sinusoid, mean over one on and one between bins."""
    n = np.arange(config.analysis)

    def log_lobe(bins: float) -> float:
        return float(np.log(abs((config.windows.analysis * np.exp(-2j * np.pi * bins * n / config.n_fft)).sum())))

    return float(np.mean([log_lobe(p + 1) - 2 * log_lobe(p) + log_lobe(p - 1) for p in (0.0, 0.5)]))


@inlined
def interpolate_peak(v, j, k, floor):
    """Bin of the top of the parabola through the log magnitudes of row `j` at k - 1, k, k + 1."""
    a = log(max(v[j, k - 1], floor))
    b = log(max(v[j, k], floor))
    c = log(max(v[j, k + 1], floor))
    curvature = a - 2 * b + c
    if curvature > -1e-9:
        return float(k)
    return k + min(max(0.5 * (a - c) / curvature, -0.5), 0.5)


@inlined
def _holds(state, v, c, j, peak, low, high, floor):
    """Whether the region low <= k < high of source `j` in channel `c` is one sinusoid that goes on."""
    now, then = np.float32(0), np.float32(0)
    for k in range(low, high):
        now += v[j, k] * v[j, k]
        then += state.before[c, j, k] * state.before[c, j, k]
    a, b, d = max(v[j, peak - 1], floor), v[j, peak], max(v[j, peak + 1], floor)
    curvature, wanted = log(a * d / (b * b)), state.curvature[0]
    return now < POWER_CHANGE * then < POWER_CHANGE**2 * now and abs(curvature / wanted - ONE) < CURVATURE_ERROR


@inlined
def _fill_region(state, v, mixture, previous, phasors, c, j, peak, low, high, floor):
    """Phases of the bins low <= k < high of source `j`, whose peak is at `peak`; 0 for none."""
    guarded, holds, bins = state.guarded[0], True, float(low)
    if peak:
        bins = interpolate_peak(v, j, peak, floor)
        holds = not guarded or _holds(state, v, c, j, peak, low, high, floor)
    cycles = state.hop[0] * bins / state.n_fft[0]
    wr, wi = phasor(np.float32(cycles - math.floor(cycles)))
    for k in range(low, high):
        total = np.float32(0)
        if guarded:
            for i in range(v.shape[0]):
                total += v[i, k]
        if guarded and not (holds and peak and v[j, k] < DOMINANT * total):
            re, im = mixture[0, k], mixture[1, k]
            size = np.float32(math.sqrt(re * re + im * im + TINY))
            phasors[j, 0, k] = re / size
            phasors[j, 1, k] = im / size
        else:
            re, im = previous[j, 0, k], previous[j, 1, k]
            phasors[j, 0, k] = re * wr - im * wi
            phasors[j, 1, k] = re * wi + im * wr


@kernel
def advance_phasors(state, magnitudes, mixture, c, previous, phasors):
    """Phases of a frame from those of the frame before.

    Parameters
    ----------
    state : SinusoidState
        With the guard, `before` is updated.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Of the new frame. Read only.
    mixture : ndarray, float32, (2, n_bins)
        Of the new frame; without the guard it is not looked at. Read only.
    c : int
        Channel, for what the guard remembers.
    previous : ndarray, float32, (n_src, 2, n_bins)
        exp(i phase) of the frame before. Read only.
    phasors : ndarray, float32, (n_src, 2, n_bins)
        exp(i phase) of the new frame, overwritten; may be `previous`. Without the guard, where there is no peak, and
        always in the first bin, a bin advances by its own centre frequency.

    Notes
    -----
    Real-time safe.
    """
    n_src, n_bins = magnitudes.shape
    for j in range(n_src):
        v = magnitudes[j]
        largest = np.float32(0)
        for k in range(n_bins):
            largest = max(largest, v[k])
        threshold, floor = PEAK_FLOOR * largest, max(LOG_FLOOR * largest, np.float32(1e-30))
        peak, low = 0, 1  # last peak found, start of its region; bin 0 is no peak
        _fill_region(state, magnitudes, mixture, previous, phasors, c, j, 0, 0, 1, floor)
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
                    _fill_region(state, magnitudes, mixture, previous, phasors, c, j, peak, low, boundary, floor)
                    low = boundary
                peak = middle
            k = end + 1
        if peak:
            _fill_region(state, magnitudes, mixture, previous, phasors, c, j, peak, low, n_bins, floor)
        else:
            for i in range(1, n_bins):
                _fill_region(state, magnitudes, mixture, previous, phasors, c, j, 0, i, i + 1, floor)
    if state.guarded[0]:
        move(state.before, c * n_src * n_bins, magnitudes, 0, n_src * n_bins)
