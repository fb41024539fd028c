"""Analysis and output stage against their twins."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import signals
from frames import Frames

from rtsep import Output, PythonEstimator, Separator, StreamConfig, separate
from rtsep.engine.line import MAX_SAMPLE, prepare_line, take_in
from rtsep.engine.output import finish
from rtsep.estimators import Oracle


@pytest.mark.parametrize("sizes", [(256, 64, 512), (256, 128, 512), (200, 80, 320), (704, 176, 1440)])
def test_analysis_equals_the_stft_of_the_stream(sizes):
    config = StreamConfig(16_000, *sizes, n_channels=3)
    x = signals.voices(4_000, n_src=3)
    frames = Frames(config, 2)
    n_frames = x.shape[1] // config.hop
    expected = np.stack([naive.stft(channel, *sizes, n_frames) for channel in x], 1)
    for t in range(n_frames):
        hop_in = np.ascontiguousarray(x[:, t * config.hop : (t + 1) * config.hop])
        mixture, measured, line = frames(hop_in)
        actual = mixture[:, 0] + 1j * mixture[:, 1]
        assert np.abs(actual - expected[t]).max() < 1e-6 * np.abs(expected).max()
        power = (np.abs(expected[t]) ** 2).mean(0)
        assert np.abs(measured - power).max() <= 1e-5 * power.max()
        assert np.array_equal(line[:, -config.hop :], hop_in)


def test_samples_that_cannot_be_meant_are_replaced_and_counted():
    config = StreamConfig(16_000)
    state = prepare_line(1, config.analysis)
    hop_in = np.zeros((1, config.hop), np.float32)
    hop_in[0, :6] = np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-42
    take_in(state, hop_in)
    assert state.replaced[0] == 5
    assert np.array_equal(state.samples[0, -config.hop :][:7], [0, 0, 0, MAX_SAMPLE, -MAX_SAMPLE, 0, 0])


def test_the_limiter_equals_its_twin_and_keeps_the_balance():
    config = StreamConfig(16_000, n_channels=2)
    rng = np.random.default_rng(0)
    loudness = np.repeat([0.1, 3, 0.1, 1.2, 0.01], 2_000)
    sources = (rng.uniform(-1, 1, (2, 2, loudness.size)) * loudness).astype(np.float32)
    line = sources.sum(0)
    output = Output(ceiling_db=-3)
    state = output.prepare(config, True)
    limited = sources.copy()
    finish(state, line, limited)
    release = 1 - math.exp(-1 / (0.05 * 16_000))
    expected = naive.limit(sources.reshape(4, -1).astype(float), 10 ** (-3 / 20), release).reshape(sources.shape)
    assert np.abs(limited - expected).max() < 1e-5
    assert np.abs(limited).max() <= np.float32(10 ** (-3 / 20))
    assert np.array_equal(limited[..., :2_000], sources[..., :2_000])
    gain = limited / sources
    assert np.nanmax(np.abs(gain - gain[0, 0])) < 1e-4
    assert 0 < state.limited[0] < loudness.size


def test_strength_keeps_a_stated_part_of_the_others():
    sources = signals.voices(4_000)
    x = sources.sum(0)
    full = separate(x, 16_000, Oracle(sources), output=Output(ceiling_db=math.inf))
    for strength_db in (0, 6, 20):
        leak = 10 ** (-strength_db / 20)
        kept = separate(x, 16_000, Oracle(sources), output=Output(strength_db, ceiling_db=math.inf))
        assert np.abs(kept - (full + leak * full[::-1])).max() < 1e-6


def test_the_fade_in_is_linear_and_comes_back_with_reset():
    separator = Separator(StreamConfig(16_000), "passthrough", output=Output(fade_in_ms=50))
    x = np.full(4_000, 0.5, np.float32)
    first = separator.process(x)[0]
    ramp = np.minimum(1, np.arange(4_000) / 800)
    heard = np.concatenate([np.zeros(256), ramp * x])[:4_000]
    assert np.abs(first - heard).max() < 1e-4
    for phase in ("omisi", "misi"):
        whole = separate(x, 16_000, "passthrough", phase, output=Output(fade_in_ms=50))[0]
        assert np.abs(whole - ramp * x).max() < 1e-4
    separator.reset()
    assert np.array_equal(separator.process(x)[0], first)


def test_what_is_not_finite_never_leaves():
    config = StreamConfig(16_000)
    state = Output().prepare(config, False)
    sources = np.full((2, 1, 8), np.nan, np.float32)
    sources[1] = 0.25
    finish(state, np.zeros((1, 8), np.float32), sources)
    assert not sources[0].any()
    assert (sources[1] == 0.25).all()
    assert state.muted[0] == 8


def test_magnitudes_that_are_not_finite_count_as_zero():
    class Broken(PythonEstimator):
        """An estimator that fails now and then."""

        sources = ("a", "b")

        def prepare(self, config):
            return [0]

        def step(self, state, mixture, power, magnitudes):
            state[0] += 1
            magnitudes[:] = np.sqrt(power)
            if state[0] % 3 == 0:
                magnitudes[0] = [np.nan, np.inf, -1][state[0] // 3 % 3]

    x = signals.voices(4_000).sum(0)
    separator = Separator(StreamConfig(16_000), Broken())
    heard = separator.process(x)
    assert np.isfinite(heard).all()
    assert separator.counts["muted"] == 0
    assert np.abs(heard.sum(0)[256:] - x[:-256]).max() < 1e-6
