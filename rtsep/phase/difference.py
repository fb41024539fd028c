"""The difference form of MISI: what its online and offline members do in one frame.

Distributing the mixing error evenly fixes the sum of the sources; an iteration only has to find their
differences. So the kernels carry d_j = s_j - s_J for j < J alone, which halves the FFTs for two sources and
changes nothing: with C_j the spectra whose phases count and T the spectrum that they sum to,

    C_j = D_j + (T - sum_k D_k) / J,  D_J = 0.

Arrays of J sources have their differences in the rows j < J - 1; the last row holds the sum where a step
makes one. Frames of a window are the first axis, and `frame` chooses one.
"""

from __future__ import annotations

import math

import numpy as np

from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.simd import LANES, load, square_root, store

# A spectrum that vanishes takes the phase of the mixture: this share of it is invisible beside anything
# else in float32, and decides where there is nothing else.
FALLBACK = np.float32(1e-9)
TINY = np.float32(1e-36)  # keeps 0 / 0 out of the normalisation
MAX_MAGNITUDE = np.float32(1e10)  # |X| of the largest sample times any window stays below


@inlined
def unit(re, im):
    """(re, im) / |(re, im)|, on lanes or scalars."""
    scale = np.float32(1) / square_root(re * re + im * im + TINY)
    return re * scale, im * scale


@inlined
def impose(magnitudes, phasors, frame, imposed):
    """Differences and sum of magnitudes times phasors, for one frame."""
    n_src, n_bins = magnitudes.shape[1], magnitudes.shape[2]
    row = frame * n_src
    last = row + n_src - 1
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        v = load(magnitudes, last * n_bins + k)
        at = 2 * last * n_bins + k
        lr, li = load(phasors, at) * v, load(phasors, at + n_bins) * v
        sr, si = lr, li
        for j in range(row, last):
            v = load(magnitudes, j * n_bins + k)
            at = 2 * j * n_bins + k
            ur, ui = load(phasors, at) * v, load(phasors, at + n_bins) * v
            store(imposed, at, ur - lr)
            store(imposed, at + n_bins, ui - li)
            sr, si = sr + ur, si + ui
        at = 2 * last * n_bins + k
        store(imposed, at, sr)
        store(imposed, at + n_bins, si)


@inlined
def project(analysed, target, mixture, magnitudes, frame, keep, phasors, imposed):
    """Mixing error distributed, magnitudes imposed, for one frame; the phases are stored if `keep`."""
    n_src, n_bins = magnitudes.shape[1], magnitudes.shape[2]
    row = frame * n_src
    last = row + n_src - 1
    share = np.float32(1) / np.float32(n_src)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        at = 2 * frame * n_bins + k
        br, bi = load(target, at), load(target, at + n_bins)
        xr, xi = load(mixture, at) * FALLBACK, load(mixture, at + n_bins) * FALLBACK
        for j in range(row, last):
            at = 2 * j * n_bins + k
            br, bi = br - load(analysed, at), bi - load(analysed, at + n_bins)
        br, bi = br * share + xr, bi * share + xi
        pr, pi = unit(br, bi)
        v = load(magnitudes, last * n_bins + k)
        lr, li = pr * v, pi * v
        sr, si = lr, li
        at = 2 * last * n_bins + k
        if keep:
            store(phasors, at, pr)
            store(phasors, at + n_bins, pi)
        for j in range(row, last):
            at = 2 * j * n_bins + k
            pr, pi = unit(br + load(analysed, at), bi + load(analysed, at + n_bins))
            v = load(magnitudes, j * n_bins + k)
            ur, ui = pr * v, pi * v
            store(imposed, at, ur - lr)
            store(imposed, at + n_bins, ui - li)
            sr, si = sr + ur, si + ui
            if keep:
                store(phasors, at, pr)
                store(phasors, at + n_bins, pi)
        at = 2 * last * n_bins + k
        if keep:
            store(imposed, at, sr)
            store(imposed, at + n_bins, si)


@inlined
def mixture_phase(mixture, frame, phasors):
    """Phase of the mixture for every source of one frame."""
    n_src, n_bins = phasors.shape[1], phasors.shape[3]
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        at = 2 * frame * n_bins + k
        pr, pi = unit(load(mixture, at), load(mixture, at + n_bins))
        for j in range(frame * n_src, (frame + 1) * n_src):
            store(phasors, 2 * j * n_bins + k, pr)
            store(phasors, (2 * j + 1) * n_bins + k, pi)


@kernel
def share_of_channel(mixture, c, power, magnitudes, out):
    """Magnitudes of the sources in channel `c`: every channel has the same mask.

    Parameters
    ----------
    mixture : ndarray, float32, (n_channels, 2, n_bins)
    c : int
    power : ndarray, float32, (n_bins,)
        Mean over the channels.
    magnitudes, out : ndarray, float32, (n_src, n_bins)
        For the mean power; for the channel, overwritten. What is negative or not finite becomes zero.
    """
    n_src, n_bins = magnitudes.shape
    gain = np.float32(1)
    for k in range(n_bins):
        if mixture.shape[0] > 1:
            re, im = mixture[c, 0, k], mixture[c, 1, k]
            gain = math.sqrt((re * re + im * im + TINY) / (power[k] + TINY))
        for j in range(n_src):
            v = magnitudes[j, k] * gain
            out[j, k] = min(v, MAX_MAGNITUDE) if v > 0 else np.float32(0)
