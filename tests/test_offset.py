"""An offset changes nothing that is heard, in any estimator, at any rate, also when it jumps; nothing is lost by it."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import signals

from rtsep import Output, Separator, StreamConfig, separate
from rtsep.engine.offset import give_back, prepare_offset, set_aside
from rtsep.estimators import Oracle
from rtsep.phase import MISI

SR = 16_000
FREE = Output(ceiling_db=math.inf)


def scene(n: int, seed: int = 0) -> np.ndarray:
    """A voice in noise, at 0.1."""
    rng = np.random.default_rng(seed)
    x = signals.voices(n, seed=seed)[0]
    return (0.1 * x / np.abs(x).max() + 0.01 * rng.normal(size=n)).astype(np.float32)


def high(x: np.ndarray, sr: int, hz: float = 40) -> np.ndarray:
    """What is heard of it."""
    spectrum = np.fft.rfft(x)
    spectrum[..., np.fft.rfftfreq(x.shape[-1], 1 / sr) < hz] = 0
    return np.fft.irfft(spectrum, x.shape[-1])


def db(x: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(np.square(x, dtype=float)) / np.sum(np.square(reference, dtype=float))))


@pytest.mark.parametrize("sr", [8_000, 44_100, 192_000])
def test_what_is_set_aside_equals_its_twin_and_comes_back(sr):
    hop, start, n_hops = sr // 250, sr // 500, 40
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.5, 0.5, (2, hop * n_hops)).astype(np.float32)
    x[:, 0] = 0
    state, line = prepare_offset(2, 3 * hop, sr), np.zeros((2, 3 * hop), np.float32)
    heard = []
    for t in range(n_hops):
        line = np.ascontiguousarray(np.concatenate((line[:, hop:], x[:, t * hop : (t + 1) * hop]), 1))
        set_aside(state, line, hop)
        heard.append(state.samples[:, -hop:].copy())
        out = np.zeros((3, 2, hop), np.float32)
        give_back(state, line, start, out)
        assert np.array_equal(out[-1], line[:, start : start + hop] - state.samples[:, start : start + hop])
        assert not out[:-1].any()
    y = np.concatenate(heard, 1)
    for c in range(2):
        assert np.abs(x[c] - y[c] - naive.offset(x[c], sr)).max() < 1e-6


@pytest.mark.parametrize("offset", [0.001, 0.05, -0.9, 30])
@pytest.mark.parametrize("estimator", ["speech", "denoise", "hpss", "talkers", "kam", "repet_sim"])
def test_an_offset_changes_nothing_that_is_heard(estimator, offset):
    x = scene(2 * SR)
    plain = separate(x, SR, estimator, output=FREE)
    moved = separate((x + np.float32(offset)).astype(np.float32), SR, estimator, output=FREE)
    heard = slice(SR // 2, -SR // 50)  # what a network remembers of the beginning takes some time to fade
    floor = max(-30.0, 20 * np.log10(abs(offset) * 2**-24 / 0.002))  # what float32 loses of the sound at 30
    moved_high, plain_high = moved.copy(), plain
    moved_high[-1] -= np.float32(offset)
    assert db(high((moved_high - plain_high)[:, heard], SR), x[heard]) < floor
    assert np.abs(moved.sum(0) - (x + np.float32(offset))).max() < 4e-7 * (1 + abs(offset))
    assert np.mean(moved[-1][heard]) == pytest.approx(offset, rel=0.01, abs=0.001)


@pytest.mark.parametrize("sr", [8_000, 48_000, 192_000])
def test_an_offset_that_jumps_is_forgotten_at_any_rate(sr):
    n = 2 * sr
    x = np.interp(np.arange(n) / sr, np.arange(2 * SR) / SR, scene(2 * SR)).astype(np.float32)
    steps = np.where(np.arange(n) < n // 4, 0.0, np.where(np.arange(n) < n // 2, 0.5, -0.3)).astype(np.float32)
    plain, moved = (separate(signal, sr, "denoise", output=FREE) for signal in (x, x + steps))
    later = slice(n // 2 + sr // 2, -sr // 50)
    assert db((moved[0] - plain[0])[later], x[later]) < -40
    assert np.abs(moved.sum(0) - (x + steps)).max() < 1e-6


def test_nothing_is_added_below_hearing():
    x = scene(2 * SR) + np.float32(0.05)
    speech = separate(x, SR, "denoise", output=FREE)[0]
    low = speech - high(speech, SR)
    assert db(low[SR // 4 :], (x - high(x, SR))[SR // 4 :]) < -30


def test_rumble_goes_to_the_last_source_and_a_voice_does_not():
    t = np.arange(2 * SR) / SR
    rumble, tone = 0.3 * np.sin(2 * np.pi * t), 0.1 * np.sin(2 * np.pi * 120 * t)
    for signal, least in ((rumble, 5), (tone, -35)):
        aside = naive.offset(signal, SR)
        level = db(aside[SR:], (signal - aside)[SR:])
        assert level > least if least > 0 else level < least


@pytest.mark.parametrize("phase", ["omisi", "wiener", "pu_iter", MISI(n_iter=2)])
def test_all_phase_recoveries_hear_no_offset(phase):
    sources = signals.voices(SR)
    x = sources.sum(0)
    plain = separate(x, SR, Oracle(sources), phase, output=FREE)
    shifted = sources + np.float32(0.2)
    moved = separate(shifted.sum(0), SR, Oracle(shifted), phase, output=FREE)
    heard = slice(SR // 4, -SR // 10)
    assert db((moved[0] - plain[0])[heard], x[heard]) < -30


def test_latency_and_causality_are_as_before():
    config = StreamConfig(SR, n_channels=2)
    separator = Separator(config, "passthrough", output=FREE)
    x = np.stack([scene(6_000), 0.7 + scene(6_000, 1)])
    whole = separator.process(x)
    assert np.abs(whole[0][:, separator.latency :] - x[:, : -separator.latency]).max() < 1e-6
    other = x.copy()
    other[:, 3_000:] += 0.5
    separator.reset()
    assert np.array_equal(separator.process(other)[..., :3_000], whole[..., :3_000])


def test_after_an_offset_there_is_silence():
    separator = Separator(StreamConfig(SR), "denoise", output=FREE)
    separator.process(np.full(SR, 0.5, np.float32))
    separator.process(np.zeros(2 * SR, np.float32))
    assert not separator.process(np.zeros(SR, np.float32)).any()
