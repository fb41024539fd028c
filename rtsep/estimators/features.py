"""What a learned estimator hears: log powers of bands, relative to levels of the recent past.

Nothing here depends on the level of the stream. The same compiled kernel serves the hop and the training. Where the hop
is shorter than that of the training, several streams of frames take turns, each with a memory of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.estimators.bands import TOP_HZ, bin_frequencies, expansion_bands
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, zeros

LEVEL_S = 1.0  # the level is the mean of all powers so far, later of about the last second
QUIET = np.float32(1e-3)  # frames 30 dB below the level
QUIET_RATE = np.float32(0.1)  # count that much less, so that the level outlasts a pause
POWER_S = 0.05  # the floor of a band is the least of its power, so smoothed,
MINIMUM_S = 0.75  # since the last but one multiple of this time
SILENCE_DB = -150.0  # white noise of this level, in dBFS, is the least that says anything about levels
TINY, HUGE = np.float32(1e-30), np.float32(1e30)

# Limits and scale of the features, in decades of power (10 dB).
SCALE = np.float32(0.5)
LEAST, MOST = np.float32(-6), np.float32(3)  # relative to the level
LEAST_ABOVE, MOST_ABOVE = np.float32(-1), np.float32(5)  # relative to the floor


class FeatureState(NamedTuple):
    """Levels of the recent past; float32 unless said."""

    lower: np.ndarray  # int64 (n_used,): lower one of the two bands of a bin
    to_lower: np.ndarray  # (n_used,): weight of the bin in that band; those of a band sum to one
    to_upper: np.ndarray  # (n_used,)
    bands: np.ndarray  # (n_bands + 1,) scratch: mean power of the bands
    level: np.ndarray  # (n_streams, 1): power
    smoothed: np.ndarray  # (n_streams, n_bands): power
    floor: np.ndarray  # (n_streams, n_bands): least of it since the last but one multiple of MINIMUM_S
    candidate: np.ndarray  # (n_streams, n_bands): since the last multiple
    n_seen: np.ndarray  # int64 (n_streams, 1): frames that were not silent
    span: np.ndarray  # int64 (1,): MINIMUM_S in frames of a stream
    lead: np.ndarray  # int64 (1,): frames of the first window, which still hold the silence before the stream
    rates: np.ndarray  # (2,): share of the new value per frame: level, smoothed power
    silence: np.ndarray  # (1,): least power that says anything


def prepare_features(n_bands: int, config: StreamConfig, n_streams: int = 1) -> FeatureState:
    """Fresh state for `n_bands` bands, and `n_streams` streams of every so manieth frame. Not real-time safe."""
    frame_s = config.hop_s * n_streams
    n_used = int((bin_frequencies(config) <= TOP_HZ + 1e-6).sum())
    lower, share = (part[:n_used] for part in expansion_bands(n_bands, config))
    totals = np.bincount(lower, 1.0 - share, n_bands + 1) + np.bincount(lower + 1, share, n_bands + 1)
    # Bands without a bin, which a rate below 16 kHz has, are silent.
    inverse = np.divide(1, totals, out=np.zeros(n_bands + 1), where=totals > 0)
    indices = zeros(n_used, np.int64)
    indices[:] = lower
    return FeatureState(
        lower=indices,
        to_lower=aligned((1.0 - share) * inverse[lower]),
        to_upper=aligned(share * inverse[lower + 1]),
        bands=zeros(n_bands + 1),
        level=aligned(np.full((n_streams, 1), HUGE)),
        smoothed=aligned(np.full((n_streams, n_bands), TINY)),
        floor=aligned(np.full((n_streams, n_bands), TINY)),
        candidate=aligned(np.full((n_streams, n_bands), TINY)),
        n_seen=zeros((n_streams, 1), np.int64),
        span=np.array([round(MINIMUM_S / frame_s)]),
        lead=np.array([config.win_length // (config.hop * n_streams)]),
        rates=aligned([1 - math.exp(-frame_s / s) for s in (LEVEL_S, POWER_S)]),
        silence=aligned([10 ** (SILENCE_DB / 10) * (config.window**2).sum()]),
    )


@kernel
def extract_features(state, stream, power, features):
    """Features of the newest frame.

    Parameters
    ----------
    state : FeatureState
        Updated in place.
    stream : int
        Whose frame it is.
    power : ndarray, float32, (n_bins,)
        Squared magnitudes. Read only.
    features : ndarray, float32, (n_bands,) or (2 * n_bands,)
        Overwritten: band powers over the level, -3 to 1.5 (a unit is 20 dB); then, if there is room, over their
        floor, -0.5 to 2.5.

    Notes
    -----
    Real-time safe. Frames of digital silence change no state.
    """
    bands, level, counter = state.bands, state.level[stream], state.n_seen[stream]
    smoothed, floor, candidate = state.smoothed[stream], state.floor[stream], state.candidate[stream]
    n_bands = floor.size
    for b in range(n_bands + 1):
        bands[b] = np.float32(0)
    for k in range(state.lower.size):
        b, p = state.lower[k], min(power[k], HUGE)
        bands[b] += state.to_lower[k] * p
        bands[b + 1] += state.to_upper[k] * p
    now = np.float32(0)
    share = np.float32(1) / np.float32(n_bands)
    for b in range(n_bands):
        now += bands[b] * share
    heard = now > state.silence[0]
    if heard:
        counter[0] += 1
        n_seen = counter[0]
        rate = max(state.rates[0], np.float32(1) / np.float32(n_seen))
        if n_seen > 1 and now < QUIET * level[0]:
            rate *= QUIET_RATE
        level[0] += rate * (now - level[0])
        if n_seen == 1:
            level[0] = now
    log_level = np.float32(math.log10(max(level[0], TINY)))
    renew = counter[0] % state.span[0] == 0
    for b in range(n_bands):
        p = max(bands[b], TINY)
        if heard:
            if counter[0] <= state.lead[0]:
                smoothed[b] = floor[b] = candidate[b] = p
            smoothed[b] += state.rates[1] * (p - smoothed[b])
            candidate[b] = min(candidate[b], smoothed[b])
            floor[b] = min(floor[b], candidate[b])
            if renew:
                floor[b] = candidate[b]
                candidate[b] = smoothed[b]
        log_power = np.float32(math.log10(p))
        features[b] = SCALE * min(max(log_power - log_level, LEAST), MOST)
        if features.size > n_bands:
            above = log_power - np.float32(math.log10(floor[b]))
            features[n_bands + b] = SCALE * min(max(above, LEAST_ABOVE), MOST_ABOVE)


@kernel
def extract_all_features(state, powers, features):
    """As `extract_features` for powers (n_frames, n_bins) and features (n_frames, n_features) of the first stream."""
    for t in range(len(powers)):
        extract_features(state, 0, powers[t], features[t])
