"""Losses of compressed spectra and their gradients in one pass.

As operations of PyTorch they would carry everything in between to the memory and back; devices other than the CPU have
memories that are quick enough for that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rtsep.kernels.jit import kernel

QUIET = np.float32(1e-4)  # magnitude against that of the mixture where compression ends: -80 dB
OVER_SUPPRESSION = np.float32(2)  # weight of squared errors where speech is estimated too small
EVERY = 2  # bins: with a window of half the FFT length the others tell hardly more, and take as long

ZERO, QUARTER, ONE, TWO = np.float32(0), np.float32(0.25), np.float32(1), np.float32(2)


def compress(size: Tensor) -> Tensor:
    """Fourth root of magnitudes, with a finite slope at zero."""
    return (size + float(QUIET)).sqrt_().sqrt_()


def spectral_losses(
    masks: Tensor, gains: Tensor, mixture: Tensor, wanted: Tensor, towards: Tensor, weights: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of magnitudes and complex loss.

    Parameters
    ----------
    masks, gains : Tensor, float32, (batch, n_src, n_frames, n_bins)
        The heads; the residual is last. Every second bin counts.
    mixture : Tensor, float32, (batch, n_frames, n_bins // 2 + 1)
        Magnitudes, 1 for white noise of power one.
    wanted : Tensor, float32, (batch, n_src, n_frames, n_bins // 2 + 1)
        Compressed magnitudes of the sources.
    towards : Tensor, float32, as `wanted`
        Twice that times the cosine of the angle between source and mixture.
    weights : tuple of float
        Of the two losses in the first result.

    Returns
    -------
    total : Tensor, float32, (batch,)
        Weighted sum; the only one with a gradient, which can be asked for once.
    magnitude : Tensor, float32, (batch,)
        Mean squared errors of compressed magnitudes, the sum of those of both heads.
    complex : Tensor, float32, (batch,)
        Mean squared distance of what is heard from the sources, with compressed magnitudes: masks after what is
        missing to one was shared, at the phase of the mixture.
    """
    if masks.device.type != "cpu":
        return plain_spectral_losses(masks, gains, mixture, wanted, towards, weights)
    total, magnitude, distance = _SpectralLosses.apply(masks, gains, mixture, wanted, towards, weights)
    return total, magnitude, distance


def plain_spectral_losses(
    masks: Tensor, gains: Tensor, mixture: Tensor, wanted: Tensor, towards: Tensor, weights: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by operations of PyTorch."""
    masks, gains, x = masks[..., ::EVERY], gains[..., ::EVERY], mixture[:, None]
    lopsided = wanted.new_full((1, masks.shape[1], 1, 1), float(OVER_SUPPRESSION))
    lopsided[:, -1] = 1

    def root(size: Tensor) -> Tensor:
        return (size + float(QUIET)).sqrt().sqrt()

    def error(values: Tensor) -> Tensor:
        off = root(values * x) - wanted
        return (torch.where(off < 0, lopsided, 1.0) * off.square()).mean((1, 2, 3))

    magnitude = error(masks) + error(gains)
    heard = masks + (1 - masks.sum(1, keepdim=True)) / masks.shape[1]
    output = root(heard.clamp(min=0) * x)
    distance = (output * (output - towards) + wanted.square()).mean((1, 2, 3))
    return weights[0] * magnitude + weights[1] * distance, magnitude.detach(), distance.detach()


class _SpectralLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        masks: Tensor,
        gains: Tensor,
        mixture: Tensor,
        wanted: Tensor,
        towards: Tensor,
        weights: tuple[float, float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = [part.detach().contiguous().numpy() for part in (masks, gains, mixture, wanted, towards)]
        slopes = torch.zeros_like(masks), torch.zeros_like(gains)
        magnitude, distance = torch.zeros(len(masks)), torch.zeros(len(masks))
        outputs = [part.numpy() for part in (magnitude, distance, *slopes)]
        scratch = np.empty((4, wanted.shape[-1]), np.float32)
        add_spectral_losses(*inputs, np.array(weights, np.float32), *outputs, scratch)
        ctx.slopes = slopes
        ctx.mark_non_differentiable(magnitude, distance)
        return weights[0] * magnitude + weights[1] * distance, magnitude, distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        each = grads[0][:, None, None, None]
        return *(slope.mul_(each) for slope in ctx.slopes), None, None, None, None


@kernel
def add_spectral_losses(
    masks, gains, mixture, wanted, towards, weights, magnitude, distance, d_masks, d_gains, scratch
):
    """Add the losses of `spectral_losses` to `magnitude` and `distance`, and to `d_...` the gradients of their sum.

    Zeros before. `weights` (2,) are those of the losses in that sum, `scratch` is (4, n_bins // 2 + 1); all else as
    there.
    """
    n_batch, n_src, n_frames, n_some = wanted.shape
    share, each = ONE / np.float32(n_src), ONE / np.float32(n_src * n_frames * n_some)
    by_magnitude, by_distance = weights[0] * each, weights[1] * each
    missing, shared, errors, distances = scratch[0], scratch[1], scratch[2], scratch[3]
    for b in range(n_batch):
        for t in range(n_frames):
            x = mixture[b, t]
            for k in range(n_some):
                missing[k], shared[k] = ONE, ZERO
            for s in range(n_src):
                m = masks[b, s, t]
                for k in range(n_some):
                    missing[k] -= m[EVERY * k]
            for s in range(n_src):
                m, g, w, a = masks[b, s, t], gains[b, s, t], wanted[b, s, t], towards[b, s, t]
                dm, dg = d_masks[b, s, t], d_gains[b, s, t]
                lopsided = OVER_SUPPRESSION if s < n_src - 1 else ONE
                for k in range(n_some):
                    size = m[EVERY * k] * x[k] + QUIET
                    root = math.sqrt(math.sqrt(size))
                    error = root - w[k]
                    weighted = error * (lopsided if error < ZERO else ONE)
                    slope = by_magnitude * weighted * TWO * QUARTER * root / size * x[k]
                    errors[k] = weighted * error

                    size = g[EVERY * k] * x[k] + QUIET
                    root = math.sqrt(math.sqrt(size))
                    error = root - w[k]
                    weighted = error * (lopsided if error < ZERO else ONE)
                    dg[EVERY * k] = by_magnitude * weighted * TWO * QUARTER * root / size * x[k]
                    errors[k] += weighted * error

                    heard = m[EVERY * k] + share * missing[k]
                    size = max(heard, ZERO) * x[k] + QUIET
                    root = math.sqrt(math.sqrt(size))
                    distances[k] = root * (root - a[k]) + w[k] * w[k]
                    more = by_distance * (TWO * root - a[k]) * QUARTER * root / size * x[k]
                    more = more if heard >= ZERO else ZERO
                    shared[k] += more
                    dm[EVERY * k] = slope + more
                for k in range(n_some):
                    magnitude[b] += each * errors[k]
                    distance[b] += each * distances[k]
            for s in range(n_src):
                dm = d_masks[b, s, t]
                for k in range(n_some):
                    dm[EVERY * k] -= share * shared[k]
