"""Scores against closed forms and against well-kept packages, and what they do where there is no answer."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile as sf
from scipy.signal import lfilter

from rtsep import ConfigError, evaluation
from rtsep.evaluation import ScoreError, bss_eval, scores

SR = 16_000
RECORDING = Path(__file__).resolve().parents[1] / "rtsep" / "data" / "noisy_speech.flac"
LIMIT = 100.0


def noise(n: int = 8_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n)


def orthogonal(n_signals: int, n: int = 8_000) -> np.ndarray:
    """Rows of unit energy without mean, orthogonal to each other."""
    rows = np.random.default_rng(1).normal(size=(n, n_signals))
    return np.linalg.qr(np.column_stack([np.ones(n), rows]))[0].T[1:]


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two voices, and estimates with interference, filtering and noise."""
    s = signals.voices(2 * SR).astype(float)
    e = np.stack([lfilter([1, 0.3, -0.2], 1, s[j]) + 0.2 * s[1 - j] + 0.05 * noise(2 * SR, j) for j in (0, 1)])
    return s, e


# --- closed forms


@pytest.mark.parametrize("gain", [1.0, -0.01, 1000.0])
@pytest.mark.parametrize("db", [-20.0, 0.0, 13.0, 60.0])
def test_si_sdr_is_the_level_of_orthogonal_noise_whatever_the_gain_and_the_mean(gain, db):
    s, n = orthogonal(2)
    assert evaluation.si_sdr(s + 3, gain * (s + 10 ** (-db / 20) * n) - 7) == pytest.approx(db, abs=1e-6)


def test_sdr_counts_the_level_and_silence_has_0_db():
    s, n = orthogonal(2)
    assert evaluation.sdr(s, s + 0.1 * n) == pytest.approx(20)
    assert evaluation.sdr(s, 0.9 * s) == pytest.approx(20)
    assert evaluation.sdr(s, 0 * s) == 0


def test_the_parts_of_si_sdr_are_those_that_were_mixed():
    s, other, n = orthogonal(3)
    sdr, sir, sar = evaluation.si_sdr_parts([s, 5 * other], 2 * (s + 0.1 * other + 0.01 * n), 0)
    assert sir == pytest.approx(20)
    assert sar == pytest.approx(40)
    assert 10 ** (-sdr / 10) == pytest.approx(10 ** (-sir / 10) + 10 ** (-sar / 10))


def test_the_parts_of_si_sdr_add_up_for_sources_that_are_not_orthogonal():
    s, e = scene()
    for j in (0, 1):
        sdr, sir, sar = evaluation.si_sdr_parts(s, e[j], j)
        assert sdr == pytest.approx(evaluation.si_sdr(s[j], e[j]))
        assert 10 ** (-sdr / 10) == pytest.approx(10 ** (-sir / 10) + 10 ** (-sar / 10))


def test_perfect_and_hopeless_are_finite():
    s, n = orthogonal(2)
    assert evaluation.si_sdr(s, s) == evaluation.sdr(s, s) == LIMIT
    assert evaluation.si_sdr(s, n) == -LIMIT
    assert evaluation.si_sdr_parts([s], s + n, 0).sir == LIMIT


def test_improvement_is_a_difference_for_the_same_reference():
    s, n = orthogonal(2)
    gained = evaluation.improvement(evaluation.si_sdr, s, s + 0.1 * n, s + n)
    assert gained == pytest.approx(20)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 4), (4, 2), (5, 5)])
def test_the_match_is_the_best_of_all_permutations(shape):
    table = np.random.default_rng(sum(shape)).normal(size=shape)
    found = evaluation.match(table)
    total = sum(table[j, k] for j, k in enumerate(found) if k >= 0)
    wide = table if shape[0] <= shape[1] else table.T
    best = max(
        sum(wide[j, k] for j, k in enumerate(p)) for p in itertools.permutations(range(wide.shape[1]), len(wide))
    )
    assert total == pytest.approx(best)
    taken = [k for k in found if k >= 0]
    assert len(taken) == len(set(taken)) == min(shape)


