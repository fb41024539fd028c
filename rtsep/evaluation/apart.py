"""Calls in another process: what foreign code there crashes costs one value and not the run.

The process is started when it is first needed, kept, and started anew after it has died. It takes calls through its
standard input and ends when that is closed, or, on Linux, with the thread that started it.

    python -m rtsep.evaluation.apart PARENT     # by `call_apart` alone
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from rtsep.evaluation.checks import ScoreError

_SET_PDEATHSIG = 1  # of prctl(2)
_own = threading.local()


def call_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, in another process.

    Parameters
    ----------
    function : callable
        Of a module; it, its arguments and what it returns or raises can be pickled.

    Raises
    ------
    ScoreError
        If the process dies of the call.
    Exception
        What the function raises.
    """
    process: subprocess.Popen[bytes] | None = getattr(_own, "process", None)
    if process is None or process.poll() is not None:
        process = _own.process = _start()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump((function, arguments), process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        failed, result = pickle.load(process.stdout)
    except (BrokenPipeError, EOFError, pickle.UnpicklingError):
        stop()
        raise ScoreError(f"its program crashed{_why(process.returncode)}") from None
    except BaseException:  # such as Ctrl-C: half an answer is none
        process.kill()
        stop()
        raise
    if failed:
        raise result
    return result


def stop() -> None:
    """End the process of this thread, if there is one."""
    process: subprocess.Popen[bytes] | None = _own.__dict__.pop("process", None)
    if process is not None:
        process.communicate()


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", __name__, str(os.getpid())]
    # What it prints as it dies is said by the error; Ctrl-C is for the parent.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _why(status: int | None) -> str:
    if status is None or status >= 0:
        return ""
    try:
        return f": {signal.strsignal(-status) or signal.Signals(-status).name}".lower()
    except ValueError:
        return f": signal {-status}"


def _serve(calls: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            function, arguments = pickle.load(calls)
        except EOFError:
            return
        try:
            answer = (False, function(*arguments))
        except Exception as problem:
            answer = (True, problem)
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _die_with(parent: int) -> None:
    """Ask Linux to end this process when its parent does, whatever foreign code is doing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "getppid") and os.name != "nt" and os.getppid() != parent:
        os._exit(1)


def _main() -> None:
    _die_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what foreign code prints is no answer
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
