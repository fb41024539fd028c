"""Properties that hold for every configuration."""

from __future__ import annotations

import math

import numpy as np
import signals
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep import ConfigError, Output, Separator, StreamConfig, separate
from rtsep.estimators import Oracle
from rtsep.phase import OMISI

UNLIMITED = Output(ceiling_db=math.inf)


@st.composite
def configs(draw: st.DrawFn) -> StreamConfig:
    sr = draw(st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]))
    win_length = draw(st.integers(16, 1_000))
    hop = draw(st.integers(1 + win_length // 16, win_length))
    n_channels = draw(st.integers(1, 3))
    try:
        return StreamConfig(sr, win_length, hop, n_channels=n_channels)
    except ConfigError:
        # Only a large hop can be refused: half a window must always work.
        return StreamConfig(sr, win_length, min(hop, win_length // 2), n_channels=n_channels)


phases = st.builds(
    OMISI,
    n_iter=st.integers(0, 3),
    lookahead=st.integers(0, 3),
    init=st.sampled_from(["mixture", "sinusoidal"]),
    tail=st.sampled_from([0.0, 0.1, 1.0]),
)
seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(configs(), st.integers(0, 3), seeds, st.integers(0, 3_000))
def test_passthrough_reconstructs_through_analysis_and_synthesis(config, lookahead, seed, n_samples):
    # In the published order nothing shares the mixing error: what comes out went through every frame.
    phase = OMISI(n_iter=0, lookahead=lookahead, order="published")
    x = noise(seed, config.n_channels, n_samples)
    heard = separate(x, config.sr, "passthrough", phase, config=config, output=UNLIMITED)
    assert heard.shape == (1, *x.shape)
    assert n_samples == 0 or np.abs(heard[0] - x).max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(configs(), phases, seeds, st.integers(1, 4))
def test_sources_add_up_to_the_mixture_whatever_the_magnitudes(config, phase, seed, n_src):
    x = noise(seed, config.n_channels, 2_000)
    # Magnitudes that have nothing to do with the mixture.
    references = noise(seed + 1, n_src, config.n_channels, 2_000) * 10
    sources = separate(x, config.sr, Oracle(references), phase, config=config, output=UNLIMITED)
    assert np.isfinite(sources).all()
    assert np.abs(sources.sum(0) - x).max() < 1e-5 * max(1, np.abs(sources).max())


@settings(max_examples=40, deadline=None)
@given(configs(), phases, st.sampled_from(sorted(signals.hostile())), st.lists(st.integers(1, 900), min_size=1))
def test_any_blocks_of_any_signal_give_the_same_finite_bits(config, phase, signal, blocks):
    x = np.stack([signals.hostile()[signal]] * config.n_channels)
    x = x if config.n_channels > 1 else x[0]
    separator = Separator(config, "passthrough", phase)
    whole = separator.process(x)
    separator.reset()
    parts, start = [], 0
    while start < x.shape[-1]:
        for size in blocks:
            parts.append(separator.process(x[..., start : start + size]))
            start += size
    assert np.array_equal(np.concatenate(parts, -1), whole)
    assert np.isfinite(whole).all()
    assert np.abs(whole).max() <= np.float32(10 ** (-1 / 20))
