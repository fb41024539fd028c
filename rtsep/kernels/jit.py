"""The house decorator: the only place that calls `numba.njit`.

Two things are decided here for every kernel of the package.

*Flags.* No fastmath, so that LLVM may never change a result and a kernel gives the same bits whether it
was inlined into an offline loop or into an audio callback. `error_model="numpy"`, so that it never raises.

*Cache.* numba notices an edit of the file that a kernel stands in, but not of the files whose kernels it
inlined, and would go on serving the old machine code. Here a cached kernel is valid for exactly one state of
all kernel sources: their hash is the stamp of the cache index. What was compiled for the states of an
estimator or a phase recovery from outside the package has an index of its own, with their sources in the stamp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching
from numba.core.ccallback import CFunc

PACKAGE = Path(__file__).resolve().parent.parent
# Files and folders whose code can end up inside a compiled kernel.
KERNEL_SOURCES = ("config.py", "separator.py", "offline.py", "kernels", "stages", "estimators", "phase", "live")

FOREIGN_SOURCES: dict[str, str] = {}  # module -> hash of the source of a step registered from outside


@cache
def source_stamp() -> str:
    """SHA-256 over all sources that kernels are compiled from."""
    digest = hashlib.sha256()
    for name in KERNEL_SOURCES:
        path = PACKAGE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(str(file.relative_to(PACKAGE)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def register_source(function: Callable[..., Any]) -> None:
    """Let the cache follow the source file of a step from outside the package."""
    path = Path(function.__code__.co_filename)
    if path.exists() and not path.resolve().is_relative_to(PACKAGE):
        FOREIGN_SOURCES[function.__module__] = hashlib.sha256(path.read_bytes()).hexdigest()


def _foreign_modules(ty: Any) -> set[str]:
    """Modules outside the package whose NamedTuple classes are part of a numba type."""
    module = getattr(getattr(ty, "instance_class", None), "__module__", "rtsep")
    found = set() if module.partition(".")[0] == "rtsep" else {module}
    return found.union(*(_foreign_modules(part) for part in getattr(ty, "types", ())))


def _stamped(locator: type) -> Any:
    return type(locator.__name__, (locator,), {"get_source_stamp": lambda self: source_stamp()})


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = [_stamped(locator) for locator in caching.CacheImpl._locator_classes]  # noqa: RUF012


class _Index(caching.IndexDataCacheFile):
    """An index that cannot be read, for whatever reason, is an empty one and is written anew."""

    def _load_index(self) -> Any:
        with suppress(Exception):
            return super()._load_index()
        return {}


class KernelCache(caching.FunctionCache):
    """numba's function cache, valid for one state of all kernel sources; whatever fails costs time only."""

    _impl_class = _KernelCacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if self._choose_index(sig):
            with suppress(Exception):
                return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._choose_index(sig):
            with suppress(Exception):
                super().save_overload(sig, data)

    def _choose_index(self, sig: Any) -> bool:
        """Turn to the index for these types; false if they cannot be found again by another process."""
        name, stamp = self._impl.filename_base, source_stamp()
        foreign = set().union(*(_foreign_modules(ty) for ty in getattr(sig, "args", sig)))
        if foreign:
            name = "-".join([name, *sorted(foreign)])
            stamp += repr(sorted(FOREIGN_SOURCES.items()))
        self._cache_file = _Index(self._cache_path, name, stamp)
        return "__main__" not in foreign


def _cached(compiled: Any, function: Callable[..., Any]) -> Any:
    with suppress(RuntimeError):  # no folder can be written to: compile in every process
        compiled._cache = KernelCache(function)
    return compiled


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` for use inside the hop: cached on disk, no GIL, never raises."""
    return _cached(numba.njit(nogil=True, error_model="numpy")(function), function)


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
        compiled = _cached(CFunc(function, (signature.args, signature.return_type), {}, options), function)
        compiled.compile()
        return compiled

    return compile_entry