@pytest.mark.parametrize("weights", ["importance", "level"])
@pytest.mark.parametrize("sr", [8_000, 16_000, 48_000])
def test_weighted_sdr_of_noise_shaped_like_the_speech_is_its_level(sr, weights):
    s = noise(sr)
    s -= s.mean()
    # The same spectrum in every frame on average: the same noise backwards would have it at other times.
    e = s + 0.1 * np.roll(s, sr // 2)
    assert evaluation.weighted_sdr(s, e, sr, weights) == pytest.approx(20, abs=0.5)


def test_weighted_sdr_follows_the_importance_of_the_band_of_the_error():
    t = np.arange(SR) / SR
    tones = {hz: np.sin(2 * np.pi * hz * t) for hz in (250.0, 1000.0, 2000.0)}
    for hz, importance in ((250.0, 0.0150), (2000.0, 0.0898)):
        value = evaluation.weighted_sdr(tones[1000.0], tones[1000.0] + 0.1 * tones[hz], SR)
        assert value == pytest.approx(20 + 10 * np.log10(0.0844 / importance), abs=0.2)


def test_adaptive_weights_count_an_error_less_where_the_reference_is_quiet():
    t = np.arange(SR) / SR
    loud, quiet, error = (np.sin(2 * np.pi * hz * t) for hz in (1000, 4000, 4005))
    with_error_under_quiet = evaluation.weighted_sdr(
        loud + 1e-2 * quiet, loud + 1e-2 * quiet + 0.1 * error, SR, "level"
    )
    # The error's band has magnitude 0.01 of the loud one: weight 0.01^0.2, energy 0.01.
    assert with_error_under_quiet == pytest.approx(20 + 10 * np.log10(1 / 0.01**0.2), abs=0.2)


# --- labelled sources


def labelled(labels: str, snr_db: float = 10.0, extra: int = 0) -> tuple[list, list]:
    rows = orthogonal(2 * (len(labels) + extra))
    references = [(label, rows[j]) for j, label in enumerate(labels)]
    estimates = [(label, rows[j] + 10 ** (-snr_db / 20) * rows[-1 - j]) for j, label in enumerate(labels)]
    return references, estimates


def test_casa_and_ca_sdr_of_right_labels_are_the_sdr():
    references, estimates = labelled("abc")
    assert evaluation.ca_sdr(references, estimates) == pytest.approx(10)
    assert evaluation.casa_sdr(references, estimates[::-1]) == pytest.approx(10)
    assert evaluation.casa_sdr(references, estimates, aggregation="error") == pytest.approx(10)


def test_a_missing_source_costs_its_share():
    references, estimates = labelled("abc")
    for aggregation in ("source", "error"):
        assert evaluation.casa_sdr(references, estimates[:2], aggregation=aggregation) == pytest.approx(20 / 3)
    assert evaluation.ca_sdr(references, estimates[:2]) == pytest.approx(20 / 3)


def test_an_additional_source_costs_its_share():
    references, estimates = labelled("abc", extra=1)
    estimates.append(("d", noise() / 10))
    assert evaluation.casa_sdr(references, estimates) == pytest.approx(7.5)
    assert evaluation.ca_sdr(references, estimates) == pytest.approx(7.5)
    assert evaluation.ca_sdr(references, estimates, penalty_db=-2) == pytest.approx(7.0)


def test_a_wrong_label_is_one_error_by_source_and_two_by_error():
    references, estimates = labelled("abc")
    wrong = [*estimates[:2], ("x", estimates[2][1])]
    assert evaluation.casa_sdr(references, wrong) == pytest.approx(20 / 3)
    assert evaluation.casa_sdr(references, wrong, aggregation="error") == pytest.approx(5)
    assert evaluation.ca_sdr(references, wrong) == pytest.approx(5)


def test_swapped_labels_cost_casa_their_sources_and_ca_sdr_compares_the_wrong_signals():
    references, estimates = labelled("abc")
    swapped = [("b", estimates[0][1]), ("a", estimates[1][1]), estimates[2]]
    assert evaluation.casa_sdr(references, swapped) == pytest.approx(10 / 3)
    assert evaluation.casa_sdr(references, swapped, aggregation="error") == pytest.approx(2)
    crossed = evaluation.sdr(references[0][1], estimates[1][1])
    assert crossed < -3
    assert evaluation.ca_sdr(references, swapped) == pytest.approx((10 + 2 * crossed) / 3)


def test_class_aware_improvement_subtracts_the_mixture():
    references, estimates = labelled("ab")
    mixture = references[0][1] + references[1][1]
    assert evaluation.ca_sdr(references, estimates, mixture) == pytest.approx(10)  # 0 dB before
    assert evaluation.casa_sdr(references, estimates, mixture) == pytest.approx(10)


def test_a_label_may_be_there_twice_for_casa_alone():
    references, estimates = labelled("aa")
    assert evaluation.casa_sdr(references, estimates[::-1]) == pytest.approx(10)
    with pytest.raises(ScoreError, match="reference 'a' is there twice"):
        evaluation.ca_sdr(references, estimates)


def test_only_false_alarms_are_all_penalty_and_nothing_at_all_is_no_score():
    assert evaluation.casa_sdr([], [("a", noise())], penalty_db=-3) == -3
    for score in (evaluation.ca_sdr, evaluation.casa_sdr):
        with pytest.raises(ScoreError, match="no references and no estimates"):
            score([], [])


# --- activations


def test_psa_is_the_share_in_the_right_place():
    active = np.array([[1, 1, 0, 0], [0, 0, 1, 0]])
    activations = np.array([[3.0, 0, 1, 0], [0, 0, 4, 2]])
    assert evaluation.psa(activations, active) == pytest.approx(0.7)
    assert evaluation.psa(np.ones((2, 4)), active) == pytest.approx(active.mean())
    assert evaluation.sparsity(activations, 0) == 0.5
    assert evaluation.sparsity(activations, 2) == 0.75
    for bad, message in ((np.zeros((2, 4)), "all activations are zero"), (-activations, "not all finite and >= 0")):
        with pytest.raises(ScoreError, match=message):
            evaluation.psa(bad, active)
    with pytest.raises(ScoreError, match="other than 0 and 1"):
        evaluation.psa(activations, 0.5 * active)


# --- delays


@pytest.mark.parametrize("late", [-700, -1, 0, 5, 256])
def test_delay_is_found_to_the_sample_with_its_sign(late):
    x = noise(10_000)
    assert evaluation.delay(x[1000:9000], x[1000 - late : 9000 - late] + 0.5 * noise(8_000, 1), 800) == late


@pytest.mark.parametrize("n", [7_999, 8_000])
def test_delay_is_found_in_fractions_of_a_sample(n):
    t = np.arange(n)
    chirp = np.sin(1e-4 * t**2) * np.hanning(n)
    late = np.sin(1e-4 * (t - 0.25) ** 2) * np.hanning(n)
    assert evaluation.delay(chirp, late, 10, finer=16) == pytest.approx(0.25, abs=1e-9)


def test_delays_of_a_tone_and_signals_shorter_than_the_search():
    tone = np.sin(2 * np.pi * np.arange(8_000) / 16)
    assert evaluation.delay(tone, tone, 100) == 0
    assert evaluation.delay(noise(50), noise(50), 1000) == 0
    with pytest.raises(ScoreError, match="do not correlate"):
        evaluation.delay(np.ones(10), -np.ones(10), 3)


def test_interaural_errors_are_those_that_were_made():
    x = noise(9_000)
    reference = np.stack([x[100:8100], 0.5 * x[96:8096]])  # right is 4 samples late, 6 dB down
    estimate = np.stack([x[100:8100], 0.25 * x[92:8092]])
    assert evaluation.interaural_level_error(reference, estimate) == pytest.approx(20 * np.log10(2), abs=0.02)
    assert evaluation.interaural_time_error(reference, estimate, SR) == pytest.approx(1e6 * 4 / SR)
    assert evaluation.interaural_level_error(reference, 3 * reference) == pytest.approx(0)
    with pytest.raises(ScoreError, match="right channel of the estimate is silent"):
        evaluation.interaural_level_error(reference, estimate * [[1], [0]])


# --- no answer


FUNCTIONS = {
    "sdr": evaluation.sdr,
    "si_sdr": evaluation.si_sdr,
    "si_sdr_parts": lambda s, e: evaluation.si_sdr_parts([s, noise(np.size(s))], e, 0),
    "weighted": lambda s, e: evaluation.weighted_sdr(s, e, SR),
    "bss_eval_v3": lambda s, e: evaluation.bss_eval_v3([s, noise(np.size(s))], e, 0),
    "bss_eval_v4": lambda s, e: evaluation.bss_eval_v4([s, noise(np.size(s))], [e, noise(np.size(e))], SR // 4),
    "delay": lambda s, e: evaluation.delay(s, e, 10),
    "pesq": lambda s, e: evaluation.pesq(s, e, SR),
    "stoi": lambda s, e: evaluation.stoi(s, e, SR),
    "haspi": lambda s, e: evaluation.haspi(s, e, SR),
    "hasqi": lambda s, e: evaluation.hasqi(s, e, SR),
}
PACKAGES = {
    "bss_eval_v3": "fast_bss_eval",
    "bss_eval_v4": "museval",
    "pesq": "pesq",
    "stoi": "pystoi",
    "haspi": "clarity",
    "hasqi": "clarity",
}


@pytest.fixture(params=FUNCTIONS)
def score(request):
    if request.param in PACKAGES and importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"needs {PACKAGES[request.param]}")
    return FUNCTIONS[request.param]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, e: (0 * s, e), "reference.* is silent"),
        (lambda s, e: (s, e[:-1]), r"has 8000 samples, estimate.* has 7999"),
        (
            lambda s, e: (np.where(np.arange(s.size) == 9, np.nan, s), e),
            "reference.* has 1 samples that are not finite",
        ),
        (lambda s, e: (s, np.where(np.arange(s.size) == 9, np.inf, e)), "estimate.* has 1 samples that are not finite"),
        (lambda s, e: (s[:0], e[:0]), "has no samples"),
        (lambda s, e: (s.astype(complex), e), "not real numbers"),
    ],
)
def test_a_score_that_is_not_defined_is_refused_with_the_reason(score, change, message):
    with pytest.raises(ScoreError, match=message):
        score(*change(noise(), noise(seed=1)))


