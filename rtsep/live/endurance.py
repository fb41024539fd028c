"""How long the hops of a separator take on this machine, and what follows for the blocks of the device."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from rtsep.live.native import NativeDriver
from rtsep.separator import Separator

BLOCKS = tuple(2**k for k in range(5, 13))  # 32 to 4096 samples; of fewer, the device's own work is not measured
MARGIN = 2.0  # a block lasts so many times as long as the usual hop
WARM_UP = 20  # hops


class Endurance(NamedTuple):
    """A number for each hop."""

    took_s: np.ndarray  # float64 (n_hops,): its separation
    late_s: np.ndarray  # float64 (n_hops,): after its time, that the system let this process go on

    def shares(self, hop_s: float) -> dict[str, float]:
        """ "median", "p999" and "max" of the time taken, as a share of the hop."""
        median, p999, most = np.quantile(self.took_s, (0.5, 0.999, 1)) / hop_s
        return {"median": float(median), "p999": float(p999), "max": float(most)}

    @property
    def usual_s(self) -> float:
        """The time that most hops take, in seconds. The longest is another one in every run."""
        return float(np.median(self.took_s))

    @property
    def need_s(self) -> float:
        """The longest time from when a hop should have started to when it was done, in seconds."""
        return float((self.took_s + self.late_s).max())

    def smallest_block(self, sr: int) -> int | None:
        """The smallest power of two, in samples, that lasts `MARGIN` times `usual_s`; None if 4096 do not."""
        return next((block for block in BLOCKS if block >= MARGIN * self.usual_s * sr), None)


def measure(separator: Separator, seconds: float, realtime: bool = False) -> Endurance:
    """Run the compiled hop in real time on noise, one hop every hop, as a device would.

    Parameters
    ----------
    separator : Separator
        With a compiled estimator. Its state is used up.
    seconds : float
        Duration in s.
    realtime : bool
        With real-time priority, if this process may have it, as the audio thread of JACK; else with the
        priority of any thread.
    """
    hop, hop_s, n_channels = separator.config.hop, separator.config.hop_s, separator.config.n_channels
    noise = np.random.default_rng(0).normal(0, 0.1, (WARM_UP, n_channels * hop)).astype(np.float32)
    out = np.zeros(separator.n_src * n_channels * hop, np.float32)
    times = np.zeros((2, WARM_UP + max(1, round(seconds / hop_s))))
    driver = NativeDriver(separator)
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_ssize_t)
    process, blocks = signature(driver.function), [block.ctypes.data for block in noise]

    ended = threading.Event()

    def run() -> None:
        if realtime:
            take_priority()
        due = time.perf_counter()
        for number in range(times.shape[1]):
            if ended.is_set():
                return
            # What one hop has lost is not counted again for those after it.
            due = max(due, time.perf_counter() - hop_s) + hop_s
            time.sleep(max(0.0, due - time.perf_counter()))
            start = time.perf_counter()
            process(driver.pointer, blocks[number % WARM_UP], out.ctypes.data, hop)
            times[:, number] = time.perf_counter() - start, max(0.0, start - due)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        thread.join()
    finally:
        ended.set()
        thread.join()
        driver.close()
    return Endurance(*times[:, WARM_UP:])


def take_priority() -> bool:
    """Give this thread the lowest real-time priority; whether the system has allowed that. Linux only."""
    if not hasattr(os, "sched_setscheduler"):
        return False
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return True
    return False
