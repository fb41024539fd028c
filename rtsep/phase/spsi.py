"""SPSI: single pass spectrogram inversion, one phase for the lobe of every peak.

Source: G. T. Beauregard, M. Harish and L. Wyse, "Single pass spectrogram inversion", IEEE DSP 2015, with the
interpolation on log magnitudes. Referred to the middle of the window, the phase of a sinusoid is the same
over its whole lobe, so that nothing has to alternate. The mixture is not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.channels import take_valid
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.jit import kernel, pasted
from rtsep.kernels.memory import constant, zeros
from rtsep.phase.sinusoidal import interpolate_peak
from rtsep.phase.synthesis import SynthesisState, prepare_synthesis, synthesise, turn_to_spectra

FLOOR = np.float32(1e-30)  # keeps zeros beside a peak out of the logarithm


class SPSIState(NamedTuple):
    """State of SPSI for J sources."""

    synthesis: SynthesisState
    per_bin: np.ndarray  # float64 (1,): turns per hop of a sinusoid in bin 1, hop / n_fft
    turns: np.ndarray  # float32 (J, n_bins): phases of the newest frame, in turns


@pasted
def _advance_peaks(v, j, per_bin, turns):
    """Phases of source `j`: those of the peaks move on, and their lobes follow."""
    n_bins = v.shape[1]
    k = 1
    while k < n_bins - 1:
        if v[j, k] > v[j, k - 1] and v[j, k] > v[j, k + 1]:
            turn = turns[j, k] + per_bin * interpolate_peak(v, j, k, FLOOR)
            turn -= math.floor(turn)
            low, high = k, k + 1
            while low > 0 and v[j, low - 1] < v[j, low]:
                low -= 1
            while high < n_bins and v[j, high] < v[j, high - 1]:
                high += 1
            for i in range(low, high):
                turns[j, i] = turn
            k = high
        else:
            k += 1


@kernel
def recover_spsi(state, mixture, power, line, magnitudes, hop_out):
    """One hop of SPSI for every source.

    Parameters
    ----------
    state : SPSIState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Newest spectra of the mixture, for the differences between its channels. Read only.
    power, line : ndarray, float32
        Not used.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Target magnitudes of the newest frame. Values that are negative or not finite count as zero. Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    v = state.synthesis.magnitudes
    take_valid(magnitudes, v)
    for j in range(v.shape[0]):
        _advance_peaks(v, j, state.per_bin[0], state.turns)
    turn_to_spectra(v, state.turns, state.synthesis.centre, state.synthesis.spectra)
    synthesise(state.synthesis, mixture, hop_out)


@register_phase("spsi")
@dataclass(frozen=True)
class SPSI(OnlinePhase):
    """SPSI: one advancing phase per spectral peak, each source on its own; rough.

    References
    ----------
    Beauregard, Harish and Wyse, IEEE DSP 2015.
    """

    State: ClassVar[type] = SPSIState
    step = recover_spsi

    def prepare(self, config: StreamConfig, n_src: int) -> SPSIState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        return SPSIState(
            synthesis=prepare_synthesis(config, n_src),
            per_bin=constant([config.hop / config.n_fft], np.float64),
            turns=zeros((n_src, config.n_bins)),
        )
