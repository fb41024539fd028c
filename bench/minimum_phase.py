"""An experiment below 2 ms: a minimum-phase filter that follows the masks of `speech`, without overlap-add.

`bench/latency.py` has its figures. The masks of the newest frame (analysis window 16 ms, its end as steep as for a
latency of 2 ms) become the magnitude response of an FIR filter of minimum phase, by the folded cepstrum of log G
(A. V. Oppenheim and R. W. Schafer, "Discrete-time signal processing", chapter on the cepstrum). Each hop of samples is
filtered once it is there, cross-faded from the filter of the hop before: the latency is one hop, and what the filter
delays. Such a filter changes phases with gains, which SI-SDR minds more than ears do.
"""

from __future__ import annotations

import numpy as np
from material import SR

from rtsep import StreamConfig
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.line import prepare_line, take_in
from rtsep.estimators import Speech

FLOOR_DB = -30.0  # deeper notches would make the filter longer than it is
N_TAPS = 256


def masks(x: np.ndarray, hop_ms: float) -> np.ndarray:
    """Of `speech` for every hop, (n_hops, n_bins)."""
    config = StreamConfig.from_ms(SR, latency_ms=2, hop_ms=hop_ms)
    line, analysis = prepare_line(1, config.analysis), prepare_analysis(config)
    settings = Speech(target="mask")
    state, magnitudes = settings.prepare(config), np.zeros((2, config.n_bins), np.float32)
    found = []
    for hop in x[: x.size // config.hop * config.hop].astype(np.float32).reshape(-1, 1, config.hop):
        take_in(line, hop)
        analyse(analysis, line.samples)
        Speech.step(state, analysis.mixture, analysis.power, magnitudes)
        found.append(magnitudes[0] / (np.sqrt(analysis.power) + 1e-12))
    return np.array(found)


def minimum_phase(gains: np.ndarray) -> np.ndarray:
    """Impulse responses (n, N_TAPS) with these magnitude responses (n, n_bins)."""
    n_fft = 2 * (gains.shape[1] - 1)
    cepstrum = np.fft.irfft(np.log(np.maximum(gains, 10 ** (FLOOR_DB / 20))), n_fft)
    cepstrum[:, 1 : n_fft // 2] *= 2
    cepstrum[:, n_fft // 2 + 1 :] = 0
    return np.fft.irfft(np.exp(np.fft.rfft(cepstrum, n_fft)), n_fft)[:, :N_TAPS]


def separate_speech(x: np.ndarray, hop_ms: float) -> np.ndarray:
    """Speech (n_samples,), `hop_ms` late in a stream, here aligned."""
    filters = minimum_phase(masks(x, hop_ms))
    hop = round(SR * hop_ms / 1000)
    fade = (np.arange(hop) + 0.5) / hop
    padded = np.concatenate([np.zeros(N_TAPS - 1), x])
    y, before = np.zeros(x.size), filters[0]
    for b, now in enumerate(filters):
        part = np.lib.stride_tricks.sliding_window_view(padded[b * hop : b * hop + N_TAPS - 1 + hop], N_TAPS)[:, ::-1]
        y[b * hop : (b + 1) * hop] = (1 - fade) * (part @ before) + fade * (part @ now)
        before = now
    return y
