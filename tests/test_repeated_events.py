"""The model of repeated events: against its twin, on data that it holds for, and on what it does not hold for."""

from __future__ import annotations

import naive
import naive_single
import numpy as np
import pytest
import signals

from rtsep import Output, StreamConfig, separate
from rtsep.config import ConfigError
from rtsep.estimators import Oracle
from rtsep.phase import PUIter, RepeatedEvents, Unwrapping
from rtsep.phase.unwrapping import onset_frames

CONFIG = StreamConfig(16_000)
SIZES = CONFIG.analysis, CONFIG.hop, CONFIG.n_fft
FREE = Output(ceiling_db=float("inf"))


def spectra(sources: np.ndarray) -> np.ndarray:
    """(n_frames, n_src, n_bins)."""
    return np.stack([naive.stft(s, *SIZES, s.size // CONFIG.hop) for s in sources], 1)


def gain(phase, sources: np.ndarray) -> float:
    """Energy of the sources over that of the error, in dB."""
    heard = separate(sources.sum(0), 16_000, Oracle(sources), phase, output=FREE)
    return 10 * np.log10((sources**2).sum() / ((heard - sources) ** 2).sum())


@pytest.mark.parametrize("span", [1, 8])
@pytest.mark.parametrize("sigma", [None, 0.2])
@pytest.mark.parametrize("n_iter", [0, 3])
def test_repeated_events_equal_their_twin(n_iter, sigma, span):
    true = spectra(signals.struck(1, 3)[:, :12_000])
    settings = {"n_iter": n_iter, "sigma": sigma, "span": span}
    v, mixture = np.abs(true), true.sum(1)
    found = RepeatedEvents(**settings).phases(CONFIG, mixture, v)
    expected = naive_single.repeated_events(mixture, v, CONFIG.hop, CONFIG.n_fft, 0.5, **settings)
    assert np.linalg.norm(v * (found - expected)) < 2e-3 * np.linalg.norm(v)


def test_an_event_that_the_next_one_or_the_end_cuts_short_equals_its_twin():
    true = spectra(signals.struck(2, 3)[:, :9_700])
    for j in range(2):
        starts = onset_frames(np.abs(true[:, j]), 0.5)
        assert np.diff([*starts, len(true)]).max() < 90
    settings = {"n_iter": 3, "sigma": 0.05, "span": 90}
    v, mixture = np.abs(true), true.sum(1)
    found = RepeatedEvents(**settings).phases(CONFIG, mixture, v)
    expected = naive_single.repeated_events(mixture, v, CONFIG.hop, CONFIG.n_fft, 0.5, **settings)
    assert np.linalg.norm(v * (found - expected)) < 2e-3 * np.linalg.norm(v)


def test_data_made_by_the_model_come_back_by_the_strict_form():
    rng, k, shape = np.random.default_rng(0), np.arange(CONFIG.n_bins), (20, 2, CONFIG.n_bins)
    delays = rng.integers(-4 * CONFIG.hop // 2, 4 * CONFIG.hop // 2, shape[:2]) / 4
    profiles = np.exp(2j * np.pi * rng.uniform(size=shape[1:]))
    true = np.zeros((40, 2, CONFIG.n_bins), complex)  # silence between the events
    true[::2] = rng.rayleigh(size=shape) * profiles * np.exp(-2j * np.pi * k * delays[..., None] / CONFIG.n_fft)
    v, mixture = np.abs(true), true.sum(1)
    phasors = RepeatedEvents(100, None, 1).phases(CONFIG, mixture, v)
    assert np.linalg.norm(v * phasors - true) < 10 ** (-35 / 20) * np.linalg.norm(v)
    masked = v * naive.direction(mixture, mixture)[:, None]
    assert np.linalg.norm(masked - true) > 0.5 * np.linalg.norm(v)


def test_sounds_that_come_again_are_told_apart_best_by_what_they_have_in_common():
    scenes = [signals.struck(seed) for seed in range(4)]

    def mean(phase) -> float:
        return float(np.mean([gain(phase, sources) for sources in scenes]))

    found = mean(RepeatedEvents())
    assert found > mean(Unwrapping()) + 15
    assert found > mean(RepeatedEvents(sigma=0.0)) + 8  # phases of the residual, no model
    assert found > mean(PUIter()) + 3


@pytest.mark.parametrize("signal", signals.hostile())
def test_any_input_gives_finite_sources_that_sum_to_it(signal):
    x = signals.hostile()[signal]
    with np.errstate(all="ignore"):
        references = np.stack([0.7 * x, 0.3 * x])
    clean = np.nan_to_num(x, nan=0, posinf=0, neginf=0).clip(-1e6, 1e6)
    for sigma in (None, 0.05):
        heard = separate(x, 16_000, Oracle(references), RepeatedEvents(3, sigma), output=FREE)
        assert np.isfinite(heard).all()
        assert np.abs(heard.sum(0) - clean).max() <= 1e-6 * max(1, np.abs(clean).max())


def test_the_level_changes_nothing_and_a_signal_may_be_shorter_than_a_hop():
    sources = signals.struck(3, 2)
    loud, quiet = (separate(g * sources.sum(0), 16_000, Oracle(g * sources), "repeated_events") for g in (1, 1 / 1024))
    assert np.abs(1024 * quiet - loud).max() < 1e-6
    assert separate(np.ones(3), 16_000, "passthrough", "repeated_events").shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": -1}, "n_iter=-1 is not between 0 and 1000"),
        ({"sigma": -1}, "sigma=-1 is not between 0 and 1e"),
        ({"span": 0}, "span=0 is not between 1 and 1000 hops"),
        ({"onset": 2}, "onset=2 is not between 0 and 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RepeatedEvents(**options)
