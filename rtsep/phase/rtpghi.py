"""RTPGHI: phase from the gradient of the log magnitudes, integrated along the loudest bins first.

Source: Z. Prusa and P. L. Sondergaard, "Real-time spectrogram inversion using phase gradient heap
integration", DAFx 2016; the relation between log magnitude and phase, exact for a Gaussian window, is
M. R. Portnoff, "Magnitude-phase relationships for short-time Fourier transforms based on Gaussian analysis
windows", ICASSP 1979. The window in use is taken for the Gaussian exp(-pi t^2 / gamma) of the same spread.

Phases are in turns and referred to the middle of the window. The mixture is not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.channels import TINY, take_valid
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.elementary import log
from rtsep.kernels.heap import drop_top, push
from rtsep.kernels.jit import kernel, pasted
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.simd import move
from rtsep.phase.synthesis import SynthesisState, prepare_synthesis, synthesise, turn_to_spectra, turns_per_bin

HALF = np.float32(0.5)


class RTPGHIState(NamedTuple):
    """State of RTPGHI for J sources and K frames of look-ahead; float32 unless said."""

    synthesis: SynthesisState
    scale: np.ndarray  # (2,): turns per hop and per bin, for a unit slope of the log magnitude
    centre: np.ndarray  # (n_bins,): turns per hop of the centre of each bin
    threshold: np.ndarray  # (1,): logarithm of the tolerance
    seed: np.ndarray  # int64 (1,): of the phases below the tolerance
    mixture: np.ndarray  # (K + 1, n_channels, 2, n_bins): from the frame to commit to the newest
    magnitudes: np.ndarray  # (K + 1, J, n_bins): the same
    logs: np.ndarray  # (J, 3, n_bins): log magnitudes of the newest three frames, oldest first
    advance: np.ndarray  # (J, n_bins): turns per hop, in the frame committed last
    turns: np.ndarray  # (J, n_bins): its phases
    fresh: np.ndarray  # (n_bins,) scratch: turns per hop in the frame to commit
    slope: np.ndarray  # (n_bins,) scratch: turns per bin there
    pending: np.ndarray  # bool (n_bins,) scratch: bins without a phase
    keys: np.ndarray  # (2 * n_bins,) scratch: heap of log magnitudes
    items: np.ndarray  # int64 (2 * n_bins,) scratch: bin of the frame before, or n_bins + bin of the frame to commit


@pasted
def _gradient(state, j, now):
    """Turns per hop and per bin of source `j` in the frame to commit, number `now` of the three."""
    logs, fresh, slope = state.logs, state.fresh, state.slope
    n_bins = fresh.size
    per_hop, per_bin = state.scale[0], state.scale[1]
    for k in range(n_bins):
        across = np.float32(0)
        if 0 < k < n_bins - 1:
            across = (logs[j, now, k + 1] - logs[j, now, k - 1]) * HALF
        fresh[k] = per_hop * across + state.centre[k]
        if now == 1:
            along = (logs[j, 2, k] - logs[j, 0, k]) * HALF
        else:
            along = (np.float32(3) * logs[j, 2, k] - np.float32(4) * logs[j, 1, k] + logs[j, 0, k]) * HALF
        slope[k] = -per_bin * along


@pasted
def _integrate(state, j, now):
    """Phases of source `j` in the frame to commit, from the loudest bin on (algorithm 1 of the paper)."""
    logs, advance, turns, fresh, slope = state.logs, state.advance, state.turns, state.fresh, state.slope
    pending, keys, items = state.pending, state.keys, state.items
    n_bins = fresh.size
    loudest = logs[j, now, 0]
    for k in range(n_bins):
        loudest = max(loudest, logs[j, now, k], logs[j, now - 1, k])
    limit = loudest + state.threshold[0]
    n_pending, n = 0, 0
    for k in range(n_bins):
        pending[k] = logs[j, now, k] > limit
        if pending[k]:
            n_pending += 1
            n = push(keys, items, n, logs[j, now - 1, k], k)
        else:
            # Numerical Recipes' generator: the same phases in every run.
            state.seed[0] = (1664525 * state.seed[0] + 1013904223) & 0xFFFFFFFF
            turns[j, k] = np.float32(state.seed[0] * 2.0**-32)
    while n_pending > 0:
        k = items[0]
        n = drop_top(keys, items, n)
        if k < n_bins:
            if pending[k]:
                pending[k] = False
                n_pending -= 1
                turn = turns[j, k] + (advance[j, k] + fresh[k]) * HALF
                turns[j, k] = turn - math.floor(turn)
                n = push(keys, items, n, logs[j, now, k], n_bins + k)
        else:
            k -= n_bins
            for side in (-1, 1):
                i = k + side
                if 0 <= i < n_bins and pending[i]:
                    pending[i] = False
                    n_pending -= 1
                    turn = turns[j, k] + side * (slope[k] + slope[i]) * HALF
                    turns[j, i] = turn - math.floor(turn)
                    n = push(keys, items, n, logs[j, now, i], n_bins + i)
    move(advance, j * n_bins, fresh, 0, n_bins)


@kernel
def recover_rtpghi(state, mixture, power, line, magnitudes, hop_out):
    """One hop of RTPGHI for every source.

    Parameters
    ----------
    state : RTPGHIState
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
    n_src, n_bins = magnitudes.shape
    n_ahead = state.magnitudes.shape[0] - 1
    now = 2 - n_ahead
    n_spectra = mixture.size
    move(state.mixture, 0, state.mixture, n_spectra, n_ahead * n_spectra)
    move(state.mixture, n_ahead * n_spectra, mixture, 0, n_spectra)
    move(state.magnitudes, 0, state.magnitudes, n_src * n_bins, n_ahead * n_src * n_bins)
    take_valid(magnitudes, state.magnitudes[n_ahead])
    for j in range(n_src):
        move(state.logs, 3 * j * n_bins, state.logs, (3 * j + 1) * n_bins, 2 * n_bins)
        for k in range(n_bins):
            state.logs[j, 2, k] = log(max(state.magnitudes[n_ahead, j, k], TINY))
        _gradient(state, j, now)
        _integrate(state, j, now)
    turn_to_spectra(state.magnitudes[0], state.turns, state.synthesis.centre, state.synthesis.spectra)
    synthesise(state.synthesis, state.mixture[0], hop_out)


