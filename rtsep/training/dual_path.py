"""The dual-path network in PyTorch: the twin of `rtsep.estimators.dual_path` that can be trained.

It looks along frequency by convolutions over bands, along time by a recurrence whose weights all bands share, and at
the whole frame by a recurrence over a summary of all bands. Weights that are shared by the bands learn from each of
them, and what is learned of one voice holds for another that is higher.

Tensors are (n_frames, batch, places, channels), so that nothing is rearranged between the layers; a place is two bands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rtsep.estimators.dual_path import advance_bands
from rtsep.estimators.model_file import CUES, ENCODER, LEAK, N_ADVANCES, NEIGHBOURS, SUMMARY, Shape
from rtsep.training.gru import GRU

Told = Callable[[Tensor], Tensor]  # what becomes of that which a layer hears or says (`rtsep.estimators.enrolment`)


def as_it_is(x: Tensor) -> Tensor:
    """Nothing is told."""
    return x


class Convolution(nn.Linear):
    """Over places, zeros beyond the ends: its weights are a matrix (n_out, width * n_in), place by place."""

    def __init__(self, n_in: int, n_out: int, width: int, stride: int = 1) -> None:
        super().__init__(width * n_in, n_out)
        self.width, self.stride = width, stride

    def forward(self, x: Tensor) -> Tensor:
        """(..., places // stride, n_out) for (..., places, n_in)."""
        n_in = x.shape[-1]
        weight = self.weight.view(-1, self.width, n_in).transpose(1, 2)[:, :, None]
        line = x.flatten(0, -3)[:, None].permute(0, 3, 1, 2)  # channels last, as it is in memory
        y = torch.conv2d(line, weight, self.bias, (1, self.stride), (0, self.width // 2))
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-2], -1, self.out_features)


class Block(nn.Module):
    """Neighbouring places, all places over time, each place over time; a residual connection around all of it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        n, n_summary = shape.channels, shape.bands_in // 2 * SUMMARY
        self.near = Convolution(n, n, NEIGHBOURS)
        self.summary = nn.Linear(n, SUMMARY)
        self.wide = remembering(n_summary, shape.hidden)
        self.back = nn.Linear(shape.hidden, n_summary)
        self.lift = nn.Linear(SUMMARY, n)
        self.each = remembering(n, n)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """As `x`, (n_frames, batch, places, channels)."""
        near = nn.functional.leaky_relu(told(self.near(x)), LEAK)
        wide = run(self.wide, told(self.summary(near).flatten(2)))
        near = told(near + self.lift(self.back(wide).unflatten(-1, (-1, SUMMARY))))
        return x + run(self.each, near.flatten(1, 2)).view_as(x)


class DualPath(nn.Module):
    """Raw heads (batch, n_frames, n_heads, bands_out) of features (batch, n_frames, n_features)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        n, n_places = shape.channels, shape.bands_in // 2
        lower, share, heard = advance_bands(shape.bands_in)
        rows, in_bands = np.arange(len(lower)), np.zeros((N_ADVANCES, len(lower)), np.float32)
        in_bands[lower, rows] = heard * (1 - share)
        in_bands[lower + 1, rows] = heard * share
        self.in_bands: Tensor
        self.register_buffer("in_bands", torch.from_numpy(in_bands), persistent=False)
        self.encoder = Convolution(CUES, n, ENCODER, 2)
        self.encoder_place = nn.Parameter(torch.zeros(n_places * n))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.decoder = Convolution(n, n, NEIGHBOURS)
        self.heads = nn.Linear(n, 2 * shape.n_heads)
        self.heads_place = nn.Parameter(torch.zeros(shape.bands_in * shape.n_heads))
        # PyTorch's own first weights would halve what goes through every layer.
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.heads:
                nn.init.kaiming_normal_(module.weight, LEAK)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, told: Told = as_it_is) -> Tensor:
        """As the class says; `told` changes (n_frames, batch, n) or (n_frames, batch, places, n)."""
        n_bands = self.in_bands.shape[1]
        levels, cosines, sines = features.transpose(0, 1).split([2 * n_bands, N_ADVANCES, N_ADVANCES], -1)
        x = torch.stack(
            [*levels.unflatten(-1, (2, n_bands)).unbind(-2), cosines @ self.in_bands, sines @ self.in_bands], -1
        )
        x = self.encoder(x) + self.encoder_place.view(n_bands // 2, -1)
        x = nn.functional.leaky_relu(x, LEAK)
        for block in self.blocks:
            x = block(x, told)
        y = nn.functional.leaky_relu(self.decoder(x), LEAK)
        raw = self.heads(y).flatten(2) + self.heads_place  # band by band
        return raw.unflatten(-1, (n_bands, -1)).permute(1, 0, 3, 2)


def remembering(n_in: int, n: int) -> GRU:
    """A GRU that hears from the start, and remembers: rotations, and update gates that keep three quarters."""
    gru = GRU(n_in, n, 1)
    parameters = dict(gru.named_parameters())
    with torch.no_grad():
        parameters["weight_ih_l0"].normal_(0, n_in**-0.5)
        for gate in parameters["weight_hh_l0"].split(n):
            nn.init.orthogonal_(gate)
        parameters["bias_hh_l0"][n : 2 * n] = 1.0
    return gru


def run(gru: GRU, x: Tensor) -> Tensor:
    """Outputs (n_frames, rows, n) for inputs (n_frames, rows, n_in)."""
    return gru(x.transpose(0, 1)).transpose(0, 1)
