"""The live engine on a real PortAudio stream against a JACK server without hardware."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from jackd import JackServer, Player, require_audio
from signals import voices

from rtsep import ConfigError, Gate, Output, PythonEstimator, Separator, StreamConfig, separate
from rtsep.estimators import Oracle, Passthrough
from rtsep.live import LiveError, LiveStream, find_device, list_devices, supported_rates
from rtsep.live.devices import rescan


@pytest.fixture
def server(request):
    require_audio()
    sr, period, *channels = request.param
    with JackServer(sr, period, *channels) as jack_server:
        yield jack_server


def seen(x: np.ndarray, mixture: np.ndarray, delay: int) -> int:
    """How many samples the stream had seen before the first of `x`; checks that it saw all of `x` and silence."""
    first, first_x = np.flatnonzero(mixture.any(0))[0], np.flatnonzero(x.any(0))[0]
    before = int(first - first_x) - delay
    start = before + delay
    assert np.array_equal(mixture[:, start : start + x.shape[1]], x)
    assert not mixture[:, :start].any()
    assert not mixture[:, start + x.shape[1] :].any()
    return before


@pytest.mark.parametrize(
    ("server", "n_channels", "block_size", "seconds"),
    [((16_000, 64), 1, 0, 60), ((48_000, 256), 1, 0, 20), ((16_000, 128, 2), 2, 100, 20)],
    indirect=["server"],
)
def test_live_equals_offline_bit_by_bit(server, n_channels, block_size, seconds, tmp_path):
    n = seconds * server.sr
    sources = np.stack([voices(n, server.sr, seed=c) for c in range(n_channels)], 1)
    x = sources.sum(0)
    config = StreamConfig(server.sr, n_channels=n_channels)
    separator = Separator(config, "denoise", "omisi")
    stream = LiveStream(separator, block_size=block_size, fade_in_ms=0, late="wait", record=tmp_path)
    with stream:
        heard = Player(server, x, tail=4096).run()
        round_trip = stream.latency
    recorded = {name: sf.read(tmp_path / f"{name}.wav", dtype="float32", always_2d=True)[0].T for name in
                ("mixture", *separator.sources)}  # fmt: skip
    assert stream.stats.recording_lost_s == 0
    before = seen(x, recorded["mixture"], separator.latency)
    fed = np.concatenate([np.zeros((n_channels, before), np.float32), x], 1)
    expected = separate(fed, server.sr, "denoise", "omisi")
    for name, source in zip(separator.sources, expected, strict=True):
        start = separator.latency
        assert np.array_equal(recorded[name][:, start : start + fed.shape[1]], source)
    assert np.array_equal(heard[:, round_trip : round_trip + n], expected[0][:, before:])
    assert np.abs(expected[0]).max() > 0.1


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
@pytest.mark.parametrize("load", ["blocked", "collecting", "compiling", "switching"])
def test_no_callback_is_lost_while_the_interpreter_is_busy(server, load, monkeypatch):
    """The loads are those of bench/live_jitter.py, which also shows what becomes of a callback in Python."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "bench")
    import live_jitter

    with LiveStream(Separator(StreamConfig(16_000), Passthrough())) as stream:
        time.sleep(0.5)
        before, start = stream.stats.callbacks, time.monotonic()
        getattr(live_jitter, load)(2.0)
        elapsed = time.monotonic() - start
        callbacks = stream._processor.live.counts[0] - before
    # A callback in Python gets 1 % of them while the lock is held. Not all: other programs want the processor too.
    assert callbacks > 0.5 * elapsed * 16_000 / 64


@pytest.mark.parametrize("server", [(16_000, 64), (48_000, 256)], indirect=True)
@pytest.mark.parametrize("block_size", [0, 32, 64, 128, 100, 441])
def test_the_round_trip_is_that_of_the_ledger(server, block_size):
    click = np.zeros((1, 4 * server.period), np.float32)
    click[0, 5] = 0.5
    separator = Separator(StreamConfig(server.sr), Passthrough())
    with LiveStream(separator, block_size=block_size, fade_in_ms=0, late="wait") as stream:
        heard = Player(server, click, tail=4096).run()[0]
        assert np.argmax(heard) - 5 == stream.latency
        assert stream.latency == sum(stream.ledger.values()) >= separator.latency
    assert heard.max() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("server", [(48_000, 64), (48_000, 32)], indirect=True)
