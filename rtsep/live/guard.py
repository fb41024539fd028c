"""Calls of a C library that may abort the process, or never return.

PortAudio's JACK part does both where the server goes, or stands still, while a stream is closed: assertions in
`CleanUpStream` and `Terminate` of pa_jack.c, PortAudio 19.6 and 19.7.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable

PATIENCE_S = 5.0
_GUARDED: dict[int, threading.Event] = {}  # by the number of a thread: what is set when it is over
_ABORTED: set[int] = set()


def guarded(work: Callable[[], object]) -> bool:
    """Run `work` in a thread of its own; whether it came to its end within 5 s, and was not aborted.

    Otherwise the thread stays where it is for ever, with all that it holds. What `work` raises is raised here. Only on
    Linux is an abort survived. For one caller at a time.
    """
    over, raised = threading.Event(), []

    def run() -> None:
        _GUARDED[threading.get_ident()] = over
        try:
            work()
        except BaseException as problem:
            raised.append(problem)
        del _GUARDED[threading.get_ident()]
        over.set()

    thread = threading.Thread(target=run, name="rtsep guarded", daemon=True)
    before = _set_handler(ctypes.cast(_park, ctypes.c_void_p).value)
    try:
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends
            run()
        ended = over.wait(PATIENCE_S) and thread.ident not in _ABORTED
    finally:
        _set_handler(before)
    if raised:
        raise raised[0]
    return ended


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _park(number: int) -> None:
    """What `abort` calls in the thread that aborts, which has given the interpreter's lock away and may take it.

    Not to return is the only way to go on. Another thread's abort is none of ours: on return it ends the process.
    """
    me = threading.get_ident()
    if me in _GUARDED:
        _ABORTED.add(me)
        _GUARDED[me].set()
        threading.Event().wait()


def _set_handler(handler: int | None) -> int | None:
    """Let C call a function at SIGABRT; gives the one before."""
    if sys.platform != "linux":
        return None
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before: int | None = set_handler(signal.SIGABRT, handler)
    return before
