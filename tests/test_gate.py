"""The gate: against its twin, in streams and files, while it is set, and in the callback."""

from __future__ import annotations

import numpy as np
import pytest
import signals

from rtsep import ConfigError, Gate, PythonEstimator, Separator, StreamConfig, list_phases, separate
from rtsep.choose import choose
from rtsep.engine.gate import gate
from rtsep.estimators import Oracle

SR = 16_000


def twin(config, powers, magnitudes, min_presence, hold, release_s=0.05):
    """Magnitudes after the gates, and presences, in float64: (n_frames, n_src, n_bins), (n_frames, n_src)."""
    mel = np.linspace(*(2595 * np.log10(1 + np.array([200, 4000]) / 700)), 7)
    edges = 700 * (10 ** (mel / 2595) - 1)
    band = np.digitize(np.arange(config.n_bins) * config.sr / config.n_fft, edges)
    floor = 1e-10 * (config.windows.analysis**2).sum()
    gains, since = np.zeros(magnitudes.shape[1]), np.full(magnitudes.shape[1], np.inf)
    gated, presences = [], []
    for power, m in zip(powers, magnitudes.astype(float), strict=True):
        total = power[(band >= 1) & (band <= 6)].sum()
        shares = [
            np.minimum(m[:, band == b] ** 2, power[band == b]).sum(1) / (power[band == b].sum() + 0.01 * total + floor)
            for b in range(1, 7)
        ]
        presence = np.max(shares, 0)
        since = np.where(presence >= min_presence, 0, since + 1)
        gains = np.where(since == 0, 1, np.where(since <= hold, gains, np.maximum(gains - config.hop_s / release_s, 0)))
        least, out = gains[:-1].min(initial=1), m.copy()
        if least < 1:
            out[:-1] *= gains[:-1, None]
            rest = np.maximum(np.sqrt(power) - out[:-1].sum(0), 0)
            out[-1] = rest + least * (out[-1] - rest)
        gated.append(out)
        presences.append(presence)
    return np.stack(gated), np.stack(presences)


@pytest.mark.parametrize(("sr", "n_src"), [(16_000, 2), (48_000, 3), (8_000, 1)])
def test_the_gate_equals_its_twin(sr, n_src):
    config = StreamConfig(sr)
    rng = np.random.default_rng(n_src)
    powers = (10 ** rng.uniform(-6, 3, (200, 1)) * rng.exponential(size=(200, config.n_bins))).astype(np.float32)
    powers[50:60] = 0
    shares = rng.uniform(0, 1.2, (200, n_src, 1)) ** 2 * np.ones((1, 1, config.n_bins))
    magnitudes = (shares * np.sqrt(powers[:, None])).astype(np.float32)
    hold_ms = 5 * 1000 * config.hop_s
    state = Gate(0.7, hold_ms).prepare(config, n_src)
    expected, presences = twin(config, powers.astype(float), magnitudes, 0.7, 5)
    for t in range(200):
        m = magnitudes[t].copy()
        gate(state, powers[t], m)
        assert np.allclose(state.presence, presences[t], rtol=1e-4, atol=1e-6)
        assert np.allclose(m, expected[t], rtol=1e-4, atol=1e-4 * np.sqrt(powers[t].max()))
    closed = (expected[:, 0] != magnitudes[:, 0]).any(1)
    assert n_src == 1 or 20 < closed.sum() < 180


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_no_estimator_should_say_opens_no_gate_and_spoils_no_other_source(value):
    config = StreamConfig(SR)
    state = Gate(0.5, 0).prepare(config, 2)
    power = np.ones(config.n_bins, np.float32)
    m = np.full((2, config.n_bins), np.float32(value))
    m[0] = 0
    gate(state, power, m)
    assert state.presence[0] == 0
    assert state.presence[1] == 0
    m = np.full((2, config.n_bins), np.float32(value))
    m[1] = 1
    gate(state, power, m)
    assert state.presence[0] == 0
    assert np.isfinite(m[1]).all()


@pytest.fixture(scope="module")
def talk():
    """A source that pauses, and one that does not."""
    sources = signals.voices(3 * SR, SR)
    sources[0, SR : 2 * SR] = 0
    sources[1] *= 0.1
    return sources


