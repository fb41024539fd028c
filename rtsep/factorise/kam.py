"""Kernel additive modelling: sources that are alike within small neighbourhoods of each bin.

Each iteration filters the mixture with the powers P_j of before (Wiener) and takes, as the new power of source j in a
bin, the median of |S_j|^2 over the kernel j around it. Kernels differ between bands; bands are mirrored at their ends:

    S_j <- P_j / (sum P + eps) X,   P_j <- median_{kernel j} |S_j|^2.

Sources: A. Liutkus, D. Fitzgerald, Z. Rafii, B. Pardo, L. Daudet, "Kernel additive models for source separation", IEEE
TSP 62(16), 2014; the kernels of harmonic and percussive sounds as released for the comparison in K. Drossos, P.
Magron, S. I. Mimilakis, T. Virtanen, "Harmonic-percussive source separation with deep neural networks and phase
recovery", IWAENC 2018. Corrected: there the extents over time are divided by the hop in samples instead of seconds, so
that all of them are one frame; the last band ends a bin before the Nyquist frequency, where both outputs are silent;
it fails below 44.1 kHz; 1e-5 is added to the mixture's power, whatever its level; and the spatial covariance, which is
one for a single channel, is relearnt as the share of powers above 2e-16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import rank_filter

from rtsep.config import check_int
from rtsep.errors import ConfigError
from rtsep.factorise.factors import check_spectrogram

LEAST = 1e-10  # of the mean power of the mixture: what keeps a quotient of silences finite


class Kernel(NamedTuple):
    """Extents of a neighbourhood."""

    width_hz: float
    time_s: float


BANDS_HZ = (250.0, 3000.0, 10000.0)  # where bands meet
HARMONIC = (Kernel(0, 0.1), Kernel(0, 0.1), Kernel(5, 0.1), Kernel(5, 0.4))
PERCUSSIVE = (Kernel(30, 0.02), Kernel(150, 0), Kernel(200, 0.01), Kernel(500, 0.1))


def kernel_median(z: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lower median of `z` over (bins, frames) of `size`, even ones reaching further up; borders mirrored."""
    n = size[0] * size[1]
    # Centre (size - 1) // 2; the filter's own is size // 2.
    origin = tuple((extent - 1) // 2 - extent // 2 for extent in size)
    return rank_filter(z, (n + 1) // 2 - 1, size, mode="reflect", origin=origin)


def band_edges(n_bins: int, bin_hz: float) -> list[int]:
    """First bin of each band, and the end of the last one; bands beyond the last bin are empty."""
    return [min(edge, n_bins) for edge in (0, *(int(limit / bin_hz) for limit in BANDS_HZ), n_bins)]


def kam(
    power: np.ndarray,
    bin_hz: float,
    hop_s: float,
    kernels: tuple[tuple[Kernel, ...], ...] = (HARMONIC, PERCUSSIVE),
    *,
    n_iter: int = 6,
) -> np.ndarray:
    """Masks of sources with the given kernels.

    Parameters
    ----------
    power : ndarray, real, (n_bins, n_frames)
        Of the mixture.
    bin_hz, hop_s : float
        Distance of two bins in Hz, of two frames in seconds.
    kernels : tuple of tuple of Kernel
        For each source one for each band: to 250, 3000 and 10000 Hz, and the rest. Default: harmonic, percussive.
    n_iter : int
        Iterations, 0 to 1000.

    Returns
    -------
    masks : ndarray, float64, (n_src, n_bins, n_frames)
        They sum to one.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    power = check_spectrogram(power)
    check_int("n_iter", n_iter, 0, 1000)
    if not (bin_hz > 0 and hop_s > 0):
        raise ConfigError(f"{bin_hz=} and {hop_s=} must be positive")
    edges = band_edges(len(power), bin_hz)
    powers = np.repeat(power[None] / len(kernels), len(kernels), 0)
    eps = LEAST * power.mean()
    for _ in range(n_iter):
        gains = powers / (powers.sum(0) + eps)
        for gain, shapes, new in zip(gains, kernels, powers, strict=True):
            filtered = gain**2 * power
            for (width, time), low, high in zip(shapes, edges[:-1], edges[1:], strict=True):
                if high > low:
                    size = (max(1, round(width / bin_hz)), max(1, round(time / hop_s)))
                    new[low:high] = kernel_median(filtered[low:high], size)
    whole = powers.sum(0)
    return np.divide(powers, whole, out=np.full(powers.shape, 1 / len(kernels)), where=whole > 0)
