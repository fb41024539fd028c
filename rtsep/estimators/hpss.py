"""Harmonic and percussive sounds by medians over time and over frequency.

Source: D. FitzGerald, "Harmonic/percussive separation using median filtering", DAFx-10, 2010, section 2. A sound that
goes on survives the median over time, one that fills the spectrum that over frequency. Causal: the median over time
runs over past frames, so a note counts as percussive until it has lasted for half of the span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import ConfigError, StreamConfig, check_real
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import zeros

TINY = np.float32(1e-30)
MAX_TIMES = 1023  # hops of the median over time; a hop takes time in proportion


class HPSSState(NamedTuple):
    """Magnitudes of the last frames and of the bins around one; float32 unless said."""

    history: np.ndarray  # (n_bins, n_times): ring over time
    ordered: np.ndarray  # (n_bins, n_times): the same in ascending order
    around: np.ndarray  # (n_around,) scratch: the bins around one, in ascending order
    spectrum: np.ndarray  # (n_bins,) scratch: magnitudes of the newest frame
    n_seen: np.ndarray  # int64 (1,): frames so far


@inlined
def _replace(ordered, n, old, new):
    """Take `old` out of the ascending values `ordered[:n]`, put `new` in."""
    i = 0
    while ordered[i] < old:
        i += 1
    while i + 1 < n and ordered[i + 1] < new:
        ordered[i] = ordered[i + 1]
        i += 1
    while i > 0 and ordered[i - 1] > new:
        ordered[i] = ordered[i - 1]
        i -= 1
    ordered[i] = new


@inlined
def _mirrored(k, n):
    """Bin `k` of a spectrum that is mirrored at both ends, its first and last bin repeated."""
    if k < 0:
        return -1 - k
    return 2 * n - 1 - k if k >= n else k


@kernel
def estimate_hpss(state, mixture, power, magnitudes):
    """Magnitudes of harmonic and percussive sounds in the newest frame.

    Parameters
    ----------
    state : HPSSState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only, not used.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    magnitudes : ndarray, float32, (2, n_bins)
        Overwritten; they add up to the magnitude of the mixture.

    Notes
    -----
    Real-time safe. The soft masks are those of the paper's eq. 8, with exponent 2.
    """
    history, ordered, around, spectrum = state.history, state.ordered, state.around, state.spectrum
    n_bins, n_times = history.shape
    n_around = around.size
    newest = state.n_seen[0] % n_times
    for k in range(n_bins):
        spectrum[k] = math.sqrt(power[k])
    # The first window of bins around bin 0, by insertion into zeros.
    half = n_around // 2
    for i in range(n_around):
        around[i] = np.float32(0)
    for i in range(-half, half):
        _replace(around, n_around, np.float32(0), spectrum[_mirrored(i, n_bins)])
    leaving = np.float32(0)
    for k in range(n_bins):
        _replace(around, n_around, leaving, spectrum[_mirrored(k + half, n_bins)])
        leaving = spectrum[_mirrored(k - half, n_bins)]
        size = spectrum[k]
        if state.n_seen[0] == 0:
            # As if the first frame had always been there.
            for i in range(n_times):
                history[k, i] = size
                ordered[k, i] = size
        _replace(ordered[k], n_times, history[k, newest], size)
        history[k, newest] = size
        harmonic, percussive = ordered[k, n_times // 2], around[half]
        harmonic, percussive = harmonic * harmonic, percussive * percussive
        share = (harmonic + np.float32(0.5) * TINY) / (harmonic + percussive + TINY)
        magnitudes[0, k] = share * size
        magnitudes[1, k] = size - magnitudes[0, k]
    state.n_seen[0] += 1


@register_estimator("hpss")
@dataclass(frozen=True)
class HPSS(CompiledEstimator):
    """Harmonic and percussive sounds: causal medians over time and over frequency.

    Parameters
    ----------
    time_ms : float
        Span of the median over time, 10 to 1000 ms.
    width_hz : float
        Span of the median over frequency, 50 to 5000 Hz. Twice the width of a sine, 4 / window, is the least
        that tells one from a click: 500 Hz at 16 ms.
    """

    time_ms: float = 100.0
    width_hz: float = 500.0

    sources = ("harmonic", "percussive")
    phase = "mixture"  # as for `denoise`: iterations cost 0.4 dB
    State: ClassVar[type] = HPSSState
    step = estimate_hpss

    def __post_init__(self) -> None:
        check_real("time_ms", self.time_ms, 10, 1000, " ms")
        check_real("width_hz", self.width_hz, 50, 5000, " Hz")

    def prepare(self, config: StreamConfig) -> HPSSState:
        """Fresh state. Not real-time safe."""
        n_times = odd(self.time_ms / 1000 / config.hop_s)
        if n_times > MAX_TIMES:
            raise ConfigError(f"time_ms={self.time_ms} is {n_times} hops of {config.hop} samples, over {MAX_TIMES}")
        n_around = min(odd(self.width_hz * config.n_fft / config.sr), 2 * ((config.n_bins - 1) // 2) - 1)
        return HPSSState(
            history=zeros((config.n_bins, n_times)),
            ordered=zeros((config.n_bins, n_times)),
            around=zeros(n_around),
            spectrum=zeros(config.n_bins),
            n_seen=zeros(1, np.int64),
        )


def odd(value: float) -> int:
    """The odd integer from 3 on that is nearest to `value`."""
    return max(3, 2 * round((value - 1) / 2) + 1)
