"""Eight float32 lanes as a value inside kernels.

LLVM does not vectorise our inner loops by itself: with more than a handful of arrays it gives up proving
that they do not overlap. `load(array, i)` gives the lanes `array[i : i + 8]` as one value with `+ - * /`
among themselves and with float32 scalars, and `store` puts them back; everything else about a kernel
stays ordinary Python. LLVM legalises the lanes for any target (one AVX register, two of SSE or NEON).

The array may have any number of dimensions as long as it is contiguous (`i` counts flat elements), or be a
pointer.
Nothing here checks bounds. A length `n` that is not a multiple of eight is covered by the loop

    for start in range(0, n, LANES):
        i = min(start, n - LANES)

in which the last lanes overlap the ones before; hence outputs must not alias inputs, and `n >= 8`.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from rtsep.kernels.jit import inlined

LANES = 8
FEW_REGISTERS = "rtsep.few_registers"  # in LLVM code

_LLVM = ir.VectorType(ir.FloatType(), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_INDEX = ir.IntType(32)


class Lanes(types.Type):
    """numba type of eight float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _LLVM)


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INDEX, len(order)), order))


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_LLVM, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INDEX, 0))
    return _shuffle(builder, first, undefined, [0] * LANES)


def _define(op: Any, instruction: str) -> None:
    """Teach numba `op` for lanes with lanes, lanes with float32 and float32 with lanes."""

    @infer_global(op)
    class Template(AbstractTemplate):
        key = op

        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and lanes in args and all(a in (lanes, types.float32) for a in args):
                return signature(lanes, *args)
            return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = (value if ty == lanes else _splat(builder, value) for ty, value in zip(sig.args, args, strict=True))
        return getattr(builder, instruction)(a, b)

    for a, b in ((Lanes, Lanes), (Lanes, types.float32), (types.float32, Lanes)):
        lower_builtin(op, a, b)(emit)


for _op, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_op, _instruction)


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    if isinstance(array_type, types.Array):
        array = context.make_array(array_type)(context, builder, array).data
    return builder.gep(array, [index])


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.bitcast(_element(context, builder, array_type, array, index), _LLVM.as_pointer())


def _check_written(array_type: Any) -> None:
    if isinstance(array_type, types.Array) and not array_type.mutable:
        raise TypingError("a kernel writes to an array that is read-only: a constant of a state, or an input")


@intrinsic
def load(typingctx, array, i):
    """Lanes `array.flat[i : i + 8]` of a contiguous array, float32, or int8, which become numbers of the same value."""

    def codegen(context, builder, sig, args):
        if getattr(sig.args[0], "dtype", None) == types.int8:
            element = builder.bitcast(_element(context, builder, sig.args[0], *args), _BYTES.as_pointer())
            return builder.sitofp(builder.load(element, align=1), _LLVM)
        return builder.load(_address(context, builder, sig.args[0], *args), align=4)

    return lanes(array, i), codegen


