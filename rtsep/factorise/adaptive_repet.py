"""Adaptive REPET: a background whose period changes, found in a window that moves along.

As `repet`, with the beat spectrum of the frames around, and the median over the frames that are 0, 1, 2 ... periods
before and after.

Source: A. Liutkus, Z. Rafii, R. Badeau, B. Pardo, G. Richard, "Adaptive filtering for music/voice separation exploiting
the repeating musical structure", ICASSP 2012. Corrected: in the released code the last frame of every step has an empty
beat spectrum, and with it the shortest period plus one.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int
from rtsep.factorise.factors import check_spectrogram
from rtsep.factorise.repetition import beat_spectrum, find_period, repeating_mask


def adaptive_repet(
    v: np.ndarray, shortest: int, longest: int, *, segment: int, step: int, order: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Mask of the repeating background, and its period in every frame.

    Parameters
    ----------
    v : ndarray, real, (n_bins, n_frames)
        Magnitudes.
    shortest, longest : int
        Periods to look for, in frames; none longer than a third of the segment.
    segment, step : int
        Length and step of the window in which a period is looked for, in frames.
    order : int
        Frames, odd, whose median is taken.

    Returns
    -------
    mask : ndarray, float64, (n_bins, n_frames)
        Between 0 and 1; one minus it is the foreground's.
    periods : ndarray, int, (n_frames,)

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    v = check_spectrogram(v)
    n_frames = v.shape[1]
    check_int("segment", segment, 3, n_frames)
    check_int("step", step, 1, segment)
    check_int("order", order, 1, 999)
    periods = np.empty(n_frames, int)
    for start in range(0, n_frames, step):
        first = min(max(start + step // 2 - segment // 2, 0), n_frames - segment)
        beats = beat_spectrum(v[:, first : first + segment] ** 2)
        periods[start : start + step] = find_period(beats, shortest, longest)
    return locally_periodic_mask(v, periods, order), periods


def locally_periodic_mask(v: np.ndarray, periods: np.ndarray, order: int) -> np.ndarray:
    """Mask of the background of known periods (n_frames,), from `order` frames around each."""
    n_frames = v.shape[1]
    away = np.arange(order) - order // 2
    repeating = np.empty_like(v)
    for t in range(n_frames):
        frames = t + away * periods[t]
        repeating[:, t] = np.median(v[:, frames[(frames >= 0) & (frames < n_frames)]], 1)
    return repeating_mask(v, repeating)
