"""What every study shares: its results are a JSON file, from which its page and its figure are made; and its clock.

Studies that take long publish after each part, and go on from `earlier` when they are started again.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.audio_files import StagedFiles
from rtsep.plain import plain


def parser(name: str, description: str) -> ArgumentParser:
    """With the folder for the results."""
    options = ArgumentParser(description=description)
    options.add_argument("-o", "--output", type=Path, required=True, help=f"folder for {name}.json and what it becomes")
    return options


def earlier(folder: Path, name: str, command: str) -> dict[str, Any]:
    """What the same command has published so far, or nothing."""
    path = folder / f"{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    return result if result.get("command") == command else {}


def publish(
    folder: Path,
    name: str,
    result: dict[str, Any],
    render: Callable[[dict[str, Any]], str] | None = None,
    draw: Callable[[dict[str, Any], Path], None] | None = None,
) -> None:
    """Write NAME.json, NAME.md and NAME.png, all or none, and print the page; without one, the result."""
    made = {".json": True, ".md": render, ".png": draw}
    paths = {suffix: folder / f"{name}{suffix}" for suffix, how in made.items() if how}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(result), indent=1, allow_nan=False) + "\n"
    with StagedFiles(list(paths.values()), overwrite=True) as staged:
        staged.part(paths[".json"]).write_text(text)
        result = json.loads(text)  # as it will be found
        if render:
            text = render(result)
            staged.part(paths[".md"]).write_text(text)
        if draw:
            draw(result, staged.part(paths[".png"]))
        staged.commit()
    print(text)


def measured(result: dict[str, Any], *packages: str) -> str:
    """The command, and where and when it ran, for the page."""
    made = result["made"]
    versions = [f"Python {made['python']}", *(f"{name} {made['versions'][name]}" for name in packages)]
    return ", ".join([f"`{result['command']}`", made["date"], made["machine"], *(versions if packages else ())])


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    heads = list(heads)
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def pyplot() -> Any:
    """matplotlib.pyplot without a screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """As PNG, whatever the suffix of the path is while it is written."""
    figure.savefig(path, dpi=110, format="png")
    pyplot().close(figure)


@contextmanager
def one_core() -> Iterator[None]:
    """Pin the process to one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def medians(calls: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, float]:
    """Median of what each call returns; they take turns, so that a noisy minute of the machine hits all alike."""
    taken: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(1 + rounds):
        for key, call in calls.items():
            taken[key].append(call())
    return {key: float(np.median(values[1:])) for key, values in taken.items()}  # the first compiles
