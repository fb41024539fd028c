"""The live engine on a real PortAudio stream against a JACK server without hardware."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from jackd import JackServer, Player, require_audio
from signals import voices

from rtsep import Separator, StreamConfig, separate
from rtsep.estimators import Oracle, Passthrough
from rtsep.live import LiveStream


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
    separator = Separator(config, Oracle(sources))
    stream = LiveStream(separator, block_size=block_size, fade_in_ms=0, late="wait", record=tmp_path)
    with stream:
        heard = Player(server, x, tail=4096).run()
        round_trip = stream.latency
    recorded = {name: sf.read(tmp_path / f"{name}.wav", dtype="float32", always_2d=True)[0].T for name in
                ("mixture", *separator.sources)}  # fmt: skip
    assert stream.stats.recording_lost_s == 0
    before = seen(x, recorded["mixture"], separator.latency)
    fed = np.concatenate([np.zeros((n_channels, before), np.float32), x], 1)
    expected = separate(fed, server.sr, Oracle(sources))
    for name, source in zip(separator.sources, expected, strict=True):
        start = separator.latency
        assert np.array_equal(recorded[name][:, start : start + fed.shape[1]], source)
    assert np.array_equal(heard[:, round_trip : round_trip + n], expected[0][:, before:])
    assert np.abs(expected[0]).max() > 0.1


@pytest.mark.parametrize("server", [(16_000, 64)], indirect=True)
def test_no_callback_is_lost_while_the_interpreter_is_blocked_for_two_seconds(server):
    with LiveStream(Separator(StreamConfig(16_000), Passthrough())) as stream:
        time.sleep(0.5)
        before, start = stream.stats.callbacks, time.monotonic()
        ctypes.PyDLL(None).usleep(2_000_000)  # holds the lock of the interpreter, unlike CDLL
        elapsed = time.monotonic() - start
        callbacks = stream._live.counts[0] - before
    assert callbacks > 0.9 * elapsed * 16_000 / 64


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


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
