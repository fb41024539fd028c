"""denoise and hpss: against their twins, and what they are for."""

from __future__ import annotations

from pathlib import Path

import naive
import naive_estimators
import numpy as np
import pytest
import signals
import soundfile

from rtsep import ConfigError, Output, StreamConfig, separate
from rtsep.estimators import HPSS, Denoise
from rtsep.estimators.denoise import log_spectral_gain
from rtsep.estimators.hpss import odd

CONFIGS = [StreamConfig(16_000), StreamConfig(16_000, 256, 128), StreamConfig(44_100), StreamConfig(48_000, 384, 96)]


def powers(x: np.ndarray, config: StreamConfig) -> np.ndarray:
    sizes = config.analysis, config.hop, config.n_fft
    return np.abs(naive.stft(x, *sizes, x.size // config.hop)) ** 2


def run(settings, config: StreamConfig, power: np.ndarray) -> tuple[np.ndarray, object]:
    """Magnitudes of all frames, (n_frames, 2, n_bins), and the state after them."""
    state, magnitudes = settings.prepare(config), np.zeros((2, config.n_bins), np.float32)
    mixture = np.zeros((1, 2, config.n_bins), np.float32)
    out = []
    for y in power.astype(np.float32):
        type(settings).step(state, mixture, y, magnitudes)
        out.append(magnitudes.copy())
    return np.array(out), state


def white(seconds: float, sr: int, level: float = 0.05, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).normal(size=int(seconds * sr))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.sr}-{c.analysis}-{c.hop}")
def test_denoise_equals_its_twin(config):
    x = signals.voices(config.sr, config.sr)[0] + white(1, config.sr, 0.01)
    x[config.sr // 2 : config.sr // 2 + 2_000] = 0
    power = powers(x, config)
    expected, noise = naive_estimators.denoise(power, config, 15)
    actual, state = run(Denoise(), config, power)
    assert np.abs(actual - expected).max() < 1e-3 * np.abs(expected).max()
    assert np.abs(state.noise / noise[-1] - 1).max() < 1e-2


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.sr}-{c.analysis}-{c.hop}")
def test_hpss_equals_its_twin(config):
    power = powers(signals.voices(8_000, config.sr)[0] + white(8_000 / config.sr, config.sr), config)
    n_times = odd(0.1 / config.hop_s)
    n_around = odd(500 * config.n_fft / config.sr)
    expected = naive_estimators.hpss(np.sqrt(power), n_times, n_around)
    actual, _ = run(HPSS(), config, power)
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("prior", "posterior", "gain"), [(1, 2, 0.55797), (0.1, 1, 0.23619), (5, 8, 0.83340)])
def test_the_gain_has_its_tabulated_values(prior, posterior, gain):
    assert log_spectral_gain(np.float32(prior), np.float32(posterior)) == pytest.approx(gain, abs=1e-4)


def test_the_gain_is_exact_over_its_whole_range():
    for prior in 10 ** np.linspace(-2.5, 4, 40):
        for posterior in 10 ** np.linspace(-6, 4, 40):
            actual = log_spectral_gain(np.float32(prior), np.float32(posterior))
            assert actual == pytest.approx(naive_estimators.gain(prior, posterior), rel=2e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.sr}-{c.analysis}-{c.hop}")
