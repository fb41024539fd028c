"""Many independent tasks: on the cores of this machine, or on a Dask cluster. A task that fails stops no other."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from rtsep.choose import LOADED_FILES, load_file
from rtsep.errors import ConfigError
from rtsep.evaluation.checks import require

AHEAD = 2  # tasks per core that wait in its queue, so that it does not wait
AHEAD_CLUSTER = 1_000  # tasks that a cluster is given at a time
RETRIES = 2  # of a task whose worker in the cluster died
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Task(NamedTuple):
    """A call of a function that can be pickled, and what it is known by."""

    key: Any
    arguments: tuple[Any, ...]


class Failure(NamedTuple):
    """What a task that failed has in place of a result."""

    reason: str


def run_local(function: Callable[..., Any], tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Any, Any]]:
    """Run tasks in `jobs` processes, or in this one if that is 1.

    Yields
    ------
    key, result
        As they are done; the result is a `Failure` if the process died of the task twice, the second time alone.

    Notes
    -----
    Exceptions of the function are raised here: it should return what it wants to tell. Memory does not grow with
    the number of tasks.
    """
    if jobs == 1:
        for task in tasks:
            yield task.key, function(*task.arguments)
        return
    waiting = iter(tasks)
    in_hand: dict[Any, Task] = {}
    while True:
        try:
            yield from _through_pool(function, waiting, jobs, in_hand)
            return
        except BrokenProcessPool:
            # One of those in hand is the reason: each runs again, in a process of its own.
            for task in list(in_hand.values()):
                try:
                    yield from _through_pool(function, iter([task]), 1, in_hand)
                except BrokenProcessPool:
                    del in_hand[task.key]
                    yield task.key, Failure("the process died of it, twice")


def _through_pool(
    function: Callable[..., Any], waiting: Iterator[Task], jobs: int, in_hand: dict[Any, Task]
) -> Iterator[tuple[Any, Any]]:
    """Results of tasks, which are in `in_hand` from before they start until they are done."""
    with _pool(jobs) as pool:
        flying: dict[Future[Any], Any] = {}
        while True:
            for task in islice(waiting, AHEAD * jobs - len(flying)):
                in_hand[task.key] = task
                flying[pool.submit(function, *task.arguments)] = task.key
            if not flying:
                return
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                result = future.result()
                key = flying.pop(future)
                del in_hand[key]
                yield key, result


def run_dask(function: Callable[..., Any], tasks: Iterable[Task], address: str) -> Iterator[tuple[Any, Any]]:
    """Run tasks on an existing Dask cluster whose workers have this package and see the same files.

    Parameters
    ----------
    function, tasks
        As `run_local`.
    address : str
        Of the scheduler, e.g. "tcp://10.0.0.1:8786".

    Yields
    ------
    key, result
        As they are done, each task once. What a dead worker had is given to others; a task of which three workers
        died is a `Failure`.

    Raises
    ------
    ConfigError
        If there is no scheduler.
    ImportError
        Without distributed (extra ``dask``).
    """
    distributed = require("distributed", "dask")
    try:
        client = distributed.Client(address, timeout="5s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as problem:
        raise ConfigError(f"--dask {address}: no scheduler there: {problem}") from None
    with client:
        waiting = iter(tasks)
        flying: dict[str, Any] = {}
        completed = distributed.as_completed(loop=client.loop, raise_errors=False)

        def submit_next() -> None:
            task = next(waiting, None)
            if task is not None:
                future = client.submit(function, *task.arguments, pure=False, retries=RETRIES)
                flying[future.key] = task.key
                completed.add(future)

        for _ in range(AHEAD_CLUSTER):
            submit_next()
        for future in completed:
            key = flying.pop(future.key)
            submit_next()
            error = future.exception()
            yield key, future.result() if error is None else Failure(_reason(error))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reason(problem: BaseException) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:300]


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with one thread each: they are as many as there are cores."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (tuple(LOADED_FILES),))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(files: tuple[str, ...]) -> None:
    # Ctrl-C reaches every process of the terminal: the parent alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for file in files:  # of estimators by their path, whose settings are on their way here
        load_file(file)


def _end_with_parent() -> None:
    """End this process when its parent is gone, however it went: the queue of tasks would never say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
