"""PyTorch's GRU with gradients, made for a CPU core.

PyTorch adds up the gradient of the recurrent weights step by step, and takes a dozen operations for the gates of each.
Here a step is one product and one kernel, and the weights get their gradients from all steps at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rtsep.kernels.jit import kernel
from rtsep.kernels.network import ONE, sigmoid, tanh
from rtsep.kernels.simd import LANES, load, multiply_add, store


class GRU(nn.GRU):
    """Gives the outputs of `torch.nn.GRU` with `batch_first=True`, from rest, with the same parameters.

    float32; the hidden size is a multiple of eight. On the CPU gradients can be asked for once; other devices have
    PyTorch's own.
    """

    def __init__(self, n_in: int, hidden: int, n_layers: int) -> None:
        super().__init__(n_in, hidden, n_layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Outputs (batch, n_steps, hidden) for inputs (batch, n_steps, n_in)."""
        if x.device.type != "cpu":
            return super().forward(x)[0]
        for layer in range(self.num_layers):
            x = self.layer(x, layer)
        return x

    def layer(self, x: Tensor, layer: int) -> Tensor:
        """Outputs (batch, n_steps, hidden) of one layer."""
        weights = [getattr(self, f"{part}_l{layer}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if x.device.type != "cpu":
            rest = x.new_zeros(1, len(x), self.hidden_size)
            return torch.gru(x, rest, weights, True, 1, 0.0, self.training, False, True)[0]
        return _Layer.apply(x.transpose(0, 1).contiguous(), *weights).transpose(0, 1)


class _Layer(torch.autograd.Function):
    """Outputs (n_steps, batch, n) for inputs (n_steps, batch, n_in); gates in PyTorch's order: reset, update, new."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_in: Tensor, w_hid: Tensor, b_in: Tensor, b_hid: Tensor) -> Tensor:
        n_steps, n_batch, _ = x.shape
        n = w_hid.shape[-1]
        gates = (x.flatten(0, 1) @ w_in.t()).view(n_steps, n_batch, 3 * n)
        biases = torch.cat([(b_in + b_hid)[: 2 * n], b_in[2 * n :], b_hid[2 * n :]])
        hidden = torch.empty(n_steps + 1, n_batch, n)
        hidden[0] = 0
        recalled, within = torch.empty(n_steps, n_batch, n), torch.empty(n_batch, 3 * n)
        transposed = w_hid.t().contiguous()
        arrays = gates.numpy(), recalled.numpy(), hidden.numpy(), within.numpy(), biases.numpy()
        for t, before in enumerate(hidden[:-1].unbind()):
            torch.mm(before, transposed, out=within)
            gates_forward(*arrays, t)
        ctx.kept = x, w_in, w_hid, gates, recalled, hidden
        return hidden[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        x, w_in, w_hid, gates, recalled, hidden = ctx.kept
        ctx.kept = ()  # is overwritten below
        n_steps, n_batch, n = recalled.shape
        slope, carry = slopes[0].contiguous(), torch.zeros(n_batch, n)
        arrays = gates.numpy(), recalled.numpy(), hidden.numpy(), slope.numpy(), carry.numpy()
        for t in reversed(range(n_steps)):
            gates_backward(*arrays, t)
            carry.addmm_(gates[t], w_hid)
        within, new, x = gates.flatten(0, 1), recalled.flatten(0, 1), x.flatten(0, 1)
        both = within[:, : 2 * n]
        sums = within.sum(0)
        return (
            (both @ w_in[: 2 * n]).addmm_(new, w_in[2 * n :]).view(n_steps, n_batch, -1),
            torch.cat([both.t() @ x, new.t() @ x]),
            within.t() @ hidden[:-1].flatten(0, 1),
            torch.cat([sums[: 2 * n], new.sum(0)]),
            sums,
        )


@kernel
def gates_forward(gates, recalled, hidden, within, biases, t):
    """One step of a layer.

    Parameters
    ----------
    gates : ndarray, float32, (n_steps, batch, 3 * n)
        What comes from the input without biases, in the order reset, update, new; at `t` replaced by the gates.
    recalled : ndarray, float32, (n_steps, batch, n)
        Overwritten at `t` by what the reset gate is applied to.
    hidden : ndarray, float32, (n_steps + 1, batch, n)
        Read at `t`, overwritten at `t + 1`.
    within : ndarray, float32, (batch, 3 * n)
        What comes from the hidden state, without biases, too. Read only.
    biases : ndarray, float32, (4 * n,)
        Of reset, update, new and of what is recalled. Read only.
    t : int
    """
    n_batch, n = recalled.shape[1:]
    for b in range(n_batch):
        row = t * n_batch + b
        g, h, w = row * 3 * n, row * n, b * 3 * n
        for i in range(0, n, LANES):
            reset = sigmoid(load(gates, g + i) + load(within, w + i) + load(biases, i))
            update = sigmoid(load(gates, g + n + i) + load(within, w + n + i) + load(biases, n + i))
            memory = load(within, w + 2 * n + i) + load(biases, 3 * n + i)
            new = tanh(multiply_add(reset, memory, load(gates, g + 2 * n + i) + load(biases, 2 * n + i)))
            store(gates, g + i, reset)
            store(gates, g + n + i, update)
            store(gates, g + 2 * n + i, new)
            store(recalled, h + i, memory)
            store(hidden, h + n_batch * n + i, multiply_add(update, load(hidden, h + i) - new, new))


@kernel
def gates_backward(gates, recalled, hidden, slope, carry, t):
    """Gradients of one step of a layer, from the last to the first.

    Parameters
    ----------
    gates, recalled, hidden : ndarray
        Of all forward steps. At `t`, `gates` is replaced by the gradient of what came from the hidden state, and
        `recalled` by that of what came from the input for the new state.
    slope : ndarray, float32, (n_steps, batch, n)
        Gradient of the outputs. Read only.
    carry : ndarray, float32, (batch, n)
        Gradient of the state after step `t` from later steps; replaced by that of the state before, but for its way
        through the recurrent weights.
    t : int
    """
    n_batch, n = recalled.shape[1:]
    for b in range(n_batch):
        row = t * n_batch + b
        g, h, c = row * 3 * n, row * n, b * n
        for i in range(0, n, LANES):
            reset, update, new = load(gates, g + i), load(gates, g + n + i), load(gates, g + 2 * n + i)
            d = load(slope, h + i) + load(carry, c + i)
            d_update = d * (load(hidden, h + i) - new) * update * (ONE - update)
            d_new = d * (ONE - update) * (ONE - new * new)
            store(gates, g + i, d_new * load(recalled, h + i) * reset * (ONE - reset))
            store(gates, g + n + i, d_update)
            store(gates, g + 2 * n + i, d_new * reset)
            store(recalled, h + i, d_new)
            store(carry, c + i, d * update)
