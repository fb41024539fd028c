"""The latency that a live stream takes where none is asked for."""

from __future__ import annotations

import pytest
from jackd import JackServer, require_audio

from rtsep import ConfigError, Separator, StreamConfig
from rtsep.live.budget import fitting_separator, largest_latency

NO_LOOKAHEAD = {16.0: 0.0, 8.0: 0.0, 4.0: 0.0}
TWO_HOPS = {16.0: 8.0, 8.0: 4.0, 4.0: 4.0}


@pytest.mark.parametrize(
    ("devices_ms", "lookahead_ms", "latency_ms", "word"),
    [
        (1.3, NO_LOOKAHEAD, 8, "9.3 ms with the 1.3 ms of the devices"),
        (8.0, NO_LOOKAHEAD, 8, "16.0 ms with"),
        (8.1, NO_LOOKAHEAD, 4, "12.1 ms with"),
        (12.0, NO_LOOKAHEAD, 4, "16.0 ms with"),
        (12.1, NO_LOOKAHEAD, 8, "none makes at most 16 ms"),
        (0.0, NO_LOOKAHEAD, 8, "do not report their delay"),
        (3.0, TWO_HOPS, 8, "15.0 ms with"),
        (5.0, TWO_HOPS, 4, "13.0 ms with"),
    ],
)
def test_the_largest_latency_that_stays_within_16_ms(devices_ms, lookahead_ms, latency_ms, word):
    chosen, why = largest_latency(devices_ms, lookahead_ms)
    assert chosen == latency_ms
    assert why.startswith(f"latency {latency_ms} ms: ")
    assert word in why


@pytest.mark.parametrize(("period", "latency_ms"), [(64, 8), (512, 4), (1024, 8)])
def test_the_devices_decide(period, latency_ms):
    require_audio()

    def make(latency_ms):
        return Separator(StreamConfig.from_ms(48_000, latency_ms=latency_ms), "passthrough", "mixture")

    with JackServer(48_000, period):
        separator, why, block = fitting_separator(make)
    assert block == period
    assert separator.config == StreamConfig.from_ms(48_000, latency_ms=latency_ms)
    assert f"the {1000 * period / 48_000:.1f} ms of the devices" in why


def test_what_cannot_run_at_8_ms_takes_the_latency_of_files():
    require_audio()

    def make(latency_ms):
        if latency_ms:
            raise ConfigError("made for one window")
        return Separator(StreamConfig(16_000), "passthrough", "mixture")

    separator, why, _ = fitting_separator(make)
    assert separator.latency == 256
    assert why == "latency 16 ms: made for one window"
