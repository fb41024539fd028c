"""What runs the separator of a live stream: in the callback itself, or in a thread beside it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rtsep.config import ConfigError, check_choice, check_real
from rtsep.errors import LiveError
from rtsep.live.native import NativeDriver
from rtsep.live.worker import WorkerDriver
from rtsep.separator import Separator

PREFILL_MS = 30.0


class Driver(Protocol):
    """Hands blocks of a hop or less to a separator, by a compiled function that the callback calls.

    Attributes
    ----------
    function, pointer : int
        Addresses of a function of the signature `rtsep.live.pointers.PROCESS` and of its state.
    prefill : int
        Samples of delay that the driver adds.
    deadline, shed : ndarray, int64, (1,)
        Those of the phase recovery (see `rtsep.phase.omisi`), if it has them.
    problem : BaseException or None
        What ended the separation.
    stuck : bool
        Whether the separation of a hop does not end.
    """

    function: int
    pointer: int
    prefill: int
    deadline: np.ndarray
    shed: np.ndarray
    problem: BaseException | None

    @property
    def stuck(self) -> bool:
        """As above."""

    def reset(self) -> None:
        """Back to the beginning; not while the callback runs."""

    def start(self) -> None:
        """Before the devices start."""

    def stop(self) -> None:
        """After the devices have stopped."""

    def close(self) -> None:
        """Release the memory; after the stream is closed."""


def make_driver(
    separator: Separator, kind: str | None = None, prefill_ms: float = PREFILL_MS, block_size: int = 0
) -> Driver:
    """A driver of the kind "native" or "worker"; None for native if the estimator is compiled, else worker.

    `prefill_ms` is the delay in ms that a worker adds to have time, which must cover the `block_size` of the device.

    Raises
    ------
    ConfigError, LiveError
        If there is no such driver, or none for this estimator.
    """
    check_choice("driver", kind, (None, "native", "worker"))
    check_real("prefill_ms", prefill_ms, 0, 2000, " ms")
    if kind == "native" and not separator.compiled:
        name = type(separator.estimator).__name__
        raise LiveError(f"estimator {name} is ordinary Python; use the worker driver")
    if kind == "native" or (kind is None and separator.compiled):
        return NativeDriver(separator)
    driver = WorkerDriver(separator, prefill_ms)
    if block_size > driver.prefill:
        needed = f"{1000 * block_size / separator.config.sr:g} ms"
        raise ConfigError(f"block_size={block_size} is more than prefill_ms={prefill_ms:g} covers; it takes {needed}")
    return driver
