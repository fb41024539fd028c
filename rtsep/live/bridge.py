"""The bridge between an input and an output that do not share a clock, or do not run at the engine's rate.

The input device's callback (`_capture`) puts its samples and a time stamp into rings. The output device's (`_play`)
takes as much from there as it needs through an asynchronous resampler, hands it to the callback of
`rtsep.live.callback` as a device would, and, if the output device runs at another rate, resamples what is heard.
So there is one engine callback, whatever the devices are.

How far the input is ahead is not counted in blocks but read off a clock: between two blocks the input goes on at
its nominal rate. A proportional-integral loop on that keeps the delay constant by changing the ratio of the
resampler by a few millionths. F. Adriaensen, "Controlling adaptive resampling", Linux Audio Conference 2012, has the
idea; a slow loop makes his filters of the time stamps unnecessary.

At first only silence is heard: meanwhile the sizes of the blocks and the jitter of the callbacks tell how much
has to be kept in store. That delay is then kept for as long as the stream runs.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from rtsep.engine.line import MAX_SAMPLE
from rtsep.kernels.clock import Clock, now, system_clock
from rtsep.kernels.jit import entry, pasted
from rtsep.kernels.memory import zeros
from rtsep.kernels.simd import clear
from rtsep.live.atomics import store_release
from rtsep.live.callback import PA_CALLBACK, XRUN_FLAGS
from rtsep.live.pointers import load_state
from rtsep.live.resample import (
    ResamplerState,
    center,
    half_length,
    needed,
    prepare_resampler,
    pull,
    seek,
    skip,
)
from rtsep.live.rings import Ring, make_ring, read, waiting, write

SETTLE_S, LEARN_S = 0.1, 0.6  # after the first callbacks: when to begin and to end learning
MARGIN_S = 0.001  # in store beyond the jitter seen while learning
STORE_S = 2.0  # capacity of the ring
BLOCK = 8192  # samples that the engine gets at a time, at most
FADE_S, DECAY_S = 0.02, 0.001  # of the input after a gap, and of the last sample before it
SMOOTH_S = 0.4  # time constant with which the error is smoothed
LOOP_HZ, DAMPING = 0.1, 0.8  # of the loop: settled after about 10 s
MAX_DRIFT = 1e-3  # clocks differ by less than 1e-4, bad ones by 5e-4
LOST_S = 0.003  # a smoothed error beyond which samples were lost, and the delay is set anew

OVERFLOWS, UNDERRUNS, FLAGGED, REALIGNED = range(4)  # rows of `BridgeState.counts`
WAITING, LEARNING, RUNNING = range(3)  # values of `BridgeState.phase[0]`
# Rows of `BridgeState.loop`, in input samples but for the second and third: the delay that is kept; drift that was
# learned; error in seconds; while learning the lowest, highest and summed distance, and how many.
TARGET, DRIFT, ERROR, LOWEST, HIGHEST, SUM, NUMBER, POSITION = range(8)


class BridgeState(NamedTuple):
    """Everything that the two callbacks work on; float32 unless said."""

    engine: np.ndarray  # int64 (2,): address of the engine's callback, and of its state
    clock_in: Clock  # of the capturing thread
    clock_out: Clock  # of the playing thread, as all that follows but for the second group
    rates: np.ndarray  # float64 (3,): of input device, engine and output device in Hz

    route: np.ndarray  # int64 (1 + n_channels,): channels of the input device, the one of each channel
    row_in: np.ndarray  # (n_channels * BLOCK,) scratch
    stamp: np.ndarray  # int64 (2,) scratch
    captured: Ring  # n_channels rows, at the input device's rate
    stamps: Ring  # int64, 2 rows: ns, samples captured until then

    counts: np.ndarray  # int64 (4,): samples dropped, gaps, callbacks with input flags, times samples were lost
    newest: np.ndarray  # int64 (2,): stamp
    phase: np.ndarray  # int64 (4,): what is going on, since when in ns, largest blocks of input and output
    loop: np.ndarray  # float64 (8,)
    inward: ResamplerState  # input device to engine
    outward: ResamplerState  # engine to output device
    heard: Ring  # n_out rows, at the engine's rate
    engine_in: np.ndarray  # (BLOCK * n_channels,)
    engine_out: np.ndarray  # (BLOCK * n_out,)
    rows: np.ndarray  # (n_out * BLOCK,) scratch
    held: np.ndarray  # (2, n_channels): input sample before this one; what is left of that before a gap
    fade: np.ndarray  # (2,): gain of the input, and its step
    decay: np.ndarray  # (1,)
    ceiling: np.ndarray  # (1,): what resampling adds beyond it is cut off


def prepare_bridge(
    rates: tuple[int, int, int], n_in: int, channels: list[int], n_out: int, ceiling: float
) -> BridgeState:
    """State for `rates` of input device, engine and output device; not real-time safe.

    The input has `n_in` channels, of which `channels` (from 0) are used; the output `n_out`.
    """
    sr_in, sr, sr_out = rates
    n_channels = len(channels)
    return BridgeState(
        engine=zeros(2, np.int64),
        clock_in=system_clock(),
        clock_out=system_clock(),
        rates=np.array(rates, float),
        route=np.array([n_in, *channels]),
        row_in=zeros(n_channels * BLOCK),
        stamp=zeros(2, np.int64),
        captured=make_ring(n_channels, round(STORE_S * sr_in)),
        stamps=make_ring(2, 1024, np.int64),
        counts=zeros(4, np.int64),
        newest=zeros(2, np.int64),
        phase=zeros(4, np.int64),
        loop=zeros(8, np.float64),
        inward=prepare_resampler(sr_in / sr, n_channels),
        outward=prepare_resampler(sr / sr_out, n_out),
        heard=make_ring(n_out, 2 * BLOCK),
        engine_in=zeros(BLOCK * n_channels),
        engine_out=zeros(BLOCK * n_out),
        rows=zeros(n_out * BLOCK),
        held=zeros((2, n_channels)),
        fade=np.array([0, 1 / (FADE_S * sr)], np.float32),
        decay=np.array([math.exp(-1 / (DECAY_S * sr))], np.float32),
        ceiling=np.array([ceiling], np.float32),
    )


def delays(bridge: BridgeState) -> tuple[int, int]:
    """What resampling and the store add to the delay, in samples of the engine; the store is known once it runs."""
    sr_in, sr, sr_out = bridge.rates
    resampling = half_length(sr_in / sr) * sr / sr_in
    if sr_out != sr:
        resampling += half_length(sr / sr_out)
    # The newest block of the input is in the latency that the device reports.
    store = (bridge.loop[TARGET] - bridge.phase[2]) * sr / sr_in - resampling
    return round(resampling), round(store) if bridge.phase[0] == RUNNING else 0


@intrinsic
def _call_engine(typingctx, engine, block_in, block_out, at, n_samples, flags):
    """The engine's callback on `n_samples`, from `block_in` to `block_out[at:]`."""

    def codegen(context, builder, sig, args):
        engine, block_in, block_out, at, n_samples, flags = args
        passed_types = [context.get_value_type(ty) for ty in PA_CALLBACK.args]
        function_type = ir.FunctionType(context.get_value_type(PA_CALLBACK.return_type), passed_types)
        addresses = context.make_array(sig.args[0])(context, builder, engine).data
        address, user = (builder.load(builder.gep(addresses, [ir.Constant(ir.IntType(64), i)])) for i in (0, 1))
        data_in = context.make_array(sig.args[1])(context, builder, block_in).data
        data_out = builder.gep(context.make_array(sig.args[2])(context, builder, block_out).data, [at])
        number = [builder.trunc(value, ty) if ty.width < 64 else value
                  for value, ty in ((n_samples, passed_types[2]), (flags, passed_types[4]))]  # fmt: skip
        builder.call(
            builder.inttoptr(address, function_type.as_pointer()),
            [data_in, data_out, number[0], cgutils.get_null_value(passed_types[3]), number[1],
             builder.inttoptr(user, passed_types[5])],
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(engine, block_in, block_out, types.int64, types.int64, types.int64), codegen


def _capture(data_in, data_out, n_samples, times, flags, user):
    bridge = load_state(user, BRIDGE)
    time = now(bridge.clock_in)
    n_total, n_in = np.int64(n_samples), bridge.route[0]
    n_channels = bridge.route.size - 1
    samples, row_in = carray(data_in, (n_total * n_in,)), bridge.row_in
    done = 0
    while done < n_total:
        n = min(n_total - done, BLOCK)
        for c in range(n_channels):
            channel = bridge.route[1 + c]
            for i in range(n):
                x = samples[(done + i) * n_in + channel]
                # One value that is not finite would spoil as many samples as the resampler has taps.
                row_in[c * n + i] = x if abs(x) <= MAX_SAMPLE else np.float32(0)
        if not write(bridge.captured, row_in, n):
            bridge.counts[OVERFLOWS] += n
        done += n
    bridge.stamp[0], bridge.stamp[1] = time, bridge.captured.written[0]
    write(bridge.stamps, bridge.stamp, 1)
    if np.int64(flags) & XRUN_FLAGS:
        bridge.counts[FLAGGED] += 1
    return 0


@pasted
def _ahead(bridge):
    """Engine samples that are made but not yet played, as the output device's clock counts."""
    outward = bridge.outward
    made = waiting(bridge.heard) + outward.filled[0] - outward.start[0] - (outward.bank.shape[1] // 2 - 1)
    return made - outward.fraction[0] if bridge.rates[1] != bridge.rates[2] else 0.0


@pasted
def _learn(bridge, time, position, n):
    """Until it is known how much is needed in store: then begin."""
    phase, loop, rates = bridge.phase, bridge.loop, bridge.rates
    if phase[0] == WAITING:
        if bridge.newest[1] > 0:
            phase[0], phase[1] = LEARNING, time
        return
    elapsed = (time - phase[1]) * 1e-9
    if elapsed < SETTLE_S:
        return
    phase[3] = max(phase[3], n)
    distance = position - loop[POSITION]
    if loop[NUMBER] == 0:
        loop[POSITION], distance, loop[LOWEST], loop[HIGHEST] = position, 0.0, 0.0, 0.0
    loop[LOWEST], loop[HIGHEST] = min(loop[LOWEST], distance), max(loop[HIGHEST], distance)
    loop[SUM] += distance
    loop[NUMBER] += 1
    if elapsed >= LEARN_S:
        phase[0] = RUNNING
        step, jitter = rates[0] / rates[1], loop[HIGHEST] - loop[LOWEST]
        filters = bridge.inward.bank.shape[1] // 2
        if rates[1] != rates[2]:
            filters += (bridge.outward.bank.shape[1] // 2 + 1) * step
        blocks = phase[2] + phase[3] * rates[0] / rates[2]
        loop[TARGET] = math.ceil(blocks + filters + jitter + MARGIN_S * rates[0])
        start = loop[POSITION] + loop[SUM] / loop[NUMBER] - loop[TARGET] + _ahead(bridge) * step
        seek(bridge.inward, bridge.captured, max(start, 0.0))
    else:
        loop[POSITION] += n * rates[0] / rates[2]


@pasted
def _steer(bridge, position, n):
    """The ratio for the next `n` samples of the output device."""
    loop, rates, inward = bridge.loop, bridge.rates, bridge.inward
    step = rates[0] / rates[1]
    played = center(inward, bridge.captured) - _ahead(bridge) * step
    error = (position - played - loop[TARGET]) / rates[0]
    seconds = n / rates[2]
    loop[ERROR] += (error - loop[ERROR]) * seconds / (SMOOTH_S + seconds)
    if abs(loop[ERROR]) > LOST_S:
        seek(inward, bridge.captured, max(played + error * rates[0] + _ahead(bridge) * step, 0.0))
        loop[ERROR] = 0.0
        bridge.fade[0] = np.float32(0)
        bridge.held[1] = bridge.held[0]
        bridge.counts[REALIGNED] += 1
    omega = 2 * math.pi * LOOP_HZ
    loop[DRIFT] = min(max(loop[DRIFT] + omega * omega * loop[ERROR] * seconds, -MAX_DRIFT), MAX_DRIFT)
    correction = min(max(2 * DAMPING * omega * loop[ERROR] + loop[DRIFT], -2 * MAX_DRIFT), 2 * MAX_DRIFT)
    inward.step[0] = step * (1 + correction)


@pasted
def _feed(bridge, n):
    """`n` samples for the engine; gaps begin and end without a step."""
    block, fade, held = bridge.engine_in, bridge.fade, bridge.held
    n_channels = held.shape[1]
    made = 0
    if bridge.phase[0] == RUNNING:
        made = pull(bridge.inward, bridge.captured, block, 0, n)
        if made < n:
            skip(bridge.inward, n - made)
    clear(block, made * n_channels, (n - made) * n_channels)
    for i in range(n):
        if i == made and fade[0] > np.float32(0):
            bridge.counts[UNDERRUNS] += 1
            fade[0] = np.float32(0)
            for c in range(n_channels):
                held[1, c] = held[0, c]
        for c in range(n_channels):
            held[1, c] *= bridge.decay[0]
            held[0, c] = fade[0] * block[i * n_channels + c] + held[1, c]
            block[i * n_channels + c] = held[0, c]
        if i < made:
            fade[0] = min(fade[0] + fade[1], np.float32(1))


@pasted
def _resample(bridge, out, done, n, flags):
    """`n` samples for an output device with a rate of its own."""
    n_out = bridge.heard.data.shape[0]
    missing = needed(bridge.outward, n) - waiting(bridge.heard)
    if missing > 0:
        _feed(bridge, missing)
        _call_engine(bridge.engine, bridge.engine_in, bridge.engine_out, 0, missing, flags)
        for k in range(n_out):
            for i in range(missing):
                bridge.rows[k * missing + i] = bridge.engine_out[i * n_out + k]
        write(bridge.heard, bridge.rows, missing)
    pull(bridge.outward, bridge.heard, out, done, n)
    ceiling = bridge.ceiling[0]
    for i in range(done * n_out, (done + n) * n_out):
        out[i] = min(max(out[i], -ceiling), ceiling)


def _play(data_in, data_out, n_samples, times, flags, user):
    bridge = load_state(user, BRIDGE)
    time = now(bridge.clock_out)
    n_total, n_out = np.int64(n_samples), bridge.heard.data.shape[0]
    out = carray(data_out, (n_total * n_out,))
    newest, captured, rates = bridge.newest, bridge.captured, bridge.rates
    while waiting(bridge.stamps) > 0:
        before = newest[1]
        read(bridge.stamps, newest, 1)
        if bridge.phase[0] != RUNNING:
            bridge.phase[2] = max(bridge.phase[2], newest[1] - before)
    # Where the input is now, in samples.
    position = newest[1] + (time - newest[0]) * 1e-9 * rates[0]
    if bridge.phase[0] == RUNNING:
        _steer(bridge, position, n_total)
    else:
        _learn(bridge, time, position, n_total)
        surplus = waiting(captured) - captured.data.shape[1] // 2
        if surplus > 0:
            store_release(captured.read, captured.read[0] + surplus)
    # A block of the engine must hold what one of the device becomes.
    most = BLOCK
    if rates[2] != rates[1]:
        most = int((BLOCK - bridge.outward.bank.shape[1]) * rates[2] / rates[1])
    done, status = 0, np.int64(flags)
    while done < n_total:
        n = min(n_total - done, most)
        if rates[2] == rates[1]:
            _feed(bridge, n)
            _call_engine(bridge.engine, bridge.engine_in, out, done * n_out, n, status)
        else:
            _resample(bridge, out, done, n, status)
        done, status = done + n, 0
    return 0


BRIDGE = numba.typeof(prepare_bridge((8000, 8000, 8000), 1, [0], 1, 1.0))


@cache
def compiled_callbacks() -> tuple[Any, Any]:
    """The callbacks of the input and of the output device; both get the address of a `Handle` of a `BridgeState`."""
    return entry(PA_CALLBACK)(_capture), entry(PA_CALLBACK)(_play)
