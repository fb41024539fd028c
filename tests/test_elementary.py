"""Exponential, logarithm, sine and cosine: how near they are, what they do at the ends, and their twins in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rtsep.kernels import elementary
from rtsep.kernels.jit import kernel

f32 = np.float32


@kernel
def exps(x, y):
    for i in range(x.size):
        y[i] = elementary.exp(x[i])


@kernel
def logs(x, y):
    for i in range(x.size):
        y[i] = elementary.log(x[i])


@kernel
def log10s(x, y):
    for i in range(x.size):
        y[i] = elementary.log10(x[i])


@kernel
def phasors(x, y):
    for i in range(x.size):
        y[0, i], y[1, i] = elementary.phasor(x[i])


def computed(function, x):
    y = np.full((2, x.size) if function is phasors else x.size, np.nan, np.float32)
    function(x, y)
    return y


def units(y, truth):
    """Distance in units in the last place."""
    return np.abs(y - truth) / np.spacing(np.abs(truth).astype(np.float32)).astype(float)


def naive_exp(x):
    octaves = np.rint(x * f32(1 / math.log(2)))
    r = (x - octaves * f32(0.693359375)) - octaves * f32(math.log(2) - 0.693359375)
    series = f32(0)
    for n in range(7, 1, -1):
        series = f32(1 / math.factorial(n)) + r * series
    return np.ldexp(1 + (r + r * r * series), octaves.astype(int)).astype(np.float32)


def naive_log(x):
    m, octaves = np.frexp(x)  # from 1/2 to 1; what is below its root is doubled
    low = m < f32(math.sqrt(0.5))
    m, octaves = np.where(low, 2 * m, m), (octaves - low).astype(np.float32)
    f = m - 1
    s = f / (2 + f)
    z, series = s * s, f32(0)
    for n in (9, 7, 5, 3):
        series = f32(2 / n) + z * series
    return octaves * f32(0.693359375) + (octaves * f32(math.log(2) - 0.693359375) - s * (f - z * series) + f)


def naive_phasor(turns):
    quarters = np.rint(4 * turns)
    x = (4 * turns - quarters) * f32(math.pi / 2)
    z, s, c = x * x, f32(0), f32(0)
    for n in range(4, 0, -1):
        s = f32((-1) ** n / math.factorial(2 * n + 1)) + z * s
    for n in range(5, 0, -1):
        c = f32((-1) ** n / math.factorial(2 * n)) + z * c
    s, c = x + x * z * s, 1 + z * c
    turned = [(c, s), (-s, c), (-c, -s), (s, -c)]
    return np.array([np.choose(quarters.astype(int) % 4, [pair[i] for pair in turned]) for i in range(2)])


EXPONENTS = np.random.default_rng(0).uniform(-87.3, 88.3, 100_000).astype(np.float32)
POSITIVE = np.exp(np.random.default_rng(1).uniform(-87, 88, 100_000)).astype(np.float32)
NEAR_ONE = np.random.default_rng(2).uniform(0.5, 2, 100_000).astype(np.float32)
TURNS = np.random.default_rng(3).uniform(-1000, 1000, 100_000).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "x", "truth", "bound"),
    [
        (exps, EXPONENTS, np.exp, 1),
        (logs, POSITIVE, np.log, 1),
        (logs, NEAR_ONE, np.log, 1),
        (log10s, POSITIVE, np.log10, 3),
        (log10s, NEAR_ONE, np.log10, 3),
    ],
)
def test_they_are_near(function, x, truth, bound):
    assert units(computed(function, x), truth(x.astype(float))).max() <= bound


def test_a_phasor_is_near():
    c, s = computed(phasors, TURNS)
    assert np.abs(c + 1j * s - np.exp(2j * np.pi * TURNS.astype(float))).max() < 1.2e-7


@pytest.mark.parametrize(
    ("function", "naive", "x"),
    [(exps, naive_exp, EXPONENTS), (logs, naive_log, POSITIVE), (phasors, naive_phasor, TURNS)],
)
def test_they_have_the_bits_of_their_twins(function, naive, x):
    assert np.array_equal(computed(function, x), naive(x))


def test_ends():
    inf, nan = np.inf, np.nan
    x = np.array([0, -0.0, -88, -inf, 89, inf, nan], np.float32)
    assert np.array_equal(computed(exps, x), np.array([1, 1, 0, 0, inf, inf, nan], np.float32), equal_nan=True)
    x = np.array([1, 0, -1, 1e-40, -inf, inf, nan], np.float32)
    expected = np.array([0, -inf, -inf, -inf, -inf, inf, nan], np.float32)
    assert np.array_equal(computed(logs, x), expected, equal_nan=True)
    x = np.array([0, 0.25, 0.5, 0.75, 1, -0.25], np.float32)
    assert np.array_equal(computed(phasors, x), [[1, 0, -1, 0, 1, 0], [0, 1, 0, -1, 0, -1]])
    assert np.isnan(computed(phasors, np.array([nan, inf], np.float32))).all()
