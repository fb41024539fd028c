"""The processor's part of a callback: its clock, and its mode for numbers next to zero."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from rtsep.kernels.jit import inlined
from rtsep.kernels.memory import zeros

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


class Clock(NamedTuple):
    """A monotonic clock, called by its address.

    So the machine code can be kept on disk, and a test can put a clock of its own in its place. The function
    writes to its last argument: `clock_gettime(id, out)` of POSIX seconds and nanoseconds,
    `QueryPerformanceCounter(out)` of Windows ticks.
    """

    function: np.ndarray  # int64 (2,): address, id
    unit_ns: np.ndarray  # float64 (1,): nanoseconds in a unit of out[0]
    out: np.ndarray  # int64 (2,) scratch


def system_clock() -> Clock:
    """The clock of `time.monotonic_ns`, or on Windows that of `time.perf_counter_ns`."""
    if sys.platform == "win32":
        kernel32 = ctypes.windll.kernel32
        ticks = ctypes.c_int64()
        kernel32.QueryPerformanceFrequency(ctypes.byref(ticks))
        function, which, unit = kernel32.QueryPerformanceCounter, 0, 1e9 / ticks.value
    else:
        function, which, unit = ctypes.CDLL(None).clock_gettime, time.CLOCK_MONOTONIC, 1e9
    address = ctypes.cast(function, ctypes.c_void_p).value
    clock = Clock(zeros(2, np.int64), zeros(1, np.float64), zeros(2, np.int64))
    clock.function[:], clock.unit_ns[0] = (address, which), unit
    return clock


@intrinsic
def _read_clock(typingctx, address, which, out):
    def codegen(context, builder, sig, args):
        passed = [context.make_array(sig.args[2])(context, builder, args[2]).data]
        if sys.platform != "win32":
            passed.insert(0, builder.trunc(args[1], ir.IntType(32)))
        function_type = ir.FunctionType(ir.IntType(32), [value.type for value in passed])
        builder.call(builder.inttoptr(args[0], function_type.as_pointer()), passed)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, out), codegen


@inlined
def now(clock):
    """Nanoseconds of a `Clock`. Real-time safe; 23 ns on Linux."""
    _read_clock(clock.function[0], clock.function[1], clock.out)
    return np.int64(clock.out[0] * clock.unit_ns[0]) + clock.out[1]
