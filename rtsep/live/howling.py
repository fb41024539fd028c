"""Howling: hears that the output feeds back into the microphone, and turns it down.

A loop whose gain exceeds one at some frequency rings there: a narrow band without harmonics, at the same
place from frame to frame, whose level rises steadily until something clips. Once in 16 ms the loudest band of
what is heard is judged by that. A delay as long as ours (a window and the device) has its modes only 1 / delay
= 20 Hz apart, and several of them grow together; hence bands of 200 Hz rather than single peaks.

Two things count as howling: a band that grew steadily for 0.2 to 0.6 s, and one that has been about as loud as
the limiter allows, and steady, for 0.15 s. So a steady tone below -4 dBFS is let through. What was taken for
howling is tested by turning it down: a howl follows, while a whistle or an alarm in the room does not and is
pardoned. After a howl the gain comes back, at first soon and fully; each relapse sets a lower limit for longer.

Sources: T. van Waterschoot and M. Moonen, "Fifty years of acoustic feedback control: state of the art and
future challenges", Proc. IEEE 99(2), 2011, section on howling detection, for the features: peak-to-average and
peak-to-harmonic power ratio, interframe peak magnitude persistence and interframe magnitude slope deviation.
The bands, the saturated case, the test and the thresholds are our own; `bench/howling.py` measures them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.config import nearest_fft_size
from rtsep.engine.line import MAX_SAMPLE
from rtsep.kernels.fft import FFTPlan, plan_fft, rfft
from rtsep.kernels.jit import inlined, kernel, pasted
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import LANES, load, move, multiply, store

FRAME_S = 0.016  # between frames; all counts of frames below are of these
WINDOW_S = 0.064  # resolves the harmonics of a low voice
LOWEST_RATE = 20_000  # Hz: higher rates are averaged down to between once and twice this
LOWEST_HZ = np.float32(150)  # what hums below, and its skirts above, is not judged
HALF_BAND_HZ = np.float32(100)
HARMONIC_HALF_BAND_HZ = np.float32(50)
LOWEST_SUBHARMONIC_HZ = np.float32(150)  # below, the band at half the frequency would be part of the band itself

# A frame is tonal if its loudest band has at least
SHARE = np.float32(0.4)  # of the power,
HARMONICS_DB = np.float32(15)  # more than the bands at twice and three times its frequency,
SUBHARMONIC_DB = np.float32(6)  # more than the one at half of it,
FAINTEST_DB = np.float32(-50)  # relative to a sine of full scale.

# A band grows if for so many tonal frames its centre stays within so many Hz and its level rises by so many dB along
# a line, from which it deviates by no more than so many dB (root mean square). Any row will do. From quarter to quarter
# of that time the mean level must rise by a share of it, as it does not when somebody turns a tone up.
GROWTH = (
    (14, 8.0, 6.0, 0.5),  # one mode
    (20, 60.0, 6.0, 1.2),  # several modes, which beat
    (40, 60.0, 6.0, 1.5),  # the same, slowly
    (12, 60.0, 20.0, 1.2),  # the same, fast
)
QUARTER_SHARE = np.float32(0.125)
STEEPEST_DB = np.float32(6)  # per frame; attacks of notes are steeper

# Saturated: for so many frames the power is at least that and varies by less, and the loudest band has this much.
SATURATED = 9
SATURATED_DB, STEADY_DB = np.float32(-4), np.float32(2)
SATURATED_SHARE, SATURATED_HARMONICS_DB = np.float32(0.2), np.float32(6)  # the microphone may clip too

STEP_DB = np.float32(6)
LOWEST_GAIN_DB = np.float32(-36)
WAIT, WAIT_LOUD = 8, 3  # frames between steps: a loop, a window; at SATURATED_DB ears cannot wait
FALLING_DB = np.float32(2)  # a howl falls by this between steps, or the next step is due
UNMOVED_DB = np.float32(2)  # what stays within this during so many steps does not come from the loop,
UNMOVED = 3  # even if headphones delay it by a quarter of a second
GONE_DB = np.float32(20)  # a howl so far below its peak is gone,
GONE_SHARE = np.float32(0.05)  # and one that is such a small part of what is heard
HOLD = 31  # frames: 0.5 s
DOWN_DB_S, RECOVERY_DB_S, PARDON_DB_S = -300.0, 6.0, 60.0  # 20 ms for a step down
PATIENCE, MAX_PATIENCE = 500, 32_000  # frames: 8 s, doubled by each relapse, up to 8.5 min
PARDON = 62  # frames: 1 s after a pardoned tone has ended, another one may be a howl

CALM, FIGHT, HELD = range(3)
# Rows of `HowlState.counts`.
PHASE, SINCE, TAKEN, WAITS, PARDONED, FRAMES, TONAL, LOUD = range(8)
# Rows of `HowlState.levels`, in dB but for the first two, in Hz.
CENTRE, EXCUSED, EXCUSED_LEVEL, HIGHEST, LOWEST, MARK, GOAL, LIMIT = range(8)


class HowlState(NamedTuple):
    """State of the detector and of the gain; float32 unless said."""

    plan: FFTPlan
    window: np.ndarray  # (n_fft,)
    line: np.ndarray  # (n_fft,): the newest samples at the lower rate
    frame: np.ndarray  # (n_fft,) scratch
    spectrum: np.ndarray  # (2, n_bins) scratch
    power: np.ndarray  # (n_bins,): sums to the squared amplitude of a sine
    sizes: np.ndarray  # int64 (3,): samples in a mean, means between frames, first bin
    bin_hz: np.ndarray  # (1,)
    filled: np.ndarray  # int64 (2,): samples in the mean so far, means since the last frame
    sum: np.ndarray  # (1,): of the samples in the mean so far
    growth: np.ndarray  # (4, 4): `GROWTH`
    history: np.ndarray  # (3, 40): level, centre and total power of the last frames, in a circle
    counts: np.ndarray  # int64 (8,)
    levels: np.ndarray  # (8,)
    rates: np.ndarray  # (3,): factors of the gain per sample: down, up, up after a pardon
    gain: np.ndarray  # (3,): present gain, where it goes, factor per sample on the way up
    alarms: np.ndarray  # int64 (2,): alarms so far, and how many of them were pardoned


def prepare_howling(sr: int) -> HowlState:
    """State for a sample rate from 8 to 192 kHz. Not real-time safe."""
    mean = max(1, sr // LOWEST_RATE)
    rate = sr / mean
    n_fft = nearest_fft_size(WINDOW_S * rate, 0)
    window = np.hanning(n_fft + 1)[:-1]
    # So scaled, the three bins of a sine sum to its squared amplitude.
    window *= 2 / window.sum() / math.sqrt(1.5)
    bin_hz = rate / n_fft
    state = HowlState(
        plan=plan_fft(n_fft),
        window=aligned(window),
        line=zeros(n_fft),
        frame=zeros(n_fft),
        spectrum=zeros((2, n_fft // 2 + 1)),
        power=zeros(n_fft // 2 + 1),
        sizes=np.array([mean, round(FRAME_S * rate), math.ceil(LOWEST_HZ / bin_hz)]),
        bin_hz=aligned([bin_hz]),
        filled=zeros(2, np.int64),
        sum=zeros(1),
        growth=aligned(GROWTH),
        history=zeros((3, max(rule[0] for rule in GROWTH))),
        counts=zeros(8, np.int64),
        levels=zeros(8),
        rates=aligned([10 ** (rate_db_s / 20 / sr) for rate_db_s in (DOWN_DB_S, RECOVERY_DB_S, PARDON_DB_S)]),
        gain=aligned([1, 1, 1]),
        alarms=zeros(2, np.int64),
    )
    state.counts[WAITS] = PATIENCE
    return state


def howls(state: HowlState) -> int:
    """Howls so far. One that is being fought counts, and no longer if it is pardoned."""
    return int(state.alarms[0] - state.alarms[1])


def gain_db(state: HowlState) -> float:
    """Present gain in dB; 0 while nothing howls."""
    return 20 * math.log10(state.gain[0])


@inlined
def _db(power):
    return np.float32(10) * np.float32(math.log10(max(power, np.float32(1e-20))))


@inlined
def _band(power, bin_hz, centre, half):
    """Power and centre of the band `centre` +- `half`, all in Hz."""
    first = max(1, int((centre - half) / bin_hz + np.float32(0.5)))
    last = min(power.size - 1, int((centre + half) / bin_hz + np.float32(0.5)))
    total, moment = np.float32(0), np.float32(0)
    for k in range(first, last + 1):
        total += power[k]
        moment += power[k] * np.float32(k)
    return total, moment * bin_hz / max(total, np.float32(1e-20))


@pasted
def _analyse(state):
    """The newest frame into `history`; returns the power of all bands."""
    power, spectrum, bin_hz = state.power, state.spectrum, state.bin_hz[0]
    n_fft, n_bins, first = state.line.size, state.power.size, state.sizes[2]
    multiply(state.line, 0, state.window, 0, state.frame, n_fft)
    rfft(state.plan, state.frame, spectrum, 0)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        re, im = load(spectrum, k), load(spectrum, n_bins + k)
        store(power, k, re * re + im * im)
    # Two neighbours of blocks of eight bins (125 Hz) find the loudest band, then its centre of mass says where it is.
    total, before, best, at = np.float32(0), np.float32(0), np.float32(-1), first
    for start in range(first, n_bins - LANES + 1, LANES):
        block = np.float32(0)
        for k in range(start, start + LANES):
            block += power[k]
        total += block
        if block + before > best:
            best, at = block + before, start
        before = block
    centre = _band(power, bin_hz, np.float32(at) * bin_hz, np.float32(LANES) * bin_hz)[1]
    band, centre = _band(power, bin_hz, centre, HALF_BAND_HZ)
    harmonics = max(
        _band(power, bin_hz, np.float32(2) * centre, HARMONIC_HALF_BAND_HZ)[0],
        _band(power, bin_hz, np.float32(3) * centre, HARMONIC_HALF_BAND_HZ)[0],
    )
    half = np.float32(0.5) * centre
    subharmonic = _band(power, bin_hz, half, HARMONIC_HALF_BAND_HZ)[0]
    if half < LOWEST_SUBHARMONIC_HZ:
        subharmonic = np.float32(0)
    counts, history = state.counts, state.history
    level, total_db = _db(band), _db(total)
    tonal = (
        centre >= LOWEST_HZ
        and band >= SHARE * total
        and level >= FAINTEST_DB
        and level >= _db(harmonics) + HARMONICS_DB
        and level >= _db(subharmonic) + SUBHARMONIC_DB
    )
    loud = (
        centre >= LOWEST_HZ
        and total_db >= SATURATED_DB
        and band >= SATURATED_SHARE * total
        and level >= _db(harmonics) + SATURATED_HARMONICS_DB
    )
    counts[FRAMES] += 1
    counts[TONAL] = counts[TONAL] + 1 if tonal else 0
    counts[LOUD] = counts[LOUD] + 1 if loud else 0
    at = counts[FRAMES] % history.shape[1]
    history[0, at], history[1, at], history[2, at] = level, centre, total_db
    return total


@inlined
def _grows(counts, history, growth, rule):
    """Whether the loudest band grew steadily at one place, by a row of `growth`."""
    n = np.int64(growth[rule, 0])
    if counts[TONAL] < n:
        return False
    size, newest = history.shape[1], counts[FRAMES]
    level = history[0, newest % size]
    low, high = history[1, newest % size], history[1, newest % size]
    middle = np.float32(n - 1) / np.float32(2)
    mean, slope, norm = np.float32(0), np.float32(0), np.float32(0)
    for j in range(n):
        at = (newest - j) % size
        t = middle - np.float32(j)
        low, high = min(low, history[1, at]), max(high, history[1, at])
        mean += (history[0, at] - level) / np.float32(n)
        slope += t * (history[0, at] - level)
        norm += t * t
    slope /= norm
    quarter = n // 4
    later = np.float32(0)
    for part in range(4):
        here = np.float32(0)
        for j in range(part * quarter, (part + 1) * quarter):
            here += (history[0, (newest - j) % size] - level) / np.float32(quarter)
        if part > 0 and later - here < QUARTER_SHARE * growth[rule, 2]:
            return False
        later = here
    error = np.float32(0)
    for j in range(n):
        off = history[0, (newest - j) % size] - level - mean - slope * (middle - np.float32(j))
        error += off * off
    return (
        high - low <= growth[rule, 1]
        and slope * np.float32(n - 1) >= growth[rule, 2]
        and slope <= STEEPEST_DB
        and error <= np.float32(n) * growth[rule, 3] * growth[rule, 3]
    )


@inlined
def _saturated(counts, history):
    """Whether what is heard has been as loud as can be, and steady, during the last frames."""
    if counts[LOUD] < SATURATED:
        return False
    size = history.shape[1]
    low, high = np.float32(1e6), np.float32(-1e6)
    for j in range(SATURATED):
        total = history[2, (counts[FRAMES] - j) % size]
        low, high = min(low, total), max(high, total)
    return high - low <= STEADY_DB


@inlined
def _turn(levels, gain, goal, rate):
    """Send the gain to `goal` dB, upwards at `rate`."""
    levels[GOAL] = goal
    gain[1] = np.float32(1) if goal == np.float32(0) else np.float32(10) ** (goal / np.float32(20))
    gain[2] = rate


@inlined
def _step(counts, levels, gain, rate, level):
    """The next step down; `level` is that of the howl."""
    counts[TAKEN] += 1
    counts[SINCE] = 0
    levels[MARK] = level
    _turn(levels, gain, max(levels[GOAL] - STEP_DB, LOWEST_GAIN_DB), rate)


@pasted
def _begin(state, level, centre):
    """A howl begins, for the first time or again."""
    counts, levels = state.counts, state.levels
    gain = max(np.float32(2) * _db(state.gain[0]), LOWEST_GAIN_DB)
    if state.alarms[0] > state.alarms[1] and counts[PHASE] == CALM and counts[SINCE] < counts[WAITS]:
        # A relapse: this gain was too much, so stay below it, for twice as long as the last time.
        levels[LIMIT] = max(min(levels[LIMIT], gain - STEP_DB), LOWEST_GAIN_DB)
        counts[WAITS] = min(2 * counts[WAITS], MAX_PATIENCE)
    state.alarms[0] += 1
    counts[PHASE], counts[TAKEN] = FIGHT, 0
    levels[CENTRE], levels[LOWEST], levels[HIGHEST], levels[GOAL] = centre, level, level, gain
    _step(counts, levels, state.gain, state.rates[1], level)


@pasted
def _fight(state, total):
    """One frame of a howl: step down, or see that it is gone, or that it was none."""
    counts, levels = state.counts, state.levels
    band = _band(state.power, state.bin_hz[0], levels[CENTRE], HALF_BAND_HZ)[0]
    level, total_db = _db(band), _db(total)
    levels[LOWEST], levels[HIGHEST] = min(levels[LOWEST], level), max(levels[HIGHEST], level)
    counts[SINCE] += 1
    lowest_gain = levels[GOAL] <= LOWEST_GAIN_DB
    is_loud = total_db >= SATURATED_DB and not lowest_gain
    if level <= levels[HIGHEST] - GONE_DB or level < FAINTEST_DB - STEP_DB or band < GONE_SHARE * total:
        counts[PHASE], counts[SINCE] = HELD, 0
    elif counts[SINCE] >= (WAIT_LOUD if is_loud else WAIT):
        unmoved = levels[HIGHEST] - levels[LOWEST] <= UNMOVED_DB
        if level <= levels[MARK] - FALLING_DB:
            counts[SINCE], levels[MARK] = 0, level
        elif lowest_gain or (unmoved and counts[TAKEN] == UNMOVED and not is_loud):
            state.alarms[1] += 1
            counts[PHASE], counts[SINCE], counts[PARDONED] = CALM, 0, PARDON
            levels[EXCUSED], levels[EXCUSED_LEVEL] = levels[CENTRE], levels[HIGHEST] + STEP_DB
            _turn(levels, state.gain, levels[LIMIT], state.rates[2])
        else:
            _step(counts, levels, state.gain, state.rates[1], level)


@kernel
def _judge(state):
    """A frame is complete: listen, and decide about the gain."""
    total = _analyse(state)
    counts, levels, history = state.counts, state.levels, state.history
    at = counts[FRAMES] % history.shape[1]
    level, centre = history[0, at], history[1, at]
    if counts[PHASE] == FIGHT:
        _fight(state, total)
    else:
        pardoned = counts[PARDONED] > 0
        excused = pardoned and abs(centre - levels[EXCUSED]) <= HALF_BAND_HZ and level < levels[EXCUSED_LEVEL]
        if pardoned:
            counts[PARDONED] = PARDON if counts[LOUD] or (excused and counts[TONAL]) else counts[PARDONED] - 1
        alarm = not pardoned and _saturated(counts, history)
        for rule in range(state.growth.shape[0]):
            alarm = alarm or (not excused and _grows(counts, history, state.growth, rule))
        counts[SINCE] += 1
        if alarm:
            _begin(state, level, centre)
        elif counts[PHASE] == HELD and counts[SINCE] >= HOLD:
            counts[PHASE], counts[SINCE] = CALM, 0
            _turn(levels, state.gain, levels[LIMIT], state.rates[1])
        elif counts[PHASE] == CALM and counts[SINCE] >= counts[WAITS]:
            counts[SINCE] = 0
            if levels[LIMIT] < np.float32(0):
                levels[LIMIT] = min(levels[LIMIT] + STEP_DB, np.float32(0))
                _turn(levels, state.gain, levels[LIMIT], state.rates[1])
            else:
                counts[WAITS] = PATIENCE


@kernel
def watch(state, heard, n_channels, n):
    """Listen to what is about to be heard, before the limiter and before `turn_down`.

    Parameters
    ----------
    state : HowlState
        Updated in place.
    heard : ndarray, float32, at least n_channels * n elements
        Channel by channel; their mean is judged. Read only. Values that are not finite count as zero.
    n_channels, n : int
        `n` samples per channel, any number.

    Notes
    -----
    Real-time safe. Once in 16 ms it costs a transform of 64 ms, else some additions.
    """
    line, filled = state.line, state.filled
    size, step = state.sizes[0], state.sizes[1]
    newest = line.size - step
    scale = np.float32(1) / np.float32(n_channels * size)
    summed, fresh, total = filled[0], filled[1], state.sum[0]
    for i in range(n):
        x = heard[i]
        for c in range(1, n_channels):
            x += heard[c * n + i]
        total += x if abs(x) <= MAX_SAMPLE else np.float32(0)
        summed += 1
        if summed == size:
            line[newest + fresh] = total * scale
            summed, total = 0, np.float32(0)
            fresh += 1
            if fresh == step:
                fresh = 0
                _judge(state)
                move(line, 0, line, step, newest)
    filled[0], filled[1], state.sum[0] = summed, fresh, total


@kernel
def turn_down(state, heard, n_channels, n):
    """Apply the gain to what is heard; while nothing howls, not a bit changes.

    Parameters
    ----------
    state : HowlState
        Updated in place.
    heard : ndarray, float32, at least n_channels * n elements
        Channel by channel. Updated in place.
    n_channels, n : int
        `n` samples per channel, any number.

    Notes
    -----
    Real-time safe.
    """
    gain, goal, down, up = state.gain[0], state.gain[1], state.rates[0], state.gain[2]
    if gain == np.float32(1) and goal == np.float32(1):
        return
    for i in range(n):
        gain = max(goal, gain * down) if gain > goal else min(goal, gain * up)
        for c in range(n_channels):
            heard[c * n + i] *= gain
    state.gain[0] = gain
