"""A lock-free ring between one thread that writes and one that reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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


@intrinsic
def _copy(typingctx, target, at, source, start, n):
    """`target.flat[at : at + n] = source.flat[start : start + n]`, of the same type."""

    def codegen(context, builder, sig, args):
        target, at, source, start, n = args
        to = builder.gep(context.make_array(sig.args[0])(context, builder, target).data, [at])
        from_ = builder.gep(context.make_array(sig.args[2])(context, builder, source).data, [start])
        item_size = context.get_abi_sizeof(context.get_value_type(sig.args[0].dtype))
        cgutils.raw_memcpy(builder, to, from_, n, item_size)
        return context.get_dummy_value()

    return types.void(target, at, source, start, n), codegen


@kernel
def free(ring):
    """Columns that can be written; for the writer. Real-time safe."""
    return ring.data.shape[1] - (ring.written[0] - load_acquire(ring.read))


@kernel
def waiting(ring):
    """Columns that can be read; for the reader. Real-time safe."""
    return load_acquire(ring.written) - ring.read[0]


@kernel
def forget(ring):
    """Let go what is waiting; for the reader. Real-time safe."""
    store_release(ring.read, load_acquire(ring.written))


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
        _copy(data, row * size + at, block, row * n, first)
        _copy(data, row * size, block, row * n + first, n - first)
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
        _copy(block, row * n, data, row * size + at, first)
        _copy(block, row * n + first, data, row * size, n - first)
    store_release(ring.read, taken + n)
    return True