def test_the_noise_is_found_within_2_db_and_a_step_of_10_db_in_1200_ms_at_any_hop(config):
    x = white(5, config.sr)
    power = powers(x, config)
    true = 0.05**2 * (config.windows.analysis**2).sum()
    before = run(Denoise(), config, power[: power.shape[0] // 2])[1].noise.mean()
    assert abs(10 * np.log10(before / true)) < 2
    x[2 * config.sr :] *= 10**0.5
    power = powers(x, config)[: int(3.2 / config.hop_s)]
    after = run(Denoise(), config, power)[1].noise.mean()
    assert abs(10 * np.log10(after / true) - 10) < 2


def test_noise_is_lowered_by_most_of_the_attenuation():
    config = StreamConfig(16_000)
    for attenuation in (6, 15):
        noise = white(3, 16_000)
        heard = separate(noise, 16_000, Denoise(attenuation), config=config)[0]
        lowered = 10 * np.log10((heard[16_000:] ** 2).mean() / (noise[16_000:] ** 2).mean())
        assert -attenuation - 0.5 < lowered < -0.7 * attenuation


def test_a_stream_that_begins_in_the_middle_of_a_word_does_not_lose_it():
    voice = signals.voices(16_000)[0][1_000:4_200].astype(float)
    assert (voice[:800] ** 2).mean() > 0.1 * (voice**2).mean()
    heard = separate(voice, 16_000, "denoise", "mixture")[0]
    assert (voice**2).sum() > 10 * ((heard - voice) ** 2).sum()


@pytest.mark.parametrize("hop", [64, 128])
def test_noise_that_becomes_30_db_louder_is_lowered_again_within_3_seconds(hop):
    config = StreamConfig(16_000, 256, hop)
    x = white(6, 16_000, 1e-3)
    x[32_000:] *= 10**1.5
    heard = separate(x, 16_000, "denoise", "mixture", config=config)[0]
    lowered = 10 * np.log10((heard[-16_000:] ** 2).mean() / (x[-16_000:] ** 2).mean())
    assert lowered < -9


def test_clean_speech_passes_with_little_damage():
    folder = Path(__file__).parents[2] / "shared" / "data" / "train" / "speech" / "librispeech"
    files = sorted(folder.glob("*"))[:8]
    if not files:
        pytest.skip(f"needs recordings of clean speech in {folder}")
    damage = []
    for file in files:
        speech, sr = soundfile.read(file)
        speech -= speech.mean()  # one recording has an offset, which is steady noise
        heard = separate(speech, sr, "denoise")[0]
        damage.append(10 * np.log10((speech**2).sum() / ((heard - speech) ** 2).sum()))
    assert np.mean(damage) > 20


@pytest.mark.parametrize("estimator", ["denoise", "hpss"])
def test_the_level_of_the_input_changes_nothing_but_the_level(estimator):
    x = signals.voices(32_000).sum(0) + white(2, 16_000, 0.01).astype(np.float32)
    output = Output(ceiling_db=float("inf"))
    reference = separate(x, 16_000, estimator, "mixture", output=output)
    for scale in (0.01, 0.1, 3):
        scaled = separate(np.float32(scale) * x, 16_000, estimator, "mixture", output=output)
        assert np.abs(scaled / scale - reference).max() < 2e-3 * np.abs(reference).max()


def test_silence_does_not_teach_the_noise_tracker_anything():
    config = StreamConfig(16_000)
    power = powers(white(2, 16_000), config)
    _, before = run(Denoise(), config, power)
    with_gap = np.concatenate([power, np.zeros((500, config.n_bins))])
    _, after = run(Denoise(), config, with_gap)
    assert np.array_equal(before.noise, after.noise)


def test_a_tone_is_harmonic_and_a_click_percussive():
    n = np.arange(16_000)
    tone = 0.2 * np.sin(2 * np.pi * 1_000 / 16_000 * n)
    click = np.zeros(16_000)
    click[4_000::4_000] = 0.5
    harmonic, percussive = separate(tone, 16_000, "hpss", "mixture")[:, 4_000:]
    assert (harmonic**2).sum() > 100 * (percussive**2).sum()
    harmonic, percussive = separate(click, 16_000, "hpss", "mixture")
    assert (percussive**2).sum() > 100 * (harmonic**2).sum()
    harmonic, percussive = separate(tone + click, 16_000, "hpss", "mixture")
    for at in click.nonzero()[0]:
        around = slice(at - 20, at + 20)
        assert (percussive[around] ** 2).sum() > 2 * (percussive[at - 1_000 : at - 960] ** 2).sum()


def test_medians_over_whole_spans_agree_with_scipy_once_delayed():
    # With a span of 2 k + 1 frames, the causal median at t is the centred one at t - k.
    config = StreamConfig(16_000)
    power = powers(white(1, 16_000), config)
    magnitude = np.sqrt(power)
    n_times = odd(0.1 / config.hop_s)
    from scipy.ndimage import median_filter

    centred = median_filter(magnitude, (n_times, 1))
    percussive = median_filter(magnitude, (1, odd(500 * 512 / 16_000)), mode="reflect")
    actual, _ = run(HPSS(), config, power)
    k = n_times // 2
    share = centred[k:-k] ** 2 / (centred[k:-k] ** 2 + percussive[2 * k :] ** 2)
    assert np.abs(actual[2 * k :, 0] - share * magnitude[2 * k :]).max() < 1e-5 * magnitude.max()


def test_hours_of_noise_leave_the_state_where_it_was():
    config = StreamConfig(16_000, 256, 128)
    power = powers(white(4, 16_000), config)
    state, magnitudes = Denoise().prepare(config), np.zeros((2, config.n_bins), np.float32)
    mixture = np.zeros((1, 2, config.n_bins), np.float32)
    levels = []
    for _ in range(200):
        for y in power.astype(np.float32):
            Denoise.step(state, mixture, y, magnitudes)
        levels.append(state.noise.mean())
    assert np.isfinite(magnitudes).all()
    assert abs(levels[-1] / levels[2] - 1) < 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoise(-1), "max_attenuation_db=-1 is not between 0 and 60 dB"),
        (lambda: HPSS(time_ms=1), "time_ms=1 is not between 10 and 1000 ms"),
        (lambda: HPSS(width_hz=9e9), "width_hz=9000000000.0 is not between 50 and 5000 Hz"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
