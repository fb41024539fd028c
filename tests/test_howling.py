"""Howling: the detector against its twin, in closed loops, and on what must pass untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from naive_howling import NaiveHowling
from scipy.signal import lfilter
from signals import hostile, voices

from rtsep import Output, StreamConfig
from rtsep.engine.output import finish
from rtsep.kernels.memory import arrays
from rtsep.live import howling as hw
from rtsep.live.howling import gain_db, howls, prepare_howling, turn_down, watch

SR = 16_000
SPEECH = Path(__file__).parents[1] / "rtsep" / "data" / "noisy_speech.flac"
RECORDINGS = Path(__file__).parents[2] / "shared" / "data" / "train"


def listen(x, sr=SR, block=64, state=None):
    """What is heard of `x` (n,) or (n_channels, n), same shape, and the state."""
    state = state or prepare_howling(sr)
    rows = np.atleast_2d(x).astype(np.float32)
    heard = rows.copy()
    for at in range(0, rows.shape[1], block):
        part = np.ascontiguousarray(rows[:, at : at + block])
        watch(state, part.ravel(), *part.shape)
        turn_down(state, part.reshape(-1), *part.shape)
        heard[:, at : at + block] = part
    return heard.reshape(np.shape(x)), state


def tone(seconds, f=1_000.0, sr=SR):
    return np.sin(2 * np.pi * f * np.arange(int(seconds * sr)) / sr)


def growing(db_s, seconds=1.5, start_db=-60.0, f=1_000.0, sr=SR):
    """A tone that grows by so many dB a second up to full scale."""
    t = np.arange(int(seconds * sr)) / sr
    return tone(seconds, f, sr) * 10 ** (np.minimum(start_db + db_s * t, 0) / 20)


class Loop:
    """Microphone = source + path * what was played `delay` samples ago, in blocks of 4 ms."""

    def __init__(self, path, delay):
        self.path, self.delay = path, delay
        self.state, self.limiter = prepare_howling(SR), Output().prepare(StreamConfig(SR), consistent=False)
        self.memory, self.line = np.zeros(len(path) - 1), np.zeros(delay)

    def run(self, source, protect=True):
        """Microphone, and gain in dB and howls of each block."""
        mic, gains, counts = np.zeros(len(source)), [], []
        for at in range(0, len(source), 64):
            fed_back, self.memory = lfilter(self.path, [1.0], self.line[:64], zi=self.memory)
            mic[at : at + 64] = np.clip(source[at : at + 64] + fed_back, -1, 1)
            heard = mic[at : at + 64].astype(np.float32)
            watch(self.state, heard, 1, 64)
            finish(self.limiter, heard[None], heard[None, None])
            if protect:
                turn_down(self.state, heard, 1, 64)
            self.line = np.concatenate([self.line[64:], heard])
            gains.append(gain_db(self.state))
            counts.append(howls(self.state))
        return mic, np.array(gains), np.array(counts)


def path(kind, gain_db, seed=0):
    """Impulse response of leaking headphones or of a room; its largest magnitude is the loop gain."""
    rng = np.random.default_rng(seed)
    n, tau = (64, 10) if kind == "headphones" else (4_000, 800)
    h = rng.normal(size=n) * np.exp(-np.arange(n) / tau)
    h = lfilter([1, -1], [1.0], np.pad(h, (0, 100)))
    return h / np.abs(np.fft.rfft(h, 1 << 16)).max() * 10 ** (gain_db / 20)


def noise(seconds, level_db=-65.0, seed=0):
    return 10 ** (level_db / 20) * np.random.default_rng(seed).normal(size=int(seconds * SR) // 64 * 64)


def level(x):
    """dBFS of every 32 ms."""
    return 10 * np.log10(2 * np.square(x[: len(x) // 512 * 512].reshape(-1, 512)).mean(1) + 1e-12)


def scenes(sr):
    """(n_channels, n): a howl that ends and comes again, a loud tone that stays, noise and speech."""
    rng = np.random.default_rng(sr)
    floor = 1e-4 * rng.normal(size=(2, int(1.5 * sr)))
    yield np.concatenate([growing(70, f=1_234, sr=sr), *floor, growing(70, f=1_234, sr=sr), *floor])[None]
    yield 0.8 * tone(3, 700, sr)[None]
    yield 0.3 * rng.normal(size=(2, sr))
    yield voices(2 * sr, sr)


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 192_000])
def test_the_detector_and_its_decisions_are_those_of_the_twin(sr):
    alarms = 0
    for x in scenes(sr):
        state = prepare_howling(sr)
        twin = NaiveHowling(sr, state.line.size)
        n = sr // 100
        for at in range(0, x.shape[1] - n + 1, n):
            part = np.ascontiguousarray(x[:, at : at + n], np.float32)
            watch(state, part.ravel(), *part.shape)
            twin.watch(part)
            if twin.frames:
                newest = state.history[:, state.counts[hw.FRAMES] % state.history.shape[1]]
                assert np.allclose(newest, twin.frames[-1][:3], atol=0.02)
            expected = twin.turn_down(part)
            turn_down(state, part.reshape(-1), *part.shape)
            assert np.allclose(part, expected, rtol=0.03, atol=1e-6)  # float32 rounds each step
        assert state.alarms.tolist() == [twin.alarms, twin.pardons]
        assert state.levels[hw.LIMIT] == pytest.approx(twin.limit_db, abs=0.01)
        alarms += twin.alarms
    assert alarms >= 3


@pytest.mark.parametrize("sr", [8_000, 11_025, 44_100, 96_000, 192_000])
def test_a_growing_tone_is_caught_within_a_third_of_a_second_at_any_rate(sr):
    x = growing(60, f=900, sr=sr)
    heard, state = listen(x, sr, block=sr // 250)
    first = np.flatnonzero(heard != x.astype(np.float32))[0] / sr
    audible = 10 / 60  # it starts at -60 and counts from -50 dBFS on
    assert audible < first < audible + 0.33
    assert gain_db(state) < -6


@pytest.mark.parametrize("block", [1, 63, 64, 1_000, 48_000])
def test_blocks_of_any_size_lead_to_the_same_frames(block):
    x = growing(60)[:16_000]
    a, b = prepare_howling(SR), prepare_howling(SR)
    for state, size in ((a, 64), (b, block)):
        for at in range(0, x.size, size):
            part = x[at : at + size].astype(np.float32)
            watch(state, part, 1, part.size)
    assert np.array_equal(a.history, b.history)
    assert a.alarms.tolist() == b.alarms.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["headphones", "room"])
@pytest.mark.parametrize("gain", [2.0, 5.0, 10.0])
def test_a_loop_that_howls_is_brought_down_in_a_fraction_of_a_second(kind, gain):
    source = noise(4)
    delay = int(0.036 * SR)
    bare = Loop(path(kind, gain), delay).run(source, protect=False)[0]
    mic, gains, counts = Loop(path(kind, gain), delay).run(source)
    unprotected, protected = level(bare), level(mic)
    assert unprotected[-20:].min() > -10
    assert counts[-1] >= 1
    assert gains.min() >= -36
    # From the first moment at -40 dBFS; how it goes on after the gain has come back is another test.
    first = protected[np.argmax(protected > -40) :][: round(2 / 0.032)]
    assert (first > -40).sum() * 0.032 < 1.3
    assert (first > -12).sum() * 0.032 < 0.6


def test_a_howl_under_speech_is_brought_down_and_the_speech_goes_on():
    speech = np.resize(sf.read(SPEECH)[0], 5 * SR // 64 * 64)
    delay = int(0.036 * SR)
    mic, gains, counts = Loop(path("headphones", 4.0), delay).run(speech)
    bare = Loop(path("headphones", 4.0), delay).run(speech, protect=False)[0]
    assert counts[-1] >= 1
    assert gains.min() >= -24
    assert (level(bare - speech) > -12).mean() > 0.8
    assert (level(mic - speech) > -12).mean() < 0.2


def test_each_relapse_waits_longer_so_that_it_does_not_pump():
    counts = Loop(path("headphones", 6.0), 600).run(noise(60))[2]
    times = np.flatnonzero(np.diff(counts)) * 64 / SR
    assert 2 <= times.size <= 6
    assert np.diff(times)[-1] > 2 * np.diff(times)[0]


def test_the_gain_comes_back_to_exactly_one_when_the_loop_is_opened():
    loop = Loop(path("headphones", 6.0), 600)
    loop.run(noise(1.5))
    assert gain_db(loop.state) < 0
    loop.path = np.zeros_like(loop.path)
    loop.run(noise(40))
    x = noise(1)[None].astype(np.float32)
    assert gain_db(loop.state) == 0
    assert np.array_equal(listen(x[0], state=loop.state)[0], x[0])


def test_a_tone_that_does_not_follow_the_gain_is_pardoned_and_left_alone():
    x = np.concatenate([growing(60, 1.0), 10 ** (-1 / 20) * tone(4)]) * 0.4
    heard, state = listen(x)
    assert state.alarms.tolist() == [1, 1]
    assert howls(state) == 0
    assert np.array_equal(heard[-2 * SR :], x[-2 * SR :].astype(np.float32))


def test_a_tone_at_full_scale_is_lowered_once_for_about_a_second():
    x = tone(6)
    heard, state = listen(x)
    assert state.alarms.tolist() == [1, 1]
    lowered = np.flatnonzero(heard != x.astype(np.float32))
    assert 0.15 < lowered[0] / SR < 0.4
    assert (lowered[-1] - lowered[0]) / SR < 1.5


@pytest.mark.parametrize(
    "name", ["tone", "DTMF", "beeps", "two tones", "sweep", "noise", "vowels", "organ", "speech", "hum", "turned up"]
)
def test_what_does_not_howl_passes_bit_by_bit(name):
    t = np.arange(6 * SR) / SR
    on = t % 1 < 0.5
    x = {
        "tone": 0.5 * tone(6),
        "DTMF": 0.3 * (tone(6, 770) + tone(6, 1_336)) * on,
        "beeps": 0.5 * tone(6, 2_000) * on,
        "two tones": 0.5 * np.sin(2 * np.pi * np.cumsum(np.where(on, 800, 1_000)) / SR),
        "sweep": 0.5 * np.sin(2 * np.pi * np.cumsum(100 * 60 ** (t / 6)) / SR),
        "noise": 0.3 * np.random.default_rng(0).normal(size=t.size),
        "vowels": voices(6 * SR)[1] * 2,
        "organ": sum(tone(6, f * k) / k for f in (262, 330, 392) for k in range(1, 9)) * np.minimum(1, t / 0.05) / 8,
        "hum": 0.5 * tone(6, 100) * np.minimum(1, t / 3),
        "turned up": 0.1 * tone(6) * (np.minimum(5, t // 1) * 0.3 + 0.5),
        "speech": sf.read(SPEECH)[0],
    }[name].astype(np.float32)
    heard, state = listen(x)
    assert np.array_equal(heard, x)
    assert not state.alarms.any()
    assert gain_db(state) == 0


def test_recordings_of_speech_raise_no_alarm():
    files = sorted(RECORDINGS.glob("speech/librispeech/*"))[:30]
    if not files:
        pytest.skip("no recordings")
    for file in files:
        x, sr = sf.read(file, dtype="float32")
        state = listen(0.7 * x / np.abs(x).max(), sr, block=sr)[1]
        assert not state.alarms.any(), file.name


@pytest.mark.parametrize("name", hostile())
def test_after_whatever_came_in_a_howl_is_still_caught(name):
    state = prepare_howling(SR)
    listen(hostile()[name], state=state)
    assert all(np.isfinite(array).all() for array in arrays(state))
    before = state.alarms[0]
    listen(np.concatenate([np.zeros(SR), growing(60)]), state=state)
    assert state.alarms[0] > before


def test_a_howl_in_one_of_two_channels_lowers_both_alike():
    x = np.stack([growing(60), 0.01 + 0 * growing(60)]).astype(np.float32)
    heard, state = listen(x)
    assert state.alarms[0] == 1
    sounding = np.abs(x[0]) > 1e-4
    ratio = heard[:, sounding] / x[:, sounding]
    assert ratio.min() < 0.5
    assert np.allclose(ratio[0], ratio[1], rtol=1e-3)


def test_the_gain_never_jumps():
    x = growing(100, 3.0)
    state = prepare_howling(SR)
    gains = []
    for at in range(0, x.size, 16):
        part, ones = x[at : at + 16].astype(np.float32), np.ones(16, np.float32)
        watch(state, part, 1, 16)
        turn_down(state, ones, 1, 16)
        gains.append(ones)
    steps = np.abs(np.diff(20 * np.log10(np.concatenate(gains))))
    assert steps.max() < 300 / SR * 1.01
    assert gain_db(state) > -36
