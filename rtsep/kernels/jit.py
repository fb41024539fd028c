"""The house decorators: the only place that calls `numba.njit`.

Three things are decided here for every kernel of the package.

*Flags.* No fastmath, so that LLVM may never change a result and a kernel gives the same bits whether it
was inlined into an offline loop or into an audio callback. `error_model="numpy"`, so that it never raises. No
counting of references: kernels borrow their arrays from the caller and allocate none, and a slice costs nothing.

*Cache.* numba notices an edit of the file that a kernel stands in, but not of what the kernel reaches in other
files, and would go on serving the old machine code; `rtsep.kernels.cache` does both.

*Once.* What a kernel calls is optimised where it ends up, not on every level of calls (`rtsep.kernels.inner`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core.ccallback import CFunc

from rtsep.errors import ConfigError
from rtsep.kernels.cache import KernelCache
from rtsep.kernels.inner import make_inner

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ConfigError("NUMBA_DISABLE_JIT is set, but rtsep needs the compiler: unset it")

NJIT: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "nogil": True, "no_cfunc_wrapper": True}
CFUNC = {"error_model": "numpy", "nopython": True}
ENTRIES: dict[int, tuple[Any, Callable[..., Any]]] = {}  # address of each `entry` -> its signature and source


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` for use inside the hop: cached on disk, no GIL, never raises."""
    compiled = make_inner(numba.njit(**NJIT)(function))
    compiled._cache = KernelCache(function, NJIT)
    return compiled


def pasted(function: Callable[..., Any]) -> Any:
    """A part of a kernel in a function of its own: its source is pasted into the caller before that is typed."""
    return numba.njit(**NJIT, inline="always")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A small building block of kernels, always inlined by LLVM into its caller."""
    return make_inner(numba.njit(**NJIT, forceinline=True)(function))


def call_kernel(typing_context: Any, called: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """Signature and code generation for an intrinsic that calls a kernel, chosen by the types of its arguments."""
    ty = types.Dispatcher(called)
    signature = typing_context.resolve_function_type(ty, args, {})

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        function = context.get_function(ty, sig)
        context.add_linking_libs(getattr(function, "libs", ()))
        return function(builder, values)

    return signature, codegen


def entry(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of pointers and numbers, now, to be called by its `address`.

    For large kernels with several callers: the caller holds an address instead of another copy of the code
    that LLVM would optimise all over again.
    """

    def compile_entry(function: Callable[..., Any]) -> Any:
        compiled: Any = CFunc(function, (signature.args, signature.return_type), {}, CFUNC)
        compiled._cache = KernelCache(function, CFUNC)
        compiled.compile()
        ENTRIES[compiled.address] = signature, function
        return compiled

    return compile_entry