def test_estimates_that_are_silent_or_constant_have_no_scale_invariant_score():
    for score in (evaluation.si_sdr, FUNCTIONS["si_sdr_parts"], FUNCTIONS["weighted"], FUNCTIONS["delay"]):
        with pytest.raises(ScoreError, match="estimate is silent"):
            score(noise(), np.zeros(8_000))
    with pytest.raises(ScoreError, match="estimate is constant"):
        evaluation.si_sdr(noise(), np.full(8_000, 0.3))


# --- packages


def test_bss_eval_v3_equals_mir_eval():
    pytest.importorskip("fast_bss_eval")
    mir_eval = pytest.importorskip("mir_eval.separation")
    s, e = scene()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = np.array(mir_eval.bss_eval_sources(s, e, compute_permutation=False)[:3])
    found = np.array([evaluation.bss_eval_v3(s, e[j], j) for j in (0, 1)]).T
    assert found == pytest.approx(expected, abs=1e-3)
    assert evaluation.bss_eval_v3(s[:1], e[0], 0).sir == LIMIT


def test_bss_eval_v3_forgives_a_filter_that_si_sdr_does_not():
    pytest.importorskip("fast_bss_eval")
    s = np.stack([noise(), noise(seed=1)])
    filtered = lfilter([1, 0.5], 1, s[0])
    assert evaluation.si_sdr(s[0], filtered) == pytest.approx(20 * np.log10(2), abs=0.2)
    assert evaluation.bss_eval_v3(s, filtered, 0).sdr > 40


