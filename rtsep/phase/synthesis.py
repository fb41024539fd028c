"""Frames of given magnitude and phase become sound: what the algorithms without a local signal share.

Phases that come from magnitudes alone are the same for all channels; what makes the channels differ is the
mixture: every source gets its levels and phase differences, so that its stereo image stays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.channels import image_of_channel
from rtsep.kernels.elementary import phasor
from rtsep.kernels.fft import FFTPlan, irfft, plan_fft
from rtsep.kernels.jit import kernel, pasted
from rtsep.kernels.memory import constant, zeros
from rtsep.kernels.simd import clear, move


class SynthesisState(NamedTuple):
    """State of the synthesis of J sources; float32."""

    plan: FFTPlan
    start: np.ndarray  # int64, constant (1,): first sample of a frame that the window keeps
    window: np.ndarray  # constant (synthesis,)
    inverse: np.ndarray  # constant (hop,): 1 / overlap
    centre: np.ndarray  # constant (n_bins,): turns of a bin from the start of a frame to what its phases refer to
    tail: np.ndarray  # (n_channels, J, synthesis): overlap-add of the frames so far
    magnitudes: np.ndarray  # (J, n_bins): of the newest frame, all of them valid
    spectra: np.ndarray  # (J, 2, n_bins): frame to be added
    turned: np.ndarray  # (J, 2, n_bins) scratch: the same for one channel
    wave: np.ndarray  # (n_fft,) scratch


def prepare_synthesis(config: StreamConfig, n_src: int) -> SynthesisState:
    """Fresh state for `n_src` sources."""
    return SynthesisState(
        plan=plan_fft(config.n_fft),
        start=constant([config.analysis - config.synthesis], np.int64),
        window=constant(config.windows.synthesis),
        inverse=constant(1 / config.windows.envelope),
        centre=turns_per_bin(config.windows.centre, config),
        tail=zeros((config.n_channels, n_src, config.synthesis)),
        magnitudes=zeros((n_src, config.n_bins)),
        spectra=zeros((n_src, 2, config.n_bins)),
        turned=zeros((n_src, 2, config.n_bins)),
        wave=zeros(config.n_fft),
    )


def turns_per_bin(n_samples: float, config: StreamConfig) -> np.ndarray:
    """Turns, 0 to 1, that the centre frequency of each bin goes through in `n_samples`; float32 (n_bins,)."""
    return constant(np.arange(config.n_bins) * n_samples / config.n_fft % 1)


@kernel
def turn_to_spectra(magnitudes, turns, centre, spectra):
    """Spectra of given magnitudes and phases.

    Parameters
    ----------
    magnitudes, turns : ndarray, float32, (n_src, n_bins)
        Phases in turns, referred to the centre of the window (`Windows.centre`). Read only.
    centre : ndarray, float32, (n_bins,)
        Turns from the start of the window to its centre. Read only.
    spectra : ndarray, float32, (n_src, 2, n_bins)
        Phases referred to the start of the window. Overwritten.

    Notes
    -----
    Real-time safe.
    """
    for j in range(magnitudes.shape[0]):
        for k in range(magnitudes.shape[1]):
            re, im = phasor(turns[j, k] - centre[k])
            spectra[j, 0, k] = magnitudes[j, k] * re
            spectra[j, 1, k] = magnitudes[j, k] * im


@pasted
def overlap_add(state, c, n_rows, spectra, hop_out):
    """Add a frame (n_src, 2, n_bins) to the tails of channel `c`; the hop that no later frame reaches goes out.

    Of the first `n_rows` sources.
    """
    tail, wave, window, inverse, start = state.tail, state.wave, state.window, state.inverse, state.start[0]
    n_src, n_bins, n, hop = spectra.shape[0], spectra.shape[2], window.size, inverse.size
    for j in range(n_rows):
        base = (c * n_src + j) * n
        irfft(state.plan, spectra, 2 * j * n_bins, wave)
        for i in range(n):
            tail[c, j, i] += window[i] * wave[start + i]
        for i in range(hop):
            hop_out[j, c, i] = tail[c, j, i] * inverse[i]
        move(tail, base, tail, base + hop, n - hop)
        clear(tail, base + n - hop, hop)


@kernel
def synthesise(state, mixture, hop_out):
    """Add the frame `state.spectra` for every channel and emit a hop.

    Parameters
    ----------
    state : SynthesisState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Of the same frame. Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    n_src, n_channels = hop_out.shape[0], hop_out.shape[1]
    for c in range(n_channels):
        if n_channels == 1:
            overlap_add(state, c, n_src, state.spectra, hop_out)
        else:
            image_of_channel(mixture, c, state.spectra, state.turned)
            overlap_add(state, c, n_src, state.turned, hop_out)
