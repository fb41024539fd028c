"""Speech and noise by tracking the noise, without a model of either.

Noise power: T. Gerkmann and R. C. Hendriks, "Unbiased MMSE-based noise power estimation with low complexity and
low tracking delay", IEEE TASLP 20(4), 2012, bounded by the minimum of the smoothed power of the last 0.8 s
(after R. Martin, "Noise power spectral density estimation based on optimal smoothing and minimum statistics",
IEEE TSAP 9(5), 2001), so that long vowels do not leak into it. Speech: decision-directed a-priori SNR and the
log-spectral amplitude gain of Y. Ephraim and D. Malah, IEEE TASSP 32(6), 1984, and 33(2), 1985.

All smoothing constants follow from times, since the hop varies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.kernels.elementary import exp
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import aligned, constant, zeros

NOISE_S = 0.072  # smoothing of the noise power (2012, table I, for a hop of 16 ms: 0.8)
PRESENCE_S = 0.152  # smoothing of the speech presence that guards against stagnation (0.9)
PRIOR_S = 0.1  # decision-directed smoothing of the a-priori SNR; shorter is harsher, longer smears speech
POWER_S = 0.05  # smoothing of the power whose minimum bounds the noise
MINIMUM_S = 0.4  # half of the span of that minimum
START_S = 0.5  # at the start the noise rises to that minimum, since a stream may begin with speech
AROUND_HZ = 100  # the presence of speech is judged by the mean of the power this far around a bin

PRESENT_SNR = np.float32(10**1.5)  # a-priori SNR of present speech, 15 dB (2012, section III.A)
SLOPE = PRESENT_SNR / (1 + PRESENT_SNR)
STAGNANT = np.float32(0.99)
MINIMUM_BIAS = np.float32(2)  # minima lie below the mean, the lower the more a noise fluctuates
MIN_PRIOR = np.float32(10**-2.5)  # a-priori SNR, -25 dB
MAX_POSTERIOR = np.float32(1e4)  # a-posteriori SNR, 40 dB
SILENCE_DB = -120.0  # white noise of this level, in dBFS, is the least that counts as noise


class DenoiseState(NamedTuple):
    """State of the noise tracker; float32 (n_bins,) unless said."""

    noise: np.ndarray  # power
    presence: np.ndarray  # smoothed probability of speech
    speech: np.ndarray  # power of the last frame's speech
    around: np.ndarray  # scratch: power of this frame, smoothed over frequency
    smoothed: np.ndarray  # power, smoothed over frequency and time
    minimum: np.ndarray  # of `smoothed` since the last but one multiple of MINIMUM_S
    candidate: np.ndarray  # of `smoothed` since the last multiple
    n_seen: np.ndarray  # int64 (1,): frames that were not silent
    spans: np.ndarray  # int64 (3,): START_S, MINIMUM_S and the window in hops
    weights: np.ndarray  # (2 * radius + 1,): of the neighbours of a bin
    keep: np.ndarray  # (4,): share of the old value per hop: noise, presence, prior, smoothed power
    floor: np.ndarray  # (2,): least gain, least noise power


@inlined
def log_spectral_gain(prior, posterior):
    """Gain of the log-MMSE estimator, w exp(E1(w posterior) / 2) with w = prior / (1 + prior).

    E1 by M. Abramowitz and I. Stegun, 5.1.53 and 5.1.56 (Hastings, 5e-5 relative).
    """
    w = prior / (np.float32(1) + prior)
    v = max(w * posterior, np.float32(1e-6))
    if v < 1:
        # The logarithm in E1 becomes the square root.
        e1 = np.float32(-0.00976004) + v * np.float32(0.00107857)
        e1 = np.float32(-0.24991055) + v * (np.float32(0.05519968) + v * e1)
        e1 = v * (np.float32(0.99999193) + v * e1) - np.float32(0.57721566)
        w /= np.float32(math.sqrt(v))
    else:
        e1 = (v * (v + np.float32(2.334733)) + np.float32(0.250621)) / (
            v * (v + np.float32(3.330657)) + np.float32(1.681534)
        )
        e1 *= exp(-v) / v
    # What is left lies between -0.29 and 0.11: five terms of the exponential series err by 2e-5.
    h = np.float32(0.5) * e1
    series = np.float32(1 / 2) + h * (np.float32(1 / 6) + h * np.float32(1 / 24))
    return w * (np.float32(1) + h * (np.float32(1) + h * series))


@kernel
def estimate_denoise(state, mixture, power, magnitudes):
    """Magnitudes of speech and noise in the newest frame.

    Parameters
    ----------
    state : DenoiseState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only, not used.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    magnitudes : ndarray, float32, (2, n_bins)
        Overwritten; they add up to the magnitude of the mixture, so that phase recovery leaves them alone.

    Notes
    -----
    Real-time safe.
    """
    noise, presence, speech, weights = state.noise, state.presence, state.speech, state.weights
    around, smoothed, minimum, candidate = state.around, state.smoothed, state.minimum, state.candidate
    keep_noise, keep_presence, keep_prior, keep_power = state.keep[0], state.keep[1], state.keep[2], state.keep[3]
    least_gain, least_noise = state.floor[0], state.floor[1]
    zero, one = np.float32(0), np.float32(1)
    top, radius = power.size - 1, weights.size // 2
    total = zero
    for k in range(power.size):
        total += power[k]
        around[k] = zero
        for i in range(weights.size):
            # The spectrum goes on mirrored beyond both ends.
            around[k] += weights[i] * power[top - abs(top - abs(k + i - radius))]
    # Digital silence says nothing about the noise.
    heard = total > least_noise
    if heard:
        state.n_seen[0] += 1
    n_seen = state.n_seen[0]
    started = min(np.float32(n_seen) / np.float32(state.spans[0]), one)
    renew = n_seen % state.spans[1] == 0
    for k in range(power.size):
        y = power[k]
        if heard:
            if n_seen <= state.spans[2]:
                # The first window still holds the silence before the stream.
                smoothed[k] = minimum[k] = candidate[k] = around[k]
            smoothed[k] = around[k] + keep_power * (smoothed[k] - around[k])
            candidate[k] = min(candidate[k], smoothed[k])
            minimum[k] = min(minimum[k], candidate[k])
            if renew:
                minimum[k] = candidate[k]
                candidate[k] = smoothed[k]
            if started < one:
                noise[k] = started * minimum[k]
            else:
                # Probability of speech (2012, eq. 18), its guard against stagnation (eq. 23), noise (eq. 22).
                unlikely = exp(-min(around[k] / noise[k] * SLOPE, np.float32(80)))
                p = one / (one + (one + PRESENT_SNR) * unlikely)
                presence[k] = p + keep_presence * (presence[k] - p)
                if presence[k] > STAGNANT:
                    p = min(p, STAGNANT)
                estimate = y + p * (noise[k] - y)
                noise[k] = min(estimate + keep_noise * (noise[k] - estimate), MINIMUM_BIAS * minimum[k])
        noise[k] = max(noise[k], least_noise)
        posterior = min(y / noise[k], MAX_POSTERIOR)
        prior = max(posterior - one, zero)
        prior = max(prior + keep_prior * (min(speech[k] / noise[k], MAX_POSTERIOR) - prior), MIN_PRIOR)
        gain = min(log_spectral_gain(prior, posterior), one)
        speech[k] = gain * gain * y
        size = math.sqrt(y)
        # The floor comes after the feedback, which would otherwise never see silence.
        magnitudes[0, k] = max(gain, least_gain) * size
        magnitudes[1, k] = size - magnitudes[0, k]


@register_estimator("denoise")
@dataclass(frozen=True)
class Denoise(CompiledEstimator):
    """Speech and noise: tracks the noise by speech presence probability, log-MMSE gain.

    Parameters
    ----------
    max_attenuation_db : float
        Most that the noise is lowered by in any bin, 0 to 60 dB; more sounds hollow.
    """

    max_attenuation_db: float = 15.0

    sources = ("speech", "noise")
    phase = "mixture"  # magnitudes that add up to the mixture's leave nothing to recover
    State: ClassVar[type] = DenoiseState
    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {"max_attenuation_db": ("floor",)}
    step = estimate_denoise

    def __post_init__(self) -> None:
        check_real("max_attenuation_db", self.max_attenuation_db, 0, 60, " dB")

    def prepare(self, config: StreamConfig) -> DenoiseState:
        """Fresh state. Not real-time safe."""
        hop_s = config.hop_s
        least_noise = 10 ** (SILENCE_DB / 10) * (config.windows.analysis**2).sum()
        radius = max(1, min(round(AROUND_HZ * config.n_fft / config.sr), config.n_bins - 1))
        triangle = 1 + radius - abs(np.arange(-radius, radius + 1))
        times_s = (NOISE_S, PRESENCE_S, PRIOR_S, POWER_S)
        return DenoiseState(
            noise=zeros(config.n_bins),
            presence=zeros(config.n_bins),
            speech=zeros(config.n_bins),
            around=zeros(config.n_bins),
            smoothed=zeros(config.n_bins),
            minimum=zeros(config.n_bins),
            candidate=zeros(config.n_bins),
            n_seen=zeros(1, np.int64),
            spans=constant(
                [
                    max(1, round(START_S / hop_s)),
                    max(1, round(MINIMUM_S / hop_s)),
                    -(-config.analysis // config.hop),
                ],
                np.int64,
            ),
            weights=constant(triangle / triangle.sum()),
            keep=constant([math.exp(-hop_s / time_s) for time_s in times_s]),
            floor=aligned([10 ** (-self.max_attenuation_db / 20), least_noise]),
        )