def museval_metrics():
    if importlib.util.find_spec("museval") is None:
        pytest.skip("needs museval")
    return bss_eval._museval_metrics()


def test_museval_in_the_manner_of_v3_equals_mir_eval_and_its_v4_equals_the_closed_form():
    museval = museval_metrics()
    mir_eval = pytest.importorskip("mir_eval.separation")
    s, e = scene()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = np.array(mir_eval.bss_eval_sources(s, e, compute_permutation=False)[:3])
        sdr, _, sir, sar, _ = museval.bss_eval(
            s[..., None], e[..., None], compute_permutation=False, window=np.inf, bsseval_sources_version=True
        )
    assert np.array([sdr[:, 0], sir[:, 0], sar[:, 0]]) == pytest.approx(expected, abs=1e-3)
    found = evaluation.bss_eval_v4(s, e, SR)
    for j in (0, 1):
        seconds = [evaluation.sdr(s[j, t : t + SR], e[j, t : t + SR]) for t in (0, SR)]
        assert found[j].sdr == pytest.approx(np.median(seconds), abs=1e-6)


def test_seconds_of_silence_do_not_count_for_bss_eval_v4_and_nothing_else_is_no_score():
    museval_metrics()
    s, e = scene()
    s[0, SR:] = 0
    assert evaluation.bss_eval_v4(s, e, SR)[1].sdr == pytest.approx(evaluation.sdr(s[1, :SR], e[1, :SR]), abs=1e-6)
    s[1, :SR] = 0
    with pytest.raises(ScoreError, match="in every second"):
        evaluation.bss_eval_v4(s, e, SR)


