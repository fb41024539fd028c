"""The compiled callback, called as PortAudio calls it, without PortAudio."""

from __future__ import annotations

import ctypes
import math
import sys
import threading

import numba
import numpy as np
import pytest
from numba import carray
from signals import hostile, voices

from rtsep import Output, Separator, StreamConfig
from rtsep.estimators import Oracle, Passthrough
from rtsep.live import callback as cb
from rtsep.live.native import NativeDriver
from rtsep.live.pointers import PROCESS, Handle
from rtsep.live.processor import Processor
from rtsep.live.rings import free, make_ring, read, waiting, write
from rtsep.live.scope import Scope
from rtsep.live.times import N_DELAYS, Times
from rtsep.live.worker import WorkerDriver

FOREVER = 1 << 62
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p
)


class Device:
    """A device that calls back when it is told to: blocks of any size, no clock."""

    def __init__(self, separator, driver=None, n_in=None, n_out=None, monitor=None):
        config = separator.config
        self.driver = driver or NativeDriver(separator)
        self.n_in, self.n_out = n_in or config.n_channels, n_out or config.n_channels
        self.delay = separator.latency + self.driver.prefill
        live = cb.prepare_live(config, separator.n_src, self.n_in, self.n_out, self.delay, monitor or Output(), 1 << 16)
        self.live = live = live._replace(deadline=self.driver.deadline)
        live.process[:] = self.driver.function, self.driver.pointer
        live.limits[:] = FOREVER, FOREVER, 0
        self.hear(1)
        live.gains[:] = live.goals
        self._state = Handle(live)
        access = cb.Access(np.array([True]), np.array([self.n_out]), np.array([self._state.address]), np.array([0]))
        self.handle = Handle(access)
        self.driver.reset()
        self._call = CALLBACK(cb.compiled_callback().address)

    def hear(self, row, goals=None):
        self.live.goals[:] = 0
        self.live.goals[row] = 1

    def play(self, x, sizes=(64,), between=lambda: None, flags=0, times=None):
        """x is (n_in, n_samples); the sizes of the blocks repeat. `times` are when in and out, in s."""
        told = None if times is None else np.array([times[0], 0, times[1]]).ctypes
        x = np.ascontiguousarray(np.atleast_2d(x).T, np.float32)
        y = np.zeros((len(x), self.n_out), np.float32)
        at, k = 0, 0
        while at < len(x):
            n = min(sizes[k % len(sizes)], len(x) - at)
            heard, played, info = x[at:].ctypes.data, y[at:].ctypes.data, told and told.data
            assert self._call(heard, played, n, info, flags, self.handle.address) == 0
            between()
            at, k = at + n, k + 1
        return y.T

    def close(self):
        self.handle.release()
        self._state.release()
        self.driver.close()


@pytest.fixture(scope="module")
def mixture():
    return voices(8_000)


@pytest.fixture
def device(mixture):
    made = Device(Separator(StreamConfig(), Oracle(mixture)))
    yield made
    made.close()


@pytest.fixture
def through():
    made = Device(Separator(StreamConfig(), Passthrough()))
    yield made
    made.close()


@pytest.mark.parametrize("sizes", [(64,), (1,), (63, 65, 7), (1000,), (5000, 3)])
def test_blocks_of_any_size_give_the_bits_of_process(device, mixture, sizes):
    x = mixture.sum(0)
    assert np.array_equal(device.play(x, sizes)[0], Separator(StreamConfig(), Oracle(mixture)).process(x)[0])


@pytest.mark.parametrize("name", hostile())
def test_hostile_signals_give_the_bits_of_process_too(name):
    """Although only the callback treats denormals as zero."""
    x = np.concatenate([hostile()[name], np.zeros(8_000, np.float32), hostile()[name]])
    made = Device(Separator(StreamConfig(), "denoise"))
    heard = made.play(x, (100,))[0]
    made.close()
    assert np.array_equal(heard, Separator(StreamConfig(), "denoise").process(x)[0])


@pytest.mark.parametrize("name", hostile())
def test_whatever_comes_in_what_goes_out_is_finite_and_below_the_ceiling(through, name):
    for row in (0, 1):
        through.hear(row)
        heard = through.play(hostile()[name])
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() <= np.float32(10 ** (-1 / 20))


