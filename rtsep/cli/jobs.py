"""Several jobs at once, in threads: kernels and libsndfile let go of the interpreter."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
GRACE_S = 5.0  # that an interrupted run waits for its threads to clear up


class Stopped(Exception):
    """Nobody waits for the result any more."""


def run_jobs(
    work: Callable[[Item, Callable[[], None]], Any], items: list[Item], n_jobs: int | None
) -> Iterator[tuple[Item, Any]]:
    """Pairs of an item and `work(item, alive)`, as they are done.

    Parameters
    ----------
    work : callable
        It must call `alive` often, which raises `Stopped` when it should end.
    items : list
    n_jobs : int or None
        So many at a time; None for one per core that this process may use.
    """
    n_jobs = min(len(items), n_jobs or _cores())
    if n_jobs <= 1:
        for item in items:
            yield item, work(item, lambda: None)
        return
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Item, Any, BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()
    for item in items:
        todo.put(item)

    def alive() -> None:
        if stop.is_set():
            raise Stopped

    def go_on() -> None:
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((item, work(item, alive), None))
            except Stopped:
                return
            except BaseException as problem:
                done.put((item, None, problem))

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(n_jobs)]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            item, result, problem = done.get()
            if problem is not None:
                raise problem
            yield item, result
    finally:
        stop.set()
        for thread in threads:
            thread.join(GRACE_S)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
