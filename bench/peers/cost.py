"""Cost of one engine, in a process that has loaded nothing else: `cost.py SIGNAL.npy ENGINE [FILE ...]` prints JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from engines import make_engine


def cost(x: np.ndarray, name: str, files: Sequence[str]) -> dict[str, Any]:
    """Start-up with imports, time of each block as a share of its duration on one core, and peak memory.

    The time of a block includes what its package does in Python. Engines without blocks have one: the signal.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    begin = time.perf_counter()
    engine = make_engine(name, files)
    block = engine.block or x.size
    engine.process(x[:block].copy())
    start_s = time.perf_counter() - begin
    shares = []
    rounds = range(0, x.size - block + 1, block) if engine.block else range(3)
    for start in rounds:
        part = x[start : start + block].copy() if engine.block else x
        begin = time.perf_counter_ns()
        engine.process(part)
        shares.append(1e-9 * (time.perf_counter_ns() - begin) * engine.sr / block)
    return {
        "start_s": start_s,
        "block_ms": 1000 * block / engine.sr,
        "median": float(np.median(shares)),
        "p99": float(np.quantile(shares, 0.99)),
        "max": float(np.max(shares)),
        "memory_mib": _peak_memory_mib(),
    }


def _peak_memory_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(json.dumps(cost(np.load(sys.argv[1]), sys.argv[2], sys.argv[3:])))