def test_bypass_has_exactly_the_delay_of_the_sources_and_comes_without_a_click():
    n = 6_000
    x = 0.1 * np.sin(2 * np.pi * 100 / 16_000 * np.arange(n)).astype(np.float32)
    device = Device(Separator(StreamConfig(), Oracle(np.stack([0.6 * x, 0.4 * x]))))
    goals = np.array([1, 0, 0], np.float32)
    heard = device.play(x, between=lambda: device.live.counts[0] == 40 and write(device.live.commands, goals, 1))[0]
    device.close()
    expected = np.concatenate([np.zeros(device.delay, np.float32), x])[:n]
    assert device.live.gains.tolist() == [1, 0, 0]
    assert np.array_equal(heard[3_000:], expected[3_000:])
    assert np.allclose(heard[1_000:2_500], 0.6 * expected[1_000:2_500], atol=4e-3)
    assert np.abs(np.diff(heard[1_000:])).max() < 1.1 * np.abs(np.diff(x)).max()


def test_the_other_source_is_heard_after_a_command(device, mixture):
    x = mixture.sum(0)
    device.play(x[:1000])
    write(device.live.commands, np.array([0, 0, 1], np.float32), 1)
    heard = device.play(x[1000:])[0]
    expected = Separator(StreamConfig(), Oracle(mixture)).process(x)[1, 1000:]
    assert np.array_equal(heard[640:], expected[640:])
    assert not np.array_equal(heard[:300], expected[:300])


def test_gains_of_input_and_output_go_there_by_a_decibel_a_millisecond_and_are_exact_then(through):
    n = 6_000
    x = 0.01 * np.sin(2 * np.pi * 100 / 16_000 * np.arange(n)).astype(np.float32)
    gains = {1_600: (4.0, 1.0), 3_200: (4.0, 0.5), 4_800: (1.0, 1.0)}

    def turn():
        wanted = gains.get(int(through.live.counts[cb.SAMPLES]))
        if wanted:
            through.live.trim_goals[:] = wanted

    through.hear(0)  # the mixture, which nothing rounds
    through.live.gains[:] = through.live.goals
    heard = through.play(x, (160,), between=turn)[0]
    delayed = np.concatenate([np.zeros(through.delay, np.float32), x])[:n]
    assert np.array_equal(heard[:1_600], delayed[:1_600])
    up = slice(1_600 + through.delay + 16 * 13, 3_200)  # 12 dB in 12 ms
    assert np.array_equal(heard[up], 4 * delayed[up])
    down = slice(3_200 + 16 * 7, 4_800)  # at once: the output has no delay
    assert np.array_equal(heard[down], 2 * delayed[down])
    back = slice(4_800 + through.delay + 16 * 13, n)
    assert np.array_equal(heard[back], delayed[back])
    assert np.abs(np.diff(heard)).max() < 1.5 * 4 * np.abs(np.diff(x)).max()


def test_what_is_heard_is_measured_and_what_comes_in_at_full_scale_is_counted(through):
    n, full = 16_000, np.float32(32_767 / 32_768)
    x = 0.1 * np.sin(2 * np.pi * 1_000 / 16_000 * np.arange(n)).astype(np.float32)
    through.live.trim_goals[:] = 0.5, 2.0
    x[100:103] = full, -1.0, np.nextafter(full, np.float32(0))
    x[200] = np.nan
    through.play(x, (100,))
    assert through.live.counts[cb.CLIPPED] == 2  # before the gain
    levels = 10 * np.log10(through.live.energies)
    assert levels.shape == (3,)
    assert levels[:2] == pytest.approx(-23.0 - 6.0, abs=0.2)
    assert levels[2] == pytest.approx(-23.0, abs=0.2)


def test_the_scope_gets_the_samples_of_the_tap_and_nothing_that_finds_no_room_is_counted(mixture):
    x = mixture.sum(0)
    device = Processed(Separator(StreamConfig(), Passthrough()))
    scope, live = Scope(device.processor), device.processor.live
    assert not scope.open
    device.play(x[:500])
    assert scope.read().shape == (2, 1, 0)
    scope.open = True
    device.play(x[500:3_000])
    tap = np.empty(2 * 3_000, np.float32)
    read(live.tap, tap, 3_000)
    assert np.array_equal(scope.read()[:, 0], tap.reshape(2, -1)[:, 500:])
    device.play(np.tile(x, 4))
    assert scope.read().shape[2] == 4_096  # a quarter of a second, in whole blocks: the rest is missed
    assert live.counts[cb.TAP_LOST] == 0
    scope.open = False
    device.play(x)
    assert scope.read().shape[2] == 0
    device.close()