@register_phase("rtpghi")
@dataclass(frozen=True)
class RTPGHI(OnlinePhase):
    """RTPGHI: phase gradient heap integration, each source on its own from its magnitudes.

    Parameters
    ----------
    lookahead : int
        0, or 1 hop for the central difference over time.
    tolerance : float
        Bins weaker than this, relative to the loudest of two frames, get random phases; 1e-30 to 1.

    References
    ----------
    Prusa and Sondergaard, DAFx 2016.
    """

    lookahead: int = 0
    tolerance: float = 1e-6

    State: ClassVar[type] = RTPGHIState
    step = recover_rtpghi

    def __post_init__(self) -> None:
        object.__setattr__(self, "lookahead", check_int("lookahead", self.lookahead, 0, 1, " hops"))
        check_real("tolerance", self.tolerance, 1e-30, 1)

    def prepare(self, config: StreamConfig, n_src: int) -> RTPGHIState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        n_bins, n_frames = config.n_bins, self.lookahead + 1
        ratio = config.hop * config.n_fft / window_gamma(config.windows.analysis)
        centre = turns_per_bin(config.hop, config)
        silence = np.full((n_src, 3, n_bins), math.log(TINY))
        return RTPGHIState(
            synthesis=prepare_synthesis(config, n_src),
            scale=constant([ratio / (2 * math.pi), 1 / ratio / (2 * math.pi)]),
            centre=centre,
            threshold=constant([math.log(self.tolerance)]),
            seed=zeros(1, np.int64),
            mixture=zeros((n_frames, config.n_channels, 2, n_bins)),
            magnitudes=zeros((n_frames, n_src, n_bins)),
            logs=aligned(silence),
            advance=aligned(np.tile(centre, (n_src, 1))),
            turns=zeros((n_src, n_bins)),
            fresh=zeros(n_bins),
            slope=zeros(n_bins),
            pending=zeros(n_bins, np.bool_),
            keys=zeros(2 * n_bins),
            items=zeros(2 * n_bins, np.int64),
        )


def window_gamma(window: np.ndarray) -> float:
    """Gamma of the Gaussian exp(-pi t^2 / gamma) whose square has the variance of the squared window.

    Parameters
    ----------
    window : ndarray, (n_samples,)

    Returns
    -------
    gamma : float
        In squared samples: 0.2514 n_samples^2 for Hann, 2 % below the least-squares fit of the paper.
    """
    squared, n = window**2, np.arange(len(window))
    t = n - (n * squared).sum() / squared.sum()
    return float(4 * np.pi * (t**2 * window**2).sum() / (window**2).sum())
