"""Layers of small recurrent networks: dense, GRU, sigmoid and tanh, eight lanes at a time.

The weights of a layer lie in panels of 64 outputs (`panels`): the eight running sums of a panel stay in registers
while the inputs go by, and the weights are read once from front to back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import constant
from rtsep.kernels.simd import LANES, few_registers, get, limit, load, multiply_add, store

PANEL = 8 * LANES  # outputs

HALF, ONE, TWO = np.float32(0.5), np.float32(1), np.float32(2)
SATURATED = np.float32(9)  # tanh(9) is 1 but for 3e-8


def panels(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Weights (n_out, n_in) and bias (n_out,) for `affine`: float32 (n_panels, 1 + n_in, PANEL), zeros at the end."""
    n_out, n_in = weight.shape
    n_panels = -(-n_out // PANEL)
    padded = np.zeros((n_panels * PANEL, 1 + n_in), np.float32)
    padded[:n_out, 0], padded[:n_out, 1:] = bias, weight
    return constant(padded.reshape(n_panels, PANEL, 1 + n_in).transpose(0, 2, 1))


class Layers(NamedTuple):
    """Layers of `panels`, all of one size, with a scale for each output: 1 unless the weights are of eight bits."""

    values: np.ndarray  # float32 or int8, constant (n_layers, n_panels, n_in, panel)
    rows: np.ndarray  # float32, constant (n_layers, n_panels, 2, panel): bias over scale, and scale


def stacked(layers: Sequence[np.ndarray], kept_as: str = "float32") -> Layers:
    """Layers of `panels`, each float32 (n_panels, 1 + n_in, panel), with their weights as "float32" or "int8".

    Weights of eight bits take a quarter of the memory: the largest of each output becomes 127. Not real-time safe.
    """
    bias, weights = np.stack(layers)[:, :, :1], np.stack(layers)[:, :, 1:]
    if kept_as == "float32":
        return Layers(constant(weights), constant(np.concatenate([bias, np.ones_like(bias)], 2)))
    largest = np.abs(weights).max(2, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return Layers(constant(np.rint(weights / scale), np.int8), constant(np.concatenate([bias / scale, scale], 2)))


@kernel
def affine_few(layers, layer, x, at, n_in, out):
    """As `affine`, with the same bits: a quarter of a panel at a time, for processors with few registers."""
    values, rows = layers.values, layers.rows
    n_panels = values.shape[1]
    for quarter in range(4 * n_panels):
        panel, lane = quarter // 4, quarter % 4 * 2 * LANES
        w = (layer * n_panels + panel) * n_in * PANEL + lane
        b = (layer * n_panels + panel) * 2 * PANEL + lane
        s0, s1 = load(rows, b), load(rows, b + LANES)
        for i in range(at, at + n_in):
            v = get(x, i)
            s0, s1 = multiply_add(v, load(values, w), s0), multiply_add(v, load(values, w + LANES), s1)
            w += PANEL
        o, b = panel * PANEL + lane, b + PANEL
        store(out, o, s0 * load(rows, b))
        store(out, o + LANES, s1 * load(rows, b + LANES))


@kernel
def affine(layers, layer, x, at, n_in, out):
    """`out = bias + weight @ x`.

    Parameters
    ----------
    layers : Layers
        Of `panels`. Read only.
    layer : int
        The one that counts.
    x : ndarray, float32
        The inputs are its flat elements `x[at : at + n_in]`. Read only.
    at, n_in : int
    out : ndarray, float32, (n_panels * PANEL,)
        Overwritten, not the same array as `x`.

    Notes
    -----
    Real-time safe. The sums are float32 and run in the order of the inputs; they are scaled at the end.
    """
    if few_registers():
        affine_few(layers, layer, x, at, n_in, out)
        return
    values, rows = layers.values, layers.rows
    n_panels = values.shape[1]
    w = layer * n_panels * n_in * PANEL
    for panel in range(n_panels):
        b = (layer * n_panels + panel) * 2 * PANEL
        s0, s1, s2, s3 = load(rows, b), load(rows, b + 8), load(rows, b + 16), load(rows, b + 24)
        s4, s5, s6, s7 = load(rows, b + 32), load(rows, b + 40), load(rows, b + 48), load(rows, b + 56)
        for i in range(at, at + n_in):
            v = get(x, i)
            s0 = multiply_add(v, load(values, w), s0)
            s1 = multiply_add(v, load(values, w + 8), s1)
            s2 = multiply_add(v, load(values, w + 16), s2)
            s3 = multiply_add(v, load(values, w + 24), s3)
            s4 = multiply_add(v, load(values, w + 32), s4)
            s5 = multiply_add(v, load(values, w + 40), s5)
            s6 = multiply_add(v, load(values, w + 48), s6)
            s7 = multiply_add(v, load(values, w + 56), s7)
            w += PANEL
        o, b = panel * PANEL, b + PANEL
        store(out, o, s0 * load(rows, b))
        store(out, o + 8, s1 * load(rows, b + 8))
        store(out, o + 16, s2 * load(rows, b + 16))
        store(out, o + 24, s3 * load(rows, b + 24))
        store(out, o + 32, s4 * load(rows, b + 32))
        store(out, o + 40, s5 * load(rows, b + 40))
        store(out, o + 48, s6 * load(rows, b + 48))
        store(out, o + 56, s7 * load(rows, b + 56))


@inlined
def tanh(x):
    """Hyperbolic tangent of lanes, within 2e-7; NaN becomes -1.

    A convergent of Lambert's continued fraction (M. Abramowitz and I. Stegun, 4.5.70) for a quarter of the
    argument, doubled twice by tanh 2y = 2 tanh y / (1 + tanh^2 y).
    """
    y = limit(x, -SATURATED, SATURATED) * np.float32(0.25)
    s = y * y
    p = multiply_add(multiply_add(s + np.float32(378), s, np.float32(17325)), s, np.float32(135135))
    q = multiply_add(multiply_add(s * np.float32(28) + np.float32(3150), s, np.float32(62370)), s, np.float32(135135))
    t = y * p / q
    t = TWO * t / multiply_add(t, t, ONE)
    return TWO * t / multiply_add(t, t, ONE)


@inlined
def sigmoid(x):
    """`1 / (1 + exp(-x))` of lanes, within 1e-7."""
    return multiply_add(tanh(x * HALF), HALF, HALF)


@kernel
def leaky_relu(x, n, slope):
    """`x[:n]`, in place: values below zero times `slope`. `n` is a multiple of eight. Real-time safe."""
    for i in range(n):
        v = x[i]
        x[i] = v if v > 0 else slope * v


@kernel
def scaled_sigmoid(x, start, stop, offset, scale):
    """`x[start:stop] = scale * sigmoid(x + offset)`; both ends are multiples of eight. Real-time safe."""
    for i in range(start, stop, LANES):
        store(x, i, sigmoid(load(x, i) + offset) * scale)


@kernel
def gru_step(into, within, layer, x, at, n_in, hidden, a, b):
    """One step of a gated recurrent unit as PyTorch defines it, gates in the order reset, update, new.

    Parameters
    ----------
    into : Layers
        Weights and bias from the input, of `panels`. Read only.
    within : Layers
        The same from the hidden state of n units, a multiple of eight. Read only.
    layer : int
        Its row of the weights and of `hidden`.
    x : ndarray, float32
        The inputs are its flat elements `x[at : at + n_in]`. Read only; may be `hidden` at another layer.
    at, n_in : int
    hidden : ndarray, float32, (n_layers, n)
        Updated in place.
    a, b : ndarray, float32, (n_panels * PANEL,)
        Scratch.

    Notes
    -----
    Real-time safe. Whatever comes in, the gates and hence the new state stay between -1 and 1.

    References
    ----------
    K. Cho et al., EMNLP 2014; the variant with the reset gate behind the matrix, as in cuDNN.
    """
    n = hidden.shape[1]
    h = layer * n
    affine(into, layer, x, at, n_in, a)
    affine(within, layer, hidden, h, n, b)
    for i in range(0, n, LANES):
        reset = sigmoid(load(a, i) + load(b, i))
        update = sigmoid(load(a, n + i) + load(b, n + i))
        new = tanh(multiply_add(reset, load(b, 2 * n + i), load(a, 2 * n + i)))
        store(hidden, h + i, multiply_add(update, load(hidden, h + i) - new, new))