class Processed(Device):
    """The same device in front of a `Processor`."""

    def __init__(self, separator, late="wait"):
        self.processor = Processor(separator, NativeDriver(separator), 1, [0], Output(), late, False)
        self.processor.live.taps[0], self.n_out = 1, 1
        self.processor.goals[:] = 0, 1
        self.processor.pass_on(running=False)
        self.handle = Handle(self.processor.access)
        self._call = CALLBACK(cb.compiled_callback().address)

    def close(self):
        self.handle.release()
        self.processor.close()


@pytest.mark.parametrize("sizes", [(64,), (17, 100), (512,)])
@pytest.mark.parametrize(("before", "after"), [(16, 4), (4, 16), (8, 2)])
def test_another_latency_comes_without_a_click_and_after_silence_for_no_longer_than_it(before, after, sizes):
    n = 16_000
    x = 0.1 * np.sin(2 * np.pi * 100 / 16_000 * np.arange(n)).astype(np.float32)
    first, second = (Separator(StreamConfig.from_ms(16_000, latency_ms=ms), Passthrough()) for ms in (before, after))
    device = Processed(first)
    processor, told = device.processor, []

    def exchange():
        if not told and processor.live.counts[cb.SAMPLES] >= 5_000:
            told.append(processor.follow(second, running=True))
            assert not processor.follow(first, running=True)  # not before this one is done
            processor.goals[:] = 0.5, 0.5  # a choice meanwhile holds afterwards
            assert processor.pass_on(running=True)

    heard = device.play(x, sizes, between=exchange)[0]
    assert told == [True]
    assert processor.followed
    assert processor.live.goals.tolist() == [0.5, 0.5]
    assert waiting(processor.live.tap) == n  # the recording has no gap
    device.close()
    for latency, span in ((first.latency, slice(1_000, 5_000)), (second.latency, slice(7_000, n))):
        delayed = np.concatenate([np.zeros(latency, np.float32), x])[span]
        assert np.allclose(heard[span], delayed, atol=1e-5)
    # Ramps of 20 ms, and never a step.
    assert np.abs(np.diff(heard[1_000:])).max() < 1.1 * np.abs(np.diff(x)).max() + 0.1 / 320
    sounding = np.flatnonzero(np.abs(heard[5_000:7_000]) > 1e-5)
    assert second.latency <= np.diff(sounding).max() <= second.latency + max(sizes) + 8


def test_another_latency_comes_although_every_hop_is_late():
    first, second = (Separator(StreamConfig.from_ms(16_000, latency_ms=ms), Passthrough()) for ms in (16, 4))
    device = Processed(first, late="mixture")
    device.processor.live.limits[1] = 1
    device.play(np.full(8_000, 0.1, np.float32))
    assert device.processor.live.counts[cb.LATE] > 50
    assert device.processor.follow(second, running=True)
    heard = device.play(np.full(8_000, 0.1, np.float32))[0]
    assert device.processor.followed
    assert np.allclose(heard[-1_000:], 0.1, atol=1e-5)
    device.close()


@pytest.mark.parametrize("fallback", ["mixture", "silence"])
def test_hops_that_come_too_late_are_replaced_and_the_delay_stays(through, fallback):
    n, live = 16_000, through.live
    x = 0.1 * np.sin(2 * np.pi * 100 / 16_000 * np.arange(n)).astype(np.float32)
    live.fallback[0] = fallback == "mixture"

    def slow_between_5000_and_6000():
        late = 5_000 < live.counts[cb.SAMPLES] < 6_000
        live.limits[1:] = (1, 1) if late else (FOREVER, 1)

    heard = through.play(x, between=slow_between_5000_and_6000)[0]
    expected = np.concatenate([np.zeros(through.delay, np.float32), x])[:n]
    assert live.counts[cb.LATE] >= 3
    assert live.counts[cb.SKIPPED] >= 3
    assert 1_000 <= live.counts[cb.REPLACED] < 2_000
    replaced = slice(5_200, 6_000)
    if fallback == "mixture":
        assert np.allclose(heard[300:], expected[300:], atol=1e-5)
    else:
        assert not heard[replaced].any()
        assert np.abs(np.diff(heard)).max() < 0.1 / 64 + 0.005
        assert np.allclose(heard[8_000:], expected[8_000:], atol=1e-6)


