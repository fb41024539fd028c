"""The time inside kernels."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.kernels.jit import inlined
from rtsep.kernels.memory import Code, code, constant, zeros


class Clock(NamedTuple):
    """A monotonic clock, called by its address.

    So the machine code can be kept on disk, and a test can put a clock of its own in its place. The function
    writes to its last argument: `clock_gettime(id, out)` of POSIX seconds and nanoseconds,
    `QueryPerformanceCounter(out)` of Windows ticks.
    """

    function: Code
    which: np.ndarray  # int64, constant (1,): id of the clock
    unit_ns: np.ndarray  # float64, constant (1,): nanoseconds in a unit of out[0]
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
    assert address is not None
    return Clock(code(address), constant([which], np.int64), constant([unit], np.float64), zeros(2, np.int64))


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
    _read_clock(clock.function.address[0], clock.which[0], clock.out)
    return np.int64(clock.out[0] * clock.unit_ns[0]) + clock.out[1]