def speech() -> tuple[np.ndarray, np.ndarray]:
    """Four seconds of speech, and of speech with noise."""
    x, sr = sf.read(RECORDING)
    assert sr == SR
    return x[: 4 * SR], x[: 4 * SR] + 0.03 * noise(4 * SR) / 0.1


def test_perceptual_scores_rank_speech_above_noisy_speech_and_equal_their_packages():
    pesq, pystoi = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    clean, noisy = speech()
    assert evaluation.pesq(clean, noisy, SR) == pesq.pesq(SR, clean, noisy, "wb")
    assert evaluation.pesq(clean, clean, SR) > 4.6 > evaluation.pesq(clean, noisy, SR)
    assert evaluation.stoi(clean, noisy, SR) == pytest.approx(pystoi.stoi(clean, noisy, SR))
    assert evaluation.estoi(clean, noisy, SR) == pytest.approx(pystoi.stoi(clean, noisy, SR, extended=True))
    assert 1.0001 > evaluation.stoi(clean, clean, SR) > 0.9999 > evaluation.stoi(clean, noisy, SR)


def test_pesq_takes_other_rates_by_resampling_and_refuses_what_it_cannot_judge():
    pytest.importorskip("pesq")
    clean, noisy = speech()
    doubled = [np.repeat(x, 3) for x in (clean, noisy)]  # 48 kHz; its images are above the band
    assert evaluation.pesq(*doubled, 3 * SR) == pytest.approx(evaluation.pesq(clean, noisy, SR), abs=0.3)
    with pytest.raises(ScoreError, match=r"less than the 0.25 s"):
        evaluation.pesq(clean[:3999], noisy[:3999], SR)


