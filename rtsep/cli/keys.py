"""Single keys from the terminal, as they are pressed."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

# What terminals send; what is not here and longer than a character is some other key.
SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
}
TOKEN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|O.?|.)?|.", re.DOTALL)
NAMES = {"\t": "tab", " ": "space"}


def names_of(typed: str) -> list[str]:
    """Keys in what a terminal sent: a character, or "up", "down", "left", "right", "tab", "space".

    Parameters
    ----------
    typed : str
        Characters and escape sequences; keys without a name are left out.
    """
    keys = []
    for token in TOKEN.findall(typed):
        if token[0] != "\x1b":
            keys.append(NAMES.get(token, token.lower()))
        elif token[1:] in SEQUENCES:
            keys.append(SEQUENCES[token[1:]])
    return keys


if sys.platform == "win32":
    import msvcrt

    SCAN_CODES = {"H": "up", "P": "down", "K": "left", "M": "right"}
    POLL_S = 0.02

    class Keys:
        """The keyboard of the console; a context manager.

        Attributes
        ----------
        available : bool
            Whether there is one.
        """

        def __init__(self) -> None:
            self.available = sys.stdin is not None and sys.stdin.isatty()

        def __enter__(self) -> Keys:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self, timeout_s: float) -> list[str]:
            """Names of the keys that are pressed within `timeout_s`, at once when there are some."""
            end = time.monotonic() + timeout_s
            while not (self.available and msvcrt.kbhit()):
                if time.monotonic() >= end:
                    return []
                time.sleep(POLL_S)
            keys: list[str] = []
            while msvcrt.kbhit():
                key = msvcrt.getwch()
                if key in "\x00\xe0":
                    keys += filter(None, [SCAN_CODES.get(msvcrt.getwch())])
                else:
                    keys += names_of(key)
            return keys

else:
    import select
    import termios
    import tty

    class Keys:
        """The keyboard of the terminal at standard input; a context manager, which takes it out of line mode.

        Attributes
        ----------
        available : bool
            Whether there is one.
        """

        def __init__(self) -> None:
            self.available = sys.stdin is not None and sys.stdin.isatty()
            self._before: list[Any] | None = None

        def __enter__(self) -> Keys:
            if self.available:
                self._before = termios.tcgetattr(sys.stdin)
                tty.setcbreak(sys.stdin)
            return self

        def __exit__(
            self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
        ) -> None:
            if self._before is not None:
                # Keys that nobody read are not for the shell. Where there is no terminal any more, it needs nothing.
                with suppress(termios.error):
                    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._before)

        def wait(self, timeout_s: float) -> list[str]:
            """Names of the keys that are pressed within `timeout_s`, at once when there are some."""
            if not self.available:
                time.sleep(timeout_s)
                return []
            if not select.select([sys.stdin], [], [], timeout_s)[0]:
                return []
            typed = os.read(sys.stdin.fileno(), 1024)
            self.available = bool(typed)  # nothing to read, but ready: the terminal is gone
            return names_of(typed.decode(errors="replace"))
