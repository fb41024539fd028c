"""Seconds from the start of the process to the first output, with a cold and a warm kernel cache.

python bench/start_up.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

FIRST_OUTPUT = """
import numpy as np, rtsep
rtsep.Separator(rtsep.StreamConfig(16_000)).process(np.zeros(64, np.float32))
"""


def seconds(cache: str) -> float:
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_OUTPUT], env=environment, check=True)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        cold = seconds(cache)
        warm = statistics.median(seconds(cache) for _ in range(5))
    print(json.dumps({"cold_s": round(cold, 2), "warm_s": round(warm, 2)}))


if __name__ == "__main__":
    main()
