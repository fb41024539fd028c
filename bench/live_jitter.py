"""When callbacks come, and how many, while Python is busy: native and worker driver, and a plain Python callback.

python bench/live_jitter.py -o FOLDER [-s SECONDS]

Needs what the live tests need: PortAudio, jackd, JACK-Client. Writes and prints
live_jitter.json, and live_jitter.png.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from study import parser, publish, pyplot, save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from jackd import JackServer

from rtsep import Separator, StreamConfig
from rtsep.live import LiveStream
from rtsep.live.devices import portaudio
from rtsep.live.times import Histogram

SR, PERIOD = 16_000, 64


def idle(seconds: float) -> None:
    """Nothing else to do."""
    time.sleep(seconds)


def blocked(seconds: float) -> None:
    """One foreign call that keeps the lock of the interpreter for the whole time."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


def collecting(seconds: float) -> None:
    """Garbage collections of a million objects, one after the other."""
    heap = [[k] for k in range(1_000_000)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        gc.collect()
    del heap


def compiling(seconds: float) -> None:
    """Compilations of a small function, one after the other."""
    end, k = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        k += 1
        numba.njit(lambda x, k=k: np.sort(x) + k)(np.ones(3))


def switching(seconds: float) -> None:
    """Plain Python that gives the lock away every 0.1 s."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.1)
    end, x = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        x += 1
    sys.setswitchinterval(before)


LOADS = (idle, blocked, collecting, compiling, switching)


class PythonStream:
    """The comparison: the same separator in an ordinary Python callback."""

    def __init__(self, separator: Separator) -> None:
        self.starts: list[int] = []
        self.xruns = 0

        def callback(block_in, block_out, n_samples, times, flags) -> None:  # type: ignore[no-untyped-def]
            self.starts.append(time.monotonic_ns())
            self.xruns += bool(flags)
            block_out[:, 0] = separator.process(block_in[:, 0])[0]

        self._stream = portaudio().Stream(SR, 0, channels=1, latency="low", callback=callback)

    def __enter__(self) -> PythonStream:
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def summary(self) -> dict[str, object]:
        intervals = np.diff(self.starts)
        histogram = Histogram()
        histogram.add(intervals)
        late = int((intervals > 1.5e9 * PERIOD / SR).sum())
        return {"callbacks": len(self.starts), "xruns": self.xruns, "late_callbacks": late,
                "late_hops": 0, "interval_ms": histogram.summary(1e6)}  # fmt: skip


class EngineStream(LiveStream):
    def summary(self) -> dict[str, object]:
        stats = self.stats
        return {name: getattr(stats, name) for name in
                ("callbacks", "xruns", "late_callbacks", "late_hops", "interval_ms")}  # fmt: skip


@contextmanager
def stream(driver: str) -> Iterator[PythonStream | EngineStream]:
    separator = Separator(StreamConfig(SR), "denoise")
    with PythonStream(separator) if driver == "python" else EngineStream(separator, driver=driver) as opened:
        yield opened


def measure(driver: str, load: Callable[[float], None], seconds: float) -> dict[str, object]:
    with stream(driver) as running:
        time.sleep(0.2)
        start = time.monotonic()
        thread = threading.Thread(target=load, args=(seconds,))
        thread.start()
        thread.join()
        expected = (0.2 + time.monotonic() - start) * SR / PERIOD
        result = running.summary()
    return {"driver": driver, "load": load.__name__, "share_of_callbacks": result["callbacks"] / expected, **result}


def draw(result: dict[str, Any], path: Path) -> None:
    figure, axes = pyplot().subplots(1, 2, figsize=(9, 3), layout="constrained")
    for k, driver in enumerate(("native", "worker", "python")):
        mine = [row for row in result["rows"] if row["driver"] == driver]
        at = np.arange(len(mine)) + 0.27 * (k - 1)
        axes[0].bar(at, [100 * row["share_of_callbacks"] for row in mine], 0.25, label=driver)
        axes[1].bar(at, [row["interval_ms"]["max"] for row in mine], 0.25, label=driver)
    axes[0].set_ylabel("callbacks that came (%)")
    axes[1].set_ylabel("longest interval (ms)")
    axes[1].set_yscale("log")
    axes[1].axhline(1000 * PERIOD / SR, color="black", lw=0.7)
    for ax in axes:
        ax.set_xticks(range(len(LOADS)), [load.__name__ for load in LOADS])
    axes[1].legend(frameon=False)
    save(figure, path)


def main() -> None:
    options = parser("live_jitter", __doc__.splitlines()[0])
    options.add_argument("-s", "--seconds", type=float, default=2.0)
    args = options.parse_args()
    with JackServer(SR, PERIOD, realtime=True):
        rows = [measure(driver, load, args.seconds) for driver in ("native", "worker", "python") for load in LOADS]
    result = {"period_ms": 1000 * PERIOD / SR, "seconds": args.seconds, "rows": rows}
    publish(args.output, "live_jitter", result, draw=draw)


if __name__ == "__main__":
    main()
