"""What the world does to a live stream: devices that go, estimators that sleep, interruptions."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from file_device import BLOCK, FileDevices, Stream
from jackd import require_audio
from scipy.signal import iirpeak
from signals import voices
from test_live import Halves, resident_kb, wait_for
from test_live_callback import Device

from rtsep import ConfigError, Output, Separator, StreamConfig
from rtsep.estimators import Passthrough
from rtsep.live import LiveError, LiveStream, connection, devices, stream, watch
from rtsep.live import callback as cb
from rtsep.live.worker import WorkerDriver


def tone(n, sr, frequency=100, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency / sr * np.arange(n))).astype(np.float32)


@pytest.fixture
def file_devices(monkeypatch):
    made = FileDevices(voices(120_000)[0], 16_000)
    for module in (devices, connection, stream, watch):
        monkeypatch.setattr(module, "portaudio", lambda: made)
    return made


def test_a_device_that_is_pulled_out_and_put_back_goes_on_from_a_new_beginning(file_devices):
    with LiveStream(Separator(StreamConfig(), Passthrough()), late="wait") as live:
        wait_for(lambda: file_devices.position > 20_000)
        file_devices.there = False
        wait_for(lambda: live.stats.state == "reconnecting")
        wait_for(lambda: any("attempt 1" in message for message in live.messages))
        file_devices.position = second = 50_000
        file_devices.there = True
        wait_for(lambda: live.stats.state == "running")
        wait_for(lambda: file_devices.position > second + 20_000)
        assert live.stats.reconnects == 1
    x, delay = file_devices.x, live.latency
    first, again = file_devices.heard
    assert np.array_equal(first[delay + 480 : 20_000], x[480 : 20_000 - delay])
    # Nothing of what was before the break is heard after it, and it fades in again.
    assert not again[:delay].any()
    assert np.abs(again[delay : delay + 100]).max() <= 0.21 * np.abs(x[second : second + 100]).max()
    assert np.array_equal(again[delay + 480 : 20_000], x[second + 480 : second + 20_000 - delay])
    assert file_devices.opened == 2
    assert [message.split("; ")[0].split(":")[0] for message in live.messages] == [
        "device 'file' or 'file' stopped",
        "attempt 1",
        "running again on 'file' and 'file'",
    ]


def test_what_was_chosen_while_the_device_disappeared_is_heard_when_it_is_back(file_devices):
    with LiveStream(Separator(StreamConfig(), Halves()), late="wait") as live:
        wait_for(lambda: file_devices.position > 20_000)
        with live._link.lock:  # so that it is not noticed before
            file_devices.there = False
            wait_for(lambda: not live._link.active)
            live.set(solo="other", bypass=True)
        wait_for(lambda: live.stats.state == "reconnecting")
        file_devices.there = True
        wait_for(lambda: live.stats.state == "running")
        assert live._processor.live.goals.tolist() == [1, 0, 0]


def test_a_separator_serves_one_stream_at_a_time(file_devices):
    separator = Separator(StreamConfig(), Passthrough())
    second = LiveStream(separator)
    with LiveStream(separator):
        with pytest.raises(LiveError, match="belongs to a stream that is running"):
            LiveStream(separator)
        with pytest.raises(LiveError, match="belongs to a stream that is running"):
            second.start()
    with second:
        pass


def test_a_start_that_fails_leaves_no_files_behind(file_devices, tmp_path):
    live = LiveStream(Separator(StreamConfig(), Passthrough()), record=tmp_path)
    file_devices.there = False
    with pytest.raises(LiveError):
        live.start()
    assert list(tmp_path.iterdir()) == []  # so that the same command works the second time


def test_an_interrupted_start_leaves_no_callback_behind(file_devices, monkeypatch):
    """Ctrl-C comes when the device already calls back; the memory that it works on goes with the stream."""
    opened = []

    class Interrupting(Stream):
        def start(self):
            super().start()
            opened.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(file_devices, "_StreamBase", lambda **asked: Interrupting(file_devices, asked))
    live = LiveStream(Separator(StreamConfig(), Passthrough()))
    with pytest.raises(KeyboardInterrupt):
        live.start()
    assert not opened[0].active


def test_closing_cannot_be_interrupted(file_devices, tmp_path, monkeypatch):
    """Ctrl-C comes three times while the device takes long to close; it is heard of once that is done."""
    abort, ended = Stream.abort, []

    def take_long(self, ignore_errors=True):
        if self.active:
            for _ in range(3):
                time.sleep(0.05)
                _thread.interrupt_main()
        abort(self)
        ended.append(self)

    monkeypatch.setattr(Stream, "abort", take_long)
    live = LiveStream(Separator(StreamConfig(), Passthrough()), record=tmp_path)
    live.start()
    wait_for(lambda: file_devices.position > 20_000)
    with pytest.raises(KeyboardInterrupt):
        live.close()
    assert ended
    assert not ended[0].active
    assert live.stats.state == "stopped"
    assert live.stats.recorded_s == sf.info(tmp_path / "mixture.wav").duration > 1


def test_a_recording_can_be_read_while_it_is_made(file_devices, tmp_path):
    with LiveStream(Separator(StreamConfig(), Passthrough()), record=tmp_path) as live:
        wait_for(lambda: live.stats.recorded_s > 1)
        recorded_s = live.stats.recorded_s
        for name in ("mixture", "signal"):
            assert sf.info(tmp_path / f"{name}.wav").duration >= recorded_s


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on the size of files")
def test_a_recording_on_a_full_disk_ends_with_a_message_and_keeps_what_it_has(file_devices, tmp_path):
    import resource

    live = LiveStream(Separator(StreamConfig(), Passthrough()), record=tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with live:
            wait_for(lambda: any(message.startswith("the recording to ") for message in live.messages))
            heard = file_devices.position
            wait_for(lambda: file_devices.position > heard + 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lengths = [sf.info(tmp_path / f"{name}.wav").frames for name in ("mixture", "signal")]
    assert lengths[0] == lengths[1] > 10_000
    assert live.recording_problem


def test_without_any_device_the_error_says_what_to_do(file_devices):
    file_devices.there = False
    with pytest.raises(LiveError, match="there is no input device; connect one"):
        LiveStream(Separator(StreamConfig(), Passthrough()))


def test_an_interruption_fades_in_again():
    x = np.full(BLOCK * 100, 0.5, np.float32)
    through = Device(Separator(StreamConfig(), Passthrough()), monitor=Output(fade_in_ms=30))
    before = through.play(x)[0]
    output_underflow = 4
    after = through.play(x[:64], (64,), flags=output_underflow)[0]
    rest = through.play(x)[0]
    through.close()
    assert before[-1] == pytest.approx(0.5, abs=1e-5)
    assert np.allclose(np.concatenate([after, rest])[:480], 0.5 * np.arange(480) / 480, atol=1e-3)
    assert np.allclose(rest[480:], 0.5, atol=1e-5)
    assert through.live.counts[cb.XRUNS] == 1


def test_a_stream_that_is_closed_fades_out(file_devices):
    file_devices.x = tone(2_000_000, 16_000)
    with LiveStream(Separator(StreamConfig(), Passthrough())):
        wait_for(lambda: file_devices.position > 32_000)
    heard = file_devices.heard[0]
    assert np.abs(heard[20_000:30_000]).max() > 0.4
    assert not heard[-BLOCK:].any()
    # The steepest of the tone, and a ramp of 20 ms.
    assert np.abs(np.diff(heard)).max() < 1.05 * 0.5 * (2 * np.pi * 100 / 16_000 + 1 / 320)


def test_an_hour_with_an_estimator_that_sleeps_now_and_then():
    """The delay stays, what is late is replaced by the mixture, and the memory does not grow."""
    config, every, sleep_s, minutes = StreamConfig(8_000, 512, 256), 500, 0.1, 60
    separator = Separator(config, Halves(), phase="mixture")
    driver = WorkerDriver(separator, prefill_ms=40)
    device = Device(separator, driver, monitor=Output(ceiling_db=0))
    device.live.fallback[0] = 1
    hops, slept, awake_at = 0, False, 0.0

    def work():
        """The worker's thread by the clock of the audio; one hop in `every` takes `sleep_s`."""
        nonlocal hops, slept, awake_at
        now = device.live.counts[cb.SAMPLES] / config.sr
        while now >= awake_at:
            if hops % every == every - 1 and not slept:
                slept, awake_at = True, now + sleep_s
            elif driver.step():
                hops, slept = hops + 1, False
            else:
                break

    minute, memory, mixed, off = tone(60 * config.sr, config.sr), [], 0, 0
    for k in range(minutes):
        heard = device.play(minute, (256,), between=work)[0]
        expected = np.roll(minute, device.delay)
        # Between the source, which is half of the mixture, and the mixture, in phase with it: no other delay. Only the
        # cross-fade, over one hop, starts from what is left of the source.
        outside = np.maximum(np.abs(heard) - np.abs(expected), 0.5 * np.abs(expected) - np.abs(heard))
        off += np.count_nonzero(outside[2_000 if k == 0 else 0 :] > 0.01)
        mixed += np.count_nonzero(np.abs(heard) > 0.9 * np.abs(expected) + 0.01)
        memory.append(resident_kb())
    device.close()
    counts = device.live.counts
    naps = minutes * 60 * config.sr // config.hop // every
    assert counts[cb.SAMPLES] == minutes * 60 * config.sr
    assert naps <= counts[cb.LATE] <= 3 * naps
    assert 0.01 * naps * config.sr < 0.8 * mixed < counts[cb.REPLACED] < 0.2 * naps * config.sr
    assert off <= naps * config.hop
    assert memory[-1] - memory[5] < 2_000