def test_stoi_refuses_less_speech_than_it_needs_in_place_of_a_wrong_number():
    pytest.importorskip("pystoi")
    clean, noisy = speech()
    for n in (100, 1_000, 5_000):
        with pytest.raises(ScoreError, match=r"less than the 0.4 s of speech"):
            evaluation.stoi(clean[SR : SR + n], noisy[SR : SR + n], SR)


def test_dnsmos_hears_noise_without_a_reference():
    for module in ("onnxruntime", "librosa", "requests", "speechmos"):
        pytest.importorskip(module)
    clean, noisy = speech()
    better, worse = evaluation.dnsmos(clean, SR), evaluation.dnsmos(noisy, SR)
    assert all(1 <= value <= 5 for value in (*better, *worse))
    assert better.bak > worse.bak
    assert better.ovrl > worse.ovrl


def test_haspi_and_hasqi_fall_with_noise_and_with_hearing_loss_and_repeat_to_the_bit():
    pytest.importorskip("clarity")
    clean, noisy = (x[SR : 3 * SR] for x in speech())
    for score in (evaluation.haspi, evaluation.hasqi):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        normal = score(clean, noisy, SR)
        assert normal == score(clean, noisy, SR)
        assert 0 <= normal < score(clean, clean, SR) <= 1
        assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert evaluation.haspi(clean, noisy, SR, "N4") < evaluation.haspi(clean, noisy, SR)
    with pytest.raises(ValueError, match="audiogram='N9'"):
        evaluation.haspi(clean, noisy, SR, "N9")


def test_a_missing_package_is_named_with_the_extra():
    code = "import sys; sys.modules['pesq'] = None\nfrom rtsep.evaluation import pesq\npesq([1.0], [1.0], 16000)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 'pip install "rtsep[eval]"' in run.stderr.splitlines()[-1]


def test_scores_are_imported_without_their_packages():
    code = "import sys, rtsep.evaluation.scores\n"
    code += "print({'pesq', 'pystoi', 'museval', 'fast_bss_eval', 'clarity', 'speechmos'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60) == "set()\n"


# --- tables


def test_a_scene_has_every_column_and_a_reason_for_every_nan():
    s, e = (np.stack([x, x], 1) for x in scene())  # two channels
    e[1] = 0
    names = [name for name, score in scores.SCORES.items() if not score.modules]
    found = scores.measure(scores.Scene(SR, ("a", "b"), s, e, s.sum(0)), names)
    assert [row.source for row in found] == ["a", "b"]
    for row in found:
        assert list(row.values) == scores.columns_of(names, True)
        assert set(row.reasons) == {column for column, value in row.values.items() if np.isnan(value)}
    first, second = (row.values for row in found)
    assert first["si_sdr"] == pytest.approx(evaluation.si_sdr(s[0, 0], e[0, 0]))
    assert first["si_sdr_gain"] == pytest.approx(first["si_sdr"] - evaluation.si_sdr(s[0, 0], s[:, 0].sum(0)))
    assert first["ild_error"] == first["itd_error"] == 0
    assert second["sdr"] == 0
    assert found[1].reasons["si_sdr"] == found[1].reasons["si_sdr_gain"] == "estimate is silent"
    assert not np.isnan(second["si_sdr_input"])


def test_one_channel_has_no_interaural_errors():
    s, e = scene()
    (row, _) = scores.measure(scores.Scene(SR, ("a", "b"), s[:, None], e[:, None], None), ["ild"])
    assert row.reasons == {"ild_error": "needs two channels, here 1"}


def test_unknown_scores_are_refused():
    with pytest.raises(ConfigError, match="score='snr' is not one of si-sdr,"):
        scores.check_scores(["snr"])


def test_every_public_score_says_range_errors_and_what_it_must_not_be_compared_with():
    for name in evaluation.__all__:
        function = getattr(evaluation, name)
        if callable(function) and not isinstance(function, type) and name not in ("match", "improvement", "delay"):
            assert "Raises" in function.__doc__, name
            assert "compared" in function.__doc__, name
