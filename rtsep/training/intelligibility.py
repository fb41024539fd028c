"""How well speech can be understood: ESTOI, with gradients."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rtsep.training.expansion import CONFIG

WIN, HOP, N_FFT = 410, 205, 512  # samples: frames of 25.6 ms, half of which overlap
N_BANDS, LOWEST_HZ = 15, 150.0  # thirds of an octave
SEGMENT = 30  # frames that are compared at a time, 384 ms
STEP = 4  # frames from one to the next: the published measure has 1, which says the same and takes longer
AUDIBLE_DB = -40.0  # frames of the target that are quieter than the loudest by more are pauses
TINY = 1e-8  # power against that of the target


def intelligibility(estimate: Tensor, target: Tensor) -> Tensor:
    """ESTOI, 1 for no difference, about 0 for nothing in common.

    Parameters
    ----------
    estimate, target : Tensor, float32, (..., n_samples)
        At 16 kHz. The level of each hardly matters, as long as no band of the target is empty.

    Returns
    -------
    Tensor, float32, (...)
        0, without a gradient, for targets with less than 0.4 s of speech.

    References
    ----------
    J. Jensen and C. H. Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise
    maskers", IEEE/ACM Trans. Audio Speech Lang. Process. 24(11), 2016, section II; as a loss: M. Kolbaek et al., "On
    loss functions for supervised monaural time-domain speech enhancement", IEEE/ACM Trans. Audio Speech Lang. Process.
    28, 2020.
    """
    if target.shape[-1] < WIN + (SEGMENT - 1) * HOP:
        return target.new_zeros(target.shape[:-1])
    frames = zip(*(_frames(x.reshape(-1, x.shape[-1])) for x in (estimate, target)), strict=True)
    return torch.stack([_alike(*each) for each in frames]).view(target.shape[:-1])


def _frames(x: Tensor) -> Tensor:
    return x.unfold(-1, WIN, HOP) * torch.hann_window(WIN, device=x.device)


def _alike(e: Tensor, t: Tensor) -> Tensor:
    """Mean correlation of the segments of two signals in frames (n_frames, WIN), without the pauses of the target."""
    energy = t.square().sum(-1)
    speech = energy > 10 ** (AUDIBLE_DB / 10) * energy.amax()
    if speech.sum() < SEGMENT:
        return e.new_zeros(())
    powers = _powers(e[speech]), _powers(t[speech])
    # Nothing in a band is never quite nothing: a root has no slope at zero.
    floor = TINY * powers[1].mean()
    e, t = (_normalised((power + floor).sqrt()) for power in powers)
    return (e * t).sum((-1, -2)).mean() / SEGMENT


def _powers(frames: Tensor) -> Tensor:
    """Powers in bands (n_frames, n_bands)."""
    spectra = torch.fft.rfft(frames, N_FFT)
    return (spectra.real.square() + spectra.imag.square()) @ _octave_bands().to(frames.device)


def _normalised(size: Tensor) -> Tensor:
    """Segments (n_segments, n_bands, SEGMENT) of magnitudes (n_frames, n_bands): first each band, then each frame."""
    segments = size.unfold(-2, SEGMENT, STEP)
    for axis in (-1, -2):
        segments = segments - segments.mean(axis, keepdim=True)
        segments = segments / (segments.square().sum(axis, keepdim=True) + 1e-20).sqrt()
    return segments


@cache
def _octave_bands() -> Tensor:
    """Which bins belong to which band, float32 (n_bins, n_bands), 0 or 1."""
    hz = torch.arange(N_FFT // 2 + 1) * (CONFIG.sr / N_FFT)
    edges = LOWEST_HZ * 2 ** ((torch.arange(N_BANDS + 1) - 0.5) / 3)
    return ((hz[:, None] >= edges[:-1]) & (hz[:, None] < edges[1:])).float()
