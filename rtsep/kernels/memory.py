"""Arrays for states, each starting a cache line, and how states are walked.

A state is a NamedTuple of arrays and of such NamedTuples. Three kinds of array tell what is what, for those who reset a
state and those who take it elsewhere:

- *memory* (`zeros`, `aligned`) may be written to, and `Separator.reset` restores it;
- *constants* (`constant`) are read-only: a kernel that writes to one does not compile;
- *addresses of code* stand in a `Code`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, so that no load of eight lanes straddles two


class Code(NamedTuple):
    """Functions that kernels call by their address."""

    address: np.ndarray  # int64, constant (n,)


def zeros(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Zeros in C order whose first element starts a cache line."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    buffer = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + n_bytes].view(dtype).reshape(shape)


def aligned(values: Any, dtype: Any = np.float32) -> np.ndarray:
    """A copy of `values` whose first element starts a cache line."""
    values = np.asarray(values, dtype)
    copy = zeros(values.shape, dtype)
    copy[...] = values
    return copy


def constant(values: Any, dtype: Any = np.float32) -> np.ndarray:
    """A read-only copy of `values` whose first element starts a cache line."""
    copy = aligned(values, dtype)
    copy.flags.writeable = False
    return copy


def code(*addresses: int) -> Code:
    """The addresses of functions."""
    return Code(constant(addresses, np.int64))


def arrays(state: Any) -> Iterator[np.ndarray]:
    """All arrays of a state."""
    if isinstance(state, np.ndarray):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from arrays(part)


def memory(state: Any) -> list[np.ndarray]:
    """The arrays of a state that change."""
    return [array for array in arrays(state) if array.flags.writeable]
