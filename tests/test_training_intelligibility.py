"""What is understood, as a loss, against its definition and the usual package; skipped without PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'rtsep[train]')")

from test_training_loudness import of, speech_like  # noqa: E402

from rtsep.training.intelligibility import HOP, N_FFT, SEGMENT, STEP, TINY, WIN, intelligibility  # noqa: E402

SR = 16_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def naive_estoi(estimate, target):
    def frames(x):
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WIN) / WIN)
        return np.array([x[i : i + WIN] * window for i in range(0, x.size - WIN + 1, HOP)])

    def bands(x):
        power = np.abs(np.fft.rfft(x, N_FFT)) ** 2
        hz = np.arange(N_FFT // 2 + 1) * SR / N_FFT
        edges = [150 * 2 ** ((i - 0.5) / 3) for i in range(16)]
        return np.array([power[:, (low <= hz) & (hz < high)].sum(1) for low, high in itertools.pairwise(edges)])

    e, t = frames(estimate), frames(target)
    energy = (t**2).sum(1)
    speech = energy > 1e-4 * energy.max()
    e, t = bands(e[speech]), bands(t[speech])
    e, t = np.sqrt(e + TINY * t.mean()), np.sqrt(t + TINY * t.mean())
    found = []
    for start in range(0, t.shape[1] - SEGMENT + 1, STEP):
        pair = []
        for size in (e, t):
            segment = size[:, start : start + SEGMENT]
            segment = segment - segment.mean(1, keepdims=True)
            segment /= np.linalg.norm(segment, axis=1, keepdims=True)
            segment = segment - segment.mean(0)
            pair.append(segment / np.linalg.norm(segment, axis=0))
        found.append((pair[0] * pair[1]).sum() / SEGMENT)
    return np.mean(found)


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_it_is_what_its_definition_says(rng, noise):
    target = speech_like(rng, 2.0)
    target[:3000] *= 1e-3  # a pause
    estimate = target + noise * rng.normal(size=target.size)
    assert intelligibility(of(estimate), of(target)).item() == pytest.approx(naive_estoi(estimate, target), abs=2e-3)


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_it_says_nearly_what_the_usual_package_says(rng, noise):
    pystoi = pytest.importorskip("pystoi", reason="pystoi is not installed (pip install 'rtsep[eval]')")
    target = speech_like(rng, 4.0)
    estimate = target + noise * rng.normal(size=target.size)
    expected = pystoi.stoi(target, estimate, SR, extended=True)
    assert intelligibility(of(estimate), of(target)).item() == pytest.approx(expected, abs=0.04)


def test_every_signal_of_a_batch_has_its_own(rng):
    target = np.stack([speech_like(rng, 1.0), speech_like(rng, 1.0)[::-1]])
    estimate = target + 0.01 * rng.normal(size=target.shape)
    both = intelligibility(of(estimate)[:, None], of(target)[:, None])
    assert both.shape == (2, 1)
    for one, e, t in zip(both[:, 0], estimate, target, strict=True):
        torch.testing.assert_close(one, intelligibility(of(e), of(t)))


def test_equal_speech_is_understood_levels_do_not_matter_and_noise_does(rng):
    target = speech_like(rng, 2.0)
    noise = rng.normal(size=target.size)
    assert intelligibility(of(target), of(0.1 * target)).item() == pytest.approx(1, abs=1e-3)
    noisy = of(target + 0.01 * noise)
    torch.testing.assert_close(
        intelligibility(0.01 * noisy, of(target)), intelligibility(noisy, of(10 * target)), rtol=0, atol=5e-3
    )
    falling = [intelligibility(of(target + g * noise), of(target)).item() for g in (1e-3, 3e-3, 1e-2, 3e-2)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.3


@pytest.mark.parametrize("estimate", ["silent", "target"])
@pytest.mark.parametrize("target", ["silent", "short", "speech"])
def test_gradients_are_finite_and_too_little_speech_has_none(rng, estimate, target):
    speech = speech_like(rng, 1.0)
    wanted = {"silent": 0 * speech, "short": speech * (np.arange(speech.size) < 4000), "speech": speech}[target]
    x = of(wanted if estimate == "target" else 0 * speech)[None].requires_grad_()
    found = intelligibility(x, of(wanted)[None])
    assert found.item() == pytest.approx(float(target == "speech" and estimate == "target"), abs=1e-3)
    if found.requires_grad:
        found.sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("level", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("band", ["whole", "narrow"])
def test_gradients_stay_small_for_quiet_estimates_and_empty_bands(rng, level, band):
    target = rng.normal(size=SR)
    if band == "narrow":
        spectrum = np.fft.rfft(target)
        hz = np.fft.rfftfreq(SR, 1 / SR)
        target = np.fft.irfft(spectrum * ((hz > 500) & (hz < 2000)))
    target /= target.std()
    x = of(level * (target + 1e-3 * rng.normal(size=SR)))[None].requires_grad_()
    intelligibility(x, of(target)[None]).sum().backward()
    assert 0 < (x.grad * x.detach().std()).norm() < 100


def test_signals_shorter_than_a_frame_have_none():
    assert intelligibility(torch.ones(2, 300), torch.ones(2, 300)).tolist() == [0, 0]
