"""Arithmetic that gives the same bits on any machine: integers, and single roundings of float64.

Sums of floats depend on the order in which a machine's vector unit adds, FFTs and sines on the library; sums of
integers do not. Audio is integers of 24 bits here, full scale is 2^23.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

FULL_SCALE = 1 << 23
FILTER_BITS = 22
HALF_TAPS = 32  # zero crossings of the resampling filter on either side: 80 dB, passband to 0.9 of half the lower rate
RESPONSE_BITS = 15


class Draws:
    """Random numbers from the raw output of PCG64, which NumPy promises to keep.

    Parameters
    ----------
    *key : int
        Seed and whatever makes this stream another one, each >= 0.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def integer(self, n: int) -> int:
        """One of 0 to n - 1, n below 2^53; for the sizes here as good as uniform."""
        return int(self._bits.random_raw()) * n >> 64

    def hundredths(self, low: float, high: float) -> float:
        """A number from `low` to `high` in steps of 0.01."""
        first, last = round(100 * low), round(100 * high)
        return (first + self.integer(last - first + 1)) / 100


def from_float(x: np.ndarray) -> np.ndarray:
    """Samples of full scale 1 as integers, int64; what is not finite is zero, what is beyond full scale is clipped."""
    scaled = np.nan_to_num(x.astype(np.float64), nan=0, posinf=0, neginf=0) * FULL_SCALE
    return np.clip(np.rint(scaled), -FULL_SCALE, FULL_SCALE - 1).astype(np.int64)


def energy(x: np.ndarray) -> int:
    """Sum of squares of integers below 2^30."""
    flat = x.ravel()
    # Blocks whose sums of squares stay below 2^62.
    size = 1 << (62 - 2 * int(np.abs(flat).max(initial=1)).bit_length())
    return sum(int(np.sum(flat[first : first + size] ** 2)) for first in range(0, flat.size, size))


def from_db(db: float) -> float:
    """10^(db / 20), correctly rounded."""
    with localcontext() as context:
        context.prec = 40
        return float(Decimal(10) ** (Decimal(db) / 20))


def resample(x: np.ndarray, sr: int, rate: int) -> np.ndarray:
    """Integers at another rate.

    Parameters
    ----------
    x : ndarray, int64, (n_samples,)
        At most 24 bits.
    sr, rate : int
        Rates in Hz before and after.

    Returns
    -------
    ndarray, int64, (ceil(n_samples * rate / sr),)
        Aligned with `x`: sample m is at the time m / rate.
    """
    divisor = int(np.gcd(sr, rate))
    up, down = rate // divisor, sr // divisor
    if up == down:
        return x
    phases = _polyphase(up, down)
    taps = phases.shape[1]
    n = -(-x.size * up // down)
    padded = np.pad(x, (taps // 2 - 1, taps // 2 + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    out = np.empty(n, np.int64)
    for first in range(0, n, 1 << 12):
        at = np.arange(first, min(first + (1 << 12), n)) * down
        out[first : first + at.size] = np.einsum("ij,ij->i", windows[at // up], phases[at % up])
    return _round_shift(out, FILTER_BITS)


def convolve(x: np.ndarray, response: np.ndarray, peak: int) -> np.ndarray:
    """Convolution with a room response, cut to the length of `x`.

    Parameters
    ----------
    x : ndarray, int64, (n_samples,)
        At most 24 bits.
    response : ndarray, int64, (n_taps,)
        At most 24 bits.
    peak : int
        Magnitude in the response that stands for 1, > 0; its largest one.

    Returns
    -------
    ndarray, int64, (n_samples,)
        Some bits more than `x`.

    Notes
    -----
    By FFTs in float64, whose results are whole numbers and so exact once they are rounded: x is split into 12 bits
    and 12 bits, the response has 16; rounding errors are near 1e-4 for seconds of audio and response.

    Raises
    ------
    ValueError
        If the response is silent, or both are so long that the errors reach 0.1.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    if peak <= 0:
        raise ValueError("the response is silent")
    taps = np.rint(response * ((1 << RESPONSE_BITS) / peak))
    n = next_fast_len(x.size + taps.size, True)
    spectrum = rfft(taps, n)
    parts = []
    for part in (x >> 12, x & 0xFFF):
        found = irfft(rfft(part.astype(np.float64), n) * spectrum, n)[: x.size]
        whole = np.rint(found)
        if np.abs(found - whole).max() > 0.1:
            raise ValueError(f"{x.size} samples and {taps.size} of the response are too many for exact results")
        parts.append(whole.astype(np.int64))
    return _round_shift((parts[0] << 12) + parts[1], RESPONSE_BITS)


def _round_shift(x: np.ndarray, bits: int) -> np.ndarray:
    return (x + (1 << bits - 1)) >> bits


@lru_cache(maxsize=8)
def _polyphase(up: int, down: int) -> np.ndarray:
    """Windowed sinc as integers, (up, n_taps), each phase with the sum 2^22."""
    cutoff = 0.95 * min(1.0, up / down)  # of half the old rate
    half = int(np.ceil(HALF_TAPS / cutoff))
    # Phase p interpolates at the fraction p / up after the sample in the middle.
    at = np.arange(1 - half, half + 1)[None, :] - np.arange(up)[:, None] / up
    window = np.where(np.abs(at) < half, np.cos(np.pi * at / (2 * half)) ** 2, 0)
    taps = np.sinc(cutoff * at) * window
    taps /= taps.sum(1, keepdims=True)
    # Sines differ between machines by 1e-16: one in 1e8 taps would be rounded differently.
    return np.rint(taps * (1 << FILTER_BITS)).astype(np.int64)
