"""What goes through PortAudio's one pointer: a state behind an address, and functions called by theirs.

A NamedTuple of arrays is a plain struct to the compiler. It is stored once, and loaded in every callback.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros

# Kernels do not count references (`rtsep.kernels.jit`): the struct is good as long as Python keeps the arrays.


@intrinsic
def _store(typingctx, address, state):
    def codegen(context, builder, sig, args):
        builder.store(args[1], builder.inttoptr(args[0], args[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, state), codegen


@intrinsic
def load_state(typingctx, pointer, state_type):
    """The state of the numba type `state_type` that a `Handle` keeps at `pointer`, or at an address as an int64."""
    state = state_type.instance_type

    def codegen(context, builder, sig, args):
        cast = builder.inttoptr if isinstance(args[0].type, ir.IntType) else builder.bitcast
        return builder.load(cast(args[0], context.get_value_type(state).as_pointer()))

    return state(pointer, state_type), codegen


@intrinsic
def is_null(typingctx, pointer):
    """Whether a pointer leads nowhere."""

    def codegen(context, builder, sig, args):
        return builder.icmp_unsigned("==", args[0], ir.Constant(args[0].type, None))

    return types.boolean(pointer), codegen


@kernel
def _keep(address, state):
    _store(address, state)


class Handle:
    """A state in memory that does not move, for compiled code that only gets a pointer.

    Parameters
    ----------
    state : NamedTuple of arrays

    Attributes
    ----------
    address : int
        Valid until `release`, which must not come before the last use.
    """

    def __init__(self, state: Any) -> None:
        self.state = state
        context = cpu_target.target_context
        self._memory = zeros(context.get_abi_sizeof(context.get_value_type(numba.typeof(state))), np.uint8)
        self.address = self._memory.ctypes.data
        _keep(self.address, state)

    def release(self) -> None:
        """Let the state go; harmless the second time."""
        self.state, self.address = None, 0


PROCESS = types.int64(types.voidptr, types.CPointer(types.float32), types.CPointer(types.float32), types.intp)


@intrinsic
def call_process(typingctx, address, pointer, block_in, block_out, n_samples):
    """Call a function of the signature `PROCESS` at `address`, with `pointer` and the data of two arrays."""

    def codegen(context, builder, sig, args):
        passed_types = [context.get_value_type(ty) for ty in PROCESS.args]
        function_type = ir.FunctionType(context.get_value_type(PROCESS.return_type), passed_types)
        function = builder.inttoptr(args[0], function_type.as_pointer())
        blocks = [context.make_array(sig.args[i])(context, builder, args[i]).data for i in (2, 3)]
        return builder.call(function, [builder.inttoptr(args[1], passed_types[0]), *blocks, args[4]])

    return types.int64(types.int64, types.int64, block_in, block_out, types.int64), codegen


def call_compiled(overload: Any) -> Any:
    """An intrinsic `call(address, *args)` of what a dispatcher compiled, as numba calls it itself.

    So the caller holds an address instead of another copy of the code that LLVM would optimise again:
    0.2 s instead of 1.1 s for a hop.
    """
    signature = overload.signature

    @intrinsic
    def call(typingctx, address, state, block_in, block_out):
        def codegen(context, builder, sig, args):
            convention = context.call_conv
            function_type = convention.get_function_type(signature.return_type, signature.args)
            function = builder.inttoptr(args[0], function_type.as_pointer())
            convention.call_function(builder, function, signature.return_type, signature.args, args[1:])
            return context.get_dummy_value()

        return types.void(types.int64, *signature.args), codegen

    return call
