"""Normalizing flows: invertible networks between spectra and codes that are normally distributed.

All of them are stacks of flows, one for each source: tensors (n_flows, n, n_features), parameters with as many rows, so
that the flows of all sources run, and are trained, at once and share nothing. A single flow is a stack of one.

Sources: L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", ICLR 2017; D. P. Kingma,
P. Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", NeurIPS 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

LARGEST_LOG_SCALE = 2.0  # of a coupling: keeps the inverse exact enough in float32
RIDGE = 1e-2  # of the regression on labels, of the mean power of a white feature
LABEL_SUM = 0.05  # of a white feature, for the sum of the labels, which has no spread
LEAST_SPREAD = 0.02  # of a feature or a component: what never changes is not blown up


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


class Step(nn.Module):
    """A part of a flow: `forward` gives what becomes of (n_flows, n, n_features), and its log-determinant."""

    def start(self, x: Tensor) -> None:
        """Set what depends on the first data, if anything."""

    def inverse(self, y: Tensor) -> Tensor:
        """What `forward` made `y` of."""
        raise NotImplementedError


class Whiten(Step):
    """Principal components of the training data, each of mean zero and spread one; fixed."""

    mean: Tensor
    spread: Tensor
    basis: Tensor

    def __init__(self, n_flows: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_flows, 1, n_features))
        self.register_buffer("spread", torch.ones(n_flows, 1, n_features))
        self.register_buffer("basis", torch.eye(n_features).repeat(n_flows, 1, 1))

    def start(self, x: Tensor) -> None:
        self.mean.copy_(x.mean(1, keepdim=True))
        moved = (x - self.mean).double()
        power, basis = torch.linalg.eigh(moved.mT @ moved / x.shape[1])
        self.spread.copy_((power.clamp_min(0) + LEAST_SPREAD**2).sqrt()[:, None])
        self.basis.copy_(basis)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) @ self.basis / self.spread, -self.spread.log().sum(2)

    def inverse(self, y: Tensor) -> Tensor:
        return (y * self.spread) @ self.basis.mT + self.mean


class ActNorm(Step):
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


class Permutation(Step):
    """A fixed random order of the features."""

    order: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(n_features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., self.order], x.new_zeros(x.shape[0], 1)

    def inverse(self, y: Tensor) -> Tensor:
        return y[..., self.order.argsort()]


def _factorised(matrix: Tensor) -> tuple[Tensor, ...]:
    """Order of the rows, signs and logarithms of the diagonal, and both triangles of matrices (n_flows, n, n)."""
    order, lower, upper = torch.linalg.lu(matrix)
    diagonal = upper.diagonal(dim1=1, dim2=2)
    # The matrix P moves feature order[i] to place i.
    return order.argmax(2), diagonal.sign(), diagonal.abs().log(), lower.tril(-1), upper.triu(1)


class LUMixing(Step):
    """A matrix as the product P L (U + diag s): starts as a random rotation; its determinant is that of s."""

    order: Tensor
    sign: Tensor

    def __init__(self, n_flows: int, n_features: int) -> None:
        super().__init__()
        order, sign, log_diagonal, lower, upper = _factorised(
            torch.linalg.qr(torch.randn(n_flows, n_features, n_features))[0]
        )
        self.register_buffer("order", order)
        self.register_buffer("sign", sign)
        self.log_diagonal = nn.Parameter(log_diagonal)
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)

    @torch.no_grad()
    def aim(self, x: Tensor, labels: Tensor) -> None:
        """Let the first outputs be what a linear regression finds of the labels, less their means; the others are
        orthogonal to it. Labels add up to one: their sum is a direction in which nothing is to be found, any other one.
        """
        wanted = (labels - labels.mean(0)).expand(len(x), *labels.shape).double()
        white = x.double()
        ridge = RIDGE * x.shape[1] * torch.eye(x.shape[2], dtype=torch.double)
        first = torch.linalg.solve(white.mT @ white + ridge, white.mT @ wanted)
        n_labels = first.shape[2]
        free = torch.linalg.qr(first[..., 1:], mode="complete")[0][..., n_labels - 1 :]
        first = first + LABEL_SUM * free[..., :1]
        rest = free[..., 1:]
        made = _factorised(torch.cat([first, rest], 2).mT)
        for mine, new in zip((self.order, self.sign, self.log_diagonal, self.lower, self.upper), made, strict=True):
            mine.copy_(new)

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(self.lower.shape[1], device=self.lower.device)
        return self.lower.tril(-1) + one, self.upper.triu(1) + torch.diag_embed(self.sign * self.log_diagonal.exp())

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


class AffineCoupling(Step):
    """The second half is scaled and moved by what a network makes of the first, which stays; starts as identity."""

    def __init__(self, n_flows: int, shape: FlowShape, activation: type[nn.Module]) -> None:
        super().__init__()
        self.n_kept = shape.n_features // 2
        sizes = [self.n_kept, *[shape.width] * shape.depth]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [Dense(n_flows, n_in, n_out), activation()]
        n_moved = shape.n_features - self.n_kept
        self.network = nn.Sequential(*layers, Dense(n_flows, sizes[-1], 2 * n_moved, zero=True))

    def _moves(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, offset = self.network(kept).chunk(2, 2)
        return LARGEST_LOG_SCALE * torch.tanh(scale / LARGEST_LOG_SCALE), offset

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
        steps: list[Step] = [Whiten(n_flows, shape.n_features)]
        for _ in range(shape.n_steps):
            if shape.kind == "realnvp":
                steps += [Permutation(shape.n_features), AffineCoupling(n_flows, shape, nn.SELU)]
            else:
                steps += [ActNorm(n_flows, shape.n_features), LUMixing(n_flows, shape.n_features)]
                steps.append(AffineCoupling(n_flows, shape, nn.LeakyReLU))
        self.steps = nn.ModuleList(steps)

    @property
    def _chain(self) -> list[Step]:
        return cast("list[Step]", list(self.steps))

    @torch.no_grad()
    def start(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Set what depends on the first data, from spectra as for `forward`; with labels (n, n_labels), which the first
        codes of a Glow are to be, its last mixing, too.
        """
        before: Step | None = None
        last = [step for step in self._chain if isinstance(step, LUMixing)][-1:]
        for step in self._chain:
            step.start(x)
            if isinstance(step, LUMixing) and step in last and labels is not None and isinstance(before, ActNorm):
                step.aim(x, labels)
                # What the means of the labels are of, before the mixing.
                means = nn.functional.pad(labels.mean(0), (0, x.shape[2] - labels.shape[1]))
                missing = step.inverse(means.expand(len(x), 1, -1))
                before.offset.data -= missing * (-before.log_scale).exp()
                x = x + missing
            x, before = step(x)[0], step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:2])
        for step in self._chain:
            x, more = step(x)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        for step in reversed(self._chain):
            z = step.inverse(z)
        return z


def log_normal(z: Tensor) -> Tensor:
    """Logarithm of the density of a standard normal distribution, summed over the last axis."""
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