def test_iterations_are_shed_before_the_deadline_and_counted(device, mixture):
    device.live.limits[0] = -1
    x = mixture.sum(0)
    heard = device.play(x)[0]
    assert device.driver.shed[0] == 5 * (x.size // 64)
    masked = Separator(StreamConfig(), Oracle(mixture), phase="mixture").process(x)[0]
    assert np.allclose(heard, masked, atol=1e-5)


def test_a_time_stamp_is_kept_for_every_callback(through):
    for _ in range(10):
        through.play(np.zeros(100), (100,), flags=2)
    assert waiting(through.live.times) == 10
    block = np.zeros(cb.N_TIMES * 10, np.int64)
    read(through.live.times, block, 10)
    start, duration, n_samples, flags, longest, delay = block.reshape(cb.N_TIMES, 10)
    assert (np.diff(start) >= duration[:-1]).all()
    assert (n_samples == 100).all()
    assert (flags == 2).all()
    assert (longest <= duration).all()
    assert (longest > 0).all()
    assert not delay.any()
    assert through.live.counts[[cb.CALLBACKS, cb.XRUNS, cb.HOPS]].tolist() == [10, 10, 15]


def test_the_delay_that_a_callback_is_told_is_kept(through):
    for times, expected in (((7, 7.016), 256), ((0, 0), 0), ((8, 7), 0), (None, 0)):
        collected = Times(through.live.times, 16_000)
        through.play(np.zeros(N_DELAYS * 64), times=times)
        collected.collect()
        assert collected.delay == expected
    through.play(np.zeros(64), times=(7, 7.016))
    collected.collect()
    assert collected.delay == 0
    for share, expected in ((0.06, 256), (0.2, 0)):  # some were told something else; where many were, it moves
        collected = Times(through.live.times, 16_000)
        for k in range(N_DELAYS):
            through.play(np.zeros(64), times=(7, 7.016 if k >= share * N_DELAYS else 7.017))
        collected.collect()
        assert collected.delay == expected


def test_denormals_are_zero_inside_the_callback_and_not_after_it(through):
    @numba.cfunc(PROCESS)
    def copy(pointer, block_in, block_out, n):
        x, y = carray(block_in, (n,)), carray(block_out, (n,))
        for i in range(n):
            y[i] = x[i] * np.float32(0.5)
        return 0

    tiny = np.full(64, 1e-39, np.float32)
    through.live.process[0] = copy.address
    through.live.goals[:] = through.live.gains[:] = 0, 1
    through.play(tiny)
    assert not through.live.block_out[64:].any()
    assert (tiny * np.float32(0.5)).all()


def test_channels_are_taken_from_and_sent_to_the_chosen_ones(mixture):
    config = StreamConfig(n_channels=2)
    stereo = Device(Separator(config, Passthrough()), n_in=3, n_out=4)
    stereo.live.route_in[1:] = 2, 0
    stereo.live.route_out[:] = 1, -1, 0, 1
    x = np.stack([mixture[0], np.ones(mixture.shape[1], np.float32), mixture[1]])
    heard = stereo.play(x, (100,))
    stereo.close()
    expected = Separator(config, Passthrough()).process(np.ascontiguousarray(x[[2, 0]]))[0]
    assert np.array_equal(heard[[2, 0, 3]], expected[[0, 1, 1]])
    assert not heard[1].any()


def test_the_start_fades_in(mixture):
    faded = Device(Separator(StreamConfig(), Passthrough()), monitor=Output(fade_in_ms=30))
    heard = faded.play(np.full(1_000, 0.5))[0]
    faded.close()
    assert np.allclose(heard[256:736], 0.5 * np.arange(480) / 480, atol=1e-4)
    assert np.allclose(heard[736:], 0.5, atol=1e-5)


def test_the_worker_gives_the_bits_of_process_with_its_prefill_as_extra_delay(mixture):
    separator = Separator(StreamConfig(), Oracle(mixture))
    driver = WorkerDriver(separator, prefill_ms=10)
    device = Device(separator, driver)
    x = mixture.sum(0)

    def work():
        while driver.step():
            pass

    heard = device.play(x, (64, 100, 3), between=work)[0]
    device.close()
    assert driver.prefill == 192
    assert device.live.counts[cb.LATE] == 0
    expected = Separator(StreamConfig(), Oracle(mixture)).process(x)[0]
    assert np.array_equal(heard[192:], expected[:-192])


@pytest.mark.parametrize("pause", [10, 1_500])
def test_a_worker_that_pauses_leaves_the_delay_as_it_was(pause):
    """The longer pause exceeds the capacity of the rings."""
    separator = Separator(StreamConfig(), Passthrough())
    driver = WorkerDriver(separator, prefill_ms=8)
    device = Device(separator, driver)
    device.live.fallback[0] = 1
    n = 64 * 4_000
    x = 0.1 * np.sin(2 * np.pi * 100 / 16_000 * np.arange(n)).astype(np.float32)

    def work():
        if not 500 < device.live.counts[cb.CALLBACKS] <= 500 + pause:
            while driver.step():
                pass

    heard = device.play(x, between=work)[0]
    device.close()
    counts = device.live.counts
    expected = np.concatenate([np.zeros(device.delay, np.float32), x])[:n]
    assert pause - 5 < counts[cb.LATE] < pause + 20
    assert 64 * (pause - 5) < counts[cb.REPLACED] < 64 * (pause + 20)
    # What is heard never jumps, and is the mixture at its place from the first replaced sample to the end.
    assert np.abs(np.diff(heard[600:])).max() < 0.03
    assert np.allclose(heard[64 * (pause + 530) :], expected[64 * (pause + 530) :], atol=1e-5)


def test_a_ring_keeps_the_order_between_two_threads():
    ring, total, wrong = make_ring(2, 100), 50_000, []

    def produce():
        rng, at = np.random.default_rng(0), 0
        while at < total:
            n = min(int(rng.integers(1, 60)), total - at)
            block = np.concatenate([np.arange(at, at + n), -np.arange(at, at + n)]).astype(np.float32)
            if write(ring, block, n):
                at += n

    def consume():
        rng, at = np.random.default_rng(1), 0
        while at < total:
            n = min(int(rng.integers(1, 60)), total - at)
            block = np.empty(2 * n, np.float32)
            if read(ring, block, n):
                if not (np.array_equal(block[:n], np.arange(at, at + n)) and np.array_equal(block[n:], -block[:n])):
                    wrong.append(at)
                at += n

    threads = [threading.Thread(target=produce), threading.Thread(target=consume)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


def test_a_ring_takes_all_or_nothing():
    ring = make_ring(1, 8)
    assert free(ring) == 8
    assert write(ring, np.arange(6, dtype=np.float32), 6)
    assert not write(ring, np.arange(6, dtype=np.float32), 3)
    assert not read(ring, np.empty(8, np.float32), 7)
    assert waiting(ring) == 6
    for _ in range(5):
        block = np.empty(5, np.float32)
        assert read(ring, block, 5)
        assert write(ring, block, 5)
    assert sorted(ring.data[0, :6].tolist()) != []
    assert waiting(ring) == 6


def test_a_handle_keeps_the_arrays_of_a_state_until_it_is_released(through):
    separator = Separator(StreamConfig(), Passthrough())
    states = separator._states
    before = sys.getrefcount(states)
    handle = Handle(states)
    driver = NativeDriver(separator)
    device = Device(separator, driver)
    device.play(np.zeros(64_000))
    assert sys.getrefcount(states) == before + 2
    device.close()
    handle.release()
    handle.release()
    assert sys.getrefcount(states) == before


def test_levels_are_the_power_of_mixture_and_sources(device, mixture):
    x = np.full(64_000, 0.25, np.float32)
    device.play(x)
    assert 10 * math.log10(device.live.energies[0]) == pytest.approx(20 * math.log10(0.25), abs=0.01)
