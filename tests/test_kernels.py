"""FFT, lanes and the small kernels, each against its slow twin."""

from __future__ import annotations

import naive
import numpy as np
import pytest

from rtsep.config import StreamConfig, fft_size_ok
from rtsep.kernels.fft import irfft, plan_fft, rfft
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import ALIGNMENT, aligned, arrays, zeros
from rtsep.kernels.powers import power
from rtsep.kernels.simd import (
    LANES,
    clear,
    even,
    get,
    load,
    move,
    multiply_add,
    multiply_subtract,
    odd,
    put,
    reverse,
    square_root,
    store,
    store_transposed,
    zip_high,
    zip_low,
)
from rtsep.phase.sinusoidal import advance_phasors, prepare_sinusoids

SIZES = [n for n in range(128, 1700, 16) if fft_size_ok(n)] + [1920, 2880, 3072, 4800, 5760, 6144, 7200]


@kernel
def forward(plan, frame, spectra, at):
    rfft(plan, frame, spectra, at)


@kernel
def backward(plan, spectra, at, frame):
    irfft(plan, spectra, at, frame)


@pytest.mark.parametrize("n_fft", SIZES)
def test_fft_equals_numpys_and_its_inverse_undoes_it(n_fft):
    plan = plan_fft(n_fft)
    rng = np.random.default_rng(n_fft)
    spectra = np.full((3, 2, n_fft // 2 + 1), np.nan, np.float32)
    back = np.zeros(n_fft, np.float32)
    for frame in (rng.normal(size=n_fft), np.eye(1, n_fft, 3)[0], np.ones(n_fft), np.zeros(n_fft)):
        frame = frame.astype(np.float32)
        forward(plan, frame, spectra, 2 * (n_fft // 2 + 1))
        assert np.isnan(spectra[[0, 2]]).all()
        expected = np.fft.rfft(frame.astype(float))
        error = np.abs(spectra[1, 0] + 1j * spectra[1, 1] - expected).max()
        assert error <= 5e-7 * np.abs(expected).max()
        backward(plan, spectra, 2 * (n_fft // 2 + 1), back)
        assert np.abs(back - frame).max() <= 2e-6 * np.abs(frame).max()


def test_lanes_compute_what_numpy_does():
    @kernel
    def run(a, b, out):
        x, y = load(a, 0), load(b, 1)
        half = np.float32(0.5)
        store(out, 0, x + y * half - x / y)
        store(out, 8, square_root(y) * reverse(x))
        store(out, 16, multiply_add(x, half, y))
        store(out, 24, multiply_subtract(x, y, half))
        store(out, 32, even(x, y))
        store(out, 40, odd(x, y))
        store(out, 48, zip_low(x, y))
        store(out, 56, zip_high(x, y))

    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, 9)).astype(np.float32)
    out = np.zeros(64, np.float32)
    run(a, b, out)
    x, y = a[:8], b[1:9]
    both, zipped = np.concatenate([x, y]), np.stack([x, y], 1).ravel()
    exact = x.astype(float) * y - 0.5
    assert np.array_equal(out[:8], x + y * np.float32(0.5) - x / y)
    assert np.array_equal(out[8:16], np.sqrt(y) * x[::-1])
    assert np.array_equal(out[16:24], (x.astype(float) * 0.5 + y).astype(np.float32))
    assert np.array_equal(out[24:32], exact.astype(np.float32))
    assert np.array_equal(out[32:], np.concatenate([both[::2], both[1::2], zipped]))


def test_lanes_are_transposed_and_moved_to_flat_positions():
    @kernel
    def transpose(a, out):
        store_transposed(
            out, 8, load(a, 0), load(a, 8), load(a, 16), load(a, 24), load(a, 32), load(a, 40), load(a, 48), load(a, 56)
        )  # fmt: skip

    @kernel
    def shift(a):
        move(a, 0, a, 3, 10)
        clear(a, 12, 2)
        put(a, 15, get(a, 14) + np.float32(1))

    a = np.arange(64, dtype=np.float32).reshape(8, 8)
    out = np.zeros(80, np.float32)
    transpose(a, out)
    assert np.array_equal(out[8:72].reshape(8, 8), a.T)
    assert not out[:8].any()
    assert not out[72:].any()
    b = np.arange(16, dtype=np.float32).reshape(2, 8)
    shift(b)
    assert np.array_equal(b.ravel(), [*range(3, 13), 10, 11, 0, 0, 14, 15])


def test_states_are_aligned_and_their_arrays_are_found():
    for shape in (1, 7, (3, 5)):
        assert zeros(shape).ctypes.data % ALIGNMENT == 0
        assert not zeros(shape, np.int64).any()
    copy = aligned([[1, 2], [3, 4]])
    assert copy.dtype == np.float32
    assert len(list(arrays((copy, (copy, copy), np.zeros(1))))) == 4


@pytest.mark.parametrize("n_fft", [512, 1536])
def test_sinusoids_advance_as_their_twin_says(n_fft):
    config = StreamConfig(16_000, n_fft // 2, n_fft // 8, n_fft)
    rng = np.random.default_rng(0)
    n = np.arange(config.analysis)
    spectra = []
    for _ in range(20):
        tones = sum(rng.uniform(0.1, 1) * np.cos(2 * np.pi * f * n) for f in rng.uniform(0.01, 0.49, 4))
        spectra.append(np.abs(np.fft.rfft(tones * config.windows.analysis, n_fft)))
    flat = np.ones(config.n_bins)
    spectra += [flat, np.zeros(config.n_bins), np.arange(config.n_bins), np.eye(1, config.n_bins, 9)[0]]
    for v in spectra:
        magnitudes = np.stack([v, v[::-1]]).astype(np.float32)
        phase = rng.uniform(0, 2 * np.pi, magnitudes.shape)
        previous = np.stack([np.cos(phase), np.sin(phase)], 1).astype(np.float32)
        phasors = np.zeros_like(previous)
        state, mixture = prepare_sinusoids(config, 2), np.zeros((2, config.n_bins), np.float32)
        advance_phasors(state, magnitudes, mixture, 0, previous, phasors)
        nu = np.stack([naive.frequencies(m.astype(float), n_fft) for m in magnitudes])
        expected = np.exp(1j * (phase + 2 * np.pi * config.hop * nu))
        assert np.abs(phasors[:, 0] + 1j * phasors[:, 1] - expected).max() < 1e-4
        advance_phasors(state, magnitudes, mixture, 0, previous, previous)
        assert np.array_equal(previous, phasors)


def test_the_frequency_of_a_sine_is_found_within_a_tenth_of_a_hertz():
    config = StreamConfig(16_000, 256, 64)
    n = np.arange(256)
    for hz in (440.0, 1013.0, 3333.0):
        v = np.abs(np.fft.rfft(np.cos(2 * np.pi * hz / 16_000 * n) * config.windows.analysis, 512))
        peak = int(np.argmax(v))
        assert naive.frequencies(v, 512)[peak] * 16_000 == pytest.approx(hz, abs=1)


@kernel
def powers(x, y, out):
    for i in range(0, x.size, LANES):
        store(out, i, power(load(x, i), y))


@pytest.mark.parametrize("y", [-4.0, -1.5, -0.5, 0.0, 1 / 3, 1.0, 2.5])
def test_powers_are_those_of_numpy_within_what_float32_can_tell(y):
    y = np.float32(y)
    x = np.exp(np.random.default_rng(0).uniform(-17, 17, 4096)).astype(np.float32)
    x[:4] = 1, 2, np.nextafter(np.float32(2), np.float32(0)), 0.5
    out = np.empty_like(x)
    powers(x, y, out)
    wanted = x.astype(float) ** float(y)
    assert (np.abs(out / wanted - 1) <= 2e-7 * (1 + np.abs(y * np.log2(x)))).all()
    powers(x, np.float32(40), out)
    assert np.isfinite(out).all()  # what is too large becomes the largest
