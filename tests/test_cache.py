"""The kernel cache on disk: hits when nothing changed, and never a stale kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rtsep

ANALYSE = """
import numpy as np
from rtsep import StreamConfig
from rtsep.engine.analysis import analyse, prepare_analysis
state = prepare_analysis(StreamConfig(), 0)
analyse(state, np.ones((1, 64), np.float32))
print(sum(analyse.stats.cache_hits.values()), float(state.power.sum()))
"""

# An estimator of a user, in a file of its own, collected over one frame by the offline engine.
ESTIMATE = """
import numpy as np
import mine
from rtsep import StreamConfig
from rtsep.kernels.memory import zeros
from rtsep.offline import _collect
from rtsep.engine.analysis import prepare_analysis
magnitudes, hops = zeros((1, 1, 1, 257)), np.ones((1, 1, 64), np.float32)
_collect(prepare_analysis(StreamConfig(), 0), mine.Mine().prepare(None), hops, magnitudes, zeros((1, 257)))
print(sum(_collect.stats.cache_hits.values()), float(magnitudes[0, 0, 0, 5]))
"""
MINE = """
from typing import NamedTuple
import numpy as np
from rtsep.kernels.jit import kernel
from rtsep.engine.registry import register_estimator

class State(NamedTuple):
    unused: np.ndarray

@kernel
def step(state, mixture, power, magnitudes):
    for k in range(power.size):
        magnitudes[0, k] = np.float32(3)

@register_estimator("mine")
class Mine:
    '''Always three.'''
    sources = ("all",)
    State = State
    step = step
    def prepare(self, config):
        return State(np.zeros(1, np.float32))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, without any cache."""
    source = Path(rtsep.__file__).parent
    shutil.copytree(source, tmp_path / "rtsep", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(code: str, folder: Path) -> tuple[int, float]:
    """Cache hits and the number that the code prints, from a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    hits, value = done.stdout.split()
    return int(hits), float(value)


def test_an_edit_of_an_inlined_kernel_in_another_file_is_seen(package):
    first = run(ANALYSE, package)
    assert first[0] == 0
    assert run(ANALYSE, package) == (1, first[1])
    # `analyse` stands in another file and in the cache; only the FFT changes.
    fft = package / "rtsep" / "kernels" / "fft.py"
    text = fft.read_text()
    assert text.count("HALF = np.float32(0.5)") == 1
    fft.write_text(text.replace("HALF = np.float32(0.5)", "HALF = np.float32(0.25)"))
    hits, changed = run(ANALYSE, package)
    assert hits == 0
    assert changed < 0.5 * first[1]


def test_an_edit_of_a_users_estimator_is_seen(package):
    mine = package / "mine.py"
    mine.write_text(MINE)
    assert run(ESTIMATE, package) == (0, 3)
    assert run(ESTIMATE, package) == (1, 3)
    mine.write_text(MINE.replace("np.float32(3)", "np.float32(4)"))
    assert run(ESTIMATE, package) == (0, 4)


def test_a_users_estimator_leaves_the_cache_readable_for_others(package):
    mine = package / "mine.py"
    mine.write_text(MINE)
    run(ESTIMATE, package)
    mine.unlink()
    passthrough = ESTIMATE.replace("import mine", "from rtsep.estimators import Passthrough")
    passthrough = passthrough.replace("mine.Mine()", "Passthrough()")
    first = run(passthrough, package)
    assert first[0] == 0
    assert run(passthrough, package) == (1, first[1])


def test_a_damaged_cache_is_compiled_anew(package):
    first = run(ANALYSE, package)
    damaged = list(package.rglob("*.nbi"))
    assert damaged
    for index in damaged:
        index.write_bytes(b"not a pickle")
    assert run(ANALYSE, package) == first
