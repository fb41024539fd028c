"""What listeners notice, as a loss, against its definition; skipped without PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'rtsep[train]')")

from rtsep.training.loudness import critical_bands, disturbance, thresholds  # noqa: E402

SR = 16_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def speech_like(rng, seconds=1.0):
    """Syllables of harmonics and of noise, with pauses, float64."""
    t = np.arange(int(seconds * SR)) / SR
    voiced = sum(np.sin(2 * np.pi * 150 * k * t + k) / k for k in range(1, 30))
    rhythm = np.clip(np.sin(2 * np.pi * 3 * t), 0, None)
    return 0.05 * rhythm * voiced + 0.02 * np.clip(-np.sin(2 * np.pi * 3 * t) - 0.7, 0, None) * rng.normal(size=t.size)


def of(x):
    return torch.from_numpy(np.asarray(x, np.float32))


def naive_disturbance(estimate, target):
    def powers(x):
        x = np.pad(x, 256)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
        power = np.array([np.abs(np.fft.rfft(x[i : i + 512] * window)) ** 2 for i in range(0, x.size - 511, 256)])
        centres = np.arange(int(12 * np.arcsinh(8000 / 600)) + 1)
        bands = np.zeros((len(power), centres.size))
        for k in range(257):
            place = 12 * np.arcsinh(k * 31.25 / 600)
            for b in centres:
                bands[:, b] += max(0, 1 - abs(place - b)) * power[:, k]
        return bands * 10**7.9 / bands.sum(1).mean()

    khz = np.maximum(0.6 * np.sinh(np.arange(critical_bands().shape[1]) / 12), 0.02)
    level = np.minimum(3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4, 80)
    quiet = 10 ** (level / 10)

    def loudness(power):
        return (quiet / 0.5) ** 0.23 * (np.maximum(0.5 + 0.5 * power / quiet, 1) ** 0.23 - 1)

    e, t = powers(estimate), powers(target)
    a, b = loudness(e), loudness(t)
    total = 0.0
    for frame in range(len(e)):
        heard = np.maximum(np.abs(a[frame] - b[frame]) - 0.25 * np.minimum(a[frame], b[frame]), 0)
        ratio = ((e[frame] + 10**2.6) / (t[frame] + 10**2.6)) ** 1.2
        added = np.where(ratio > 3, np.minimum(ratio, 12), 0)
        total += np.sqrt(np.sum(heard**2) * heard.size + 1e-9) + 0.3 * np.sum(added * heard)
    active = t.sum(1) > 1e-4 * t.sum(1).mean()
    return total / len(e) / (b.sum(1)[active].mean() + 1e-3)


def test_it_is_what_its_definition_says(rng):
    target = speech_like(rng)
    for estimate in (
        target + 0.01 * rng.normal(size=target.size),
        0.5 * target * (np.arange(target.size) % 4000 > 900),
    ):
        found = disturbance(of(estimate), of(target)).item()
        assert found == pytest.approx(naive_disturbance(estimate, target), rel=2e-3)


def test_bands_share_all_bins_and_hearing_is_best_at_some_kilohertz():
    place = 12 * np.arcsinh(np.arange(257) * 31.25 / 600)
    np.testing.assert_allclose(critical_bands().sum(1)[place <= int(place[-1])], 1, atol=1e-5)
    best = 0.6 * np.sinh(thresholds().argmin().item() / 12)
    assert 2.5 < best < 4.5


def test_equal_sounds_do_not_differ_and_levels_do_not_matter(rng):
    target = speech_like(rng)
    noisy = of(target + 0.01 * rng.normal(size=target.size))
    assert disturbance(of(target), of(target)).item() < 1e-6
    assert disturbance(of(0.1 * target), of(target)).item() < 1e-3
    torch.testing.assert_close(
        disturbance(0.01 * noisy, of(target)), disturbance(noisy, of(10 * target)), rtol=1e-3, atol=0
    )


def test_more_noise_disturbs_more_and_what_is_masked_does_not(rng):
    target, noise = speech_like(rng), rng.normal(size=SR)
    rising = [disturbance(of(target + g * noise), of(target)).item() for g in (1e-5, 1e-3, 1e-2, 1e-1)]
    assert rising == sorted(rising)
    assert rising[0] < 0.02 < rising[1]


def test_silence_is_finite_and_has_a_gradient(rng):
    target, silence = of(speech_like(rng)), torch.zeros(SR)
    for estimate, wanted in ((target, silence), (silence, target), (silence, silence)):
        estimate = estimate.clone().requires_grad_()
        found = disturbance(estimate, wanted)
        found.backward()
        assert torch.isfinite(found)
        assert torch.isfinite(estimate.grad).all()
        assert wanted.any() or not found
