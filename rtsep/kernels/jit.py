"""The house decorator: the only place that calls `numba.njit`.

Two things are decided here for every kernel of the package.

*Flags.* No fastmath, so that LLVM may never change a result and a kernel gives the same bits whether it
was inlined into an offline loop or into an audio callback. `error_model="numpy"`, so that it never raises.

*Cache.* numba notices an edit of the file that a kernel stands in, but not of the files whose kernels it
inlined, and would go on serving the old machine code. Here a cached kernel is valid for exactly one state
of all kernel sources: their hash is the stamp of the cache index. Steps of estimators and phase-recovery
algorithms that were registered from outside the package join the key through `FOREIGN_SOURCES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching
from numba.core.ccallback import CFunc

PACKAGE = Path(__file__).resolve().parent.parent

FOREIGN_SOURCES: dict[str, str] = {}  # path -> hash of the source of a step registered from outside


@cache
def source_stamp() -> str:
    """SHA-256 over all sources of the package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def register_source(function: Callable[..., Any]) -> None:
    """Let the cache key follow the source file of `function`, unless the package stamp covers it already.

    A function without a file (made in an interactive session) counts by its bytecode.
    """
    code = function.__code__
    path = Path(code.co_filename)
    if path.exists():
        if not path.resolve().is_relative_to(PACKAGE):
            FOREIGN_SOURCES[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        FOREIGN_SOURCES[code.co_filename] = hashlib.sha256(code.co_code).hexdigest()


def _stamped(locator: type) -> Any:
    return type(locator.__name__, (locator,), {"get_source_stamp": lambda self: source_stamp()})


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = [_stamped(locator) for locator in caching.CacheImpl._locator_classes]  # noqa: RUF012


class KernelCache(caching.FunctionCache):
    """numba's function cache, valid for one state of all kernel sources."""

    _impl_class = _KernelCacheImpl

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return super()._index_key(sig, codegen) + tuple(sorted(FOREIGN_SOURCES.values()))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` for use inside the hop: cached on disk, no GIL, never raises."""
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def pasted(function: Callable[..., Any]) -> Any:
    """A part of a kernel in a function of its own: its source is pasted into the caller before that is typed.

    For large parts with one or two callers, since numba optimises what is called again in every caller.
    """
    return numba.njit(nogil=True, error_model="numpy", inline="always")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A small building block of kernels, always inlined by LLVM into its caller."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)


def entry(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of pointers and numbers, now, to be called by its `address`.

    For large kernels with several callers: the caller holds an address instead of another copy of the code
    that LLVM would optimise all over again.
    """

    def compile_entry(function: Callable[..., Any]) -> Any:
        options = {"nopython": True, "error_model": "numpy"}
        compiled: Any = CFunc(function, (signature.args, signature.return_type), {}, options)
        compiled._cache = KernelCache(function)
        compiled.compile()
        return compiled

    return compile_entry
