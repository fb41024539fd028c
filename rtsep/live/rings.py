"""A lock-free ring between one thread that writes and one that reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros
from rtsep.live.atomics import load_acquire, store_release


class Ring(NamedTuple):
    """Columns on their way from one thread to another."""

    data: np.ndarray  # (n_rows, capacity), capacity a power of two
    written: np.ndarray  # int64 (1,): columns so far; on a cache line of its own
    read: np.ndarray  # int64 (1,): columns so far


def make_ring(n_rows: int, capacity: int, dtype: Any = np.float32) -> Ring:
    """An empty ring for at least `capacity` columns of `n_rows` numbers. Not real-time safe."""
    size = 1 << (max(1, capacity) - 1).bit_length()
    return Ring(zeros((n_rows, size), dtype), zeros(1, np.int64), zeros(1, np.int64))


def empty_ring(ring: Ring) -> None:
    """Forget what is in the ring; only while neither side uses it."""
    ring.written[0] = ring.read[0] = 0


@kernel
def free(ring):
    """Columns that can be written; for the writer. Real-time safe."""
    return ring.data.shape[1] - (ring.written[0] - load_acquire(ring.read))


@kernel
def waiting(ring):
    """Columns that can be read; for the reader. Real-time safe."""
    return load_acquire(ring.written) - ring.read[0]


@kernel
def write(ring, block, n):
    """Put `n` columns into the ring, all or none.

    Parameters
    ----------
    ring : Ring
        Updated in place.
    block : ndarray, dtype of the ring, (at least n_rows * n,)
        Row by row, `n` numbers each. Read only.
    n : int

    Returns
    -------
    done : bool
        Whether there was room.

    Notes
    -----
    Real-time safe, like `read`.
    """
    data = ring.data
    n_rows, size = data.shape
    written = ring.written[0]
    if n > size - (written - load_acquire(ring.read)):
        return False
    at = written & (size - 1)
    first = min(n, size - at)
    for row in range(n_rows):
        for i in range(first):
            data[row, at + i] = block[row * n + i]
        for i in range(first, n):
            data[row, i - first] = block[row * n + i]
    store_release(ring.written, written + n)
    return True


@kernel
def read(ring, block, n):
    """Take `n` columns out of the ring, all or none; the counterpart of `write`, which overwrites `block`."""
    data = ring.data
    n_rows, size = data.shape
    taken = ring.read[0]
    if n > load_acquire(ring.written) - taken:
        return False
    at = taken & (size - 1)
    first = min(n, size - at)
    for row in range(n_rows):
        for i in range(first):
            block[row * n + i] = data[row, at + i]
        for i in range(first, n):
            block[row * n + i] = data[row, i - first]
    store_release(ring.read, taken + n)
    return True
