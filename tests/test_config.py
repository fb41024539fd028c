"""StreamConfig: derived sizes, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest

from rtsep import ConfigError, Output, StreamConfig
from rtsep.config import fft_size_ok, nearest_fft_size
from rtsep.phase import OMISI


@pytest.mark.parametrize(
    ("sr", "win_length", "hop", "n_fft"),
    [
        (8_000, 128, 32, 256),
        (16_000, 256, 64, 512),
        (22_050, 352, 88, 720),
        (44_100, 704, 176, 1440),
        (48_000, 768, 192, 1536),
        (96_000, 1536, 384, 3072),
        (192_000, 3072, 768, 6144),
    ],
)
def test_defaults_are_16_ms_with_bins_31_hz_apart(sr, win_length, hop, n_fft):
    config = StreamConfig(sr)
    assert (config.analysis, config.hop, config.n_fft) == (win_length, hop, n_fft)
    assert config == StreamConfig.from_ms(sr)
    assert config.analysis / sr <= 0.016
    assert config.n_bins == n_fft // 2 + 1


def test_an_fft_of_any_rate_has_bins_near_31_hz():
    for sr in range(8_000, 192_001, 25):
        n_fft = StreamConfig(sr).n_fft
        assert fft_size_ok(n_fft)
        assert abs(sr / n_fft / 31.25 - 1) < 0.11  # the worst is 11 kHz


def test_the_window_and_its_envelope_are_those_of_the_definition():
    config = StreamConfig(16_000, 200, 80)
    n = np.arange(200)
    assert np.allclose(config.windows.analysis, np.sin(np.pi * n / 200) ** 2)
    for i in range(80):
        assert config.windows.envelope[i] == pytest.approx((config.windows.analysis[i::80] ** 2).sum())


@pytest.mark.parametrize(
    ("latency_ms", "sizes"), [(16, (768, 768, 192)), (8, (768, 384, 96)), (4, (768, 192, 96)), (2, (768, 96, 48))]
)
def test_a_latency_chooses_windows_and_hop(latency_ms, sizes):
    config = StreamConfig.from_ms(48_000, latency_ms=latency_ms)
    assert (config.analysis, config.synthesis, config.hop) == sizes
    assert config.times_ms["latency_ms"] == latency_ms
    with pytest.raises(ConfigError, match="latency_ms=17 is longer than window_ms=16"):
        StreamConfig.from_ms(48_000, 16, latency_ms=17)


def test_times_are_rounded_down_and_keep_their_ratio():
    config = StreamConfig.from_ms(44_100, 16, 8, n_channels=2)
    assert (config.analysis, config.hop, config.n_channels) == (704, 352, 2)
    odd = StreamConfig.from_ms(16_000, 10, 3)
    assert (odd.analysis, odd.hop) == (160, 48)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sr": 7_999}, "sr=7999 is not between 8000 and 192000 Hz"),
        ({"sr": 16_000.0}, "sr=16000.0 is not an integer"),
        ({"sr": True}, "sr=True is not an integer"),
        ({"hop": 0}, "hop=0 is not between 1 and 16000 samples"),
        ({"analysis": 8}, "analysis=8 is not between 16 and 16000 samples"),
        ({"analysis": 128, "hop": 129}, "hop=129 is longer than the window of 128"),
        ({"analysis": 256, "hop": 256}, "a window of 256 with hop=256 cannot reconstruct.*hop <= 128"),
        ({"synthesis": 64, "hop": 64}, "a window of 64 with hop=64 cannot reconstruct.*hop <= 32"),
        ({"analysis": 128, "synthesis": 256}, "synthesis=256 is not between 2 and analysis=128"),
        ({"analysis": 1024, "n_fft": 512}, "n_fft=512 is shorter than analysis=1024"),
        ({"n_fft": 514}, "n_fft=514 is not 16 times a product of 2, 3 and 5; 512 is"),
        ({"analysis": 256.0}, "analysis=256.0 is not an integer"),
        ({"synthesis": "256"}, "synthesis='256' is not an integer"),
        ({"n_channels": 0}, "n_channels=0 is not between 1 and 1024"),
    ],
)
def test_what_cannot_work_is_refused_with_the_value(settings, message):
    with pytest.raises(ConfigError, match=message):
        StreamConfig(**{"sr": 16_000, **settings})


@pytest.mark.parametrize(
    ("window_ms", "hop_ms", "message"),
    [
        (0, 4, "window_ms=0 is not between 0.005 and 1000 ms"),
        ("16", 4, "window_ms='16' is not a number"),
        (16, True, "hop_ms=True is not a number"),
        (16, float("nan"), "hop_ms=nan is not"),
        (16, 2000, "hop_ms=2000 is not"),
        (0.5, 0.1, "a window of 0.5 ms and a hop of 0.1 ms have 5 and 1 samples at .* at least 16 and 1 are needed"),
        (16, 12, "hop_ms=12 is too long for a window of 16 ms"),
    ],
)
def test_times_that_cannot_work_are_refused(window_ms, hop_ms, message):
    with pytest.raises(ConfigError, match=message):
        StreamConfig.from_ms(16_000, window_ms, hop_ms)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength_db": -1}, "strength_db=-1 is not 0 dB or more"),
        ({"ceiling_db": 3}, "ceiling_db=3 is not between -60 and 0 dBFS"),
        ({"fade_in_ms": "a"}, "fade_in_ms='a' is not a number"),
    ],
)
def test_output_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Output(**settings)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.int64])
def test_numpy_integers_count_as_plain_ones(kind):
    config = StreamConfig(kind(16_000), n_channels=kind(2))
    assert config == StreamConfig(16_000, n_channels=2) == StreamConfig.from_ms(kind(16_000), n_channels=kind(2))
    assert type(config.sr) is type(config.hop) is type(config.n_channels) is int
    assert type(OMISI(kind(3), kind(1)).lookahead) is int


def test_the_nearest_fft_size_is_valid_and_long_enough():
    assert nearest_fft_size(512, 600) == 640
    assert nearest_fft_size(1, 1) == 128
