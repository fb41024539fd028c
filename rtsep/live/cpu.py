"""The mode of the processor for numbers next to zero."""

from __future__ import annotations

import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

X86 = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")
ARM64 = platform.machine().lower() in ("arm64", "aarch64")
X86_FLUSH = 0x8040  # flush to zero, denormals are zero
ARM64_FLUSH = 1 << 24  # FZ


@intrinsic
def _get_mode(typingctx):
    def x86(context, builder, sig, args):
        place = cgutils.alloca_once(builder, ir.IntType(32))
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.x86.sse.stmxcsr"), [pointer])
        return builder.zext(builder.load(place), ir.IntType(64))

    def arm64(context, builder, sig, args):
        function_type = ir.FunctionType(ir.IntType(64), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.aarch64.get.fpcr"), [])

    return types.uint64(), x86 if X86 else arm64


@intrinsic
def _set_mode(typingctx, mode):
    def x86(context, builder, sig, args):
        place = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(builder.trunc(args[0], ir.IntType(32)), place)
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.x86.sse.ldmxcsr"), [pointer])
        return context.get_dummy_value()

    def arm64(context, builder, sig, args):
        function_type = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.aarch64.set.fpcr"), args)
        return context.get_dummy_value()

    return types.void(types.uint64), x86 if X86 else arm64


def flush_to_zero():
    """Let denormal numbers count as zero in this thread; gives the mode before. For compiled code only."""
    raise NotImplementedError


def restore_mode(mode):
    """Undo `flush_to_zero`. For compiled code only."""
    raise NotImplementedError


@overload(flush_to_zero)
def _flush_to_zero():
    if not (X86 or ARM64):
        return lambda: np.uint64(0)
    flush = np.uint64(X86_FLUSH if X86 else ARM64_FLUSH)

    def set_flush():
        mode = _get_mode()
        _set_mode(mode | flush)
        return mode

    return set_flush


@overload(restore_mode)
def _restore_mode(mode):
    if not (X86 or ARM64):
        return lambda mode: None
    return lambda mode: _set_mode(mode)
