"""The native callback: what PortAudio's own thread runs.

It knows nothing of estimators. Samples go to a function at an address, which is the compiled hop of a
`Separator` (`rtsep.live.native`) or an exchange with a worker thread (`rtsep.live.worker`); around it are
what every live stream has: the choice of channels, the delayed mixture, the gains of what is heard, the ear for
howling, the limiter, the taps for a recording and for who looks on, and the counts. No Python, no allocation, no lock;
nothing here can raise.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import carray, types

from rtsep.config import StreamConfig
from rtsep.engine.line import MAX_SAMPLE
from rtsep.engine.output import Output, OutputState, finish
from rtsep.kernels.clock import Clock, now, system_clock
from rtsep.kernels.jit import entry, inlined, kernel, pasted
from rtsep.kernels.memory import aligned, zeros
from rtsep.kernels.simd import LANES, clear, load, multiply_add, store
from rtsep.live.atomics import load_acquire, store_release
from rtsep.live.cpu import flush_to_zero, restore_mode
from rtsep.live.howling import HowlState, prepare_howling, turn_down, watch
from rtsep.live.pointers import call_process, is_null, load_state
from rtsep.live.rings import Ring, make_ring, read, waiting, write

RAMP_S = 0.02  # a gain goes from 0 to 1 in this time
DB_PER_S = 1000.0  # at which the gains of input and output go where they are wanted
METER_S = 0.3  # time constant of the levels
FULL_SCALE = np.float32(1 - 2**-15)  # of 16 bits: what is there is taken for clipped

# Rows of `LiveState.counts`.
CALLBACKS, SAMPLES, HOPS, XRUNS, LATE, SKIPPED, REPLACED, TIMES_LOST, TAP_LOST, CLIPPED = range(10)
# Fields of `LiveState` that depend on hop and delay, and what is heard with them.
OF_THE_HOP = ("process", "block_in", "block_out", "heard", "delayed", "place", "gains", "goals", "fallback", "steps",
              "limits", "debt")  # fmt: skip
XRUN_FLAGS = 15  # PortAudio's flags of under- and overflow, of input and output
# Rows of `LiveState.times`.
# Start in ns, duration in ns, samples, PortAudio's flags, longest hop in ns, delay of the devices in ns or 0.
N_TIMES = 6


class Access(NamedTuple):
    """What devices have of a stream: the way to the state that they work on."""

    connected: np.ndarray  # bool (1,): not any more, if the connection was given up; then nothing else is touched
    n_out: np.ndarray  # int64 (1,): channels of the output device
    current: np.ndarray  # int64 (1,): address of the `LiveState`
    following: np.ndarray  # int64 (1,): of the one that takes over once nothing is heard of the current one; 0 for none


class LiveState(NamedTuple):
    """Everything that the callback works on; float32 and for J sources unless said."""

    process: np.ndarray  # int64 (2,): address of the function, and of its state
    clock: Clock
    route_in: np.ndarray  # int64 (1 + n_channels,): channels of the input device, the one of each channel
    route_out: np.ndarray  # int64 (n_out,): the channel that each channel of the output device plays, or -1
    block_in: np.ndarray  # (n_channels * hop,)
    block_out: np.ndarray  # ((1 + J) * n_channels * hop,): delayed mixture and sources
    heard: np.ndarray  # (n_channels * hop,)
    delayed: np.ndarray  # (n_channels, delay): the mixture of the last `delay` samples, in a circle
    place: np.ndarray  # int64 (2,): position in the hop, and in the circle
    gains: np.ndarray  # (1 + J,): of the mixture and each source in what is heard
    goals: np.ndarray  # (1 + J,): where the gains are going
    fallback: np.ndarray  # (1 + J,): where they go instead while hops are late
    steps: np.ndarray  # (2,): by how much in a sample; to the fallback, within a hop
    trims: np.ndarray  # (2,): gains of what comes in, and of all that is heard
    trim_goals: np.ndarray  # (2,): where they are going
    trim_rate: np.ndarray  # (1,): by which factor in a sample
    howling: HowlState  # of what is heard
    listens: np.ndarray  # bool (1,): whether howling is listened for
    monitor: OutputState  # of what is heard
    energies: np.ndarray  # (2 + J,): smoothed energy per sample, of the mixture, each source and what is heard
    sums: np.ndarray  # (8,) scratch
    meter: np.ndarray  # (1,): share of the past that the energies keep per sample
    deadline: np.ndarray  # int64 (1,): when the hop should be done, for the phase recovery
    limits: np.ndarray  # int64 (3,): ns for phase recovery, for the whole hop; whether a late hop is replaced
    debt: np.ndarray  # int64 (4,): ns behind; samples to leave out, to replace; whether to leave out the next hop
    counts: np.ndarray  # int64 (10,)
    record: np.ndarray  # int64 (N_TIMES,) scratch
    times: Ring  # int64, N_TIMES rows
    commands: Ring  # 1 + J rows: goals
    tap: Ring  # (1 + J) * n_channels rows
    taps: np.ndarray  # int64 (1,): whether anyone listens to the tap
    scope: Ring  # the same rows, for who looks on: what finds no room is left out and not counted
    scopes: np.ndarray  # int64 (1,): whether anyone does


def prepare_live(
    config: StreamConfig,
    n_src: int,
    n_in: int,
    n_out: int,
    delay: int,
    monitor: Output,
    tap_capacity: int,
    scope_capacity: int = 1 << 14,
) -> LiveState:
    """State for devices of `n_in` and `n_out` channels; `delay` is that of the sources. Not real-time safe."""
    n_channels, hop, sr = config.n_channels, config.hop, config.sr
    rows = 1 + n_src
    state = LiveState(
        process=zeros(2, np.int64),
        clock=system_clock(),
        route_in=zeros(1 + n_channels, np.int64),
        route_out=zeros(n_out, np.int64),
        block_in=zeros(n_channels * hop),
        block_out=zeros(rows * n_channels * hop),
        heard=zeros(n_channels * hop),
        delayed=zeros((n_channels, delay)),
        place=zeros(2, np.int64),
        gains=zeros(rows),
        goals=zeros(rows),
        fallback=zeros(rows),
        steps=zeros(2),
        trims=aligned([1.0, 1.0]),
        trim_goals=aligned([1.0, 1.0]),
        trim_rate=aligned([10 ** (DB_PER_S / (20 * sr))]),
        howling=prepare_howling(sr),
        listens=np.array([False]),
        monitor=monitor.prepare(config, consistent=False, delay=delay),
        energies=zeros(rows + 1),
        sums=zeros(LANES),
        meter=zeros(1),
        deadline=zeros(1, np.int64),
        limits=zeros(3, np.int64),
        debt=zeros(4, np.int64),
        counts=zeros(10, np.int64),
        record=zeros(N_TIMES, np.int64),
        times=make_ring(N_TIMES, 8192, np.int64),
        commands=make_ring(rows, 64),
        tap=make_ring(rows * n_channels, tap_capacity),
        taps=zeros(1, np.int64),
        scope=make_ring(rows * n_channels, scope_capacity),
        scopes=zeros(1, np.int64),
    )
    state.route_in[:] = [n_in, *range(n_channels)]
    state.route_out[:] = np.arange(n_out) % n_channels
    state.steps[:] = 1 / (RAMP_S * sr), 1 / hop
    state.meter[0] = np.exp(-1 / (METER_S * sr))
    return state


def succeed(live: LiveState, config: StreamConfig, delay: int) -> LiveState:
    """State for another configuration and delay, silent at first; what does not depend on those is shared.

    One callback comes after the other, whatever thread it is in: so they may share. Not real-time safe.
    """
    n_src, n_in, n_out = live.gains.size - 1, int(live.route_in[0]), live.route_out.size
    fresh = prepare_live(config, n_src, n_in, n_out, delay, Output(), 1)
    own = {name: getattr(fresh, name) for name in OF_THE_HOP}
    for array in own.values():
        np.copyto(array, array.copy())  # touches every page
    own["fallback"][:] = live.fallback
    return live._replace(**own)


@kernel
def hand_over(access, address):
    """Let the state at `address` take over once nothing is heard of the current one."""
    store_release(access.following, address)


@inlined
def _trimmed(gain, goal, rate):
    """A gain one sample later; exactly the goal as soon as it is there."""
    return min(gain * rate, goal) if gain < goal else max(gain / rate, goal)


@pasted
def _take_in(live, data_in, start, n):
    """The chosen channels of the device to rows, and the mixture of `delay` samples ago to `block_out`."""
    n_in, n_channels = live.route_in[0], live.delayed.shape[0]
    delay, at = live.delayed.shape[1], live.place[1]
    trim, goal, rate = live.trims[0], live.trim_goals[0], live.trim_rate[0]
    moves = trim != goal
    clipped = 0
    for c in range(n_channels):
        channel = live.route_in[1 + c]
        position = at
        trim = live.trims[0]
        for i in range(n):
            x = data_in[(start + i) * n_in + channel]
            clipped += abs(x) >= FULL_SCALE
            if moves:
                trim = _trimmed(trim, goal, rate)
            x *= trim
            live.block_in[c * n + i] = x
            live.block_out[c * n + i] = live.delayed[c, position]
            live.delayed[c, position] = x if abs(x) <= MAX_SAMPLE else np.float32(0)
            position += 1
            if position == delay:
                position = 0
    live.place[1] = (at + n) % delay
    live.trims[0] = trim
    live.counts[CLIPPED] += clipped


@pasted
def _mix(live, n, late):
    """What is heard: mixture and sources times their gains, which go to their goals without a click."""
    n_rows, n_channels = live.gains.size, live.delayed.shape[0]
    heard, block_out = live.heard, live.block_out
    goals = live.fallback if late else live.goals
    step = live.steps[1] if late else live.steps[0]
    clear(heard, 0, n_channels * n)
    for row in range(n_rows):
        goal, gain = goals[row], live.gains[row]
        if gain == goal:
            if gain != np.float32(0):
                for i in range(n_channels * n):
                    heard[i] += gain * block_out[row * n_channels * n + i]
        else:
            for c in range(n_channels):
                gain = live.gains[row]
                for i in range(n):
                    gain += min(max(goal - gain, -step), step)
                    heard[c * n + i] += gain * block_out[(row * n_channels + c) * n + i]
            live.gains[row] = gain
    trim, goal, rate = live.trims[1], live.trim_goals[1], live.trim_rate[0]
    moves = trim != goal
    if moves or trim != np.float32(1):
        for c in range(n_channels):
            trim = live.trims[1]
            for i in range(n):
                if moves:
                    trim = _trimmed(trim, goal, rate)
                heard[c * n + i] *= trim
        live.trims[1] = trim


@pasted
def _measure(live, block, first, n_rows, n):
    """Energy per sample of the rows of a block, smoothed, into the energies from `first` on."""
    sums = live.sums
    size = live.delayed.shape[0] * n
    kept = live.meter[0] ** np.float32(n)
    for row in range(n_rows):
        at = row * size
        clear(sums, 0, LANES)
        lanes = load(sums, 0)
        for i in range(at, at + size - LANES + 1, LANES):
            x = load(block, i)
            lanes = multiply_add(x, x, lanes)
        store(sums, 0, lanes)
        for i in range(at + size // LANES * LANES, at + size):
            sums[0] += block[i] * block[i]
        total = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7]
        mean = (np.float32(1) - kept) * total / np.float32(size)
        live.energies[first + row] = kept * live.energies[first + row] + mean


@pasted
def _separate(live, n):
    """`n` samples, at most to the end of the hop, through the function at the address.

    Returns whether the result must not be heard, and how long a completed hop took in ns.
    """
    hop = live.block_in.size // live.delayed.shape[0]
    n_mixture = live.delayed.shape[0] * n
    n_sources = (live.gains.size - 1) * n_mixture
    sources = live.block_out[n_mixture : n_mixture + n_sources]
    debt, counts, at = live.debt, live.counts, live.place[0]
    completes = at + n == hop
    live.place[0] = 0 if completes else at + n
    took = np.int64(0)
    if debt[1] > 0:
        # Leave out one whole hop: the machine has to catch up.
        debt[1] -= n
        clear(sources, 0, n_sources)
    else:
        start = now(live.clock) if completes else np.int64(0)
        live.deadline[0] = start + live.limits[0]
        late = call_process(live.process[0], live.process[1], live.block_in, sources, n)
        if late:
            debt[2] = max(debt[2], n)
            counts[LATE] += 1
        if completes:
            took = now(live.clock) - start
            counts[HOPS] += 1
            if took > live.limits[1]:
                counts[LATE] += 1
            debt[0] = max(0, debt[0] + took - live.limits[1])
            if debt[3]:
                # The cross-fade is over: leave out the next hop. Then what comes out is one hop too late until
                # the window has moved past the gap.
                counts[SKIPPED] += 1
                debt[0], debt[1], debt[2], debt[3] = 0, hop, 2 * hop + live.delayed.shape[1], 0
            elif live.limits[2] and debt[0] > live.limits[1]:
                debt[2], debt[3] = max(debt[2], hop), 1
    replaced = debt[2] > 0
    if replaced:
        debt[2] -= n
        counts[REPLACED] += n
    return replaced, took


@pasted
def _delay(times):
    """From the sampling of what came in to the playing of what goes out, in ns; 0 where it is not known."""
    if is_null(times):
        return np.int64(0)
    seconds = carray(times, (3,))  # inputBufferAdcTime, currentTime and outputBufferDacTime of PaStreamCallbackTimeInfo
    if seconds[0] <= 0 or seconds[2] <= seconds[0]:
        return np.int64(0)
    return np.int64((seconds[2] - seconds[0]) * 1e9)


@pasted
def _present(access):
    """Address of the state to work on; the following one as soon as all gains of the current one are zero."""
    following = load_acquire(access.following)
    if following != 0:
        gains = load_state(access.current[0], LIVE).gains
        heard = False
        for row in range(gains.size):
            heard = heard or gains[row] != np.float32(0)
        if not heard:
            access.current[0] = following
            store_release(access.following, 0)
    return access.current[0]


def _callback(data_in, data_out, n_samples, times, flags, user):
    access = load_state(user, ACCESS)
    n_total, n_out = np.int64(n_samples), access.n_out[0]
    device_out = carray(data_out, (n_total * n_out,))
    if not access.connected[0]:
        for i in range(n_total * n_out):
            device_out[i] = np.float32(0)
        return 0
    live = load_state(_present(access), LIVE)
    n_in = live.route_in[0]
    device_in = carray(data_in, (n_total * n_in,))
    start = now(live.clock)
    mode = flush_to_zero()
    n_channels = live.delayed.shape[0]
    hop = live.block_in.size // n_channels
    counts, status = live.counts, np.int64(flags)
    if status & XRUN_FLAGS:
        counts[XRUNS] += 1
        # What is heard was interrupted, and begins anew.
        if live.monitor.fade_step[0] < np.float32(1):
            live.monitor.fade[0] = np.float32(0)
    while waiting(live.commands) > 0:
        read(live.commands, live.goals, 1)
    longest = np.int64(0)
    done = 0
    while done < n_total:
        n = min(n_total - done, hop - live.place[0])
        _take_in(live, device_in, done, n)
        replaced, took = _separate(live, n)
        longest = max(longest, took)
        if live.taps[0] and not write(live.tap, live.block_out, n):
            counts[TAP_LOST] += n
        if live.scopes[0]:
            write(live.scope, live.block_out, n)
        n_rows = live.gains.size
        _measure(live, live.block_out, 0, n_rows, n)
        _mix(live, n, replaced)
        if live.listens[0]:
            watch(live.howling, live.heard, n_channels, n)
        heard = live.heard[: n_channels * n].reshape((1, n_channels, n))
        finish(live.monitor, heard[0], heard)
        # After the limiter, so that a loop that has reached it answers the first step.
        turn_down(live.howling, live.heard, n_channels, n)
        _measure(live, live.heard, n_rows, 1, n)
        for k in range(n_out):
            channel = live.route_out[k]
            for i in range(n):
                device_out[(done + i) * n_out + k] = live.heard[channel * n + i] if channel >= 0 else np.float32(0)
        done += n
    counts[CALLBACKS] += 1
    counts[SAMPLES] += n_total
    restore_mode(mode)
    record = live.record
    record[0], record[1], record[2], record[3], record[4] = start, now(live.clock) - start, n_total, status, longest
    record[5] = _delay(times)
    if not write(live.times, record, 1):
        counts[TIMES_LOST] += 1
    return 0


ACCESS = numba.typeof(Access(np.array([True]), zeros(1, np.int64), zeros(1, np.int64), zeros(1, np.int64)))
LIVE = numba.typeof(prepare_live(StreamConfig(), 1, 1, 1, 1, Output(), 1))
_floats = types.CPointer(types.float32)
# PaStreamCallback of portaudio.h; `ulong` is C's, 32 bits on Windows.
_times = types.CPointer(types.float64)
PA_CALLBACK = types.intc(_floats, _floats, types.ulong, _times, types.ulong, types.voidptr)


@cache
def compiled_callback() -> Any:
    """The callback; its `address` is what PortAudio gets, with that of a `Handle` of an `Access` as user data."""
    return entry(PA_CALLBACK)(_callback)
