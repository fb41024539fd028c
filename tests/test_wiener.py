"""The Wiener family: against its twins, its special cases, and what it promises."""

from __future__ import annotations

import naive
import naive_wiener
import numpy as np
import pytest
import signals
from frames import Frames

from rtsep import Output, StreamConfig, separate
from rtsep.config import ConfigError
from rtsep.estimators import Oracle
from rtsep.kernels.memory import zeros
from rtsep.phase import (
    AnisotropicWiener,
    BayesianAnisotropic,
    ConsistentAnisotropicWiener,
    ConsistentWiener,
    Wiener,
    von_mises_concentration,
)
from rtsep.phase.consistent_wiener import conjugate_gradients
from rtsep.phase.von_mises import fit_concentration, von_mises_shape
from rtsep.phase.window import recover_all

SR = 16_000
FREE = Output(ceiling_db=float("inf"))
SIZES = [(256, 64, 512), (256, 128, 256), (200, 80, 320)]


def scene(sizes, n_src: int, n_samples: int = 2_500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixture, its spectra, and true magnitudes."""
    sources = signals.voices(n_samples, n_src=n_src)
    x = sources.sum(0).astype(float)
    n_frames = x.size // sizes[1]
    spectra = np.stack([naive.stft(s, *sizes, n_frames) for s in sources], 1)
    return x, naive.stft(x, *sizes, n_frames), np.abs(spectra).astype(np.float32).astype(float)


def run(sizes, phase, x: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """What the step emits, without the output stage; (n_src, n_samples)."""
    config = StreamConfig(SR, *sizes)
    analyse, state = Frames(config, phase.lookahead), phase.prepare(config, magnitudes.shape[1])
    out, emitted = np.zeros((magnitudes.shape[1], 1, config.hop), np.float32), []
    for hop_in, target in zip(
        x[: x.size // config.hop * config.hop].reshape(-1, 1, config.hop), magnitudes, strict=True
    ):
        frame = analyse(hop_in.astype(np.float32))
        type(phase).step(state, *frame, target.astype(np.float32), out)
        emitted.append(out[:, 0].copy())
    return np.concatenate(emitted, 1)[:, phase.lookahead * config.hop :]


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def si_sdr(phase, sources: np.ndarray) -> float:
    """Mean SI-SDR of the sources with true magnitudes."""
    heard = separate(sources.sum(0), SR, Oracle(sources), phase, output=FREE)
    target = (heard * sources).sum(1, keepdims=True) / (sources**2).sum(1, keepdims=True) * sources
    return float(np.mean(10 * np.log10((target**2).sum(1) / ((heard - target) ** 2).sum(1))))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_filters_without_iterations_equal_their_twins(sizes):
    for n_src, kappa in ((2, (0.0, 0.0)), (2, (2.0, 0.7)), (3, (0.5, 8.0, 30.0)), (1, (2.0,))):
        x, mixture, magnitudes = scene(sizes, n_src)
        expected = naive_wiener.consistent(mixture, magnitudes, sizes, kappa=kappa)
        assert distance(run(sizes, AnisotropicWiener(kappa), x, magnitudes), expected) < 2e-4
        if not any(kappa):
            assert distance(run(sizes, Wiener(), x, magnitudes), expected) < 1e-5


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("lookahead", [0, 2])
def test_the_online_consistent_filters_equal_their_twins(sizes, lookahead):
    for n_src, kappa, consistency in ((2, (0.0, 0.0), 5.0), (2, (2.0, 0.7), 30.0), (3, (2.0, 0.0, 1.0), 3.0)):
        x, mixture, magnitudes = scene(sizes, n_src)
        settings = {"n_iter": 3, "lookahead": lookahead, "tail": 0.05, "consistency": consistency}
        expected = naive_wiener.consistent(mixture, magnitudes, sizes, kappa=kappa, **settings)
        phase = ConsistentAnisotropicWiener(kappa=kappa, **settings)
        assert distance(run(sizes, phase, x, magnitudes), expected) < 5e-4


@pytest.mark.parametrize("sizes", SIZES)
def test_the_bayesian_model_equals_its_twin(sizes):
    for n_src, kappa, tau, n_iter in ((2, (5.0, 5.0), 0.5, 3), (3, (1.0, 8.0, 3.0), 2.0, 1), (2, (2.0, 2.0), 0.5, 0)):
        x, mixture, magnitudes = scene(sizes, n_src)
        magnitudes = np.maximum(magnitudes, 1e-3)
        expected = naive_wiener.bayesian(mixture, magnitudes, sizes, kappa=kappa, tau=tau, n_iter=n_iter)
        phase = BayesianAnisotropic(n_iter, kappa, tau)
        assert distance(run(sizes, phase, x, magnitudes), expected) < 5e-4


@pytest.mark.parametrize(
    ("special", "general"),
    [
        (Wiener(), AnisotropicWiener(0.0)),
        (Wiener(), BayesianAnisotropic(5, 0.0, 0.0)),
        (Wiener(), ConsistentWiener(consistency=0.0)),
        (Wiener(), ConsistentWiener(n_iter=0)),
        (AnisotropicWiener(3.0), ConsistentAnisotropicWiener(kappa=3.0, consistency=0.0)),
        (ConsistentWiener(lookahead=1), ConsistentAnisotropicWiener(lookahead=1, kappa=0.0)),
        (Wiener(), ConsistentWiener(consistency=0.0, lookahead=None)),
        (AnisotropicWiener(3.0), ConsistentAnisotropicWiener(kappa=3.0, n_iter=0, lookahead=None)),
        (ConsistentWiener(lookahead=None), ConsistentAnisotropicWiener(lookahead=None, kappa=0.0)),
    ],
)
def test_special_cases_coincide(special, general):
    sources = signals.voices(8_000, n_src=3)
    expected, actual = (
        separate(sources.sum(0), SR, Oracle(sources), phase, output=FREE) for phase in (special, general)
    )
    assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "phase",
    [
        Wiener(),
        AnisotropicWiener((1.0, 50.0)),
        BayesianAnisotropic(),
        ConsistentWiener(),
        ConsistentAnisotropicWiener(lookahead=2),
    ],
)
def test_the_sources_sum_to_the_mixture_before_the_output_stage(phase):
    x, _, magnitudes = scene(SIZES[0], 2)
    wrong = magnitudes * np.random.default_rng(0).uniform(0.3, 3, magnitudes.shape)
    delayed = np.concatenate([np.zeros(256 - 64), x])
    actual = run(SIZES[0], phase, x, wrong).sum(0)
    assert np.abs(actual - delayed[: actual.size]).max() < 2e-6


def offline(kappa, consistency: float, n_iter: int) -> tuple[np.ndarray, list[float], naive_wiener.Offline]:
    """Signals by conjugate gradients, squared residuals, and the cost according to the twin."""
    sizes, n_src = (64, 16, 128), len(kappa)
    config = StreamConfig(SR, *sizes)
    lead, n_frames = sizes[0] - sizes[1], 40
    sources = signals.voices(3_000, n_src=n_src)[:, 1_000 : 1_000 + (n_frames - 6) * sizes[1]].astype(float)
    lines = np.pad(sources, ((0, 0), (lead, lead))).astype(np.float32)
    frames = [lines[:, t * 16 : t * 16 + 64] * naive.hann(64) for t in range((lines.shape[1] - 64) // 16 + 1)]
    magnitudes = np.maximum(np.abs(np.fft.rfft(frames, 128)), 1e-2).astype(np.float32)
    x = lines.sum(0)
    phase = ConsistentAnisotropicWiener(kappa=kappa, consistency=consistency)
    state = phase.open(config, n_src, len(magnitudes), 0, 1)
    start = zeros((n_src, x.size))
    recover_all(state, x, magnitudes, start)
    found, residuals = conjugate_gradients(state, consistency, start[:-1] - start[-1], n_iter)
    found = np.concatenate([found, np.zeros((1, x.size))])
    phases = state.memory[0, 1:, :, 0].astype(float) + 1j * state.memory[0, 1:, :, 1]
    mixture = np.fft.rfft(np.array(frames).sum(1), 128)
    settings = {"kappa": kappa, "consistency": consistency}
    return (
        found + (x - found.sum(0)) / n_src,
        residuals,
        naive_wiener.Offline(mixture, magnitudes, phases, sizes, **settings),
    )


@pytest.mark.parametrize("kappa", [(0.0, 0.0), (2.0, 0.5), (1.0, 0.0, 5.0)])
def test_conjugate_gradients_find_what_the_auxiliary_function_converges_to(kappa):
    found, residuals, twin = offline(kappa, 2.0, 40)
    expected = offline(kappa, 2.0, 0)[0]
    for _ in range(150):
        expected = twin.step(expected)
    assert distance(found, expected) < 1e-4
    assert residuals[-1] < 1e-9 * residuals[0]


@pytest.mark.parametrize("kappa", [(0.0, 0.0), (2.0, 0.5), (1.0, 0.0, 5.0)])
def test_the_cost_falls_with_every_iteration(kappa):
    results = [offline(kappa, 10.0, n_iter) for n_iter in range(8)]
    costs = [twin.cost(found) for found, _, twin in results]
    assert all(np.diff(costs) < 0), costs
    # The residual of the method need not fall monotonically in general; here it does.
    assert all(np.diff(results[-1][1]) < 0), results[-1][1]
    start, _, twin = results[0]
    auxiliary = [start]
    for _ in range(5):
        auxiliary.append(twin.step(auxiliary[-1]))
    assert all(np.diff([twin.cost(s) for s in auxiliary]) < 0)


def test_what_is_known_about_the_phase_is_worth_something():
    for seed in range(2):
        sources = signals.voices(16_000, seed=seed)
        mask, wiener = si_sdr("mixture", sources), si_sdr(Wiener(), sources)
        anisotropic, consistent = (
            si_sdr(AnisotropicWiener(), sources),
            si_sdr(ConsistentWiener(lookahead=None), sources),
        )
        assert abs(mask - wiener) < 0.5
        assert anisotropic > mask + 1.5
        assert consistent > mask + 1.5
        assert si_sdr(BayesianAnisotropic(), sources) > anisotropic + 0.5
        both = ConsistentAnisotropicWiener(lookahead=None)
        assert si_sdr(both, sources) > max(anisotropic, consistent) + 0.5


@pytest.mark.parametrize("phase", [ConsistentWiener(lookahead=None), ConsistentAnisotropicWiener(lookahead=None)])
@pytest.mark.parametrize("signal", signals.hostile())
def test_offline_too_any_input_gives_finite_sources_that_sum_to_it(phase, signal):
    x = signals.hostile()[signal]
    with np.errstate(all="ignore"):
        references = np.stack([0.7 * x, 0.3 * x])
    heard = separate(x, SR, Oracle(references), phase, output=FREE)
    assert np.isfinite(heard).all()
    clean = np.nan_to_num(x, nan=0, posinf=0, neginf=0).clip(-1e6, 1e6)
    assert np.abs(heard.sum(0) - clean).max() <= 1e-6 * max(1, np.abs(clean).max())


def test_offline_the_level_changes_nothing():
    sources = signals.voices(6_000)
    for phase in (ConsistentWiener(lookahead=None), ConsistentAnisotropicWiener()):
        loud, quiet = (separate(g * sources.sum(0), SR, Oracle(g * sources), phase, output=FREE) for g in (1, 1 / 1024))
        assert np.abs(1024 * quiet - loud).max() < 1e-5


def test_one_source_is_the_mixture_and_many_are_no_trouble():
    for n_src in (1, 7):
        sources = signals.voices(3_000, n_src=n_src)
        x = sources.sum(0)
        for lookahead in (0, None):
            phase = ConsistentAnisotropicWiener(lookahead=lookahead, kappa=tuple(range(n_src)))
            heard = separate(x, SR, Oracle(sources), phase, output=FREE)
            assert np.abs(heard.sum(0) - x).max() < 1e-5
            assert n_src > 1 or np.abs(heard[0] - x).max() < 1e-6


@pytest.mark.parametrize("rayleigh", [False, True])
@pytest.mark.parametrize("kappa", [0.0, 0.7, 5.0, 300.0])
def test_the_shape_has_the_moments_of_the_distribution(kappa, rayleigh):
    rng = np.random.default_rng(0)
    n = 400_000
    magnitude = np.sqrt(rng.exponential(size=n)) if rayleigh else 1.0
    s = magnitude * np.exp(1j * rng.vonmises(0, kappa, n))
    shape = von_mises_shape(kappa, rayleigh)
    expected = s.real.mean(), 2 * s.real.var(), 2 * s.imag.var()
    assert np.allclose(shape, expected, rtol=0.01, atol=0.005)


@pytest.mark.parametrize("kappa", [0.5, 1.0, 2.0, 5.0, 40.0])
def test_the_concentration_of_von_mises_angles_is_recovered(kappa):
    angles = np.random.default_rng(1).vonmises(0, kappa, 100_000)
    assert abs(fit_concentration(angles) - kappa) < 0.03 * kappa


def test_angles_beyond_the_model_have_the_concentration_at_its_ends():
    assert fit_concentration(np.zeros(0)) == 0
    assert fit_concentration(np.full(10, np.pi)) == 0
    assert fit_concentration(np.zeros(10)) == 1000


def test_the_concentration_of_sources_equals_its_twin_and_tells_tones_from_noise():
    config = StreamConfig(SR)
    sizes = config.analysis, config.hop, config.n_fft
    voices = signals.voices(12_000, n_src=3)
    found = von_mises_concentration(voices, config)
    assert np.allclose(found, [naive_wiener.concentration(s, *sizes) for s in voices], rtol=1e-3)
    t = np.arange(16_000) / SR
    noise = np.random.default_rng(0).normal(size=t.size)
    tone, rough, silence = von_mises_concentration(np.stack([np.sin(6000 * t), noise, 0 * t]), config)
    assert tone > 100
    # Not 0: windows that overlap have related phases, whatever the signal.
    assert rough < 5
    assert silence == 0
    assert AnisotropicWiener(found).kappa == found


@pytest.mark.parametrize("sources", [np.zeros(100), np.full((2, 600), np.nan)])
def test_sources_without_a_concentration_are_refused(sources):
    with pytest.raises(ValueError, match="are not finite samples of shape"):
        von_mises_concentration(sources, StreamConfig(SR))


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        (AnisotropicWiener, {"kappa": -1}, "kappa=-1 is not between 0 and 1000"),
        (AnisotropicWiener, {"kappa": (1.0, "x")}, "kappa='x' is not a number"),
        (BayesianAnisotropic, {"tau": 1e4}, "tau=10000.0 is not between 0 and 1000"),
        (BayesianAnisotropic, {"n_iter": -1}, "n_iter=-1 is not between 0 and 1000"),
        (ConsistentWiener, {"consistency": -1.0}, r"consistency=-1.0 is not between 0 and 1e\+06"),
        (ConsistentAnisotropicWiener, {"kappa": float("nan")}, "kappa=nan is not between 0 and 1000"),
    ],
)
def test_settings_that_cannot_work_are_refused(algorithm, settings, message):
    with pytest.raises(ConfigError, match=message):
        algorithm(**settings)


def test_a_concentration_for_each_source_needs_as_many_sources():
    for algorithm in (AnisotropicWiener, BayesianAnisotropic, ConsistentAnisotropicWiener):
        with pytest.raises(ConfigError, match=r"kappa=\(1.0, 2.0\) is for 2 sources, the estimator has 3"):
            algorithm(kappa=[1, 2]).prepare(StreamConfig(SR), 3)
