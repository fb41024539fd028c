"""Whatever ends `rtsep live`: the recording can be read up to the end, the status is right, nothing crashes or is left.

`RTSEP_ENDINGS=200 pytest tests/test_endings.py` tries so many pairs.
"""

from __future__ import annotations

import os
import pty
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import soundfile as sf
from jackd import JackServer, require_audio

N_PAIRS = int(os.environ.get("RTSEP_ENDINGS", "12"))
LIVE = [sys.executable, "-m", "rtsep", "live", "--estimator", "passthrough", "--phase", "mixture"]
SIGNALS = {"SIGINT": 0, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}
# The status after what ends the stream; after the others it goes on.
STATUS = SIGNALS | {"terminal closed": 129}
EVENTS = [*STATUS, "server killed", "disk full"]


@pytest.fixture
def server():
    require_audio()
    with JackServer(16_000, 64) as jack_server:
        jack_server.let_go()  # PortAudio of this process would not survive the server
        yield jack_server


class Live:
    """`rtsep live`, recording, on a terminal of its own."""

    def __init__(self, server, folder, *options: str) -> None:
        self._server, self._folder, self._ours = server, folder, None
        self._errors = folder.parent / "errors.txt"
        self._ours, theirs = pty.openpty()
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*LIVE, "--record", str(folder), *options],
                stdin=theirs,
                stdout=theirs,
                stderr=errors,
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
        os.close(theirs)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        """What it shows; otherwise it would wait."""
        with suppress(OSError):
            while not self._closing.is_set():
                if select.select([self._ours], [], [], 0.02)[0]:
                    os.read(self._ours, 65536)

    def hang_up(self) -> None:
        if self._ours is not None:
            self._closing.set()
            self._reader.join()
            os.close(self._ours)
            self._ours = None

    @property
    def recorded(self) -> float:
        """How many seconds can be read."""
        try:
            return min(sf.info(self._folder / f"{name}.wav").duration for name in ("mixture", "signal"))
        except sf.LibsndfileError:
            return 0.0

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    def wait_for_sound(self) -> None:
        end = time.monotonic() + 200
        while self.recorded < 0.5:
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < end
            time.sleep(0.02)

    def suffer(self, event: str) -> None:
        if event == "terminal closed":
            self.hang_up()
        elif event == "server killed":
            self._server.kill()
        elif event == "disk full":  # no file grows any more
            size = max((path.stat().st_size for path in self._folder.iterdir()), default=0)
            with suppress(ProcessLookupError):
                resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, size))
        else:
            self.process.send_signal(getattr(signal, event))


def _take_terminal() -> None:
    """Take standard input for the terminal of this session."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("seed", range(N_PAIRS))
def test_two_endings_one_after_the_other(server, seed, tmp_path):
    """The first one that ends it decides on the status; a SIGKILL is one for any process."""
    rng = random.Random(seed)
    events = rng.choices(EVENTS, k=2)
    live = Live(server, tmp_path / "take", *rng.choice(([], ["--plain"])))
    try:
        live.wait_for_sound()
        before, since = live.recorded, time.monotonic()
        time.sleep(rng.uniform(0.1, 0.5))
        heard = time.monotonic() - since
        for event in events:
            live.suffer(event)
            time.sleep(rng.uniform(0, 0.3))
        ending = next((event for event in events if event in STATUS), "SIGTERM")
        if ending not in events:
            live.suffer(ending)
        status = live.process.wait(60)
    finally:
        live.hang_up()
        live.process.kill()
        live.process.wait()
    right = {STATUS[ending]} | ({-9} if "SIGKILL" in events else set())
    if "disk full" in events and ending == "SIGINT":
        right |= {2}  # if the recording met it
    assert status in right, (events, live.errors)
    assert "Traceback" not in live.errors, events
    assert live.recorded > before + heard - 1, events
    if "server killed" in events:
        server.start()
    with server.client() as client:
        assert not client.get_ports("rtsep"), events
