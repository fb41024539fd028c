"""Who is told when kernels have to be compiled; here, so that the command line can ask before numba is imported."""

from __future__ import annotations

from collections.abc import Callable

_listener: Callable[[bool], None] | None = None


def on_compiling(listener: Callable[[bool], None]) -> None:
    """Call `listener(kept)`, once, when a kernel is not in the cache; `kept` is whether it will be."""
    global _listener
    _listener = listener


def tell(kept: bool) -> None:
    """A kernel is not in the cache."""
    global _listener
    listener, _listener = _listener, None
    if listener is not None:
        listener(kept)
