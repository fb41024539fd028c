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
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    came: list[tuple[int, FrameType | None]] = []
    raised: list[BaseException] = []
    held = over = False

    def hold(number: int, frame: FrameType | None) -> None:
        if over:  # a signal came between two that got their handlers back
            handlers[number](number, frame)
        else:
            came.append((number, frame))

    while not held:
        try:
            for each in signal.valid_signals():
                handler = signal.getsignal(each)
                if callable(handler) and handler is not hold:
                    handlers[each] = handler
                    signal.signal(each, hold)
            held = True
        except BaseException as problem:  # of a signal before it was held
            raised.append(problem)
    try:
        work()
    finally:
        over = True
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)
        if raised:
            raise raised[0]
