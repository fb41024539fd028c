"""Channels of one stream share a mask: each gets its part of the magnitudes, or its level and phase.

Estimators see the mean power of all channels. What they say of it is handed to the channels here.
"""

from __future__ import annotations

import math

import numpy as np

from rtsep.kernels.jit import kernel, pasted

TINY = np.float32(1e-36)  # keeps 0 / 0 out of the normalisation
MAX_MAGNITUDE = np.float32(1e10)  # the loudest sample that the line lets through stays below


@pasted
def take_valid(magnitudes, valid):
    """Copy of the magnitudes (n_src, n_bins) in which what is negative, not finite or absurdly large is zero."""
    for j in range(magnitudes.shape[0]):
        for k in range(magnitudes.shape[1]):
            v = magnitudes[j, k]
            valid[j, k] = v if 0 < v < MAX_MAGNITUDE else np.float32(0)


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
            out[j, k] = v if 0 < v < MAX_MAGNITUDE else np.float32(0)


@kernel
def image_of_channel(mixture, c, spectra, out):
    """Spectra of the sources in channel `c`: level and phase differ from the first channel's as in the mixture.

    Parameters
    ----------
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only.
    c : int
    spectra : ndarray, float32, (n_src, 2, n_bins)
        For the mean power of the channels and the phase of the first one. Read only.
    out : ndarray, float32, (n_src, 2, n_bins)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    n_channels, n_src, n_bins = mixture.shape[0], spectra.shape[0], spectra.shape[2]
    share = np.float32(1) / np.float32(n_channels)
    for k in range(n_bins):
        fr, fi, re, im = mixture[0, 0, k], mixture[0, 1, k], mixture[c, 0, k], mixture[c, 1, k]
        total = np.float32(0)
        for i in range(n_channels):
            total += mixture[i, 0, k] * mixture[i, 0, k] + mixture[i, 1, k] * mixture[i, 1, k]
        # Level of the channel, and its phase relative to the first one unless that is silent.
        level = math.sqrt((re * re + im * im + TINY) / (total * share + TINY))
        ur, ui = fr * re + fi * im, fr * im - fi * re
        size = math.sqrt(ur * ur + ui * ui)
        ur, ui = (ur / size * level, ui / size * level) if size > TINY else (level, np.float32(0))
        for j in range(n_src):
            out[j, 0, k] = spectra[j, 0, k] * ur - spectra[j, 1, k] * ui
            out[j, 1, k] = spectra[j, 0, k] * ui + spectra[j, 1, k] * ur
