"""Powers of eight positive float32 lanes, without a call of the C library: LLVM makes eight calls of its `powf`.

x^y = 2^(y log2 x). The logarithm of the mantissa is the series of the inverse hyperbolic tangent, 2^f on [-1/2, 1/2]
the series of the exponential function (M. Abramowitz and I. Stegun, 4.1.27 and 4.2.1).
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from rtsep.kernels.jit import inlined
from rtsep.kernels.simd import LANES, lanes, limit, multiply_add

_FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
_MANTISSA, _BIAS, _ONE = 0x7FFFFF, 127, 127 << 23

HALF, ROOT = np.float32(0.5), np.float32(math.sqrt(2))
ROUND = np.float32(1.5 * 2**23)  # added and taken away, it leaves the nearest whole number
LEAST, MOST = np.float32(-126), np.float32(127)  # exponents of normal numbers
LOG = [np.float32(2 / math.log(2) / n) for n in (1, 3, 5, 7, 9, 11)]
EXP = [np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8)]
L0, L1, L2, L3, L4, L5 = LOG
E0, E1, E2, E3, E4, E5, E6, E7 = EXP


def _all(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [value] * LANES)


@intrinsic
def mantissa(typingctx, x):
    """Of normal positive lanes, 1 to 2."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], _INTS)
        return builder.bitcast(builder.or_(builder.and_(bits, _all(_MANTISSA)), _all(_ONE)), _FLOATS)

    return lanes(x), codegen


@intrinsic
def exponent(typingctx, x):
    """Of normal positive lanes: whole numbers, float32."""

    def codegen(context, builder, sig, args):
        bits = builder.lshr(builder.bitcast(args[0], _INTS), _all(23))
        return builder.sitofp(builder.sub(bits, _all(_BIAS)), _FLOATS)

    return lanes(x), codegen


@intrinsic
def power_of_two(typingctx, n):
    """Of whole numbers -126 to 127, float32."""

    def codegen(context, builder, sig, args):
        bits = builder.add(builder.fptosi(args[0], _INTS), _all(_BIAS))
        return builder.bitcast(builder.shl(bits, _all(23)), _FLOATS)

    return lanes(n), codegen


@inlined
def power(x, y):
    """`x**y` of lanes, y float32 or lanes; within 2e-7 (1 + |y log2 x|), and within the normal numbers.

    Each x is a normal number above 0. Real-time safe.
    """
    m = mantissa(x)
    t = (m - ROOT) / (m + ROOT)  # both ends of 1 to 2 are equally far from it
    s = t * t
    p = multiply_add(multiply_add(multiply_add(multiply_add(s * L5 + L4, s, L3), s, L2), s, L1), s, L0)
    z = limit((exponent(x) + multiply_add(t, p, HALF)) * y, LEAST, MOST)
    whole = (z + ROUND) - ROUND
    f = z - whole
    e = multiply_add(multiply_add(multiply_add(f * E7 + E6, f, E5), f, E4), f, E3)
    return multiply_add(multiply_add(multiply_add(e, f, E2), f, E1), f, E0) * power_of_two(whole)
