"""Normalizing flows: invertible networks between spectra and codes that are normally distributed.

All of them are stacks of flows, one for each source: tensors (n_flows, n, n_features), parameters with as many rows, so
that the flows of all sources run, and are trained, at once and share nothing. A single flow is a stack of one.

Sources: L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", ICLR 2017; D. P. Kingma,
P. Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", NeurIPS 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGEST_LOG_SCALE = 2.0  # of a coupling: keeps the inverse exact enough in float32
LEAST_SPREAD = 0.02  # of a feature, in the standardisation: bins that are always silent are not blown up


@dataclass(frozen=True)
class FlowShape:
    """Size of a flow.

    Parameters
    ----------
    kind : str
        "realnvp", couplings and fixed permutations, or "glow", with ActNorm and LU mixing.
    n_features : int
    n_steps : int
        Couplings.
    depth, width : int
        Hidden layers of the network of a coupling, units of each.
    """

    kind: str
    n_features: int
    n_steps: int
    depth: int
    width: int


class Dense(nn.Module):
    """A layer for each flow: x W + b."""

    def __init__(self, n_flows: int, n_in: int, n_out: int, zero: bool = False) -> None:
        super().__init__()
        start = torch.zeros(n_flows, n_in, n_out) if zero else torch.randn(n_flows, n_in, n_out) / math.sqrt(n_in)
        self.weight, self.bias = nn.Parameter(start), nn.Parameter(torch.zeros(n_flows, 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Standardise(nn.Module):
    """Mean zero and spread one for every feature of the training data; fixed."""

    def __init__(self, n_flows: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_flows, 1, n_features))
        self.register_buffer("spread", torch.ones(n_flows, 1, n_features))

    def start(self, x: Tensor) -> None:
        self.mean.copy_(x.mean(1, keepdim=True))
        self.spread.copy_(x.std(1, keepdim=True).clamp_min(LEAST_SPREAD))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.spread, -self.spread.log().sum(2)

    def inverse(self, y: Tensor) -> Tensor:
        return y * self.spread + self.mean


class ActNorm(nn.Module):
    """Scale and offset of every feature, learned; the first batch gets mean zero and spread one."""

    def __init__(self, n_flows: int, n_features: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(n_flows, 1, n_features))
        self.log_scale = nn.Parameter(torch.zeros(n_flows, 1, n_features))

    def start(self, x: Tensor) -> None:
        self.offset.data.copy_(x.mean(1, keepdim=True))
        self.log_scale.data.copy_(-x.std(1, keepdim=True).clamp_min(LEAST_SPREAD).log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.offset) * self.log_scale.exp(), self.log_scale.sum(2)

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() + self.offset


class Permutation(nn.Module):
    """A fixed random order of the features."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(n_features))

    def start(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., self.order], x.new_zeros(x.shape[0], 1)

    def inverse(self, y: Tensor) -> Tensor:
        return y[..., self.order.argsort()]


class LUMixing(nn.Module):
    """A matrix as the product P L (U + diag s): starts as a random rotation; its determinant is that of s."""

    def __init__(self, n_flows: int, n_features: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(n_flows, n_features, n_features))[0]
        order, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal(dim1=1, dim2=2)
        # The matrix P moves feature order[i] to place i.
        self.register_buffer("order", order.argmax(2))
        self.register_buffer("sign", diagonal.sign().clone())
        self.log_diagonal = nn.Parameter(diagonal.abs().log())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(self.lower.shape[1], device=self.lower.device)
        return self.lower.tril(-1) + one, self.upper.triu(1) + torch.diag_embed(self.sign * self.log_diagonal.exp())

    def start(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        mixed = x @ upper.mT @ lower.mT
        place = self.order[:, None].expand_as(mixed)
        return mixed.gather(2, place), self.log_diagonal.sum(1, keepdim=True)

    def inverse(self, y: Tensor) -> Tensor:
        lower, upper = self._factors()
        place = self.order.argsort(1)[:, None].expand_as(y)
        columns = y.gather(2, place).mT
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, columns, upper=True).mT


class AffineCoupling(nn.Module):
    """The second half is scaled and moved by what a network makes of the first, which stays; starts as identity."""

    def __init__(self, n_flows: int, shape: FlowShape, activation: type[nn.Module]) -> None:
        super().__init__()
        self.n_kept = shape.n_features // 2
        sizes = [self.n_kept, *[shape.width] * shape.depth]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [Dense(n_flows, n_in, n_out), activation()]
        n_moved = shape.n_features - self.n_kept
        self.network = nn.Sequential(*layers, Dense(n_flows, sizes[-1], 2 * n_moved, zero=True))

    def _moves(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, offset = self.network(kept).chunk(2, 2)
        return LARGEST_LOG_SCALE * torch.tanh(scale / LARGEST_LOG_SCALE), offset

    def start(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x[..., : self.n_kept], x[..., self.n_kept :]
        log_scale, offset = self._moves(kept)
        return torch.cat([kept, moved * log_scale.exp() + offset], 2), log_scale.sum(2)

    def inverse(self, y: Tensor) -> Tensor:
        kept, moved = y[..., : self.n_kept], y[..., self.n_kept :]
        log_scale, offset = self._moves(kept)
        return torch.cat([kept, (moved - offset) * (-log_scale).exp()], 2)


class Flow(nn.Module):
    """A stack of flows.

    Parameters
    ----------
    n_flows : int
    shape : FlowShape

    Notes
    -----
    `forward(x)` of spectra (n_flows, n, n_features) gives codes of the same shape, and the logarithm of the determinant
    of the Jacobian (n_flows, n); `inverse(z)` gives the spectra back. Drawn from the random generator of PyTorch.
    """

    def __init__(self, n_flows: int, shape: FlowShape) -> None:
        super().__init__()
        self.n_flows, self.shape = n_flows, shape
        steps: list[nn.Module] = [Standardise(n_flows, shape.n_features)]
        for _ in range(shape.n_steps):
            if shape.kind == "realnvp":
                steps += [Permutation(shape.n_features), AffineCoupling(n_flows, shape, nn.SELU)]
            else:
                steps += [ActNorm(n_flows, shape.n_features), LUMixing(n_flows, shape.n_features)]
                steps.append(AffineCoupling(n_flows, shape, nn.LeakyReLU))
        self.steps = nn.ModuleList(steps)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set what depends on the first data, from spectra as for `forward`."""
        for step in self.steps:
            step.start(x)
            x = step(x)[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:2])
        for step in self.steps:
            x, more = step(x)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        for step in reversed(self.steps):
            z = step.inverse(z)
        return z


def log_normal(z: Tensor) -> Tensor:
    """Logarithm of the density of a standard normal distribution, summed over the last axis."""
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
