"""Slow, obvious NumPy twins of the estimators, in float64, on whole power spectrograms (n_frames, n_bins)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter
from scipy.special import exp1


def gain(prior: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """Log-spectral amplitude gain."""
    w = prior / (1 + prior)
    return w * np.exp(exp1(np.maximum(w * posterior, 1e-6)) / 2)


def denoise(power: np.ndarray, config, attenuation_db: float):
    """Magnitudes (n_frames, 2, n_bins) and noise power (n_frames, n_bins); the constants are those of `Denoise`."""
    hop_s, times = config.hop / config.sr, {"noise": 0.072, "presence": 0.152, "prior": 0.1, "power": 0.05}
    keep = {name: np.exp(-hop_s / s) for name, s in times.items()}
    least, prior_snr = 1e-12 * (config.windows.analysis**2).sum(), 10**1.5
    lead, start, span = -(-config.analysis // config.hop), round(0.5 / hop_s), round(0.4 / hop_s)
    radius = round(100 * config.n_fft / config.sr)
    triangle = np.concatenate([np.arange(1, radius + 1), np.arange(radius + 1, 0, -1)]) / (radius + 1) ** 2
    noise = presence = speech = smoothed = minimum = candidate = np.zeros(power.shape[1])
    magnitudes, noises, n_seen = [], [], 0
    for y in power:
        if y.sum() > least:
            n_seen += 1
            around = np.convolve(np.pad(y, radius, mode="reflect"), triangle, "valid")
            if n_seen <= lead:
                smoothed = minimum = candidate = around
            smoothed = around + keep["power"] * (smoothed - around)
            candidate = np.minimum(candidate, smoothed)
            minimum = np.minimum(minimum, candidate)
            if n_seen % span == 0:
                minimum, candidate = candidate, smoothed
            if n_seen < start:
                noise = n_seen / start * minimum
            else:
                p = 1 / (1 + (1 + prior_snr) * np.exp(-around / noise * prior_snr / (1 + prior_snr)))
                presence = p + keep["presence"] * (presence - p)
                p = np.where(presence > 0.99, np.minimum(p, 0.99), p)
                estimate = (1 - p) * y + p * noise
                noise = np.minimum(estimate + keep["noise"] * (noise - estimate), 2 * minimum)
        noise = np.maximum(noise, least)
        posterior = np.minimum(y / noise, 1e4)
        now = np.maximum(posterior - 1, 0)
        prior = np.maximum(now + keep["prior"] * (np.minimum(speech / noise, 1e4) - now), 10**-2.5)
        g = np.minimum(gain(prior, posterior), 1)
        speech = g**2 * y
        g = np.maximum(g, 10 ** (-attenuation_db / 20))
        magnitudes.append([g * np.sqrt(y), (1 - g) * np.sqrt(y)])
        noises.append(noise)
    return np.array(magnitudes), np.array(noises)


def hpss(magnitude: np.ndarray, n_times: int, n_around: int) -> np.ndarray:
    """Magnitudes (n_frames, 2, n_bins) from those of the mixture (n_frames, n_bins)."""
    before = np.concatenate([np.repeat(magnitude[:1], n_times - 1, 0), magnitude])
    harmonic = np.stack([np.median(before[t : t + n_times], 0) for t in range(len(magnitude))])
    percussive = median_filter(magnitude, (1, n_around), mode="reflect")
    share = (harmonic**2 + 5e-31) / (harmonic**2 + percussive**2 + 1e-30)
    return np.stack([share * magnitude, (1 - share) * magnitude], 1)