def test_beside_busy_processes_the_delay_stays(monkeypatch):
    """A short one of bench/soak.py; how many callbacks are late depends on the machine, the delay does not."""
    require_audio()
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "bench")
    from soak import soak

    result = soak(minutes=0.15, n_busy=2)
    assert result["share_heard_as_played"] > 0.3
    assert result["seconds_with_that_delay"] >= 0.8 * result["seconds"]


def test_an_estimator_that_does_not_return_keeps_nobody_waiting(file_devices, monkeypatch):
    monkeypatch.setattr("rtsep.live.worker.STUCK_S", 0.1)
    entered, returns = threading.Event(), threading.Event()

    class Stuck(Halves):
        def step(self, state, mixture, power, magnitudes):
            if mixture.any():
                entered.set()
                returns.wait(60)
            super().step(state, mixture, power, magnitudes)

    file_devices.x = tone(2_000_000, 16_000)
    live = LiveStream(Separator(StreamConfig(), Stuck()))
    live.start()
    assert entered.wait(10)
    driver = live._processor.driver
    wait_for(lambda: "the estimator does not return from a hop, the mixture is heard" in live.messages)
    with pytest.raises(ConfigError, match="latency_ms=4 cannot be set while a stream runs with this driver"):
        live.set(latency_ms=4)
    file_devices.there = False
    wait_for(lambda: live.stats.state == "reconnecting")
    file_devices.position, file_devices.there = 0, True
    wait_for(lambda: live.stats.state == "running")
    before = live.stats.replaced_s
    wait_for(lambda: live.stats.replaced_s > before + 1)  # the mixture is heard on the new connection, too
    returns.set()
    wait_for(lambda: not driver.stuck)
    live.close()
    assert not driver._thread.is_alive()
    assert np.abs(file_devices.heard[1]).max() > 0.4


