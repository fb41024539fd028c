"""What must not be left half done by Ctrl-C, or by whatever else a signal raises."""

from __future__ import annotations

import threading
from collections.abc import Callable


def uninterrupted(work: Callable[[], None]) -> None:
    """Run `work` to its end in a thread of its own, and only then raise what was raised here, or there, meanwhile.

    Signals are raised in the main thread; the interpreter waits for the other one even where this is left.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as problem:
            raised.append(problem)

    thread = threading.Thread(target=run, name="rtsep closing")
    thread.start()
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as interruption:
            raised.append(interruption)
    if raised:
        raise raised[0]
