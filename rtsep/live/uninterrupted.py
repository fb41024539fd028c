"""What must not be left half done by Ctrl-C, or by whatever else a signal raises."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


def uninterrupted(work: Callable[[], None]) -> None:
    """Run `work` to its end; signals that came meanwhile are handled then, the first that raises being the last.

    Python's handlers run in the main thread alone: elsewhere there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    for each in signal.valid_signals():
        handler = signal.getsignal(each)
        if callable(handler):
            handlers[each] = handler
    try:
        for number in handlers:
            signal.signal(number, lambda *event: came.append(event))
        work()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)
