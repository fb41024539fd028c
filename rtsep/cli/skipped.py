"""Recordings that a command leaves out: each is said, but of many with one reason only the first ones."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAMED = 3  # of a folder, for one reason


@contextmanager
def saying_skipped() -> Iterator[Callable[[Path, str], None]]:
    """A function that says which file was skipped and why; in the end, how many more there were."""
    counts: Counter[tuple[Path, str]] = Counter()

    def say(path: Path, reason: str) -> None:
        counts[path.parent, reason] += 1
        if counts[path.parent, reason] <= NAMED:
            print(f"rtsep: {path}: {reason}; skipped", file=sys.stderr)

    try:
        yield say
    finally:
        for (folder, reason), count in counts.items():
            if count > NAMED:
                print(f"rtsep: {folder}: {count - NAMED} more: {reason}; skipped", file=sys.stderr)
