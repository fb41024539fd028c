"""Seconds from the start of the process to the first output, with a cold and a warm kernel cache, and what they are.

    python bench/start_up.py

`cold` and `warm` are seconds as by a clock, and seconds of the processor, which other programs disturb less. The
breakdown of the cold start, in seconds of the processor, tells by function and by step of the compiler where they go:
numba's own passes, the parsing and first optimisation of each function (`parse`), and what LLVM does where a kernel
ends up: `optimise` and `machine code`. Everything else is imports, models and windows.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FIRST_OUTPUT = """
import numpy as np, rtsep
rtsep.Separator(rtsep.StreamConfig(16_000)).process(np.zeros(64, np.float32))
"""
PASSES = {"nopython_type_inference": "types", "native_lowering": "lowering", "inline_inlinables": "pasting"}
LEAST = 0.1  # seconds: functions with less are summed up


def start(cache: str, *arguments: str) -> tuple[float, float, str]:
    """Seconds by the clock and of the processor, and what was printed."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    begin, before = time.perf_counter(), os.times()
    out = subprocess.check_output([sys.executable, *(arguments or ("-c", FIRST_OUTPUT))], env=environment, text=True)
    took, after = time.perf_counter() - begin, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return took, processor, out


class Stopwatch:
    """Seconds of this thread by function and step, each without those of what it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, Counter[str]] = defaultdict(Counter)
        self._inner = [0.0]

    @contextmanager
    def measure(self, function: str, step: str) -> Iterator[None]:
        begin = time.thread_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.thread_time() - begin
            self.seconds[function][step] += took - self._inner.pop()
            self._inner[-1] += took

    def watch(self, owner: Any, name: str, describe: Callable[..., tuple[str, str]]) -> None:
        """Measure every call of a method."""
        method = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.measure(*describe(*args)):
                return method(*args, **kwargs)

        setattr(owner, name, measured)


def break_down() -> dict[str, dict[str, float]]:
    """The first output in this process."""
    from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary
    from numba.core.compiler_machinery import PassManager

    watch = Stopwatch()
    watch.watch(
        PassManager, "_runPass", lambda _, i, step, state: (state.func_id.func_name, PASSES.get(step.name(), "other"))
    )
    for owner, name, step in (
        (CPUCodeLibrary, "add_ir_module", "parse"),
        (CPUCodeLibrary, "_optimize_final_module", "optimise"),
        (JITCodeLibrary, "_finalize_specific", "machine code"),
    ):
        watch.watch(owner, name, lambda library, *_, step=step: (library.name.split(".")[-1], step))
    begin = time.process_time()
    exec(FIRST_OUTPUT, {})
    total = time.process_time() - begin
    table = {name: steps for name, steps in watch.seconds.items() if steps.total() >= LEAST}
    table["small functions"] = sum((steps for name, steps in watch.seconds.items() if name not in table), Counter())
    table["all functions"] = sum(watch.seconds.values(), Counter())
    table["everything"] = Counter(total=total)
    order = sorted(table.items(), key=lambda item: item[1].total())
    return {name: {step: round(s, 2) for step, s in steps.most_common() if s > 0.005} for name, steps in order}


def main() -> None:
    if sys.argv[1:] == ["--break-down"]:
        print(json.dumps(break_down()))
        return
    with tempfile.TemporaryDirectory() as cache:
        cold = start(cache)
        warm = [start(cache) for _ in range(5)]
    with tempfile.TemporaryDirectory() as cache:
        parts = json.loads(start(cache, __file__, "--break-down")[2])
    clock, processor = (round(statistics.median(column), 2) for column in zip(*[run[:2] for run in warm], strict=True))
    print(json.dumps({"cold_s": round(cold[0], 2), "cold_processor_s": round(cold[1], 2)}))
    print(json.dumps({"warm_s": clock, "warm_processor_s": processor}))
    for name, steps in parts.items():
        print(f"{name:20} {sum(steps.values()):6.2f}  " + ", ".join(f"{step} {s}" for step, s in steps.items()))


if __name__ == "__main__":
    main()
