"""What a learned estimator hears: log powers of bands, relative to levels of the recent past, and how phases advance.

Harmonics of a voice are closer together than a window of 16 ms can tell apart. But the phase of a bin advances from
frame to frame by the frequency of what is loudest in it, so that pitch can be heard between the bins (Flanagan and
Golden, "Phase vocoder", Bell Syst. Tech. J. 45(9), 1966).

Nothing here depends on the level of the stream. The same compiled kernel serves the hop and the training. Where the hop
is shorter than that of the training, several streams of frames take turns, each with a memory of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.estimators.bands import TOP_HZ, bin_frequencies, expansion_bands
from rtsep.estimators.model_file import N_ADVANCES, Shape
from rtsep.kernels.elementary import log10
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, constant, zeros

LEVEL_S = 1.0  # the level is the mean of all powers so far, later of about the last second
QUIET = np.float32(1e-3)  # frames 30 dB below the level
QUIET_RATE = np.float32(0.1)  # count that much less, so that the level outlasts a pause
POWER_S = 0.05  # the floor of a band is the least of its power, so smoothed,
MINIMUM_S = 0.75  # since the last but one multiple of this time
SILENCE_DB = -150.0  # white noise of this level, in dBFS, is the least that says anything about levels
TINY, HUGE = np.float32(1e-30), np.float32(1e30)
ADVANCE_HZ = 62.5  # width of the stretches of bins that share a phase advance

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
    cues: np.ndarray  # bool (2,): whether floors and phase advances are heard
    stretch: np.ndarray  # int64 (n_low,): which phase advance a bin belongs to
    expected: np.ndarray  # (2, n_low): conjugate of the advance at the middle of a bin
    before: np.ndarray  # (n_streams, n_channels, 2, n_low): spectrum of the frame before
    size: np.ndarray  # (n_streams, N_ADVANCES): its magnitude in the stretches
    advance: np.ndarray  # (3, N_ADVANCES) scratch: real and imaginary part, power


def prepare_features(shape: Shape, config: StreamConfig, n_streams: int = 1) -> FeatureState:
    """Fresh state for a network, and `n_streams` streams of every so manieth frame. Not real-time safe."""
    n_bands = shape.bands_in
    frame_s = config.hop_s * n_streams
    n_used = int((bin_frequencies(config) <= TOP_HZ + 1e-6).sum())
    lower, share = (part[:n_used] for part in expansion_bands(n_bands, config))
    totals = np.bincount(lower, 1.0 - share, n_bands + 1) + np.bincount(lower + 1, share, n_bands + 1)
    # Bands without a bin, which a rate below 16 kHz has, are silent.
    inverse = np.divide(1, totals, out=np.zeros(n_bands + 1), where=totals > 0)
    indices = zeros(n_used, np.int64)
    indices[:] = lower
    n_advances = N_ADVANCES * shape.advance_cue
    low = np.arange(n_used)[bin_frequencies(config)[:n_used] < n_advances * ADVANCE_HZ - 1e-6]
    turns = low * config.hop * n_streams / config.n_fft
    return FeatureState(
        lower=indices,
        to_lower=constant((1.0 - share) * inverse[lower]),
        to_upper=constant(share * inverse[lower + 1]),
        bands=zeros(n_bands + 1),
        level=aligned(np.full((n_streams, 1), HUGE)),
        smoothed=aligned(np.full((n_streams, n_bands), TINY)),
        floor=aligned(np.full((n_streams, n_bands), TINY)),
        candidate=aligned(np.full((n_streams, n_bands), TINY)),
        n_seen=zeros((n_streams, 1), np.int64),
        span=constant([round(MINIMUM_S / frame_s)], np.int64),
        lead=constant([config.analysis // (config.hop * n_streams)], np.int64),
        rates=constant([1 - math.exp(-frame_s / s) for s in (LEVEL_S, POWER_S)]),
        silence=constant([10 ** (SILENCE_DB / 10) * (config.windows.analysis**2).sum()]),
        cues=constant([shape.floor_cue, shape.advance_cue], np.bool_),
        stretch=(bin_frequencies(config)[low] / ADVANCE_HZ + 1e-6).astype(np.int64),
        expected=constant([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)]),
        before=zeros((n_streams, config.n_channels, 2, low.size)),
        size=zeros((n_streams, n_advances)),
        advance=zeros((3, n_advances)),
    )


@kernel
def extract_features(state, stream, mixture, power, features):
    """Features of the newest frame.

    Parameters
    ----------
    state : FeatureState
        Updated in place.
    stream : int
        Whose frame it is.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Its spectrum. Read only.
    power : ndarray, float32, (n_bins,)
        Squared magnitudes, mean over the channels. Read only.
    features : ndarray, float32, (n_features,)
        Overwritten: band powers over the level, -3 to 1.5 (a unit is 20 dB); then, if the network hears them, over
        their floor, -0.5 to 2.5, and the phase advances, -1 to 1.

    Notes
    -----
    Real-time safe. Frames of digital silence change no levels.
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
    log_level = log10(max(level[0], TINY))
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
        log_power = log10(p)
        features[b] = SCALE * min(max(log_power - log_level, LEAST), MOST)
        if state.cues[0]:
            above = log_power - log10(floor[b])
            features[n_bands + b] = SCALE * min(max(above, LEAST_ABOVE), MOST_ABOVE)
    if state.cues[1]:
        extract_advances(state, stream, mixture, features[n_bands * (2 if state.cues[0] else 1) :])


@kernel
def extract_advances(state, stream, mixture, features):
    """How phases advance from the frame before, in stretches of bins.

    Parameters
    ----------
    state, stream, mixture
        As for `extract_features`.
    features : ndarray, float32, (2 * N_ADVANCES,)
        Overwritten: cosines and sines of the advance beyond that of the middle of a bin, times its steadiness: the
        correlation of a stretch of the spectrum with the one before. 0 in silence.

    Notes
    -----
    Real-time safe. The advance is heard modulo one turn per frame: 125 Hz with 8 ms, twice the width of a stretch.
    """
    before, size, advance, n = state.before[stream], state.size[stream], state.advance, state.advance.shape[1]
    for i in range(n):
        advance[0, i] = advance[1, i] = advance[2, i] = np.float32(0)
    for c in range(before.shape[0]):
        for k in range(state.stretch.size):
            re, im, last_re, last_im = mixture[c, 0, k], mixture[c, 1, k], before[c, 0, k], before[c, 1, k]
            x, y = re * last_re + im * last_im, im * last_re - re * last_im
            i, cosine, sine = state.stretch[k], state.expected[0, k], state.expected[1, k]
            advance[0, i] += x * cosine - y * sine
            advance[1, i] += x * sine + y * cosine
            advance[2, i] += re * re + im * im
            before[c, 0, k], before[c, 1, k] = re, im
    for i in range(n):
        now = np.float32(math.sqrt(advance[2, i]))
        both = now * size[i]
        size[i] = now
        share = np.float32(1) / both if TINY < both < HUGE else np.float32(0)
        features[i] = share * advance[0, i] if share > 0 else np.float32(0)
        features[n + i] = share * advance[1, i] if share > 0 else np.float32(0)


@kernel
def extract_all_features(state, spectra, powers, features):
    """As `extract_features` for frames of the first stream.

    `spectra` is (n_frames, n_channels, 2, n_bins), `powers` (n_frames, n_bins), `features` (n_frames, n_features).
    """
    for t in range(len(powers)):
        extract_features(state, 0, spectra[t], powers[t], features[t])
