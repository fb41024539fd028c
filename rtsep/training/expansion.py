"""From bands to bins with gradients, by a kernel: as a product with a matrix, nearly all of it would be zeros.

Devices other than the CPU take the matrix.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtsep.config import StreamConfig
from rtsep.estimators.bands import Bands, expansion_bands
from rtsep.kernels.jit import kernel

CONFIG = StreamConfig(16_000)  # rate, window and bins of the training


@cache
def _bands(n_bands: int) -> Bands:
    return expansion_bands(n_bands, CONFIG)


@cache
def expansion_matrix(n_bands: int) -> Tensor:
    """What `to_bins` does as a matrix, float32 (n_bands, n_bins)."""
    rows = np.eye(n_bands, dtype=np.float32)
    matrix = np.empty((n_bands, CONFIG.n_bins), np.float32)
    interpolate_rows(*_bands(n_bands), rows, matrix)
    return torch.from_numpy(matrix)


@kernel
def interpolate_rows(lower, share, rows, out):
    """Bins `out` (n_rows, n_bins) from bands `rows` (n_rows, n_bands); overwritten."""
    last = rows.shape[1] - 1
    for i in range(rows.shape[0]):
        for k in range(lower.size):
            a, b = rows[i, lower[k]], rows[i, min(lower[k] + 1, last)]
            out[i, k] = a + share[k] * (b - a)


@kernel
def gather_rows(lower, share, bins, out):
    """The transpose: sums of `bins` (n_rows, n_bins) in bands `out` (n_rows, n_bands), overwritten."""
    last = out.shape[1] - 1
    for i in range(bins.shape[0]):
        for b in range(out.shape[1]):
            out[i, b] = np.float32(0)
        for k in range(lower.size):
            upper = share[k] * bins[i, k]
            out[i, lower[k]] += bins[i, k] - upper
            out[i, min(lower[k] + 1, last)] += upper


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bands: Tensor) -> Tensor:
        ctx.n_bands = bands.shape[-1]
        out = torch.empty((*bands.shape[:-1], CONFIG.n_bins))
        interpolate_rows(*_bands(ctx.n_bands), _rows(bands), _rows(out))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        out = torch.empty((*grad.shape[:-1], ctx.n_bands))
        gather_rows(*_bands(ctx.n_bands), _rows(grad), _rows(out))
        return out


def _rows(x: Tensor) -> np.ndarray:
    return x.detach().numpy().reshape(-1, x.shape[-1])


def to_bins(bands: Tensor) -> Tensor:
    """Values of bins (..., n_bins) from those of bands (..., n_bands)."""
    if bands.device.type != "cpu":
        return bands @ expansion_matrix(bands.shape[-1]).to(bands.device)
    return _Interpolate.apply(bands.contiguous())
