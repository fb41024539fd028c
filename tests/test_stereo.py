"""Stereo is linked: one mask for both ears, so that the place of a source stays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import correlate, resample_poly
from signals import voices

from rtsep import separate

SR = 16_000
EARLY_US, LOUD_DB = 312.5, 6.0  # by which the left ear is ahead


def place(x):
    """x, (n_samples,), at two ears: five samples and 6 dB apart."""
    right = np.concatenate([np.zeros(5), x[:-5]]) * 10 ** (-LOUD_DB / 20)
    return np.stack([x, right]).astype(np.float32)


def differences(x):
    """Level in dB and time in microseconds by which channel 0 is louder and ahead of channel 1, (2, n_samples)."""
    level = 10 * np.log10(np.sum(x[0] ** 2) / np.sum(x[1] ** 2))
    fine = resample_poly(x, 16, 1, axis=1)
    lags = np.arange(-16 * 12, 16 * 12 + 1)
    match = correlate(fine[1], fine[0])[fine.shape[1] - 1 + lags]
    return level, 1e6 * lags[np.argmax(match)] / (16 * SR)


@pytest.mark.parametrize("phase", ["omisi", "mixture"])
def test_denoising_leaves_the_place_of_the_voice(phase):
    voice = voices(4 * SR, SR, n_src=1)[0]
    noise = np.random.default_rng(0).standard_normal((2, 4 * SR)) * np.std(voice) / 10 ** (15 / 20)
    x = (place(voice) + noise).astype(np.float32)
    speech = separate(x, SR, "denoise", phase)[0]
    level, early = differences(speech)
    # The voice itself; what is left of the noise has no place and pulls a little towards the middle.
    assert level == pytest.approx(LOUD_DB, abs=0.5)
    assert early == pytest.approx(EARLY_US, abs=20)