@intrinsic
def store(typingctx, array, i, value):
    """`array.flat[i : i + 8] = value`."""
    _check_written(array)

    def codegen(context, builder, sig, args):
        builder.store(args[2], _address(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, i, value), codegen


@intrinsic
def get(typingctx, array, i):
    """The float32 `array.flat[i]`, without the check for a negative index."""

    def codegen(context, builder, sig, args):
        return builder.load(_element(context, builder, sig.args[0], *args))

    return types.float32(array, i), codegen


@intrinsic
def put(typingctx, array, i, value):
    """`array.flat[i] = value`, a float32, without the check for a negative index."""
    _check_written(array)

    def codegen(context, builder, sig, args):
        builder.store(args[2], _element(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, i, types.float32), codegen


@intrinsic
def move(typingctx, target, at, source, start, n):
    """`target.flat[at : at + n] = source.flat[start : start + n]`, float32; they may overlap."""
    _check_written(target)

    def codegen(context, builder, sig, args):
        to = _element(context, builder, sig.args[0], *args[:2])
        from_ = _element(context, builder, sig.args[2], *args[2:4])
        n_bytes = builder.shl(args[4], ir.Constant(args[4].type, 2))
        cgutils.raw_memmove(builder, to, from_, n_bytes, 1)
        return context.get_dummy_value()

    return types.void(target, at, source, start, n), codegen


@intrinsic
def clear(typingctx, target, at, n):
    """`target.flat[at : at + n] = 0`, float32."""
    _check_written(target)

    def codegen(context, builder, sig, args):
        to = _element(context, builder, sig.args[0], *args[:2])
        n_bytes = builder.shl(args[2], ir.Constant(args[2].type, 2))
        cgutils.memset(builder, to, n_bytes, 0)
        return context.get_dummy_value()

    return types.void(target, at, n), codegen


@intrinsic
def few_registers(typingctx):
    """Whether the registers of the processor hold less than eight lanes and what goes into them: False here.

    It is a weak constant, which LLVM must not take for granted: `rtsep.export` gives it another value for others.
    """

    def codegen(context, builder, sig, args):
        if FEW_REGISTERS not in builder.module.globals:
            few = ir.GlobalVariable(builder.module, ir.IntType(1), FEW_REGISTERS)
            few.linkage, few.global_constant, few.initializer = "weak", True, ir.Constant(ir.IntType(1), 0)
        return builder.load(builder.module.globals[FEW_REGISTERS])

    return types.boolean(), codegen


def _fused(negative: bool, doc: str) -> Any:
    def fused(typingctx, a, b, c):
        def codegen(context, builder, sig, args):
            x, y, z = (
                value if ty == lanes else _splat(builder, value) for ty, value in zip(sig.args, args, strict=True)
            )
            function_type = ir.FunctionType(_LLVM, [_LLVM] * 3)
            fma = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fma.v{LANES}f32")
            return builder.call(fma, [x, y, builder.fneg(z) if negative else z])

        return lanes(a, b, c), codegen

    fused.__doc__ = doc
    return intrinsic(fused)


multiply_add = _fused(False, "`a * b + c` of lanes, rounded once; each may be a float32 instead.")
multiply_subtract = _fused(True, "`a * b - c` of lanes, rounded once; each may be a float32 instead.")


@intrinsic
def square_root(typingctx, value):
    """Square root of each lane."""

    def codegen(context, builder, sig, args):
        function_type = ir.FunctionType(_LLVM, [_LLVM])
        sqrt = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.sqrt.v{LANES}f32")
        return builder.call(sqrt, args)

    return lanes(value), codegen


@intrinsic
def limit(typingctx, value, low, high):
    """Each lane of `value`, at least `low` and at most `high`, both float32; NaN becomes `low`."""

    def codegen(context, builder, sig, args):
        value, low, high = args[0], _splat(builder, args[1]), _splat(builder, args[2])
        value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
        return builder.select(builder.fcmp_ordered("<", value, high), value, high)

    return lanes(value, types.float32, types.float32), codegen


def _permutation(order: list[int], doc: str) -> Any:
    """An intrinsic of two lanes whose result picks the lanes `order` of their concatenation."""

    def permute(typingctx, a, b):
        def codegen(context, builder, sig, args):
            return _shuffle(builder, args[0], args[1], order)

        return lanes(a, b), codegen

    permute.__doc__ = doc
    return intrinsic(permute)


_first, _second = list(range(LANES)), list(range(LANES, 2 * LANES))
_zipped = [lane for pair in zip(_first, _second, strict=True) for lane in pair]
even = _permutation(list(range(0, 2 * LANES, 2)), "Even elements of the 16 lanes `a, b`.")
odd = _permutation(list(range(1, 2 * LANES, 2)), "Odd elements of the 16 lanes `a, b`.")
zip_low = _permutation(_zipped[:LANES], "First half of a0, b0, a1, b1, ...")
zip_high = _permutation(_zipped[LANES:], "Second half of a0, b0, a1, b1, ...")


@intrinsic
def reverse(typingctx, value):
    """The lanes in reversed order."""

    def codegen(context, builder, sig, args):
        return _shuffle(builder, args[0], args[0], _first[::-1])

    return lanes(value), codegen


@intrinsic
def store_transposed(typingctx, array, i, v0, v1, v2, v3, v4, v5, v6, v7):
    """Store an 8 x 8 block by columns: `array[i + 8 * l + k] = v_k[l]`."""
    _check_written(array)

    def codegen(context, builder, sig, args):
        # Three rounds; each interleaves the rows k and k + 4, as a perfect shuffle of the 64 elements.
        rows = list(args[2:])
        for _ in range(3):
            rows = [
                _shuffle(builder, rows[k // 2], rows[k // 2 + LANES // 2], half)
                for k in range(LANES)
                for half in ([_zipped[:LANES], _zipped[LANES:]][k % 2],)
            ]
        for k, row in enumerate(rows):
            index = builder.add(args[1], ir.Constant(args[1].type, LANES * k))
            builder.store(row, _address(context, builder, sig.args[0], args[0], index), align=4)
        return context.get_dummy_value()

    return types.void(array, i, v0, v1, v2, v3, v4, v5, v6, v7), codegen


@inlined
def multiply(a, at_a, b, at_b, out, n):
    """`out[i] = a[at_a + i] * b[at_b + i]` for `i < n`, on flat positions; `out` overlaps neither."""
    for start in range(0, n, LANES):
        i = min(start, n - LANES)
        store(out, i, load(a, at_a + i) * load(b, at_b + i))
