"""The worker driver: for estimators in ordinary Python.

The callback only moves samples between two rings; a thread takes them out of the one, separates them and
puts the sources into the other. Zeros queued before the start (`prefill`) give the thread time; they are one
line of the latency ledger. What comes too late is dropped when it comes, so that the delay stays what it was.
"""

from __future__ import annotations

import math
import threading
import time
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import carray

from rtsep.kernels.jit import entry
from rtsep.kernels.memory import zeros
from rtsep.live.atomics import store_release
from rtsep.live.pointers import PROCESS, Handle, load_state
from rtsep.live.rings import Ring, empty_ring, free, make_ring, read, waiting, write
from rtsep.separator import Separator

CAPACITY_S = 4.0  # of each ring
STUCK_S = 5.0  # that an estimator may take to return when the stream stops
DECAY_S = 0.001  # time constant with which the last sample fades while nothing comes


class Exchange(NamedTuple):
    """What callback and worker share; all but the rings belongs to the callback."""

    to_worker: Ring  # n_channels rows
    from_worker: Ring  # n_src * n_channels rows
    owed: np.ndarray  # int64 (1,): samples that came too late, or will
    stale: np.ndarray  # int64 (1,): samples to come that must not be heard
    span: np.ndarray  # int64 (1,): samples to come from before a gap, or whose window reaches over it
    last: np.ndarray  # float32 (n_src * n_channels,)
    decay: np.ndarray  # float32 (1,): per sample


def _exchange(pointer, block_in, block_out, n):
    """`n` samples to the worker and as many from it; 1 if they are not there yet.

    Then the last samples fade out, so that the cross-fade to the replacement starts without a step.
    """
    exchange = load_state(pointer, EXCHANGE)
    n_channels, n_rows = exchange.to_worker.data.shape[0], exchange.from_worker.data.shape[0]
    samples, sources = carray(block_in, (n_channels * n,)), carray(block_out, (n_rows * n,))
    if not write(exchange.to_worker, samples, n):
        # The worker has not moved for seconds: what it never gets, it will not deliver. What it delivers next
        # belongs before the gap, and comes after it.
        exchange.owed[0] -= n
        exchange.stale[0] = exchange.span[0]
    ring, last = exchange.from_worker, exchange.last
    late = min(exchange.owed[0], waiting(ring))
    if late > 0:
        store_release(ring.read, ring.read[0] + late)
        exchange.owed[0] -= late
    if exchange.owed[0] == 0 and read(ring, sources, n):
        for row in range(n_rows):
            last[row] = sources[row * n + n - 1]
        stale = min(exchange.stale[0], n)
        exchange.stale[0] -= stale
        return 1 if stale > 0 else 0
    exchange.owed[0] += n
    for row in range(n_rows):
        for i in range(n):
            last[row] *= exchange.decay[0]
            sources[row * n + i] = last[row]
    return 1


_COUNT = zeros(1, np.int64)
EXCHANGE = numba.typeof(Exchange(make_ring(1, 1), make_ring(1, 1), _COUNT, _COUNT, _COUNT, zeros(1), zeros(1)))


@cache
def _compiled_exchange() -> Any:
    return entry(PROCESS)(_exchange)


class WorkerDriver:
    """Runs a separator in a thread of its own; attributes as those of `Driver`.

    Parameters
    ----------
    separator : Separator
    prefill_ms : float
        Time that the thread has for its work, in ms; rounded up to hops. It must exceed the device's block.
    """

    def __init__(self, separator: Separator, prefill_ms: float) -> None:
        config = separator.config
        self._separator = separator
        self.prefill = config.hop * -(-round(prefill_ms * config.sr / 1000) // config.hop)
        capacity = round(CAPACITY_S * config.sr) + self.prefill
        n_rows = separator.n_src * config.n_channels
        self._exchange = Exchange(
            make_ring(config.n_channels, capacity),
            make_ring(n_rows, capacity),
            zeros(1, np.int64),
            zeros(1, np.int64),
            zeros(1, np.int64),
            zeros(n_rows),
            zeros(1),
        )
        self._exchange.span[0] = self.prefill + separator.latency + config.hop
        self._exchange.decay[0] = np.exp(-1 / (DECAY_S * config.sr))
        self._block_in, self._block_out = zeros((config.n_channels, config.hop)), zeros((n_rows, config.hop))
        self._handle = Handle(self._exchange)
        self.function, self.pointer = _compiled_exchange().address, self._handle.address
        self.deadline, self.shed = zeros(1, np.int64), zeros(1, np.int64)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: BaseException | None = None
        self._entered = math.inf  # when the hop was begun that is not yet done

    @property
    def stuck(self) -> bool:
        """Whether the estimator has not returned for long."""
        return time.monotonic() - self._entered > STUCK_S

    def reset(self) -> None:
        """Back to the beginning, with the prefill in the ring; neither side may run.

        A thread that does not come back from the estimator has the separator still: then all stays as it is, the
        mixture is heard, and what the thread owes is left out should it come back.
        """
        if self._thread and self._thread.is_alive():
            return
        self._thread = None
        exchange = self._exchange
        self._separator.reset()
        empty_ring(exchange.to_worker)
        empty_ring(exchange.from_worker)
        write(
            exchange.from_worker, np.zeros(exchange.from_worker.data.shape[0] * self.prefill, np.float32), self.prefill
        )
        exchange.owed[0] = exchange.stale[0] = exchange.last[:] = 0

    def start(self) -> None:
        """Start the thread, or let one go on that did not come back."""
        self._ended.clear()
        if self._thread and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="rtsep worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                if not self.step():
                    # The callback cannot wake anybody without a lock; four looks a hop cost next to nothing.
                    self._ended.wait(self._separator.config.hop_s / 4)
        except BaseException as problem:  # whatever an estimator raises is reported
            self.problem, self._entered = problem, math.inf

    def step(self) -> bool:
        """Separate one hop if it is there and there is room for the result."""
        exchange, hop = self._exchange, self._separator.config.hop
        if waiting(exchange.to_worker) < hop or free(exchange.from_worker) < hop:
            return False
        read(exchange.to_worker, self._block_in.reshape(-1), hop)
        n_src, n_channels = self._separator.n_src, self._separator.config.n_channels
        self._entered = time.monotonic()
        if n_channels == 1:
            self._separator.process(self._block_in[0], self._block_out)
        else:
            self._separator.process(self._block_in, self._block_out.reshape(n_src, n_channels, hop))
        self._entered = math.inf
        write(exchange.from_worker, self._block_out.reshape(-1), hop)
        return True

    def stop(self) -> None:
        """Stop the thread. One that does not come back from the estimator is left alone."""
        self._ended.set()
        if self._thread:
            self._thread.join(STUCK_S)

    def close(self) -> None:
        """Release the memory; after the stream is closed."""
        self._handle.release()
