"""Real FFT of one frame in plain kernels, into given arrays.

A Stockham transform (no bit reversal) on planes: real and imaginary parts lie in separate rows, so that
eight lanes work on eight neighbouring bins. The first pass is of radix 8 and stores its results
transposed; from then on the inner stride is a multiple of eight and every access is contiguous.
A real frame of `n_fft` samples is transformed as a complex one of half the length (even samples real,
odd samples imaginary) and untangled afterwards.

Sources: the autosort form is due to Stockham, see C. Van Loan, "Computational Frameworks for the Fast
Fourier Transform", SIAM 1992, section 1.7; the half-length trick is in section 4.3 there.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.kernels.jit import entry, inlined, pasted
from rtsep.kernels.memory import Code, code, constant, zeros
from rtsep.kernels.simd import (
    LANES,
    even,
    get,
    load,
    multiply_add,
    multiply_subtract,
    odd,
    put,
    reverse,
    store,
    store_transposed,
    zip_high,
    zip_low,
)

SQRT_HALF = np.float32(math.sqrt(0.5))
HALF = np.float32(0.5)
ZERO = np.float32(0)
SIN_60 = np.float32(math.sin(math.pi / 3))
COS_72 = np.float32(math.cos(2 * math.pi / 5))
COS_144 = np.float32(math.cos(4 * math.pi / 5))
SIN_72 = np.float32(math.sin(2 * math.pi / 5))
SIN_144 = np.float32(math.sin(4 * math.pi / 5))


class FFTPlan(NamedTuple):
    """Constants and scratch of the transform of one size; float32 unless said."""

    transform: Code  # `_transform`, and its passes from the second on
    radices: np.ndarray  # int64 (n_passes,): the first is 8
    twiddle: np.ndarray  # (2, n_twiddles): exp(-2 pi i p k / n) of all passes, in the order of use
    untangle: np.ndarray  # (2, n_fft // 2 + 1): exp(-2 pi i k / n_fft)
    scratch: np.ndarray  # (3, 2, n_fft // 2): packed frame, buffer between the passes, transform


def plan_fft(n_fft: int) -> FFTPlan:
    """Make the plan for real frames of `n_fft` samples (a size that `StreamConfig` accepts).

    Not real-time safe; the first plan compiles the transform, and the first of each radix its pass.
    """
    n = n_fft // 2
    radices = [8]
    rest = n // 8
    for radix in (8, 5, 4, 3, 2):
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
    # The first pass runs over p in its lanes, so its twiddles lie p by p for every k; the others k by k.
    p, k = np.arange(n // 8), np.arange(1, 8)
    angles = [np.outer(k, p).ravel() / n]
    length = n // 8
    for radix in radices[1:]:
        p, k = np.arange(length // radix), np.arange(1, radix)
        angles.append(np.outer(p, k).ravel() / length)
        length //= radix
    twiddle = np.exp(-2j * np.pi * np.concatenate(angles))
    untangle = np.exp(-2j * np.pi * np.arange(n + 1) / n_fft)
    return FFTPlan(
        transform=code(_compiled_transform().address, *(_compiled_pass(radix).address for radix in radices[1:])),
        radices=constant(radices, np.int64),
        twiddle=constant([twiddle.real, twiddle.imag]),
        untangle=constant([untangle.real, untangle.imag]),
        scratch=zeros((3, 2, n)),
    )


# Butterflies, on lanes or scalars: y_k = sum_j x_j exp(-2 pi i j k / radix).


@inlined
def _butterfly2(ar, ai, br, bi):
    return ar + br, ai + bi, ar - br, ai - bi


@inlined
def _butterfly3(ar, ai, br, bi, cr, ci):
    sr, si = br + cr, bi + ci
    dr, di = (bi - ci) * SIN_60, (cr - br) * SIN_60
    mr, mi = multiply_add(sr, -HALF, ar), multiply_add(si, -HALF, ai)
    return ar + sr, ai + si, mr + dr, mi + di, mr - dr, mi - di


@inlined
def _butterfly4(ar, ai, br, bi, cr, ci, dr, di):
    er, ei, fr, fi = _butterfly2(ar, ai, cr, ci)
    gr, gi, hr, hi = _butterfly2(br, bi, dr, di)
    return er + gr, ei + gi, fr + hi, fi - hr, er - gr, ei - gi, fr - hi, fi + hr


@inlined
def _butterfly5(ar, ai, br, bi, cr, ci, dr, di, er, ei):
    s1r, s1i, d1r, d1i = br + er, bi + ei, br - er, bi - ei
    s2r, s2i, d2r, d2i = cr + dr, ci + di, cr - dr, ci - di
    m1r = multiply_add(s2r, COS_144, multiply_add(s1r, COS_72, ar))
    m1i = multiply_add(s2i, COS_144, multiply_add(s1i, COS_72, ai))
    m2r = multiply_add(s2r, COS_72, multiply_add(s1r, COS_144, ar))
    m2i = multiply_add(s2i, COS_72, multiply_add(s1i, COS_144, ai))
    t1r, t1i = multiply_add(d1i, SIN_72, d2i * SIN_144), multiply_add(d1r, SIN_72, d2r * SIN_144)
    t2r, t2i = multiply_subtract(d1i, SIN_144, d2i * SIN_72), multiply_subtract(d1r, SIN_144, d2r * SIN_72)
    return (
        ar + s1r + s2r,
        ai + s1i + s2i,
        m1r + t1r,
        m1i - t1i,
        m2r + t2r,
        m2i - t2i,
        m2r - t2r,
        m2i + t2i,
        m1r - t1r,
        m1i + t1i,
    )


@inlined
def _butterfly8(ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi, gr, gi, hr, hi):
    e0r, e0i, e1r, e1i, e2r, e2i, e3r, e3i = _butterfly4(ar, ai, cr, ci, er, ei, gr, gi)
    o0r, o0i, o1r, o1i, o2r, o2i, o3r, o3i = _butterfly4(br, bi, dr, di, fr, fi, hr, hi)
    o1r, o1i = (o1r + o1i) * SQRT_HALF, (o1i - o1r) * SQRT_HALF
    o3r, o3i = (o3i - o3r) * SQRT_HALF, (o3r + o3i) * SQRT_HALF
    return (
        e0r + o0r,
        e0i + o0i,
        e1r + o1r,
        e1i + o1i,
        e2r + o2i,
        e2i - o2r,
        e3r + o3r,
        e3i - o3i,
        e0r - o0r,
        e0i - o0i,
        e1r - o1r,
        e1i - o1i,
        e2r - o2i,
        e2i + o2r,
        e3r - o3r,
        e3i + o3i,
    )


@inlined
def _rotate(re, im, wr, wi):
    return multiply_subtract(re, wr, im * wi), multiply_add(re, wi, im * wr)


@inlined
def _factor(twiddle, twiddle_i, at):
    return get(twiddle, at), get(twiddle, twiddle_i + at)


@inlined
def _put(z, at, n, re, im):
    store(z, at, re)
    store(z, n + at, im)


# Passes: a transform of `length` points at `stride` becomes `radix` of them at `radix * stride`.
# `source` and `target` are flat positions in the scratch `z`; imaginary parts lie `n` after the real ones.
# (Whole arrays and flat positions, since every slice would cost an atomic reference count.)


@pasted
def _first_pass8(z, n, source, target, twiddle, twiddle_i):
    m = n // 8
    for start in range(0, m, LANES):
        p = min(start, m - LANES)
        xr = source + p
        xi = xr + n
        ar, br, cr, dr = load(z, xr), load(z, xr + m), load(z, xr + 2 * m), load(z, xr + 3 * m)
        ai, bi, ci, di = load(z, xi), load(z, xi + m), load(z, xi + 2 * m), load(z, xi + 3 * m)
        er, fr, gr, hr = load(z, xr + 4 * m), load(z, xr + 5 * m), load(z, xr + 6 * m), load(z, xr + 7 * m)
        ei, fi, gi, hi = load(z, xi + 4 * m), load(z, xi + 5 * m), load(z, xi + 6 * m), load(z, xi + 7 * m)
        ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi, gr, gi, hr, hi = _butterfly8(
            ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi, gr, gi, hr, hi
        )
        br, bi = _rotate(br, bi, load(twiddle, p), load(twiddle, twiddle_i + p))
        cr, ci = _rotate(cr, ci, load(twiddle, p + m), load(twiddle, twiddle_i + p + m))
        dr, di = _rotate(dr, di, load(twiddle, p + 2 * m), load(twiddle, twiddle_i + p + 2 * m))
        er, ei = _rotate(er, ei, load(twiddle, p + 3 * m), load(twiddle, twiddle_i + p + 3 * m))
        fr, fi = _rotate(fr, fi, load(twiddle, p + 4 * m), load(twiddle, twiddle_i + p + 4 * m))
        gr, gi = _rotate(gr, gi, load(twiddle, p + 5 * m), load(twiddle, twiddle_i + p + 5 * m))
        hr, hi = _rotate(hr, hi, load(twiddle, p + 6 * m), load(twiddle, twiddle_i + p + 6 * m))
        store_transposed(z, target + 8 * p, ar, br, cr, dr, er, fr, gr, hr)
        store_transposed(z, target + n + 8 * p, ai, bi, ci, di, ei, fi, gi, hi)


def _pass2(z, n, source, target, twiddle, twiddle_i, offset, m, stride):
    for p in range(m):
        wr, wi = _factor(twiddle, twiddle_i, offset + p)
        for q in range(0, stride, LANES):
            i, o = source + q + stride * p, target + q + stride * 2 * p
            j = i + stride * m
            ar, ai, br, bi = _butterfly2(load(z, i), load(z, n + i), load(z, j), load(z, n + j))
            br, bi = _rotate(br, bi, wr, wi)
            _put(z, o, n, ar, ai)
            _put(z, o + stride, n, br, bi)


def _pass3(z, n, source, target, twiddle, twiddle_i, offset, m, stride):
    for p in range(m):
        w = offset + 2 * p
        w1r, w1i = _factor(twiddle, twiddle_i, w)
        w2r, w2i = _factor(twiddle, twiddle_i, w + 1)
        for q in range(0, stride, LANES):
            i, o = source + q + stride * p, target + q + stride * 3 * p
            j, k = i + stride * m, i + stride * 2 * m
            ar, ai, br, bi, cr, ci = _butterfly3(
                load(z, i), load(z, n + i), load(z, j), load(z, n + j), load(z, k), load(z, n + k)
            )
            br, bi = _rotate(br, bi, w1r, w1i)
            cr, ci = _rotate(cr, ci, w2r, w2i)
            _put(z, o, n, ar, ai)
            _put(z, o + stride, n, br, bi)
            _put(z, o + 2 * stride, n, cr, ci)


def _pass4(z, n, source, target, twiddle, twiddle_i, offset, m, stride):
    step = stride * m
    for p in range(m):
        w = offset + 3 * p
        w1r, w1i = _factor(twiddle, twiddle_i, w)
        w2r, w2i = _factor(twiddle, twiddle_i, w + 1)
        w3r, w3i = _factor(twiddle, twiddle_i, w + 2)
        for q in range(0, stride, LANES):
            i, o = source + q + stride * p, target + q + stride * 4 * p
            ar, br, cr, dr = load(z, i), load(z, i + step), load(z, i + 2 * step), load(z, i + 3 * step)
            ai, bi, ci, di = load(z, n + i), load(z, n + i + step), load(z, n + i + 2 * step), load(z, n + i + 3 * step)
            ar, ai, br, bi, cr, ci, dr, di = _butterfly4(ar, ai, br, bi, cr, ci, dr, di)
            br, bi = _rotate(br, bi, w1r, w1i)
            cr, ci = _rotate(cr, ci, w2r, w2i)
            dr, di = _rotate(dr, di, w3r, w3i)
            _put(z, o, n, ar, ai)
            _put(z, o + stride, n, br, bi)
            _put(z, o + 2 * stride, n, cr, ci)
            _put(z, o + 3 * stride, n, dr, di)


def _pass5(z, n, source, target, twiddle, twiddle_i, offset, m, stride):
    step = stride * m
    for p in range(m):
        w = offset + 4 * p
        w1r, w1i = _factor(twiddle, twiddle_i, w)
        w2r, w2i = _factor(twiddle, twiddle_i, w + 1)
        w3r, w3i = _factor(twiddle, twiddle_i, w + 2)
        w4r, w4i = _factor(twiddle, twiddle_i, w + 3)
        for q in range(0, stride, LANES):
            i, o = source + q + stride * p, target + q + stride * 5 * p
            ar, br, cr, dr = load(z, i), load(z, i + step), load(z, i + 2 * step), load(z, i + 3 * step)
            ai, bi, ci, di = load(z, n + i), load(z, n + i + step), load(z, n + i + 2 * step), load(z, n + i + 3 * step)
            er, ei = load(z, i + 4 * step), load(z, n + i + 4 * step)
            ar, ai, br, bi, cr, ci, dr, di, er, ei = _butterfly5(ar, ai, br, bi, cr, ci, dr, di, er, ei)
            br, bi = _rotate(br, bi, w1r, w1i)
            cr, ci = _rotate(cr, ci, w2r, w2i)
            dr, di = _rotate(dr, di, w3r, w3i)
            er, ei = _rotate(er, ei, w4r, w4i)
            _put(z, o, n, ar, ai)
            _put(z, o + stride, n, br, bi)
            _put(z, o + 2 * stride, n, cr, ci)
            _put(z, o + 3 * stride, n, dr, di)
            _put(z, o + 4 * stride, n, er, ei)


def _pass8(z, n, source, target, twiddle, twiddle_i, offset, m, stride):
    step = stride * m
    for p in range(m):
        w = offset + 7 * p
        w1r, w1i = _factor(twiddle, twiddle_i, w)
        w2r, w2i = _factor(twiddle, twiddle_i, w + 1)
        w3r, w3i = _factor(twiddle, twiddle_i, w + 2)
        w4r, w4i = _factor(twiddle, twiddle_i, w + 3)
        w5r, w5i = _factor(twiddle, twiddle_i, w + 4)
        w6r, w6i = _factor(twiddle, twiddle_i, w + 5)
        w7r, w7i = _factor(twiddle, twiddle_i, w + 6)
        for q in range(0, stride, LANES):
            i, o = source + q + stride * p, target + q + stride * 8 * p
            j = i + 4 * step
            ar, br, cr, dr = load(z, i), load(z, i + step), load(z, i + 2 * step), load(z, i + 3 * step)
            ai, bi, ci, di = load(z, n + i), load(z, n + i + step), load(z, n + i + 2 * step), load(z, n + i + 3 * step)
            er, fr, gr, hr = load(z, j), load(z, j + step), load(z, j + 2 * step), load(z, j + 3 * step)
            ei, fi, gi, hi = load(z, n + j), load(z, n + j + step), load(z, n + j + 2 * step), load(z, n + j + 3 * step)
            ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi, gr, gi, hr, hi = _butterfly8(
                ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi, gr, gi, hr, hi
            )
            br, bi = _rotate(br, bi, w1r, w1i)
            cr, ci = _rotate(cr, ci, w2r, w2i)
            dr, di = _rotate(dr, di, w3r, w3i)
            er, ei = _rotate(er, ei, w4r, w4i)
            fr, fi = _rotate(fr, fi, w5r, w5i)
            gr, gi = _rotate(gr, gi, w6r, w6i)
            hr, hi = _rotate(hr, hi, w7r, w7i)
            _put(z, o, n, ar, ai)
            _put(z, o + stride, n, br, bi)
            _put(z, o + 2 * stride, n, cr, ci)
            _put(z, o + 3 * stride, n, dr, di)
            _put(z, o + 4 * stride, n, er, ei)
            _put(z, o + 5 * stride, n, fr, fi)
            _put(z, o + 6 * stride, n, gr, gi)
            _put(z, o + 7 * stride, n, hr, hi)


_PASSES = {2: _pass2, 3: _pass3, 4: _pass4, 5: _pass5, 8: _pass8}
_floats, _integers, _n = types.CPointer(types.float32), types.CPointer(types.int64), types.int64
_PASS = types.void(_floats, _n, _n, _n, _floats, _n, _n, _n, _n)
_SIGNATURE = types.void(_n, _n, _integers, _integers, _n, _floats, _n, _floats, _floats, _floats, _floats)


def _call(context, builder, address, signature, args):
    """Emit a call of the compiled function of this signature at `address`."""
    function_type = ir.FunctionType(ir.VoidType(), [context.get_value_type(ty) for ty in signature.args])
    builder.call(builder.inttoptr(address, function_type.as_pointer()), args)
    return context.get_dummy_value()


@cache
def _compiled_pass(radix: int) -> Any:
    return entry(_PASS)(_PASSES[radix])


@intrinsic
def _call_pass(typingctx, address, z, n, source, target, twiddle, twiddle_i, offset, m, stride):
    def codegen(context, builder, sig, args):
        return _call(context, builder, args[0], _PASS, args[1:])

    return types.void(_n, *_PASS.args), codegen


@pasted
def _passes(z, n, address, radices, n_passes, twiddle, twiddle_i):
    """Complex transform of the first buffer of the scratch into the third."""
    # The passes alternate between the other two buffers so that the last one writes the third.
    source, target, other = 0, 4 * n, 2 * n
    if n_passes % 2 == 0:
        target, other = other, target
    _first_pass8(z, n, source, target, twiddle, twiddle_i)
    offset, length, stride = 7 * (n // 8), n // 8, 8
    for i in range(1, n_passes):
        radix = radices[i]
        m = length // radix
        target, other = other, target
        _call_pass(address[i], z, n, other, target, twiddle, twiddle_i, offset, m, stride)
        offset += (radix - 1) * m
        length, stride = m, stride * radix


@pasted
def _pack(frame, z, n):
    """Even samples as real, odd ones as imaginary parts of the first buffer."""
    for i in range(0, n, LANES):
        a, b = load(frame, 2 * i), load(frame, 2 * i + LANES)
        _put(z, i, n, even(a, b), odd(a, b))


@pasted
def _untangle(z, n, w, spectrum):
    """Spectrum of the real frame from the third buffer.

    Bins k and n - k together: E and G are the transforms of the even and the (turned) odd samples.
    """
    n_bins, result = n + 1, 4 * n
    even_sum, odd_sum = get(z, result), get(z, result + n)
    put(spectrum, 0, even_sum + odd_sum)
    put(spectrum, n, even_sum - odd_sum)
    put(spectrum, n_bins, ZERO)
    put(spectrum, n_bins + n, ZERO)
    for start in range(1, n // 2 + 1, LANES):
        k = min(start, n // 2 - LANES + 1)
        mirror = n - k - LANES + 1
        ar, ai = load(z, result + k), load(z, result + n + k)
        br, bi = reverse(load(z, result + mirror)), reverse(load(z, result + n + mirror))
        er, ei = (ar + br) * HALF, (ai - bi) * HALF
        gr, gi = _rotate((ai + bi) * HALF, (br - ar) * HALF, load(w, k), load(w, n_bins + k))
        _put(spectrum, k, n_bins, er + gr, ei + gi)
        _put(spectrum, mirror, n_bins, reverse(er - gr), reverse(gi - ei))


@pasted
def _tangle(spectrum, w, z, n):
    """Inverse of `_untangle` into the first buffer, scaled, with real and imaginary parts exchanged."""
    n_bins = n + 1
    scale = HALF / np.float32(n)
    first, last = get(spectrum, 0), get(spectrum, n)
    put(z, n, (first + last) * scale)
    put(z, 0, (first - last) * scale)
    for start in range(1, n // 2 + 1, LANES):
        k = min(start, n // 2 - LANES + 1)
        mirror = n - k - LANES + 1
        ar, ai = load(spectrum, k), load(spectrum, n_bins + k)
        br, bi = reverse(load(spectrum, mirror)), reverse(load(spectrum, n_bins + mirror))
        er, ei = (ar + br) * scale, (ai - bi) * scale
        dr, di, cr, ci = (ar - br) * scale, (ai + bi) * scale, load(w, k), load(w, n_bins + k)
        gr, gi = multiply_add(dr, cr, di * ci), multiply_subtract(di, cr, dr * ci)
        _put(z, k, n, ei + gr, er - gi)
        _put(z, mirror, n, reverse(gr - ei), reverse(er + gi))


@pasted
def _unpack(z, n, frame):
    """Samples from the third buffer, whose real and imaginary parts are exchanged."""
    result = 4 * n
    for i in range(0, n, LANES):
        a, b = load(z, result + n + i), load(z, result + i)
        store(frame, 2 * i, zip_low(a, b))
        store(frame, 2 * i + LANES, zip_high(a, b))


def _transform(inverse, n, address, radices, n_passes, twiddle, twiddle_i, untangle, z, frame, spectrum):
    """`rfft` or, if `inverse`, `irfft`; compiled once for all callers.

    The inverse transform is the forward one with real and imaginary parts exchanged before and after.
    """
    if inverse:
        _tangle(spectrum, untangle, z, n)
    else:
        _pack(frame, z, n)
    _passes(z, n, address, radices, n_passes, twiddle, twiddle_i)
    if inverse:
        _unpack(z, n, frame)
    else:
        _untangle(z, n, untangle, spectrum)


@cache
def _compiled_transform() -> Any:
    return entry(_SIGNATURE)(_transform)


@intrinsic
def _call_transform(typingctx, address, inverse, radices, twiddle, untangle, scratch, frame, spectra, at):
    """Call `_transform` at `address[0]` on the data of the arrays; the spectrum starts at `spectra.flat[at]`."""

    def codegen(context, builder, sig, args):
        def array(i):
            return context.make_array(sig.args[i])(context, builder, args[i])

        def size(i, axis):
            return builder.extract_value(array(i).shape, axis)

        spectrum = builder.gep(array(7).data, [args[8]])
        address, radices, twiddle, untangle, scratch, frame = (array(i).data for i in (0, 2, 3, 4, 5, 6))
        passed = [args[1], size(5, 2), address, radices, size(2, 0), twiddle, size(3, 1), untangle, scratch, frame]
        return _call(context, builder, builder.load(address), _SIGNATURE, [*passed, spectrum])

    signature = types.void(address, _n, radices, twiddle, untangle, scratch, frame, spectra, _n)
    return signature, codegen


@inlined
def rfft(plan, frame, spectra, at):
    """Transform of a real frame.

    Parameters
    ----------
    plan : FFTPlan
        Its scratch is overwritten.
    frame : ndarray, float32, (n_fft,)
        Read only.
    spectra : ndarray, float32, (..., 2, n_bins)
        Real and imaginary parts from the flat position `at` on are overwritten.
    at : int

    Notes
    -----
    Real-time safe.
    """
    code = plan.transform.address
    _call_transform(code, 0, plan.radices, plan.twiddle, plan.untangle, plan.scratch, frame, spectra, at)


@inlined
def irfft(plan, spectra, at, frame):
    """Inverse of `rfft`; the imaginary parts of the first and the last bin are ignored.

    Parameters
    ----------
    plan : FFTPlan
        Its scratch is overwritten.
    spectra : ndarray, float32, (..., 2, n_bins)
        Real and imaginary parts from the flat position `at` on. Read only.
    at : int
    frame : ndarray, float32, (n_fft,)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    code = plan.transform.address
    _call_transform(code, 1, plan.radices, plan.twiddle, plan.untangle, plan.scratch, frame, spectra, at)
