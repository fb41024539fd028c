"""Silence for libraries that chat on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_inside = 0  # how many threads want silence
_kept = -1  # standard error, meanwhile


@contextmanager
def quiet() -> Iterator[None]:
    """Send what C libraries write to standard error nowhere: ALSA, JACK and libmpg123 report whatever they try.

    It is one for the whole process: several threads may be inside, and the last one gives it back.
    """
    global _inside, _kept
    with _lock:
        if not _inside:
            if sys.stderr is not None:
                sys.stderr.flush()
            _kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                os.dup2(_kept, 2)
                os.close(_kept)
