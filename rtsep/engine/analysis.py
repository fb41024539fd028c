"""Analysis: the newest samples of the line become the newest spectrum of every channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.kernels.fft import FFTPlan, plan_fft, rfft
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import constant, zeros
from rtsep.kernels.simd import LANES, load, multiply, store


class AnalysisState(NamedTuple):
    """State of the analysis; float32."""

    plan: FFTPlan
    window: np.ndarray  # constant (analysis,)
    frame: np.ndarray  # (n_fft,) scratch
    mixture: np.ndarray  # (n_channels, 2, n_bins): newest spectrum, real and imaginary parts
    power: np.ndarray  # (n_bins,): squared magnitude, mean over the channels


def prepare_analysis(config: StreamConfig) -> AnalysisState:
    """Fresh state. Not real-time safe."""
    return AnalysisState(
        plan=plan_fft(config.n_fft),
        window=constant(config.windows.analysis),
        frame=zeros(config.n_fft),
        mixture=zeros((config.n_channels, 2, config.n_bins)),
        power=zeros(config.n_bins),
    )


@kernel
def analyse(state, line):
    """The spectrum of the newest `analysis` samples.

    Parameters
    ----------
    state : AnalysisState
        `mixture` and `power` are overwritten.
    line : ndarray, float32, (n_channels, at least analysis)
        Read only.

    Notes
    -----
    Real-time safe.
    """
    n_channels, length = line.shape
    n = state.window.size
    n_bins = state.power.size
    mixture, power = state.mixture, state.power
    for c in range(n_channels):
        multiply(line, (c + 1) * length - n, state.window, 0, state.frame, n)
        rfft(state.plan, state.frame, mixture, 2 * c * n_bins)
    share = np.float32(1) / np.float32(n_channels)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        re, im = load(mixture, k), load(mixture, n_bins + k)
        total = re * re + im * im
        for c in range(1, n_channels):
            at = 2 * c * n_bins + k
            re, im = load(mixture, at), load(mixture, at + n_bins)
            total = total + re * re + im * im
        store(power, k, total * share)
