"""Two processes for the whole suite; the package and the signals of the commands under test."""

import os
import signal
from pathlib import Path

import pytest

import rtsep

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """A file stays in one process, for its fixtures and kernels, and so does all that needs a sound server."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            group = "sound" if hasattr(item.module, "JackServer") else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))
