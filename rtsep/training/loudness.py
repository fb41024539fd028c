"""How different speech sounds: loudness in critical bands, compared as PESQ compares it, with gradients."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rtsep.training.expansion import CONFIG

WIN = 512  # samples; frames of 32 ms, half of which overlap
BANDS_PER_BARK = 2
LEVEL_DB = 79.0  # SPL at which speech is listened to
EXPONENT = 0.23  # of loudness over power (Zwicker)
MASKED = 0.25  # share of the smaller loudness by which two may differ unheard
AUDIBLE_DB = -40.0  # frames of the target that are quieter than its mean by more are pauses
ADDED = 0.3  # weight of what was added, against that of every difference
CALM = 10 ** (LEVEL_DB / 10 - 5.3)  # power below which ratios say nothing


def disturbance(estimate: Tensor, target: Tensor) -> Tensor:
    """Disturbance of speech over its loudness, 0 for no audible difference.

    Parameters
    ----------
    estimate, target : Tensor, float32, (..., n_samples)
        At 16 kHz. The level of each does not matter. Silent targets have no disturbance.

    Returns
    -------
    Tensor, float32, (...)

    Notes
    -----
    Differences smaller than a quarter of the smaller loudness are masked. What is louder than the target by more than a
    factor of 2.5 in power counts more, since noise that is added disturbs more than speech that is missing. Delay and
    the equalisation of slow filters, which PESQ looks for first, are none of a mask's.

    References
    ----------
    ITU-T P.862 (2001), sections 10.2.5 to 10.2.9; as a loss: Martin-Donas et al., "A deep learning loss function based
    on the perceptual evaluation of the speech quality", IEEE Signal Process. Lett. 25(11), 2018.
    """
    e, t = _powers(estimate), _powers(target)
    loudness_e, loudness_t = _loudness(e), _loudness(t)
    off = loudness_e - loudness_t
    heard = (off.abs() - MASKED * torch.minimum(loudness_e, loudness_t)).clamp(min=0)
    with torch.no_grad():
        ratio = ((e + CALM) / (t + CALM)) ** 1.2
        added = ratio.clamp(max=12) * (ratio > 3)
        frames = t.sum(-1)
        active = frames > 10 ** (AUDIBLE_DB / 10) * frames.mean(-1, keepdim=True)
        loud = (loudness_t.sum(-1) * active).sum(-1) / active.sum(-1).clamp(min=1)
    all_bands = (heard.square().sum(-1) * heard.shape[-1] + 1e-9).sqrt()
    each = all_bands + ADDED * (added * heard).sum(-1)
    return each.mean(-1) / (loud + 1e-3) * (loud > 0)


def _powers(x: Tensor) -> Tensor:
    """Powers in critical bands (..., n_frames, n_bands), of speech brought to `LEVEL_DB`."""
    window = torch.hann_window(WIN, device=x.device)
    x = torch.nn.functional.pad(x, (WIN // 2, WIN // 2))
    spectra = torch.fft.rfft(x.unfold(-1, WIN, WIN // 2) * window)
    power = (spectra.real.square() + spectra.imag.square()) @ critical_bands().to(x.device)
    total = power.sum(-1).mean(-1)[..., None, None]
    return power * (10 ** (LEVEL_DB / 10) / (total + 1e-6))


def _loudness(power: Tensor) -> Tensor:
    """In sone per band, but for a factor; 0 below the threshold of hearing."""
    quiet = thresholds().to(power.device)
    return (quiet / 0.5) ** EXPONENT * ((0.5 + 0.5 * power / quiet).clamp(min=1) ** EXPONENT - 1)


@cache
def critical_bands() -> Tensor:
    """Shares of bins in bands, float32 (n_bins, n_bands): triangles on the Bark scale that sum to one."""
    hz = torch.arange(WIN // 2 + 1) * CONFIG.sr / WIN
    position = BANDS_PER_BARK * 6 * torch.asinh(hz / 600)
    centres = torch.arange(int(position[-1]) + 1)
    return (1 - (position[:, None] - centres).abs()).clamp(min=0).float()


@cache
def thresholds() -> Tensor:
    """Power that is just heard in each band, float32 (n_bands,): Terhardt, Hearing Research 1, 1979."""
    centres = torch.arange(critical_bands().shape[1]) / BANDS_PER_BARK
    khz = (0.6 * torch.sinh(centres / 6)).clamp(min=0.02)
    level_db = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    return 10 ** (level_db.clamp(max=80) / 10)
