"""Exponential, logarithm, sine and cosine of float32, by additions, multiplications and divisions alone.

Those of C libraries differ in the last bit, and with them what one processor computes and another. These are rounded
the same way on each that has IEEE floats. They are series of Taylor, long enough for float32 on the small interval that
is left once powers of two, or quarters of a turn, are split off.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.kernels.jit import inlined

ZERO, HALF, ONE, TWO = (np.float32(x) for x in (0, 0.5, 1, 2))
INFINITY = np.float32(math.inf)
SMALLEST = np.float32(2.0**-126)  # of those with all bits
PER_OCTAVE = np.float32(1 / math.log(2))
# log 2 in two parts; products of the first with numbers of octaves are exact.
OCTAVE = np.float32(0.693359375)
OCTAVE_REST = np.float32(math.log(2) - 0.693359375)
LOWEST, HIGHEST = np.float32(-87.3), np.float32(88.3)  # of what has an exponential with all bits
DECADE = np.float32(1 / math.log(10))
TO_INTEGER = np.float32(1.5 * 2**23)  # what is added to it loses the bits behind the point
INTEGER_BITS = TO_INTEGER.view(np.int32)
ROOT_BITS = np.float32(math.sqrt(0.5)).view(np.int32)
MANTISSA_BITS, BIAS = 23, np.int32(127)
FRACTION = np.int32((1 << MANTISSA_BITS) - 1)
QUARTER = np.float32(math.pi / 2)
EXP = tuple(np.float32(1 / math.factorial(n)) for n in range(2, 8))
LOG = tuple(np.float32(2 / n) for n in (3, 5, 7, 9))
SIN = tuple(np.float32((-1) ** n / math.factorial(2 * n + 1)) for n in range(1, 5))
COS = tuple(np.float32((-1) ** n / math.factorial(2 * n)) for n in range(1, 6))


@intrinsic
def to_bits(typing_context: Any, x: Any) -> Any:
    """The int32 that has the bits of a float32."""
    return types.int32(types.float32), lambda _, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def from_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return types.float32(types.int32), lambda _, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@inlined
def exp(x):
    """Exponential of a float32, within 1 unit in the last place; 0 below -87.3, infinite above 88.3. Real-time safe."""
    if x < LOWEST:
        return ZERO
    if x > HIGHEST:
        return INFINITY
    shifted = x * PER_OCTAVE + TO_INTEGER
    octaves = shifted - TO_INTEGER
    r = (x - octaves * OCTAVE) - octaves * OCTAVE_REST
    series = EXP[0] + r * (EXP[1] + r * (EXP[2] + r * (EXP[3] + r * (EXP[4] + r * EXP[5]))))
    exponent = to_bits(shifted) - INTEGER_BITS + BIAS
    return (ONE + (r + r * r * series)) * from_bits(exponent << MANTISSA_BITS)


@inlined
def log(x):
    """Natural logarithm of a float32, within 1 unit in the last place; -infinity below 2^-126. Real-time safe.

    With s = f / (2 + f), log(1 + f) = 2 artanh(s) = f - s (f - 2 (s^2/3 + s^4/5 + ...)).
    """
    if x < SMALLEST:
        return -INFINITY
    if not x < INFINITY:
        return x
    bits = np.int32(to_bits(x) - ROOT_BITS)
    f = from_bits((bits & FRACTION) + ROOT_BITS) - ONE
    octaves = np.float32(np.int32(bits >> MANTISSA_BITS))
    s = f / (TWO + f)
    z = s * s
    series = z * (LOG[0] + z * (LOG[1] + z * (LOG[2] + z * LOG[3])))
    return octaves * OCTAVE + (octaves * OCTAVE_REST - s * (f - series) + f)


@inlined
def log10(x):
    """Decimal logarithm of a float32, within 3 units in the last place; see `log`. Real-time safe."""
    return log(x) * DECADE


@inlined
def phasor(turns):
    """Cosine and sine of an angle of so many turns, float32, within 1e-7; at most 2^20 turns. Real-time safe."""
    shifted = np.float32(4) * turns + TO_INTEGER
    quarters = to_bits(shifted)
    x = (np.float32(4) * turns - (shifted - TO_INTEGER)) * QUARTER
    z = x * x
    s = x + x * z * (SIN[0] + z * (SIN[1] + z * (SIN[2] + z * SIN[3])))
    c = ONE + z * (COS[0] + z * (COS[1] + z * (COS[2] + z * (COS[3] + z * COS[4]))))
    if quarters & 1:
        c, s = -s, c
    if quarters & 2:
        c, s = -c, -s
    return c, s
