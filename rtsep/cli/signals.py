"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) as exceptions, wherever they strike."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 128 + 2  # SIGINT
EXIT_TERMINATED = 128 + 15  # SIGTERM
EXIT_HUNG_UP = 128 + 1  # SIGHUP
WORDS = {EXIT_INTERRUPTED: "interrupted", EXIT_TERMINATED: "terminated", EXIT_HUNG_UP: "hung up"}
NUMBERS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(KeyboardInterrupt):
    """Ctrl-C.

    After a plain KeyboardInterrupt within `exec` or `eval`, which namedtuples and dataclasses use, CPython ends
    the process by a signal, whoever caught it.
    """


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"rtsep: {WORDS[128 + number]}\n".encode())
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted if number == signal.SIGINT else SystemExit(128 + number)


def _try_again(unraisable: Any) -> None:
    """What is raised in a callback from C, such as those of LLVM, is lost; a Ctrl-C comes again."""
    if not isinstance(unraisable.exc_value, (Interrupted, SystemExit)):
        sys.__unraisablehook__(unraisable)
        return
    stop = unraisable.exc_value
    number = signal.SIGINT if isinstance(stop, Interrupted) else signal.Signals(int(stop.code or EXIT_TERMINATED) - 128)

    def soon() -> None:
        time.sleep(0.01)
        _thread.interrupt_main(number)

    _thread.start_new_thread(soon, ())


@contextmanager
def gently(insist: bool = True) -> Iterator[Callable[[], bool]]:
    """Note the first signal instead of raising it, for whoever asks the function that this gives, and raise it at the
    end; a second one ends the process at once, or changes nothing if nobody may `insist`.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came and insist:
            _end(number, frame)
        came.append(number)

    before = {number: signal.getsignal(number) for number in NUMBERS if signal.getsignal(number) is _raise}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        if insist or not came:
            for number, handler in before.items():
                signal.signal(number, handler)
    if came:
        _raise(came[0], None)


@contextmanager
def stoppable(last: bool) -> Iterator[Callable[[], None]]:
    """Let SIGINT, SIGTERM and SIGHUP end the process at once until the function that this gives is called; then raise.

    An exception is easily lost while modules are imported: many of them catch whatever comes. If this is the `last`
    that the process does, signals change nothing any more afterwards, not even its status.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]

    def handle(handler: Callable[[int, FrameType | None], None]) -> None:
        for number in ours:
            signal.signal(number, handler)

    hook, sys.unraisablehook = sys.unraisablehook, _try_again
    handle(_end)
    try:
        yield lambda: handle(_raise)
    finally:
        sys.unraisablehook = hook
        for number in ours:
            signal.signal(number, signal.SIG_IGN if last else before[number])