def test_below_16_ms_the_round_trip_is_that_of_the_ledger_while_the_latency_is_switched(server):
    click = np.zeros((1, 4 * server.period), np.float32)
    click[0, 5] = 0.5
    separator = Separator(StreamConfig.from_ms(server.sr, latency_ms=16), Passthrough(), "mixture")
    totals = {}
    with LiveStream(separator, fade_in_ms=0, late="wait") as stream:
        for latency_ms in (8, 4, 2, 16, 4):
            stream.set(latency_ms=latency_ms)
            wait_for(lambda: np.array_equal(stream._processor.live.gains, [0, 1]))
            heard = Player(server, click, tail=4096).run()[0]
            assert np.argmax(heard) - 5 == stream.latency == 48 * latency_ms + server.period
            assert heard.max() == pytest.approx(0.5, abs=1e-6)
            totals[latency_ms] = 1000 * stream.latency / server.sr
    assert totals[4] < 6


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_a_recording_goes_on_while_the_latency_is_switched(server, tmp_path):
    separator = Separator(StreamConfig(), "denoise", "omisi")
    with LiveStream(separator, record=tmp_path) as stream:
        wait_for(lambda: stream.stats.recorded_s > 0.2)
        stream.set(latency_ms=4, n_iter=2, max_attenuation_db=12)
        assert (stream.separator.phase.n_iter, stream.separator.estimator.max_attenuation_db) == (2, 12)
        assert stream.separator.latency == stream.ledger["window"] == 64
        before = stream.stats.recorded_s
        wait_for(lambda: stream.stats.recorded_s > before + 0.2)
        with pytest.raises(ConfigError, match="n_fft=3 cannot be set while a stream runs"):
            stream.set(n_fft=3)
    stats = stream.stats
    assert stats.recording_lost_s == 0
    assert stats.recorded_s == pytest.approx(stats.elapsed_s)
    assert sf.info(tmp_path / "mixture.wav").duration == pytest.approx(stats.recorded_s)


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_recordings_begin_and_end_while_the_stream_runs(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = voices(32_000)[:1]
    with LiveStream(Separator(StreamConfig(), Passthrough()), fade_in_ms=0, late="wait") as stream:
        assert stream.recording is None
        stream.start_recording("a")
        assert (stream.recording, stream.stats.recording) == (Path("a"), True)
        with pytest.raises(LiveError, match="the recording to a has not ended"):
            stream.start_recording("b")
        Player(server, x, tail=4096).run()
        stream.stop_recording()
        stream.stop_recording()
        assert (stream.recording, stream.stats.recording) == (None, False)
        first = sf.read("a/signal.wav", dtype="float32")[0]
        with pytest.raises(LiveError, match=r"cannot record to a: mixture\.wav, signal\.wav would be replaced"):
            stream.start_recording("a")
        assert stream.recording is None
        stream.start_recording()
        wait_for(lambda: stream.stats.recorded_s > 0.2)
        (second,) = tmp_path.glob("rtsep-*")
        assert stream.recording.name == second.name
    seen(x, first[None], 0)
    assert not sf.read(second / "signal.wav")[0].any()  # nothing of the first is left in it
    with pytest.raises(LiveError, match="the stream does not run"):
        stream.start_recording("c")
    assert not Path("c").exists()


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_gains_and_a_gate_live_are_those_of_arrays(server, tmp_path):
    """Bit by bit: what is recorded has the input's gain and the gate, what is heard the output's gain, too."""
    x = voices(48_000).sum(0, keepdims=True)
    gate, gain = Gate(0.9, 20), np.float32(10 ** (6 / 20))
    separator = Separator(StreamConfig(), "denoise", gate=gate)
    with LiveStream(
        separator, fade_in_ms=0, late="wait", howling=False, record=tmp_path / "a", input_gain_db=6, output_gain_db=-6
    ) as stream:
        heard = Player(server, x, tail=4096).run()[0]
        recorded = {path.stem: path for path in (tmp_path / "a").iterdir()}
        round_trip = stream.latency
    mixture, speech = (sf.read(recorded[name], dtype="float32")[0] for name in ("mixture", "speech"))
    before = seen(gain * x, mixture[None], separator.latency)
    fed = np.concatenate([np.zeros(before, np.float32), gain * x[0]])
    expected = separate(fed, 16_000, "denoise", output=Output(), gate=gate)[0]
    assert np.array_equal(speech[separator.latency :][: len(fed)], expected)
    assert not np.array_equal(expected, separate(fed, 16_000, "denoise")[0])
    played = expected[before:] * np.float32(10 ** (-6 / 20))
    assert np.array_equal(heard[round_trip:][: len(played)], played)


@pytest.mark.parametrize("server", [(16_000, 256)], indirect=True)
def test_the_ledger_follows_the_period_of_the_server_and_says_so(server):
    click = np.zeros((1, 1024), np.float32)
    click[0, 5] = 0.5
    with LiveStream(Separator(StreamConfig(16_000), Passthrough()), fade_in_ms=0, late="wait") as stream:
        for period in (256, 64, 512):
            with server.client() as client:
                client.blocksize = server.period = period
            wait_for(lambda period=period: stream.ledger["device out"] == period)
            heard = Player(server, click, tail=4096).run()[0]
            assert np.argmax(heard) - 5 == stream.latency
    assert [message for message in stream.messages if "delay" in message] == [
        "the delay of the devices is 64 samples, 4.0 ms, and was 16.0 ms",
        "the delay of the devices is 512 samples, 32.0 ms, and was 4.0 ms",
    ]


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_the_stream_comes_back_when_the_server_does(server):
    separator = Separator(StreamConfig(16_000), Passthrough())
    with LiveStream(separator, fade_in_ms=0, late="wait") as stream:
        time.sleep(0.2)
        server.kill()
        wait_for(lambda: stream.stats.state == "reconnecting")
        time.sleep(0.5)
        server.start()
        wait_for(lambda: stream.stats.state == "running")
        before = stream.stats
        assert before.reconnects == 1
        x = voices(4_000)[:1]
        heard = Player(server, x, tail=4096).run()
        assert np.allclose(heard[:, stream.latency :][:, : x.shape[1]], x, atol=1e-6)
        assert stream.stats.callbacks > before.callbacks
    assert len(stream.messages) >= 2
    assert "system" in stream.messages[0]


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_a_server_that_stood_still_does_not_call_two_callbacks_of_one_stream(server):
    """It was given up, and connected to anew; when it goes on, so does what was given up."""
    with LiveStream(Separator(StreamConfig(16_000), Passthrough()), late="wait") as stream:
        wait_for(lambda: stream.stats.callbacks > 100)
        server.pause()
        wait_for(lambda: stream.stats.state == "reconnecting")
        server.go_on()
        wait_for(lambda: stream.stats.state == "running")
        with server.client() as client:
            assert len(client.get_ports("rtsep", is_output=True)) == 1  # what was given up is gone
            cycles = []
            client.set_process_callback(cycles.append)
            client.activate()
            before = stream.stats.callbacks, len(cycles)
            wait_for(lambda: len(cycles) > 1000)
            after = stream.stats.callbacks, len(cycles)
        assert 0 < after[0] - before[0] < 1.2 * (after[1] - before[1])


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Halves(PythonEstimator):
    """An estimator in ordinary Python that takes its time now and then."""

    sources = ("one", "other")

    def __init__(self, pause_s=0.0, every=100):
        self.pause_s, self.every = pause_s, every

    def prepare(self, config):
        return [0]

    def step(self, state, mixture, power, magnitudes):
        state[0] += 1
        if self.pause_s and state[0] % self.every == 0:
            time.sleep(self.pause_s)
        magnitudes[:] = np.sqrt(power) / 2


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_an_estimator_in_python_runs_in_the_worker_with_a_constant_delay(server):
    """In freewheel it is always too slow; the mixture is heard instead, and with a strength of 0 anyway."""
    with pytest.raises(LiveError, match="Halves is ordinary Python"):
        LiveStream(Separator(StreamConfig(), Halves()), driver="native")
    n = 4 * server.sr
    x = 0.1 * np.sin(2 * np.pi * 100 / server.sr * np.arange(n)).astype(np.float32)
    with LiveStream(Separator(StreamConfig(), Halves(0.05)), strength=0, fade_in_ms=0) as stream:
        assert stream.ledger["worker"] == 512
        heard = Player(server, x[None], tail=4096).run()[0]
        stats = stream.stats
        assert stream._processor.driver._exchange.from_worker.written[0] > 512
    assert np.allclose(heard[stream.latency : stream.latency + n], x, atol=1e-6)
    assert stats.late_hops > 0
    assert 0 < stats.replaced_s <= stats.elapsed_s


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_settings_come_from_any_thread_while_it_runs(server):
    x = voices(16_000)
    with LiveStream(Separator(StreamConfig(), Oracle(x)), block_size=64) as stream:

        def change(k):
            for i in range(100):
                stream.set(solo=(k + i) % 2, strength=i / 100, bypass=bool(i % 2))
                stream.stats  # noqa: B018

        threads = [threading.Thread(target=change, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        stream.set(solo="source2", strength=0.75, bypass=False)
        gains = {"input_gain_db": 0, "output_gain_db": 0}
        assert stream.choice == {"solo": 1, "strength": 0.75, "bypass": False, **gains}
        wait_for(lambda: np.array_equal(stream._processor.live.gains, np.float32([0.25, 0, 0.75])))
        with pytest.raises(ConfigError, match="solo='noise' is not one of source1, source2"):
            stream.set(solo="noise")
        with pytest.raises(ConfigError, match=r"strength=1\.5"):
            stream.set(strength=1.5)
        stats = stream.stats
    assert stats.hops > 0
    assert 0 < stats.hop_share["median"] <= stats.hop_share["p999"] <= stats.hop_share["max"]
    assert set(stats.levels_db) == {"mixture", "source1", "source2"}


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_devices_are_found_by_number_and_name_and_errors_name_the_way_out(server):
    device = find_device("jack", "input")
    assert find_device("SYS", "input") == find_device(device.index, "input") == find_device(None, "output") == device
    with pytest.raises(LiveError, match=r"input device 'no such' was not found; there are: .*\d system"):
        LiveStream(Separator(StreamConfig(), Passthrough()), input="no such")
    with pytest.raises(LiveError, match=r"input device 'system' has 1 channels, no channel 2"):
        LiveStream(Separator(StreamConfig(), Passthrough()), input_channels=[2])
    with pytest.raises(LiveError, match=r"output device 'system' has 1 channels, no channel 3"):
        LiveStream(Separator(StreamConfig(), Passthrough()), output_channels=[1, 3])
    with pytest.raises(ConfigError, match=r"output_channels=0 is not between 1 and 1024"):
        LiveStream(Separator(StreamConfig(), Passthrough()), output_channels=[0])


# Has ports only after PortAudio has looked for them.
LATE = """
import sys, time, jack
client = jack.Client("late", no_start_server=True)
print("ready", flush=True)
while True:
    try:
        client.get_uuid_for_client_name("rtsep")
        break
    except jack.JackError:
        time.sleep(0.005)
time.sleep(0.1)
client.inports.register("in")
sys.stdin.read()
"""


@pytest.mark.parametrize("server", [(16_000, 64, 0)], indirect=True)
def test_a_server_that_has_only_begun_gets_a_second_look(server):
    server.let_go()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", LATE], text=True, **pipes) as program:
        assert program.stdout.readline() == "ready\n"
        rescan()
        assert find_device(None, "output").name == "late"
        program.kill()


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_a_list_of_devices_is_whole_while_a_stream_searches_anew(server):
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(lambda: [rescan() for _ in iter(done.is_set, True)])
        try:
            for _ in range(40):
                assert "system" in [device.name for device in list_devices()]
        finally:
            done.set()
    assert search.result()


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_a_list_of_devices_waits_for_a_server_that_stands_still_but_not_for_ever(server, monkeypatch):
    monkeypatch.setattr("rtsep.live.devices.PATIENCE_S", 0.2)
    device = find_device("jack", "input")
    server.pause()
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(rescan)
        try:
            time.sleep(0.5)
            for ask in (list_devices, lambda: supported_rates(device, "input")):
                with pytest.raises(LiveError, match="search for its device does not end; restart the sound server"):
                    ask()
        finally:
            server.go_on()
        search.result()
    assert device in list_devices()


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_a_recording_replaces_no_file(server, tmp_path):
    (tmp_path / "signal.wav").write_text("mine")
    stream = LiveStream(Separator(StreamConfig(), Passthrough()), record=tmp_path)
    with pytest.raises(LiveError, match=r"cannot record to .*: signal\.wav would be replaced; choose another folder"):
        stream.start()
    stream.close()
    assert (tmp_path / "signal.wav").read_text() == "mine"
    assert not (tmp_path / "mixture.wav").exists()


def test_without_portaudio_the_error_says_how_to_install_it():
    code = """
import ctypes.util
ctypes.util.find_library = lambda name: None
from rtsep.live import LiveError, list_devices
try:
    list_devices()
except LiveError as problem:
    print(problem)
"""
    if sys.platform != "linux":
        pytest.skip("only on Linux PortAudio does not come with sounddevice")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "PortAudio was not found" in done.stdout
    assert "install" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
@pytest.mark.parametrize("killed", [False, True])
def test_a_program_that_ends_without_closing_ends_quietly(server, killed):
    code = f"""
import os, signal, time
from rtsep import PythonEstimator, Separator, StreamConfig
from rtsep.live import LiveStream
stream = LiveStream(Separator(StreamConfig(), "passthrough"))
stream.start()
time.sleep(0.2)
assert stream.stats.callbacks
if {killed}:
    os.kill({server._process.pid}, signal.SIGKILL)
    time.sleep(0.5)
"""
    server.let_go()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if killed:
        server._process.wait()
        server.start()
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_two_hundred_streams_leave_nothing_behind(server):
    separator = Separator(StreamConfig(), Passthrough())

    def run(n):
        for _ in range(n):
            with LiveStream(separator) as stream:
                wait_for(lambda: stream.stats.callbacks > 0)
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd")), resident_kb()

    threads, handles, memory = run(20)
    threads_after, handles_after, memory_after = run(200)
    assert threads_after == threads
    assert handles_after <= handles + 2
    assert memory_after - memory < 10_000


def resident_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
@pytest.mark.parametrize("pause_s", [0, 3])  # before and after it is noticed
def test_a_server_that_stands_still_holds_up_neither_set_nor_stats_nor_close(server, pause_s):
    with LiveStream(Separator(StreamConfig(), "denoise")) as stream:
        wait_for(lambda: stream.stats.callbacks > 20)
        server.pause()
        try:
            # More changes than the ring to the callback holds; the last ones return once the device counts as gone.
            changes = threading.Thread(target=lambda: [stream.set(solo=i % 2) for i in range(100)], daemon=True)
            changes.start()
            wait_for(lambda: stream.stats.state == "reconnecting")
        finally:
            server.go_on()
        changes.join(30)
        assert not changes.is_alive()
        wait_for(lambda: stream.stats.state == "running")
        wait_for(lambda: stream._processor.live.gains[2] == 1)  # the last choice, though no callback has read it
        server.pause()
        try:
            time.sleep(pause_s)
            closing = threading.Thread(target=lambda: [stream.stats, stream.close()], daemon=True)
            closing.start()
            closing.join(30)
            assert not closing.is_alive()
        finally:
            server.go_on()


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_two_streams_come_back_when_their_server_does(server):
    streams = [LiveStream(Separator(StreamConfig(), Passthrough())) for _ in range(2)]
    with streams[0] as one, streams[1] as other:
        wait_for(lambda: min(one.stats.callbacks, other.stats.callbacks) > 20)
        server.kill()
        wait_for(lambda: one.stats.state == other.stats.state == "reconnecting")
        server.start()
        wait_for(lambda: one.stats.state == other.stats.state == "running")
        before = one.stats.callbacks, other.stats.callbacks
        wait_for(lambda: one.stats.callbacks > before[0] and other.stats.callbacks > before[1])
        assert (one.stats.reconnects, other.stats.reconnects) == (1, 1)