def test_a_block_that_the_prefill_does_not_cover_is_refused(file_devices):
    with pytest.raises(ConfigError, match=r"block_size=1024 is more than prefill_ms=10 covers; .* 64 ms"):
        LiveStream(Separator(StreamConfig(), Halves()), block_size=1024, prefill_ms=10)


def test_headphones_that_feed_back_are_turned_down_and_the_stream_says_so(file_devices):
    """What is played comes back to the microphone on top of a voice; at 2 kHz it is louder by half."""
    file_devices.x = voices(400_000)[0]
    b, a = iirpeak(2_000, 8, fs=16_000)
    file_devices.feedback = 1.5 * b, a
    with LiveStream(Separator(StreamConfig(), Passthrough())) as live:
        wait_for(lambda: file_devices.position > 160_000)
        stats = live.stats
        assert stats.howls > 0
        assert stats.howl_gain_db < -5
        assert any(message.startswith("howling: ") for message in live.messages)
    heard = file_devices.heard[0]
    assert np.abs(heard).max() <= np.float32(10 ** (-1 / 20))
    file_devices.position = 0
    with LiveStream(Separator(StreamConfig(), Passthrough()), howling=False) as live:
        wait_for(lambda: file_devices.position > 160_000)
        assert live.stats.howls == 0
    assert np.std(heard[80_000:160_000]) < 0.5 * np.std(file_devices.heard[1][80_000:160_000])
