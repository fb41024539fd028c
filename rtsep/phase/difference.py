"""The difference form of MISI: what `omisi` does in one frame.

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

from rtsep.engine.channels import TINY
from rtsep.kernels.jit import inlined, kernel, pasted
from rtsep.kernels.simd import LANES, load, multiply_add, square_root, store

# A spectrum that vanishes takes the phase of the mixture: this share of it is invisible beside anything
# else in float32, and decides where there is nothing else.
FALLBACK = np.float32(1e-9)
ONE = np.float32(1)


@inlined
def inverse_size(re, im):
    """1 / |(re, im)|, on lanes."""
    return ONE / square_root(multiply_add(re, re, multiply_add(im, im, TINY)))


@pasted
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


@pasted
def project(analysed, target, mixture, magnitudes, frame, keep, phasors, masked, mask_share, imposed):
    """Mixing error distributed, magnitudes imposed, for one frame.

    In the last iteration, with `keep`, the phases and the sum are stored, and a share `mask_share` of the differences
    is taken from the amplitude mask, `masked`.
    """
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
        scale = inverse_size(br, bi)
        v = load(magnitudes, last * n_bins + k) * scale
        lr, li = br * v, bi * v
        sr, si = lr, li
        at = 2 * last * n_bins + k
        if keep:
            store(phasors, at, br * scale)
            store(phasors, at + n_bins, bi * scale)
        for j in range(row, last):
            at = 2 * j * n_bins + k
            cr, ci = br + load(analysed, at), bi + load(analysed, at + n_bins)
            scale = inverse_size(cr, ci)
            v = load(magnitudes, j * n_bins + k) * scale
            ur, ui = cr * v, ci * v
            dr, di = ur - lr, ui - li
            if keep:
                dr = multiply_add(load(masked, at) - dr, mask_share, dr)
                di = multiply_add(load(masked, at + n_bins) - di, mask_share, di)
            store(imposed, at, dr)
            store(imposed, at + n_bins, di)
            sr, si = sr + ur, si + ui
            if keep:
                store(phasors, at, cr * scale)
                store(phasors, at + n_bins, ci * scale)
        at = 2 * last * n_bins + k
        if keep:
            store(imposed, at, sr)
            store(imposed, at + n_bins, si)


@pasted
def mask(mixture, magnitudes, frame, masked):
    """Differences of the amplitude mask, the magnitudes with the phase of the mixture, for one frame."""
    n_src, n_bins = magnitudes.shape[1], magnitudes.shape[2]
    row = frame * n_src
    last = row + n_src - 1
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        at = 2 * frame * n_bins + k
        xr, xi = load(mixture, at), load(mixture, at + n_bins)
        scale = inverse_size(xr, xi)
        for j in range(row, last):
            v = (load(magnitudes, j * n_bins + k) - load(magnitudes, last * n_bins + k)) * scale
            store(masked, 2 * j * n_bins + k, xr * v)
            store(masked, (2 * j + 1) * n_bins + k, xi * v)


@kernel
def mismatch(analysed, target, magnitudes, sums):
    """How far the spectra of the first frame are from their target magnitudes.

    Parameters
    ----------
    analysed, target, magnitudes : ndarray, float32
        As in `project`, (n_frames, n_src, 2, n_bins), (n_frames, 2, n_bins), (n_frames, n_src, n_bins). Read only.
    sums : ndarray, float32, (2,)
        sum (|C_j| - V_j)^2 and sum V_j^2 over sources and bins, overwritten.
    """
    n_src, n_bins = magnitudes.shape[1], magnitudes.shape[2]
    share = ONE / np.float32(n_src)
    error, total = np.float32(0), np.float32(0)
    for k in range(n_bins):
        br, bi = target[0, 0, k], target[0, 1, k]
        for j in range(n_src - 1):
            br, bi = br - analysed[0, j, 0, k], bi - analysed[0, j, 1, k]
        br, bi = br * share, bi * share
        for j in range(n_src):
            cr, ci = br, bi
            if j < n_src - 1:
                cr, ci = br + analysed[0, j, 0, k], bi + analysed[0, j, 1, k]
            v = magnitudes[0, j, k]
            error += (np.float32(math.sqrt(cr * cr + ci * ci)) - v) ** 2
            total += v * v
    sums[0], sums[1] = error, total


@pasted
def mixture_phase(mixture, frame, phasors):
    """Phase of the mixture for every source of one frame."""
    n_src, n_bins = phasors.shape[1], phasors.shape[3]
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        at = 2 * frame * n_bins + k
        xr, xi = load(mixture, at), load(mixture, at + n_bins)
        scale = inverse_size(xr, xi)
        for j in range(frame * n_src, (frame + 1) * n_src):
            store(phasors, 2 * j * n_bins + k, xr * scale)
            store(phasors, (2 * j + 1) * n_bins + k, xi * scale)
