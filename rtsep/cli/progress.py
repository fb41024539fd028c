"""A bar for what takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Moves(Protocol):
    """Shows what is done of all, and the cost that iterations have reached."""

    def __call__(self, done: int, total: int, cost: float | None = None) -> None: ...


@contextmanager
def progress_bar(label: str) -> Iterator[Moves | None]:
    """A bar on the terminal, if there is one: the function that moves it."""
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
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=None)

        def move(done: int, total: int, cost: float | None = None) -> None:
            bar.update(task, completed=done, total=total, description=label if cost is None else f"{label}, {cost:.5g}")

        yield move
