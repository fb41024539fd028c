"""Aligned arrays for states, and how a state is copied and restored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, so that no load of eight lanes straddles two


def zeros(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Zeros in C order whose first element starts a cache line."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    buffer = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + n_bytes].view(dtype).reshape(shape)


def aligned(values: Any) -> np.ndarray:
    """A float32 copy of `values` whose first element starts a cache line."""
    values = np.asarray(values, np.float32)
    copy = zeros(values.shape)
    copy[...] = values
    return copy


def arrays(state: Any) -> Iterator[np.ndarray]:
    """All arrays of a state: a NamedTuple of arrays and of such NamedTuples."""
    if isinstance(state, np.ndarray):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from arrays(part)
