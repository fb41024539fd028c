"""The bridge between two clocks: with clocks made for the test, and on a JACK server at another rate."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from jackd import JackServer, Player, require_audio
from test_live_callback import CALLBACK
from test_live_callback import Device as Engine

from rtsep import Output, Separator, StreamConfig
from rtsep.estimators import Passthrough
from rtsep.kernels.memory import code
from rtsep.live import LiveStream
from rtsep.live import bridge as br
from rtsep.live.callback import compiled_callback
from rtsep.live.pointers import Handle

FREQUENCY = 440
CLOCK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int64))


class Devices:
    """An input that hears a tone and an output that records, each with a clock of its own and callbacks that come late.

    `rates` are those of input, engine and output; `ppm` by how many millionths the clocks of the two are fast.
    """

    def __init__(self, rates, blocks, ppm=(0, 0), jitter_s=1e-4, seed=0):
        self.rates, self.blocks, self.ppm = rates, blocks, ppm
        self.true = [sr * (1 + 1e-6 * p) for sr, p in zip(rates[::2], ppm, strict=True)]
        self.jitter_s, self.rng = jitter_s, np.random.default_rng(seed)
        self.separator = Separator(StreamConfig(rates[1]), Passthrough())
        self.engine = Engine(self.separator, monitor=Output(ceiling_db=-1))
        self.state = br.prepare_bridge(rates, 1, [0], 1, 10 ** (-1 / 20))
        self.time_ns = 0

        @CLOCK
        def clock(_, out):
            out[0], out[1] = 0, self.time_ns
            return 0

        self._clock = clock
        function = code(ctypes.cast(clock, ctypes.c_void_p).value)
        self.state = self.state._replace(
            clock_in=self.state.clock_in._replace(function=function),
            clock_out=self.state.clock_out._replace(function=function),
        )
        self.state.engine[:] = compiled_callback().address, self.engine.handle.address
        self.handle = Handle(self.state)
        self._capture, self._play = (CALLBACK(callback.address) for callback in br.compiled_callbacks())

    def run(self, seconds, stall=None, lost=None, heard=lambda t: 0.5 * np.sin(2 * np.pi * FREQUENCY * t)):
        """What is played and when, in seconds.

        During `stall` the input's callbacks do not come, but all at its end; those of `lost` never come.
        """
        (n_in, n_out), (sr_in, sr_out) = self.blocks, self.true
        offset = 0.37 * n_in / sr_in
        played, k, m = [], 0, 0
        block_out = np.zeros(n_out, np.float32)
        while offset + m * n_out / sr_out < seconds:
            captured, asked = (k + 1) * n_in / sr_in, offset + m * n_out / sr_out
            comes = stall[1] if stall and stall[0] < captured < stall[1] else captured
            self.time_ns = round(1e9 * (min(comes, asked) + abs(self.rng.normal(0, self.jitter_s))))
            if comes <= asked:
                block_in = heard((k * n_in + np.arange(n_in)) / sr_in).astype(np.float32)
                if not (lost and lost[0] < captured < lost[1]):
                    self._capture(block_in.ctypes.data, None, n_in, None, 0, self.handle.address)
                k += 1
            else:
                self._play(None, block_out.ctypes.data, n_out, None, 0, self.handle.address)
                played.append(block_out.copy())
                m += 1
        y = np.concatenate(played)
        return offset + np.arange(len(y)) / sr_out, y

    @property
    def delay_s(self):
        """From the first sample of an input block to the output, by the ledger."""
        return self.blocks[0] / self.rates[0] + (sum(br.delays(self.state)) + self.separator.latency) / self.rates[1]

    def errors(self, t, y, start, stop, length=0.2):
        """By how much the delay differs from `delay_s`, in seconds, and what is not the tone, as a share of it."""
        delays, rests = [], []
        for begin in np.arange(start, stop - length, max(length, (stop - start) / 20)):
            at = (t >= begin) & (t < begin + length)
            basis = np.exp(2j * np.pi * FREQUENCY * t[at])
            amplitude = 2 * np.mean(y[at] * basis.conj())
            cycles = -np.angle(1j * amplitude) / (2 * np.pi) - FREQUENCY * self.delay_s
            delays.append((cycles - round(cycles)) / FREQUENCY)
            rests.append(np.std(y[at] - (amplitude * basis).real) / np.std(y[at]))
        return np.array(delays), np.array(rests)

    def close(self):
        self.handle.release()
        self.engine.close()


@pytest.fixture
def devices(request):
    made = Devices(*request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    "devices",
    [
        ((48_000, 48_000, 48_000), (256, 256), (150, -100)),
        ((48_000, 16_000, 48_000), (128, 256), (-50, 50)),
        ((44_100, 48_000, 48_000), (441, 64), (0, 200)),
        ((16_000, 16_000, 44_100), (160, 512), (-200, 0)),
        ((192_000, 8_000, 192_000), (1024, 2048), (0, 0)),
    ],
    indirect=True,
)
def test_the_delay_is_that_of_the_ledger_whatever_the_clocks_do(devices):
    t, y = devices.run(25)
    delay, rest = devices.errors(t, y, 15, 25)
    assert np.abs(delay).max() < 50e-6
    assert rest.max() < 5e-3
    start = t < 0.6
    assert not y[start].any()
    assert not devices.state.counts.any()
    assert 1e6 * devices.state.loop[br.DRIFT] == pytest.approx(devices.ppm[0] - devices.ppm[1], abs=10)


def test_two_bad_clocks_drift_for_ten_minutes_and_nothing_is_lost():
    devices = Devices((16_000, 16_000, 16_000), (256, 160), (300, -200), jitter_s=5e-4)
    t, y = devices.run(600)
    delay, rest = devices.errors(t, y, 20, 600)
    assert np.abs(delay).max() < 100e-6
    assert rest.max() < 0.02
    assert not devices.state.counts.any()
    devices.close()


@pytest.mark.parametrize(
    "devices", [((48_000, 48_000, 48_000), (256, 256)), ((48_000, 16_000, 44_100), (256, 64))], indirect=True
)
def test_a_gap_of_the_input_fades_out_and_in_and_leaves_the_delay_as_it_was(devices):
    t, y = devices.run(8, stall=(5, 5.3))
    delay, _ = devices.errors(t, y, 6, 8)
    assert np.abs(delay).max() < 60e-6
    assert devices.state.counts.tolist() == [0, 1, 0, 0]
    assert not y[(t > 5.15) & (t < 5.3)].any()
    steepest = 0.5 * 2 * np.pi * FREQUENCY / devices.true[1]
    # The last sample fades in 1 ms.
    assert np.abs(np.diff(y)).max() < steepest + 0.5 / (br.DECAY_S * devices.rates[1]) + 0.01


@pytest.mark.parametrize("devices", [((48_000, 48_000, 48_000), (256, 256))], indirect=True)
def test_samples_that_the_input_lost_cost_a_break_and_the_delay_returns_to_what_it_was(devices):
    t, y = devices.run(12, lost=(5, 5.05))
    delay, rest = devices.errors(t, y, 10, 12)
    assert devices.state.counts[br.REALIGNED] == 1
    # The callbacks lost 10 of 256 samples, and the tone goes on by the clock.
    cycles = delay * FREQUENCY
    assert rest.max() < 5e-3
    assert np.ptp(cycles) < 0.02


def test_what_comes_out_is_finite_and_below_the_ceiling():
    devices = Devices((48_000, 16_000, 48_000), (256, 256))
    rng = np.random.default_rng(1)

    def noise(t):
        x = np.sign(rng.standard_normal(t.size)) * 3
        x[::97] = np.nan
        x[::101] = np.inf
        return x

    _, y = devices.run(3, heard=noise)
    assert np.isfinite(y).all()
    assert 0.5 < np.abs(y).max() <= np.float32(10 ** (-1 / 20))
    devices.close()


@pytest.mark.parametrize(("sr", "engine", "period"), [(48_000, 16_000, 256), (16_000, 48_000, 64)])
def test_a_server_at_another_rate_is_resampled_with_the_delay_of_the_ledger(sr, engine, period):
    require_audio()
    with JackServer(sr, period, realtime=True) as server:
        rng = np.random.default_rng(0)
        x = np.zeros((1, 2 * sr), np.float32)
        x[0, sr:] = 0.2 * np.convolve(rng.standard_normal(sr), np.hanning(15) / 7, "same")
        with LiveStream(Separator(StreamConfig(engine), Passthrough())) as stream:
            heard = Player(server, x, tail=sr).run(freewheel=False)[0]
            stats, ledger = stream.stats, stream.ledger
        size = 1 << 18
        match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(x[0], size)))
        assert ledger["resampling"] > 0
        assert ledger["bridge"] > 0
        # Other programs may keep the machine from being in time; the delay must not depend on that.
        assert abs(np.argmax(match) - sum(ledger.values()) * sr / engine) < 0.001 * sr, stats
