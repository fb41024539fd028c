"""The loop-back driver: what the engine hears comes from an array, and what comes in goes into one."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import carray

from rtsep.kernels.jit import entry
from rtsep.kernels.memory import zeros
from rtsep.live.driver import Driver
from rtsep.live.pointers import PROCESS, Handle, call_process, load_state
from rtsep.live.rings import Ring, make_ring, read, waiting, write
from rtsep.separator import Separator


class LoopState(NamedTuple):
    """What `_loop` works on; float32 unless said."""

    engine: np.ndarray  # int64 (3,): address of the driver's function, of its state; number of sources
    direct: np.ndarray  # (n_samples,): what goes next to the engine
    through: np.ndarray  # (n_samples,): what goes through it
    playing: np.ndarray  # int64 (1,): whether to play and record
    silence: np.ndarray  # (hop,)
    recorded: Ring  # 1 row


def _loop(pointer, block_in, block_out, n):
    """The signals to engine and output from where the recording is, `n` samples of at most a hop; of type `PROCESS`."""
    loop = load_state(pointer, LOOP)
    n_src, at = loop.engine[2], loop.recorded.written[0]
    sources = carray(block_out, (n_src * n,))
    playing = loop.playing[0] and at + n <= loop.direct.size
    fed = loop.through[at : at + n] if playing else loop.silence[:n]
    late = call_process(loop.engine[0], loop.engine[1], fed, sources, n)
    for j in range(1, n_src):
        for i in range(n):
            sources[i] += sources[j * n + i]
    if playing:
        for i in range(n):
            sources[i] += loop.direct[at + i]
        write(loop.recorded, carray(block_in, (n,)), n)
    return late


_COUNTS, _SAMPLES = zeros(1, np.int64), zeros(1)
LOOP = numba.typeof(LoopState(_COUNTS, _SAMPLES, _SAMPLES, _COUNTS, _SAMPLES, make_ring(1, 1)))


@cache
def _compiled_loop() -> Any:
    return entry(PROCESS)(_loop)


class LoopDriver:
    """Drives a separator by another driver, on signals of its own; attributes as those of `Driver`.

    Parameters
    ----------
    driver : Driver
        Of the separator, and from now on of this.
    separator : Separator
        Of one channel.
    direct, through : ndarray, float32, (n_samples,)
        What is played next to the engine, and what through it, as the first source: the sum of all.

    Attributes
    ----------
    n_samples : int
    """

    def __init__(self, driver: Driver, separator: Separator, direct: np.ndarray, through: np.ndarray) -> None:
        hop, self.n_samples = separator.config.hop, direct.size
        engine = np.array([driver.function, driver.pointer, separator.n_src])
        # Blocks are played as a whole, or not.
        direct, through = (np.concatenate([x, zeros(hop)]) for x in (direct, through))
        recorded = make_ring(1, direct.size)
        recorded.data[:] = 0  # touches every page
        self._driver = driver
        self._loop = LoopState(engine, direct, through, zeros(1, np.int64), zeros(hop), recorded)
        self._handle = Handle(self._loop)
        self.function, self.pointer = _compiled_loop().address, self._handle.address
        self.prefill, self.deadline, self.shed = driver.prefill, driver.deadline, driver.shed

    @property
    def stuck(self) -> bool:
        return self._driver.stuck

    @property
    def problem(self) -> BaseException | None:
        return self._driver.problem

    @problem.setter
    def problem(self, problem: BaseException | None) -> None:
        self._driver.problem = problem

    def play(self) -> None:
        """Begin to play, and to record."""
        self._loop.playing[0] = 1

    @property
    def position(self) -> int:
        """How many samples were played and recorded, till a hop beyond `n_samples`."""
        return int(waiting(self._loop.recorded))

    def recording(self) -> np.ndarray:
        """What came in meanwhile: float32 (n,); only once."""
        block = np.empty(self.position, np.float32)
        read(self._loop.recorded, block, block.size)
        return block

    def reset(self) -> None:
        """Back to the beginning of the engine."""
        self._driver.reset()

    def start(self) -> None:
        self._driver.start()

    def stop(self) -> None:
        self._driver.stop()

    def close(self) -> None:
        self._driver.close()
        self._handle.release()
