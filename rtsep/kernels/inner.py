"""Kernels called by kernels: LLVM works on them once, where they end up.

numba itself would optimise a function and translate it to machine code, then link its optimised form into every caller
and do both again there, on each level of calls. Here what is called is only typed and lowered; the kernel that Python
calls is optimised as a whole.
"""

from __future__ import annotations

from typing import Any

from numba.core import typing
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target


class _Parts(JITCodeLibrary):
    """A library that is only linked into others."""

    def _optimize_final_module(self) -> None:
        """Left to the caller."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class Inner:
    """The forms of a function inside kernels, one for each set of argument types."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._compiled: dict[Any, tuple[Any, Any]] = {}  # types -> result of the compiler, key of the implementation

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """What numba's typing asks of a function."""
        pysig, args = self._dispatcher._compiler.fold_argument_types(args, kws)
        if tuple(args) not in self._compiled:
            self._compiled[tuple(args)] = self._compile(tuple(args))
        name = self._dispatcher.__name__
        template = typing.make_concrete_template(name, key=name, signatures=[self._compiled[tuple(args)][0].signature])
        return template, pysig, args, {}

    def get_overload(self, args: Any) -> Any:
        """What numba's lowering asks of it."""
        return self._compiled[tuple(args)][1]

    def _compile(self, args: tuple[Any, ...]) -> tuple[Any, Any]:
        target = cpu_target.target_context
        flags = Flags()
        bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        cpu_target.options.parse_as_flags(flags, self._dispatcher.targetoptions | bare)
        flags.no_compile = True  # type: ignore[misc, assignment]
        library = _Parts(target.codegen(), self._dispatcher.__name__)
        result = compile_extra(
            cpu_target.typing_context, target, self._dispatcher.py_func, args, None, flags, {}, library
        )
        key = object()
        target.insert_user_function(key, result.fndesc, [library])
        return result, key


def lowered(dispatcher: Any, args: tuple[Any, ...]) -> tuple[str, str]:
    """LLVM code of a function and of all that it calls, not optimised yet, and the name of the function in it."""
    result, _ = Inner(dispatcher)._compile(args)
    with global_compiler_lock:
        result.library._ensure_finalized()
    return result.library.get_llvm_str(), result.fndesc.llvm_func_name


def make_inner(dispatcher: Any) -> Any:
    """Give a function of `numba.njit` the form above for its callers in compiled code."""
    inner = Inner(dispatcher)
    dispatcher.get_call_template, dispatcher.get_overload = inner.get_call_template, inner.get_overload
    return dispatcher
