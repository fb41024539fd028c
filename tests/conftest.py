"""Two processes for the whole suite; the package and the signals of the commands under test; a quiet second try."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import rtsep

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Commands under test run the package that the tests run, with the kernels that these have compiled, and not the one in
# the current folder (as Python before 3.11 does all the same).
os.environ["PYTHONPATH"] = str(Path(rtsep.__file__).parents[1])
os.environ["PYTHONSAFEPATH"] = "1"

# Signals reach the commands under test even where the suite runs in the background or under nohup: what a shell has
# set to be ignored stays so in every child; a handler that does nothing is not passed on.
for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """`pytest` without any argument runs in two processes; with arguments it does what they say."""
    nested = "PYTEST_XDIST_WORKER" in os.environ  # one of the two, or what a test in it starts
    if not nested and not config.invocation_params.args and config.pluginmanager.hasplugin("xdist"):
        config.option.numprocesses, config.option.dist = 2, "loadgroup"


def needs_sound_server(item) -> bool:
    return hasattr(item.module, "JackServer") or hasattr(item.module, "PipeWire")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """A file stays in one process, for its fixtures and kernels, and so does all that needs a sound server.

    What fails there is tried twice more: a server runs in real time, and a busy machine may lose it a block or let its
    clients time out. The summary counts these tries.
    """
    for item in items:
        if config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group("sound" if needs_sound_server(item) else item.path.stem))
        if needs_sound_server(item):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(autouse=True)
def _quiet_second_try(request, tmp_path_factory):
    """While a test with a sound server is tried again, the other process of the suite waits, a minute at most."""
    if fcntl is None or "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone = needs_sound_server(request.node) and getattr(request.node, "execution_count", 1) > 1
    folder = tmp_path_factory.getbasetemp().parent  # of both processes
    with ExitStack() as files:
        # Who wants to be alone keeps the door shut while others leave.
        door, room = (files.enter_context(open(folder / name, "w")) for name in ("door", "room"))
        if lock(door, fcntl.LOCK_EX):
            lock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


def lock(file, kind: int, patience_s: float = 60.0) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False
