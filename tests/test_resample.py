"""The resampler of the live bridge: against the formula, against soxr, and its delay."""

from __future__ import annotations

import numpy as np
import pytest
from signals import voices

from rtsep.live import resample
from rtsep.live.resample import half_length, needed, prepare_resampler, pull
from rtsep.live.rings import make_ring, waiting, write

RATES = [(48_000, 16_000), (16_000, 48_000), (44_100, 48_000), (48_000, 44_100), (48_000, 48_003), (192_000, 8_000)]


def resampled(x, step, sizes=(64,), steps=None):
    """x is (n_channels, n_samples); the sizes of the blocks repeat, and so do the steps."""
    x = np.ascontiguousarray(np.atleast_2d(x), np.float32)
    state = prepare_resampler(step, len(x))
    ring = make_ring(len(x), 8192)
    out, made, at, k = np.zeros(len(x) * (int(x.shape[1] / step) + 9), np.float32), 0, 0, 0
    while at < x.shape[1]:
        n = min(sizes[k % len(sizes)], x.shape[1] - at)
        assert write(ring, np.ascontiguousarray(x[:, at : at + n]).ravel(), n)
        if steps:
            state.step[0] = steps[k % len(steps)]
        made += pull(state, ring, out, made, out.size // len(x) - made)
        at, k = at + n, k + 1
    return out.reshape(-1, len(x))[:made].T


def by_the_formula(x, step):
    """Windowed sinc interpolation, one sample at a time."""
    half = half_length(step)
    scale = 1 / max(1.0, step)
    beta = 0.1102 * (resample.ATTENUATION_DB - 8.7)
    padded = np.concatenate([np.zeros(half), x, np.zeros(half)])
    out = []
    for m in range(int((len(x) - half) / step)):
        k = np.arange(int(m * step) - half + 1, int(m * step) + half + 1)
        t = k - m * step
        weights = np.sinc((resample.PASS + resample.STOP) * scale * t)
        weights *= np.i0(beta * np.sqrt(np.maximum(0, 1 - (t / half) ** 2)))
        out.append(weights @ padded[k + half] / weights.sum())
    return np.array(out)


@pytest.mark.parametrize(("sr_in", "sr_out"), RATES)
def test_it_is_windowed_sinc_interpolation(sr_in, sr_out):
    x = np.random.default_rng(0).standard_normal(3_000)
    y, expected = resampled(x, sr_in / sr_out)[0], by_the_formula(x, sr_in / sr_out)
    n = min(len(y), len(expected))
    assert n > 0.7 * 3_000 * sr_out / sr_in - 30
    assert np.abs(y[:n] - expected[:n]).max() < 1e-4 * np.abs(x).max()


@pytest.mark.parametrize(("sr_in", "sr_out"), RATES)
def test_tones_that_fit_pass_and_others_do_not(sr_in, sr_out):
    t, lower = np.arange(sr_in // 4) / sr_in, min(sr_in, sr_out)
    for frequency in (100, 0.2 * lower, resample.PASS * lower):
        y = resampled(np.sin(2 * np.pi * frequency * t), sr_in / sr_out)[0]
        expected = np.sin(2 * np.pi * frequency * np.arange(len(y)) / sr_out)
        assert np.abs(y - expected)[300:-300].max() < 2e-4
    if sr_out < 0.99 * sr_in:
        y = resampled(np.sin(2 * np.pi * 1.02 * resample.STOP * sr_out * t), sr_in / sr_out)[0]
        assert np.abs(y[300:-300]).max() < 2e-4


def test_it_agrees_with_soxr_on_voices():
    soxr = pytest.importorskip("soxr")
    x = voices(48_000, 48_000).sum(0)
    y, expected = resampled(x, 3.0)[0], soxr.resample(x, 48_000, 16_000, "VHQ")
    # soxr keeps more of the last octave, where voices have little.
    assert np.std(y[100:-100] - expected[100 : len(y) - 100]) < 1e-3 * np.std(expected)


@pytest.mark.parametrize("sizes", [(1,), (7, 300), (2_000,)])
def test_blocks_of_any_size_give_the_same_bits(sizes):
    x = np.random.default_rng(1).standard_normal((2, 6_000))
    expected, y = resampled(x, 44_100 / 48_000), resampled(x, 44_100 / 48_000, sizes)
    assert np.array_equal(y, expected[:, : y.shape[1]])
    assert expected.shape[1] - y.shape[1] < 2


def test_a_ratio_that_changes_bends_the_pitch_without_a_click():
    t = np.arange(48_000) / 48_000
    y = resampled(np.sin(2 * np.pi * 440 * t), 1.0, (64,), [1.001, 0.999, 1.0005])[0]
    assert np.abs(np.diff(y[40:], 2)).max() < 1.01 * (2 * np.pi * 440 / 48_000) ** 2


def test_needed_is_exactly_what_pull_takes():
    state, ring = prepare_resampler(3.7, 1), make_ring(1, 8192)
    out, rng = np.zeros(500, np.float32), np.random.default_rng(2)
    for n in rng.integers(1, 400, 200):
        missing = needed(state, int(n)) - waiting(ring)
        if missing > 0:
            write(ring, np.zeros(missing - 1, np.float32), missing - 1)
            assert pull(state, ring, out, 0, int(n)) == n - 1
            write(ring, np.zeros(1, np.float32), 1)
            assert pull(state, ring, out, 0, 1) == 1
        else:
            assert pull(state, ring, out, 0, int(n)) == n
