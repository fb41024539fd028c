"""Pairs of windows: what is put together again, when it leaves, and what the open samples are."""

from __future__ import annotations

import naive
import naive_pair
import numpy as np
import pytest
import signals
from frames import Frames
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep import ConfigError, Output, Separator, StreamConfig, separate
from rtsep.estimators import Oracle
from rtsep.phase import MISI, OMISI, RTPGHI, SPSI
from rtsep.windows import Windows

FREE = Output(ceiling_db=float("inf"))
PAIRS = [(256, 128, 32), (256, 64, 32), (256, 64, 16), (256, 32, 16), (200, 130, 40), (512, 128, 64)]
IDS = ["-".join(map(str, sizes)) for sizes in PAIRS]


def config(sizes, sr: int = 16_000, **more) -> StreamConfig:
    analysis, synthesis, hop = sizes
    return StreamConfig(sr, analysis, hop, synthesis=synthesis, **more)


@st.composite
def streams(draw):
    sr = draw(st.integers(8_000, 96_000))
    analysis = draw(st.integers(16, 1_000))
    synthesis = draw(st.integers(16, analysis))
    hop = draw(st.integers(max(1, synthesis // 12), synthesis // 2))
    try:
        return StreamConfig(sr, analysis, hop, synthesis=synthesis)
    except ConfigError:  # a hop that does not divide a window of one length may leave samples uncovered
        return StreamConfig(sr, analysis, max(1, synthesis // 4), synthesis=synthesis)


@given(streams())
@settings(max_examples=60, deadline=None)
def test_any_pair_reconstructs_with_bounded_gain(config):
    windows, hop, n = config.windows, config.hop, 4 * config.analysis
    x = np.random.default_rng(0).normal(size=n)
    y = np.zeros(n)
    start = config.analysis - config.synthesis
    for at in range(0, n - config.analysis + 1, hop):
        frame = windows.analysis * x[at : at + config.analysis]
        y[at + start : at + config.analysis] += windows.synthesis * frame[start:]
    y /= windows.envelope[(np.arange(n) - start) % hop]
    whole = slice(config.analysis, n - config.analysis - hop)
    assert np.abs(y[whole] - x[whole]).max() < 1e-9
    # Noise that is added to the frames is not amplified: the gains of the frames over a sample sum to little.
    gain = np.zeros(hop)
    for m in range(config.synthesis):
        gain[m % hop] += windows.synthesis[m] ** 2
    assert (gain / windows.envelope**2).max() < 2.5


def test_one_length_is_the_periodic_hann_window_as_ever():
    windows = Windows(256, 256, 64)
    assert np.array_equal(windows.analysis, 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256))
    assert np.array_equal(windows.synthesis, windows.analysis)
    assert windows.centre == pytest.approx(128)
    assert (windows.ratio == 1).all()


@pytest.mark.parametrize("sizes", PAIRS, ids=IDS)
@pytest.mark.parametrize("phase", [OMISI(2), OMISI(1, lookahead=2), OMISI(2, order="published"), MISI(2, 0)], ids=repr)
def test_a_click_comes_out_at_the_latency_and_nothing_before(sizes, phase):
    separator = Separator(config(sizes), "passthrough", phase)
    assert separator.latency == sizes[1] + phase.lookahead * sizes[2]
    for at in (0, 1, sizes[2] - 1, 777):
        click = np.zeros(at + 2 * sizes[0] + separator.latency, np.float32)
        click[at] = 0.5
        separator.reset()
        heard = separator.process(click)[0]
        assert np.argmax(np.abs(heard)) == at + separator.latency
        assert abs(heard[at + separator.latency] - 0.5) < 1e-6
        assert np.abs(np.delete(heard, at + separator.latency)).max() < 1e-6


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize("sizes", PAIRS, ids=IDS)
def test_omisi_of_a_pair_equals_its_twin(sizes, lookahead):
    sources = signals.voices(2_400)
    stream = config(sizes)
    for n_iter in (0, 1, 4):
        phase = OMISI(n_iter, lookahead=lookahead, gate=False, tail=0.05)
        heard = separate(sources.sum(0), 16_000, Oracle(sources), phase, config=stream, output=FREE)
        aside = naive.offset(sources, 16_000)  # the core does not hear it, and the last source gets it back
        expected = naive_pair.omisi(sources - aside, *sizes, stream.n_fft, n_iter, lookahead, phase.tail)
        expected[-1] += aside.sum(0)
        assert np.abs(heard - expected).max() < 2e-4 * np.abs(sources).max(), n_iter


@pytest.mark.parametrize("sizes", PAIRS[:3], ids=IDS[:3])
def test_full_look_ahead_gives_what_the_whole_signal_gives(sizes):
    analysis, _, hop = sizes
    sources = np.pad(signals.voices(8 * hop), ((0, 0), (4 * analysis, 0)))
    sources = np.ascontiguousarray(sources[:, -30 * hop :])
    online = MISI(3, lookahead=32, tail=1.0)
    x = sources.sum(0)
    heard = separate(x, 16_000, Oracle(sources), online, config=config(sizes), output=FREE)
    whole = separate(x, 16_000, Oracle(sources), MISI(3, tail=1.0), config=config(sizes), output=FREE)
    # The first hop to leave has seen all frames; later ones have frozen frames before them.
    first = slice(0, hop)
    assert np.abs(heard[:, first] - whole[:, first]).max() < 1e-5
    assert np.abs(heard - whole).max() < 0.5 * np.abs(whole).max()


@pytest.mark.parametrize("sizes", PAIRS[:4], ids=IDS[:4])
def test_the_engine_of_windows_does_for_a_pair_what_omisi_does(sizes):
    """MISI without look-ahead is oMISI without its gate, but for what both keep of the emitted past: its sum."""
    sources = signals.voices(3_000)
    x = sources.sum(0)
    for n_iter in (0, 1):
        one, other = (
            separate(x, 16_000, Oracle(sources), phase, config=config(sizes), output=FREE)
            for phase in (OMISI(n_iter, tail=0.1, gate=False), MISI(n_iter, lookahead=0, tail=0.1))
        )
        assert np.linalg.norm(one - other) < 0.05 * np.linalg.norm(one)


def test_a_phase_recovery_that_cannot_says_so():
    for name in ("rtisi_la", "griffin_lim", "unwrapping", "consistent_wiener", "repeated_events"):
        with pytest.raises(
            ConfigError, match=f"phase='{name}' needs windows of one length, not of 256 and 128 samples"
        ):
            separate(np.zeros(1_000), 16_000, "hpss", name, config=config(PAIRS[0]))


@pytest.mark.parametrize("sizes", PAIRS[:3], ids=IDS[:3])
def test_phases_from_magnitudes_alone_refer_to_the_centre_of_the_window(sizes):
    """A steady tone through RTPGHI and SPSI keeps its power: bins of a lobe that disagree would cancel."""
    stream = config(sizes)
    for phase in (RTPGHI(), SPSI()):
        for hz in (440, 1_010, 3_000):
            tone = 0.3 * np.sin(2 * np.pi * hz / 16_000 * np.arange(6_400)).astype(np.float32)
            frames, state, out, heard = Frames(stream), phase.prepare(stream, 1), np.zeros((1, 1, sizes[2]), "f"), []
            for hop in tone[: tone.size // sizes[2] * sizes[2]].reshape(-1, 1, sizes[2]):
                mixture, power, line = frames(hop)
                type(phase).step(state, mixture, power, line, np.sqrt(power)[None], out)
                heard.append(out[0, 0].copy())
            steady = np.concatenate(heard)[2_000:6_000]
            assert abs(10 * np.log10(np.mean(steady**2) / np.mean(tone[2_000:6_000] ** 2))) < 1


@pytest.mark.parametrize("latency_ms", [8, 4, 2])
def test_networks_and_trackers_run_at_short_latencies(latency_ms):
    sr = 16_000
    x = signals.voices(sr).sum(0)
    for estimator in ("speech", "denoise", "hpss"):
        stream = StreamConfig.from_ms(sr, latency_ms=latency_ms)
        heard = separate(x, sr, estimator, config=stream, output=FREE)
        assert np.abs(heard.sum(0) - x).max() < 1e-5
        separator = Separator(stream, estimator, output=FREE)
        assert separator.latency == sr * latency_ms // 1000
        assert np.array_equal(separator.process(x)[:, separator.latency :], heard[:, : -separator.latency])
