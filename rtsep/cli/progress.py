"""Bars for what takes longer than a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Moves(Protocol):
    """Shows what is done of all, and the cost that iterations have reached."""

    def __call__(self, done: int, total: int, cost: float | None = None) -> None: ...


File = Callable[[str], AbstractContextManager[Moves | None]]


@contextmanager
def progress_bar(label: str) -> Iterator[Moves | None]:
    """A bar on the terminal, if there is one: the function that moves it."""
    with _bars() as bars:
        if bars is None:
            yield None
            return
        task = bars.add_task(label, total=None)

        def move(done: int, total: int, cost: float | None = None) -> None:
            bars.update(task, completed=done, total=total, description=_with_cost(label, cost))

        yield move


@contextmanager
def progress_of_files(n_files: int) -> Iterator[File]:
    """A bar for each file that is being worked on, from any thread, and one for all of them if there are several.

    Gives `of_file(label)`: a context manager as `progress_bar`, for one of the files.
    """
    with _bars() as bars:
        whole = bars.add_task(f"{n_files} files", total=n_files) if bars is not None and n_files > 1 else None

        @contextmanager
        def of_file(label: str) -> Iterator[Moves | None]:
            if bars is None:
                yield None
                return
            task = bars.add_task(label, total=None)
            before = 0.0

            def move(done: int, total: int, cost: float | None = None) -> None:
                nonlocal before
                bars.update(task, completed=done, total=total, description=_with_cost(label, cost))
                if whole is not None and total:
                    bars.advance(whole, done / total - before)
                    before = done / total

            try:
                yield move
            finally:
                bars.remove_task(task)
                if whole is not None:
                    bars.advance(whole, 1 - before)

        yield of_file


def _with_cost(label: str, cost: float | None) -> str:
    return label if cost is None else f"{label}, {cost:.5g}"


@contextmanager
def _bars() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    # Not standard error itself, which is silent while libraries in C would chat (`rtsep.quiet`).
    with open(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding) as terminal:
        console = Console(file=terminal, force_terminal=True)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bars:
            yield bars