@pytest.mark.parametrize("phase", list_phases())
def test_a_source_that_is_not_there_is_silent_with_every_phase_recovery(talk, phase):
    """True magnitudes of one source and a lie about the other: a tenth of everything, in every pause, too."""

    class Leaky(PythonEstimator):
        sources = ("source1", "source2")

        def prepare(self, config):
            return Oracle(talk).prepare(config)

        def step(self, state, mixture, power, magnitudes):
            Oracle.step(state, mixture, power, magnitudes)
            magnitudes[0] = np.maximum(magnitudes[0], 0.1 * np.sqrt(power))

    chosen = choose(Leaky(), phase, 0.016, 0.004).phase
    if chosen.lookahead is None:
        with pytest.raises(ConfigError, match=r"min_presence=0\.5 needs a stream"):
            separate(talk.sum(0), SR, Leaky(), phase, gate=Gate(0.5))
        return
    x, pause = talk.sum(0), slice(SR + 3_200, 2 * SR - 800)
    leaky, gated = (separate(x, SR, Leaky(), chosen, gate=Gate(p, 100)) for p in (0, 0.5))
    assert np.abs(leaky[0, pause]).max() > 1e-4
    assert not gated[0, pause].any()
    assert np.linalg.norm(gated[0]) > 0.9 * np.linalg.norm(leaky[0])
    if chosen.consistent:
        assert np.allclose(gated.sum(0), x, atol=1e-5)


def test_it_opens_before_the_source_is_heard_and_holds_as_long_as_it_says(talk):
    x, kept = talk.sum(0), {}
    onset = slice(2 * SR, 2 * SR + 400)
    gated, always = (separate(x, SR, Oracle(talk), "mixture", gate=Gate(p, 0)) for p in (0.3, 0))
    assert not gated[0, onset.start - 800 : onset.start - 300].any()
    assert np.abs(gated[0, onset]).max() > 0.01
    assert np.linalg.norm((gated - always)[0, onset]) < 0.1 * np.linalg.norm(always[0, onset])
    for hold_ms in (0, 100, 400):
        config = StreamConfig(SR)
        state, power, gains = Gate(0.5, hold_ms).prepare(config, 2), np.ones(config.n_bins, np.float32), []
        for t in range(200):
            m = np.outer([1, 0] if t < 10 else [0, 1], np.ones(config.n_bins)).astype(np.float32)
            gate(state, power, m)
            gains.append(float(state.open[0]))
        kept[hold_ms] = sum(gain == 1 for gain in gains) - 10
        assert gains[-1] == 0
    assert kept == {0: 0, 100: 25, 400: 100}


@pytest.mark.parametrize("estimator", ["denoise", "speech"])
def test_a_stream_that_is_set_while_it_runs_gives_the_bits_of_the_same_stream_in_other_blocks(estimator):
    x = signals.voices(2 * SR, SR).sum(0)

    def run(size):
        separator, out = Separator(StreamConfig(SR), estimator, gate=Gate(0.9, 20)), []
        for start in range(0, len(x), size):
            if start == SR:
                separator.set(min_presence=0.2, gate_hold_ms=0)
            out.append(separator.process(x[start : start + size]))
        return np.concatenate(out, 1), separator

    (a, separator), (b, _) = run(SR // 100), run(SR // 4)
    assert np.array_equal(a, b)
    assert separator.gate == Gate(0.2, 0)
    assert set(separator.presence) == set(separator.sources)
    assert all(0 <= share <= 1 for share in separator.presence.values())
    whole = separate(x, SR, estimator, gate=Gate(0.9, 20))
    assert np.array_equal(a[:, separator.latency : SR], whole[:, : SR - separator.latency])
    assert not np.array_equal(whole, separate(x, SR, estimator))
    assert np.allclose(whole.sum(0), x, atol=1e-5)


def test_without_a_gate_nothing_changes_by_a_bit():
    x = signals.voices(SR, SR).sum(0)
    open_gate = Separator(StreamConfig(SR), "denoise", gate=Gate(0.9))
    open_gate.set(min_presence=0)
    assert np.array_equal(open_gate.process(x), Separator(StreamConfig(SR), "denoise").process(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_presence": 1.5}, "min_presence=1.5 is not between 0 and 1"),
        ({"min_presence": float("nan")}, "min_presence=nan"),
        ({"gate_hold_ms": -1}, "gate_hold_ms=-1 is not between 0 and 5000 ms"),
    ],
)
def test_gates_that_cannot_work_are_refused_and_change_nothing(settings, message):
    with pytest.raises(ConfigError, match=message):
        Gate(**settings)
    separator = Separator(StreamConfig(SR), "passthrough")
    with pytest.raises(ConfigError, match=message):
        separator.set(**settings)
    assert separator.gate == Gate()
