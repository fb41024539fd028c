"""Layers whose weights are shared by the rows of a matrix, such as the bands of a frame: dense and GRU.

A convolution along the rows is a dense layer on neighbouring ones: rows that follow each other in memory are one
vector of inputs. The weights of a layer lie in panels of 16 outputs (`narrow_panels`); four rows at a time go through
one, so that each weight that is read serves four of them.
"""

from __future__ import annotations

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import constant
from rtsep.kernels.network import sigmoid, tanh
from rtsep.kernels.simd import LANES, few_registers, get, load, multiply_add, store

NARROW = 2 * LANES  # outputs of a panel
ROWS = 4  # at a time: eight running sums, two weights and an input stay in registers


def narrow_panels(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Weights (n_out, n_in) and bias (n_out,) for `affine_rows`: float32 (n_panels, 1 + n_in, NARROW)."""
    n_out, n_in = weight.shape
    n_panels = -(-n_out // NARROW)
    padded = np.zeros((n_panels * NARROW, 1 + n_in), np.float32)
    padded[:n_out, 0], padded[:n_out, 1:] = bias, weight
    return constant(padded.reshape(n_panels, NARROW, 1 + n_in).transpose(0, 2, 1))


@kernel
def affine_rows_few(layers, layer, x, at, step, n_rows, out, out_step):
    """As `affine_rows`, with the same bits: half a panel and two rows at a time, for processors with few registers."""
    values, scales = layers.values, layers.rows
    n_panels, n_in = values.shape[1], values.shape[2]
    for half in range(2 * n_panels):
        panel, lane = half // 2, half % 2 * LANES
        first = (layer * n_panels + panel) * n_in * NARROW + lane
        b = (layer * n_panels + panel) * 2 * NARROW + lane
        bias, scale = load(scales, b), load(scales, b + NARROW)
        for r in range(0, n_rows, 2):
            p, s0, s1, w = at + r * step, bias, bias, first
            for i in range(p, p + n_in):
                weights = load(values, w)
                s0, s1 = multiply_add(get(x, i), weights, s0), multiply_add(get(x, i + step), weights, s1)
                w += NARROW
            o = r * out_step + panel * NARROW + lane
            store(out, o, scale * s0)
            store(out, o + out_step, scale * s1)


@kernel
def affine_rows(layers, layer, x, at, step, n_rows, out, out_step):
    """`out[r] = bias + weight @ x[r]` for each row.

    Parameters
    ----------
    layers : rtsep.kernels.network.Layers
        Of `narrow_panels`. Read only.
    layer : int
        The one that counts.
    x : ndarray, float32
        The inputs of row r are its flat elements from `at + r * step` on; rows may overlap. Read only.
    at, step : int
    n_rows : int
        A multiple of `ROWS`.
    out : ndarray, float32
        Row r is overwritten from its flat element `r * out_step` on, up to a whole number of panels; not the same
        array as `x`.
    out_step : int
        At least `n_panels * NARROW`.

    Notes
    -----
    Real-time safe. The sums are float32 and run in the order of the inputs; they are scaled at the end.
    """
    values, scales = layers.values, layers.rows
    n_panels, n_in = values.shape[1], values.shape[2]
    if few_registers():
        affine_rows_few(layers, layer, x, at, step, n_rows, out, out_step)
        return
    for panel in range(n_panels):
        first = (layer * n_panels + panel) * n_in * NARROW
        b = (layer * n_panels + panel) * 2 * NARROW
        b0, b1 = load(scales, b), load(scales, b + LANES)
        c0, c1 = load(scales, b + NARROW), load(scales, b + NARROW + LANES)
        for r in range(0, n_rows, ROWS):
            p0 = at + r * step
            p1 = p0 + step
            p2 = p1 + step
            p3 = p2 + step
            s00, s01, s10, s11, s20, s21, s30, s31 = b0, b1, b0, b1, b0, b1, b0, b1
            w = first
            for i in range(n_in):
                w0, w1 = load(values, w), load(values, w + LANES)
                w += NARROW
                v0, v1, v2, v3 = get(x, p0 + i), get(x, p1 + i), get(x, p2 + i), get(x, p3 + i)
                s00, s01 = multiply_add(v0, w0, s00), multiply_add(v0, w1, s01)
                s10, s11 = multiply_add(v1, w0, s10), multiply_add(v1, w1, s11)
                s20, s21 = multiply_add(v2, w0, s20), multiply_add(v2, w1, s21)
                s30, s31 = multiply_add(v3, w0, s30), multiply_add(v3, w1, s31)
            o = r * out_step + panel * NARROW
            store(out, o, c0 * s00)
            store(out, o + LANES, c1 * s01)
            store(out, o + out_step, c0 * s10)
            store(out, o + out_step + LANES, c1 * s11)
            store(out, o + 2 * out_step, c0 * s20)
            store(out, o + 2 * out_step + LANES, c1 * s21)
            store(out, o + 3 * out_step, c0 * s30)
            store(out, o + 3 * out_step + LANES, c1 * s31)


@kernel
def gru_rows(into, within, layer, x, at, step, hidden, a, b):
    """One step of a gated recurrent unit for each row, all with the same weights (`rtsep.kernels.network.gru_step`).

    Parameters
    ----------
    into : rtsep.kernels.network.Layers
        Weights and bias from the input, of `narrow_panels`. Read only.
    within : rtsep.kernels.network.Layers
        The same from the hidden state of n units, a multiple of NARROW. Read only.
    layer : int
        The one that counts.
    x : ndarray, float32
        Inputs: those of row r from the flat element `at + r * step` on. Read only.
    at, step : int
    hidden : ndarray, float32, (n_rows, n)
        Updated in place; `n_rows` is a multiple of `ROWS`.
    a, b : ndarray, float32, (n_rows, 3 * n)
        Scratch.

    Notes
    -----
    Real-time safe. Whatever comes in, the gates and hence the new states stay between -1 and 1.
    """
    n_rows, n = hidden.shape
    affine_rows(into, layer, x, at, step, n_rows, a, 3 * n)
    affine_rows(within, layer, hidden, 0, n, n_rows, b, 3 * n)
    for r in range(n_rows):
        g, h = r * 3 * n, r * n
        for i in range(0, n, LANES):
            reset = sigmoid(load(a, g + i) + load(b, g + i))
            update = sigmoid(load(a, g + n + i) + load(b, g + n + i))
            new = tanh(multiply_add(reset, load(b, g + 2 * n + i), load(a, g + 2 * n + i)))
            store(hidden, h + i, multiply_add(update, load(hidden, h + i) - new, new))
