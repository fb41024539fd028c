"""The learned estimators: kernels against PyTorch and their twins, model files, and what the hop promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import models
import naive
import naive_network
import numpy as np
import pytest
import signals
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample, resample_poly
from scipy.special import expit

from rtsep import ConfigError, Output, Separator, StreamConfig, separate
from rtsep.choose import choose
from rtsep.cli import make_parser
from rtsep.cli.engine import engine_settings
from rtsep.estimators import Speech, SpeechSmall, Talkers, default_estimator
from rtsep.estimators.bands import band_centres, expansion_bands
from rtsep.estimators.features import extract_all_features, prepare_features
from rtsep.estimators.learned import SHIPPED, estimate_learned, prepare_network, run_network
from rtsep.estimators.model_file import Shape, read_model, write_model
from rtsep.evaluation import si_sdr
from rtsep.kernels.jit import kernel
from rtsep.kernels.network import (
    affine,
    affine_few,
    gru_step,
    leaky_relu,
    panels,
    scaled_sigmoid,
    sigmoid,
    stacked,
    tanh,
)
from rtsep.kernels.rows import affine_rows, affine_rows_few, narrow_panels
from rtsep.kernels.simd import limit, load, store
from rtsep.phase import MISI, OMISI

REFERENCE = Path(__file__).parent / "data" / "learned_reference.npz"  # made by PyTorch: test_training_network.py
CONFIG = StreamConfig(16_000)
SHAPES = [
    Shape(16, 24, 2, 32, 2),
    Shape(40, 48, 1, 96, 3, floor_cue=False, advance_cue=True),
    Shape(64, 128, 3, 128, 1, advance_cue=True),
    Shape(16, 24, 2, 16, 2, advance_cue=True, channels=16),
    Shape(64, 72, 1, 64, 3, advance_cue=True, channels=48),
]


@pytest.fixture(params=SHAPES, ids=str)
def model(request, tmp_path):
    sources = tuple("abc"[: request.param.n_src])
    return read_model(models.random_model(tmp_path / "model.npz", request.param, sources))


def spectra(x: np.ndarray, config: StreamConfig) -> np.ndarray:
    """As the engine has them: float32 (n_frames, 2, n_bins)."""
    frames = naive.stft(x, config.analysis, config.hop, config.n_fft, x.size // config.hop)
    return np.stack([frames.real, frames.imag], 1).astype(np.float32)


def power_of(frames: np.ndarray) -> np.ndarray:
    return (frames**2).sum(1)


def scene(n_samples: int = 16_000, sr: int = 16_000) -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=n_samples)
    return signals.voices(n_samples, sr).sum(0) + 0.003 * noise


@kernel
def run_all(network, features, out):
    n_heads, n_bands = out.shape[1:]
    for t in range(len(features)):
        for i in range(features.shape[1]):
            network.features[i] = features[t, i]
        run_network(network, 0, n_heads // 2, n_bands)
        for j in range(n_heads):
            for b in range(n_bands):
                out[t, j, b] = network.said[j * n_bands + b]


@kernel
def estimate_all(state, frames, power, magnitudes):
    """Magnitudes (n_frames, n_src, n_bins)."""
    for t in range(len(power)):
        estimate_learned(state, frames[t : t + 1], power[t], magnitudes[t])


def features_of(shape: Shape, frames: np.ndarray, config: StreamConfig = CONFIG) -> np.ndarray:
    features = np.zeros((len(frames), shape.n_features), np.float32)
    extract_all_features(prepare_features(shape, config), frames[:, None], power_of(frames), features)
    return features


def heads(model, frames: np.ndarray, weights: str = "float32") -> np.ndarray:
    """What the kernels make of consecutive frames, (n_frames, n_heads, bands_out)."""
    out = np.zeros((len(frames), model.shape.n_heads, model.shape.bands_out), np.float32)
    run_all(prepare_network(model, 1, weights), features_of(model.shape, frames), out)
    return out


def gains(estimator, frames: np.ndarray, config: StreamConfig = CONFIG) -> np.ndarray:
    """Magnitudes over those of the mixture, (n_frames, n_src, n_bins)."""
    magnitudes = np.zeros((len(frames), len(estimator.sources), config.n_bins), np.float32)
    power = power_of(frames)
    estimate_all(estimator.prepare(config), frames, power, magnitudes)
    return magnitudes / np.sqrt(np.maximum(power, 1e-30))[:, None]


def test_the_kernels_say_what_pytorch_says():
    reference = read_model(REFERENCE)
    assert reference.golden_heads.std() > 0.1
    assert np.abs(heads(reference, reference.golden_spectra) - reference.golden_heads).max() < 1e-5


def test_the_kernels_equal_their_twins(model):
    frames = spectra(scene(4_000), CONFIG)
    frames[20:24] = 0
    assert np.abs(heads(model, frames) - naive_network.heads(frames, model, CONFIG)).max() < 1e-5


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
def test_the_features_equal_their_twin_at_any_rate(sr):
    config = StreamConfig(sr)
    frames = spectra(scene(sr // 2, sr), config)
    frames[30:50] *= 3e-3
    frames[60:64] = 0
    for n_bands in (8, 64, 128):
        shape = Shape(n_bands, advance_cue=True)
        expected = naive_network.features(frames, shape, config)
        assert np.abs(features_of(shape, frames, config) - expected).max() < 1e-4


def test_two_equal_channels_are_heard_as_one_and_opposite_ones_do_not_cancel():
    frames, shape = spectra(scene(4_000), CONFIG), Shape(16, advance_cue=True)
    mono = features_of(shape, frames)
    for sign in (1, -1):
        both = np.stack([frames, sign * frames], 1)
        state, stereo = prepare_features(shape, StreamConfig(16_000, n_channels=2)), np.zeros_like(mono)
        extract_all_features(state, both, power_of(frames), stereo)
        assert np.abs(stereo - mono).max() < 1e-5


@pytest.mark.parametrize("sr", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("target", ["mask", "magnitudes"])
def test_the_magnitudes_are_the_blend_of_mask_and_ratio_that_the_network_says(target, sr):
    config = StreamConfig(sr)
    frames = spectra(scene(sr // 4, sr), config)
    path = models.tiny(Talkers)
    expected = naive_network.gains(frames, read_model(path), config, target)
    estimator = Talkers(path, target, weights="float32")
    assert np.abs(gains(estimator, frames, config) - expected).max() < 1e-4


@pytest.mark.parametrize("n_bands", [8, 48, 64, 96, 128])
def test_band_centres_rise_from_0_to_8_khz_and_are_never_closer_than_a_window_resolves(n_bands):
    centres = band_centres(n_bands)
    assert np.abs(centres - naive_network.centres(n_bands)).max() < 1e-3
    assert centres[0] == 0
    assert centres[-1] == pytest.approx(8_000)
    assert np.diff(centres).min() > 62.49


def test_tanh_and_sigmoid_are_exact_to_2e_7_and_know_no_nan():
    @kernel
    def run(x, a, b, c):
        for i in range(0, x.size, 8):
            v = load(x, i)
            store(a, i, tanh(v))
            store(b, i, sigmoid(v))
            store(c, i, limit(v, np.float32(-1), np.float32(2)))

    x = np.linspace(-20, 20, 80_000).astype(np.float32)
    x[:8] = np.nan, np.inf, -np.inf, 0, -0.0, 1e-40, 3e38, -3e38
    a, b, c = np.zeros((3, x.size), np.float32)
    run(x, a, b, c)
    exact = np.where(np.isnan(x), -np.inf, x.astype(float))
    assert np.abs(a - np.tanh(exact)).max() < 2e-7
    assert np.abs(b - expit(exact)).max() < 1e-7
    assert np.array_equal(c, np.clip(exact, -1, 2).astype(np.float32))


def test_int8_is_the_network_of_weights_that_were_rounded(model):
    frames = spectra(scene(4_000), CONFIG)
    rounded = {}
    for name, weight in model.weights.items():
        scale = np.abs(weight).max(-1, keepdims=True) / np.float32(127)
        rounded[name] = np.rint(weight / scale) * scale if weight.ndim == 2 else weight
    expected = heads(replace(model, weights=rounded), frames)
    assert np.abs(heads(model, frames, "int8") - expected).max() < 1e-5
    assert np.abs(heads(model, frames) - expected).max() > 1e-4


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (7, 64), (33, 65), (128, 384)])
def test_layers_equal_their_twins(n_in, n_out):
    rng = np.random.default_rng(n_in)
    weight, bias, x = rng.normal(size=(n_out, n_in)), rng.normal(size=n_out), rng.normal(size=n_in + 3)
    packed = panels(weight, bias)
    layers = [np.zeros_like(packed), packed]
    out = np.full(packed.shape[0] * 64, np.nan, np.float32)
    affine(stacked(layers), 1, x.astype(np.float32), 3, n_in, out)
    exact = weight @ x[3:] + bias
    assert np.abs(out[:n_out] - exact).max() < 1e-5 * max(1, np.abs(exact).max())
    assert (out[n_out:] == 0).all()
    affine_few(stacked(layers), 1, x.astype(np.float32), 3, n_in, y := np.full_like(out, np.nan))
    assert np.array_equal(y, out)
    scale = np.abs(weight).max(1) / 127
    affine(stacked(layers, "int8"), 1, x.astype(np.float32), 3, n_in, y := np.full_like(out, np.nan))
    rounded = scale[:, None] * np.rint((weight / scale[:, None]).astype(np.float32))
    exact = rounded @ x[3:] + bias
    assert np.abs(y[:n_out] - exact).max() < 1e-5 * max(1, np.abs(exact).max())
    assert (y[n_out:] == 0).all()
    y = out.copy()
    leaky_relu(y, n_out, np.float32(0.2))
    assert np.array_equal(y[:n_out], np.where(out > 0, out, np.float32(0.2) * out)[:n_out])
    y = np.linspace(-4, 4, 24).astype(np.float32)
    scaled = y.copy()
    scaled_sigmoid(scaled, 8, 16, np.float32(-1.1), np.float32(4))
    y[8:16] = 4 * naive_network.sigmoid(y[8:16] - 1.1)
    assert np.abs(scaled - y).max() < 1e-6


@pytest.mark.parametrize(("n_in", "n_out", "step"), [(4, 16, 4), (20, 32, 8), (96, 33, 32), (1, 5, 3)])
def test_layers_of_rows_equal_their_twins_whether_rows_overlap_or_not(n_in, n_out, step):
    rng = np.random.default_rng(n_in)
    weight, bias, x = rng.normal(size=(n_out, n_in)), rng.normal(size=n_out), rng.normal(size=2 + 7 * step + n_in)
    packed = narrow_panels(weight, bias)
    width = packed.shape[0] * 16
    scale = np.abs(weight).max(1, keepdims=True) / 127
    rounded = scale * np.rint((weight / scale).astype(np.float32))
    for kept_as, kept in (("float32", weight), ("int8", rounded)):
        out = np.full((8, width + 8), np.nan, np.float32)
        layers = stacked([np.zeros_like(packed), packed], kept_as)
        affine_rows(layers, 1, x.astype(np.float32), 2, step, 8, out, width + 8)
        exact = np.stack([kept @ x[2 + row * step :][:n_in] + bias for row in range(8)])
        assert np.abs(out[:, :n_out] - exact).max() < 1e-5 * max(1, np.abs(exact).max())
        assert (out[:, n_out:width] == 0).all()
        assert np.isnan(out[:, width:]).all()
        same = np.full_like(out, np.nan)
        affine_rows_few(layers, 1, x.astype(np.float32), 2, step, 8, same, width + 8)
        assert np.array_equal(same, out, equal_nan=True)


@pytest.mark.parametrize("model", [shape for shape in SHAPES if not shape.channels], ids=str, indirect=True)
def test_a_gru_equals_its_twin_frame_by_frame(model):
    n = model.shape.hidden
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, n)).astype(np.float32)
    network = prepare_network(model)
    last = model.shape.n_layers - 1
    actual = []
    for frame in x:
        gru_step(network.into, network.within, last, frame, 0, n, network.hidden[0], network.a, network.b)
        actual.append(network.hidden[0, last].copy())
    assert np.abs(np.array(actual) - naive_network.gru(x, model.weights, last)).max() < 2e-6
    assert (network.hidden[0, :last] == 0).all()


@pytest.mark.parametrize("settings_class", [Speech, Talkers])
def test_between_50_and_10_db_below_full_scale_the_level_changes_nothing(settings_class):
    x = scene()
    x *= 10 ** (-10 / 20) / np.sqrt((x**2).mean())
    estimator = settings_class(models.tiny(settings_class), "magnitudes")
    reference = gains(estimator, spectra(x, CONFIG))
    assert reference.std() > 0.05
    for db in (-3, -10, -20, -30, -40):
        scaled = gains(estimator, spectra(10 ** (db / 20) * x, CONFIG))
        assert np.abs(scaled - reference).max() < 1e-3
    heard = separate(x, 16_000, estimator, "mixture", output=Output(ceiling_db=math.inf))
    quiet = separate(0.01 * x, 16_000, estimator, "mixture", output=Output(ceiling_db=math.inf))
    assert np.abs(100 * quiet - heard).max() < 1e-4


def test_48_khz_gives_the_masks_of_16_khz_and_above_8_khz_the_mean_of_the_last_bands():
    sr = 48_000
    rng = np.random.default_rng(2)
    spectrum = np.fft.rfft(scene(sr, sr) + 0.01 * rng.normal(size=sr))
    spectrum[7_800:] = 0
    x = np.fft.irfft(spectrum)
    at_16, at_48 = spectra(resample(x, sr // 3), CONFIG), spectra(x, StreamConfig(sr))
    estimator = Speech(models.tiny(Speech), "magnitudes")
    low, high = gains(estimator, at_16), gains(estimator, at_48, StreamConfig(sr))
    k = 7_500 * 512 // 16_000
    assert np.abs(low[10:, :, :k] - high[10:, :, :k]).max() < 0.02
    beyond = high[:, :, 300:]
    loud = power_of(at_48)[:, None, 300:] > 1e-20
    assert np.abs(np.where(loud, beyond - beyond[:, :, :1], 0)).max() < 1e-3
    masks = naive_network.gains(at_48, read_model(models.tiny(Speech)), StreamConfig(sr), "mask")
    peaks = band_centres(32)[-4:]
    around = [np.argmin(np.abs(np.arange(769) * 31.25 - hz)) for hz in peaks]
    assert np.abs(masks[:, :, -1] - masks[:, :, around].mean(2)).max() < 0.02


def test_every_bin_belongs_to_two_bands_with_shares_that_sum_to_one():
    for sr in (8_000, 16_000, 44_100, 48_000):
        config = StreamConfig(sr)
        lower, share = expansion_bands(96, config)
        centres = band_centres(96)
        centres = np.append(centres, 2 * centres[-1] - centres[-2])
        hz = np.arange(config.n_bins) * sr / config.n_fft
        inside = hz <= centres[-1]
        interpolated = (1 - share) * centres[lower] + share * centres[lower + 1]
        assert np.abs(interpolated - hz)[inside].max() < 0.01
        assert (lower[~inside] == 95).all()
        assert (share[~inside] == 1).all()


def test_half_an_hour_of_hops_leaves_the_network_where_it_was():
    estimator = Speech(models.random_model(Path(models.FOLDER.name) / "calm.npz", SHAPES[0], Speech.sources, scale=1))
    state, chunk = estimator.prepare(CONFIG), spectra(scene(64_000), CONFIG)
    power = power_of(chunk)
    magnitudes = np.zeros((len(chunk), 2, 257), np.float32)
    after = []
    for _ in range(450):  # of 4 s
        estimate_all(state, chunk, power, magnitudes)
        after.append((state.network.hidden.copy(), state.features.floor.copy(), state.features.level[0]))
    assert state.features.n_seen[0] == 450 * len(chunk)
    assert np.isfinite(magnitudes).all()

    def distance(a, b) -> float:
        return max(np.abs(now - then).max() / max(1, np.abs(then).max()) for then, now in zip(a, b, strict=True))

    # The floor is tracked in spans that do not divide 4 s: what comes back at the end is a state of the first minutes.
    for now in after[-3:]:
        assert min(distance(then, now) for then in after[10:60]) < 1e-4


def with_power(power: np.ndarray) -> np.ndarray:
    """Real spectra (n_frames, 2, n_bins)."""
    return np.stack([np.sqrt(power), np.zeros_like(power)], 1)


levels = st.sampled_from([0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-9, 1.0, 1e6, 1e16, 1e30, 3e38])


@given(st.lists(levels, min_size=1, max_size=12), st.integers(0, 2**32 - 1), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_power_gives_finite_magnitudes_up_to_four_times_the_mixture(of_frames, seed, sparse):
    rng = np.random.default_rng(seed)
    power = np.array([level * rng.uniform(0, 1, 257) for level in of_frames], np.float32)
    if sparse:
        power *= rng.uniform(size=power.shape) < 0.1
    frames = with_power(power)
    state = Talkers(models.tiny(Talkers), "magnitudes").prepare(CONFIG)
    magnitudes = np.full((len(power), 3, 257), np.nan, np.float32)
    estimate_all(state, frames, power, magnitudes)
    assert np.isfinite(magnitudes).all()
    assert (magnitudes >= 0).all()
    assert (magnitudes <= 4.0001 * np.sqrt(power)[:, None]).all()
    for array in (state.network.hidden, state.features.level, state.features.floor):
        assert np.isfinite(array).all()


def test_powers_that_are_not_finite_do_not_stay():
    state = Speech(models.tiny(Speech)).prepare(CONFIG)
    power = np.ones((400, 257), np.float32)
    power[3], power[4], power[5, 7] = np.inf, np.nan, np.nan
    frames = with_power(power)
    magnitudes = np.zeros((400, 2, 257), np.float32)
    estimate_all(state, frames, power, magnitudes)
    assert np.isfinite(magnitudes[6:]).all()
    assert np.isfinite(state.features.floor).all()


def test_a_jump_by_60_db_after_near_silence_is_followed_within_1500_ms():
    quiet, x = 1e-6 * np.random.default_rng(0).normal(size=16_000), scene(32_000)
    heard = []
    for signal in (x, np.concatenate([quiet, x])):
        frames = spectra(signal, CONFIG)
        heard.append(features_of(Shape(), frames)[-100:])
    assert np.abs(heard[0] - heard[1]).max() < 5 / 20  # a unit is 20 dB


def test_what_follows_decides_between_masks_and_magnitudes():
    speech = Speech(models.tiny(Speech))
    x = scene(4_000).astype(np.float32)

    def masks(phase, settings=speech):
        return choose(settings, phase, 0.016, 0.004).estimator.masks

    assert masks(None)
    assert masks("mixture")
    assert masks(OMISI(n_iter=0))
    assert not (masks("omisi"))
    assert not (masks(OMISI(n_iter=1)))
    assert not (masks(MISI(n_iter=1, lookahead=1)))
    assert not masks("mixture", replace(speech, target="magnitudes"))
    assert masks("omisi", replace(speech, target="mask"))
    assert choose(Talkers(models.tiny(Talkers)), None, 0.016, 0.004).phase.name == "mixture"
    masked = separate(x, 16_000, speech, "mixture")
    asked_for = separate(x, 16_000, replace(speech, target="mask"), OMISI(n_iter=0))
    np.testing.assert_allclose(masked, asked_for, atol=1e-6)
    assert not np.array_equal(masked, separate(x, 16_000, replace(speech, target="magnitudes"), "mixture"))


@pytest.mark.parametrize("sr", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_every_rate_is_taken_in_the_default_framing(sr):
    separator = Separator(StreamConfig(sr), Speech(models.tiny(Speech)))
    x = signals.voices(sr // 4, sr).sum(0)
    heard = separator.process(x)
    assert np.isfinite(heard).all()
    assert np.abs(heard.sum(0)[separator.latency :] - x[: -separator.latency]).max() < 1e-5


@pytest.mark.parametrize(
    ("hop_ms", "config", "message"),
    [
        (
            4,
            StreamConfig(16_000, 256, 128),
            "analysis window 16 ms, hop 8 ms: this network needs 16 ms and 0.5, 1, 2, 4 ms ",
        ),
        (8, StreamConfig(16_000, 128, 64), "window 8 ms, hop 4 ms: this network needs 16 ms and 0.5, 1, 2, 4, 8 ms "),
        (8, StreamConfig(48_000, 768, 180), "window 16 ms, hop 3.75 ms: this"),
    ],
)
def test_another_framing_than_a_trained_one_is_refused(hop_ms, config, message, tmp_path):
    path = models.random_model(tmp_path / "m.npz", Shape(16, 24, 2, 32, 2, hop_ms=hop_ms), Speech.sources)
    with pytest.raises(ConfigError, match=message):
        Separator(config, Speech(path))


@pytest.mark.parametrize("sr", [16_000, 48_000])
def test_with_a_hop_of_8_ms_there_is_one_memory_that_hears_what_every_second_frame_says(sr):
    # The even frames of a stream with a hop of 4 ms are those of the one with 8 ms.
    often, seldom = (StreamConfig.from_ms(sr, 16, hop_ms) for hop_ms in (4, 8))
    estimator = Speech(models.tiny(Speech), "magnitudes")
    frames = spectra(scene(sr // 2, sr), often)
    every = gains(estimator, frames, often)
    every_second = gains(estimator, frames[::2], seldom)
    assert every_second.std() > 0.05
    assert np.abs(every[::2] - every_second).max() < 1e-5


def test_speech_is_the_default_for_a_hop_of_8_ms_too():
    assert [default_estimator(0.016, ms / 1e3) for ms in (2, 4, 8, 16)] == ["speech", "speech", "speech", "denoise"]
    assert default_estimator(0.032, 0.008) == "denoise"
    config = StreamConfig(48_000, 768, 384)
    separator, x = Separator(config), signals.voices(24_000, 48_000).sum(0)
    assert separator.sources == ("speech", "residual")
    heard = separator.process(x)
    assert np.abs(heard.sum(0)[separator.latency :] - x[: -separator.latency]).max() < 1e-5


def test_models_that_do_not_fit_are_refused(monkeypatch, tmp_path):
    with pytest.raises(
        ConfigError, match=r"separates speech, residual; estimator='talkers' is for talker1, talker2, res"
    ):
        Separator(CONFIG, Talkers(models.tiny(Speech)))
    with pytest.raises(ConfigError, match="model=3 is neither the path of a model file nor a Model"):
        Speech(3)
    with pytest.raises(ConfigError, match="target='masks' is not one of mask, magnitudes"):
        Speech(target="masks")
    monkeypatch.setattr("rtsep.estimators.learned.SHIPPED", tmp_path)
    with pytest.raises(
        ConfigError, match=r"estimator='speech' has no model: give model=PATH, a file made by `rtsep tr"
    ):
        Separator(CONFIG, "speech")


def validated(path, **validation):
    """The tiny model of `Talkers` with these results of its training."""
    model = read_model(models.tiny(Talkers))
    golden = model.golden_spectra, model.golden_heads
    write_model(path, model.shape, model.sources, {"validation": validation}, model.weights, *golden)
    return path


def test_the_phase_recovery_is_what_the_training_found_best(tmp_path):
    better = validated(tmp_path / "better.npz", mask=6.0, omisi=6.1)
    assert Talkers(better).phase == Talkers(better, "magnitudes").phase == OMISI(1)
    assert Talkers(better, "mask").phase == Talkers().phase == Talkers(models.tiny(Talkers)).phase == "mixture"
    infinite, huge = float("inf"), 10**400
    for number, (mask, omisi) in enumerate(
        [(6.1, 6.0), (6.0, None), (None, 6.0), (6.0, "best"), (6.0, infinite), (6.0, huge), (False, True), (6.0, [7.0])]
    ):
        assert Talkers(validated(tmp_path / f"{number}.npz", mask=mask, omisi=omisi)).phase == "mixture"
    x = signals.voices(8000, 16_000).sum(0)
    assert np.array_equal(separate(x, 16_000, Talkers(better)), separate(x, 16_000, Talkers(better), OMISI(1)))


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        ([], OMISI(1)),
        (["--lookahead", "1"], OMISI(1, lookahead=1)),
        (["--iterations", "3"], OMISI(3)),
        (["--phase", "omisi", "--lookahead", "1"], OMISI(lookahead=1)),
    ],
)
def test_the_command_line_adds_to_the_phase_recovery_that_suits_the_model(tmp_path, given, phase):
    path = validated(tmp_path / "better.npz", mask=6.0, omisi=6.1)
    command = ["separate", "x.wav", "-o", "out", "--estimator", "talkers", "--model", str(path), *given]
    assert engine_settings(make_parser().parse_args(command))[1] == phase


def test_a_model_file_comes_back_as_it_was_written(model, tmp_path):
    path = tmp_path / "again.npz"
    golden = model.golden_spectra, model.golden_heads
    write_model(path, model.shape, model.sources, {"hours": 3.5}, model.weights, *golden)
    again = read_model(path)
    assert (again.shape, again.sources, again.manifest) == (model.shape, model.sources, {"hours": 3.5})
    assert again.weights.keys() == model.weights.keys()
    assert all(np.array_equal(again.weights[name], model.weights[name]) for name in model.weights)
    assert sum(w.size for w in again.weights.values()) == model.shape.n_parameters
    assert again.sha256 != model.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "model.npz"]


def content(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def changed_header(**changes):
    def change(arrays):
        header = json.loads(str(arrays["header"])) | changes
        return arrays | {"header": np.array(json.dumps(header))}

    return change


DAMAGES = {
    "version": (changed_header(version=1), "its version is 1; this rtsep reads 2"),
    "format": (changed_header(format="other"), "its format is 'other', not 'rtsep-gru'"),
    "manifest": (changed_header(manifest={}), "its content does not match its SHA-256"),
    "no header": (lambda a: {k: v for k, v in a.items() if k != "header"}, "it has no header"),
    "header is no text": (lambda a: a | {"header": np.zeros(3)}, "it has no header"),
    "header is a list": (lambda a: a | {"header": np.array("[1, 2]")}, "it has no header"),
    "one weight": (lambda a: a | {"dense_bias": a["dense_bias"] + 1}, "its content does not match"),
    "one array less": (
        lambda a: {k: v for k, v in a.items() if k != "heads_bias"},
        "its content does not match its SHA-256",
    ),
    "pickled": (lambda a: a | {"dense_bias": np.array([{}])}, "it is damaged or no .npz file .not plain arrays."),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_whose_content_was_changed_is_refused(damage, tmp_path):
    change, message = DAMAGES[damage]
    path = tmp_path / "broken.npz"
    np.savez(path, **change(content(REFERENCE)))
    with pytest.raises(ConfigError, match=rf"broken\.npz cannot be used as a model: {message}") as refusal:
        Separator(CONFIG, Speech(path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dense_bias", lambda a: a[:-1], r"dense_bias has shape \(23,\), not \(24,\)"),
        ("dense_bias", lambda a: a.astype(float), "dense_bias is float64, neither float16 nor float32"),
        ("heads_weight", lambda a: a * np.float32(np.nan), "heads_weight is not finite"),
        ("golden_heads", lambda a: a[:-1], r"golden_heads has shape \(49, 5, 32\), not \(50, 5, 32\)"),
        ("golden_heads", lambda a: a[:0], r"golden_heads has shape \(0, 5, 32\), not \(50, 5, 32\)"),
        ("golden_spectra", lambda a: a[..., None], r"golden_spectra has shape \(50, 2, 257, 1\), not \(50, 2, 257\)"),
    ],
)
def test_nothing_is_written_that_would_not_be_read(name, change, message, tmp_path):
    arrays = content(REFERENCE)
    header = json.loads(str(arrays.pop("header")))
    arrays[name] = change(arrays[name])
    golden = arrays.pop("golden_spectra"), arrays.pop("golden_heads")
    path = tmp_path / "model.npz"
    with pytest.raises(ConfigError, match=message):
        write_model(path, Shape(**header["shape"]), tuple(header["sources"]), {}, arrays, *golden)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shape", "sources", "message"),
    [
        ({"hop_ms": 5}, ("a", "b"), r"its header is wrong \(hop_ms=5 is not one of 4, 8\)"),
        ({"hidden": 20}, ("a", "b"), r"its header is wrong \(hidden=20 is not a multiple of 8"),
        ({"bands_in": 129}, ("a", "b"), "bands_in=129 is not between 8 and 128"),
        ({"channels": 24}, ("a", "b"), "channels=24 is not a multiple of 16"),
        ({"channels": 16}, ("a", "b"), "a network with channels hears and speaks in the same bands, with both cues"),
        ({"n_src": 3}, ("a", "b"), "it names 2 sources and has heads for 3"),
        ({"n_layers": 1}, ("a", "b"), "it has other arrays: gru1_hidden_bias"),
        ({"width": 1}, ("a", "b"), "its header is wrong"),
        ({}, (1, 2), "sources are a list of names"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_even_with_a_right_sha256(shape, sources, message, tmp_path):
    from rtsep.models import _digest

    arrays = content(REFERENCE)
    header = json.loads(str(arrays.pop("header")))
    header["shape"] |= shape
    header["sources"] = list(sources)
    header.pop("sha256")
    header["sha256"] = _digest(header, arrays)
    path = tmp_path / "model.npz"
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(ConfigError, match=message):
        read_model(path)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", dense_bias=np.zeros(20 << 20, np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    with pytest.raises(ConfigError, match=r"its arrays have 838\d+ bytes, more than 67108864"):
        read_model(tmp_path / "bomb.npz")


def test_a_file_that_was_cut_or_hit_is_refused_unless_its_content_survived(tmp_path):
    path, good = tmp_path / "hit.npz", REFERENCE.read_bytes()
    weights = read_model(REFERENCE).weights
    rng = np.random.default_rng(0)
    for size in [0, 1, 100, *rng.integers(0, len(good), 30)]:
        path.write_bytes(good[:size])
        with pytest.raises(ConfigError, match=r"hit\.npz cannot be used as a model: it is damaged"):
            read_model(path)
    refused = 0
    for at in rng.integers(0, len(good), 300):
        hit = bytearray(good)
        hit[at] ^= 1 << rng.integers(8)
        path.write_bytes(hit)
        try:
            survived = read_model(path).weights
        except ConfigError:
            refused += 1
        else:
            # A zip archive has bytes that mean nothing, such as the time of writing.
            assert all(np.array_equal(survived[name], weights[name]) for name in weights)
    assert refused > 250


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=50)
def test_no_bytes_at_all_are_taken_for_a_model(data):
    path = Path(models.FOLDER.name) / "bytes.npz"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be used as a model"):
        read_model(path)


def test_a_model_made_by_hand_has_the_weights_of_its_shape():
    model = Speech().load()
    name = next(iter(model.weights))
    for change, said in (
        ({"weights": model.weights | {name: model.weights[name][:1]}}, f"{name} is "),
        ({"weights": {}}, f"{name} is missing"),
        ({"sources": ("a", "b", "c")}, "heads for 2"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace(model, **change)


def test_a_header_that_is_too_deep_is_refused(tmp_path):
    np.savez(tmp_path / "deep.npz", header=np.array("[" * 50_000))
    with pytest.raises(ConfigError, match=r"deep\.npz cannot be used as a model: it has no header"):
        read_model(tmp_path / "deep.npz")


def test_what_is_no_file_or_no_npz_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.npz cannot be used as a model: there is no such file"):
        read_model(tmp_path / "absent.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ConfigError, match=r"array\.npy cannot be used as a model: it is damaged or no \.npz"):
        read_model(tmp_path / "array.npy")
    with pytest.raises(ConfigError, match=r"model\.bin does not end in \.npz"):
        write_model(tmp_path / "model.bin", SHAPES[0], ("a", "b"), {}, {}, np.zeros(0), np.zeros(0))


@pytest.mark.parametrize("kind", [Speech, SpeechSmall])
def test_the_shipped_model_takes_noise_and_leaves_speech_at_any_level_and_rate(kind):
    path = SHIPPED / kind.shipped
    assert path.stat().st_size < 1_500_000
    assert read_model(path).manifest["recipe"]["name"] == kind.name
    x, sr = sf.read(SHIPPED / "noisy_speech.flac", dtype="float32")
    speech = separate(x, sr, kind())[0]

    def db(a, b):
        return 10 * np.log10(np.mean(a**2) / np.mean(b**2))

    noise = slice(sr // 10, sr // 2)  # the speech begins later
    assert db(speech[noise], x[noise]) < -12
    assert -3 < db(speech[sr : 4 * sr], x[sr : 4 * sr]) < 0
    quiet = separate(0.01 * x, sr, kind())[0]
    assert db(100 * quiet - speech, speech) < -60
    higher = resample_poly(separate(resample_poly(x, 3, 1), 48_000, kind())[0], 1, 3)
    assert db(higher - speech, speech) < -15


def test_the_shipped_talkers_part_a_low_from_a_high_voice_at_any_level():
    path = SHIPPED / Talkers.shipped
    assert path.stat().st_size < 1_500_000
    assert read_model(path).manifest["recipe"]["name"] == "talkers"
    voices = signals.voices(64_000)  # the first is the lower one
    mixture = voices.sum(0)
    heard = separate(mixture, 16_000, "talkers")
    for voice, output in zip(voices, heard[:2], strict=True):
        assert si_sdr(voice, output) > si_sdr(voice, mixture) + 4
    np.testing.assert_allclose(heard.sum(0), mixture, atol=1e-6)
    quiet = separate(0.01 * mixture, 16_000, "talkers")
    assert si_sdr(heard[0], quiet[0]) > 60
