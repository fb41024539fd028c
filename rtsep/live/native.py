"""The native driver: the callback runs the compiled hop itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, types

from rtsep.engine.hop import process_block
from rtsep.engine.protocols import Shedding
from rtsep.kernels.memory import zeros
from rtsep.live.pointers import PROCESS, Handle, call_compiled, load_state
from rtsep.separator import Separator

_BLOCKS = (types.Array(types.float32, 2, "C"), types.Array(types.float32, 3, "C"))


@cache
def _hop_function(states_type: Any, n_src: int, n_channels: int) -> Any:
    """A C function of the signature `PROCESS` that runs `process_block` on the states at its pointer."""
    compiled = process_block.overloads[(states_type, *_BLOCKS)]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    call = call_compiled(compiled)

    @cfunc(PROCESS, error_model="numpy")
    def process(pointer, block_in, block_out, n_samples):
        shape_in, shape_out = (n_channels, n_samples), (n_src, n_channels, n_samples)
        call(address, load_state(pointer, states_type), carray(block_in, shape_in), carray(block_out, shape_out))
        return 0

    return process


class NativeDriver:
    """Runs the hop of a separator whose estimator is compiled; attributes as those of `Driver`."""

    prefill, stuck = 0, False

    def __init__(self, separator: Separator) -> None:
        states = separator._states
        process = _hop_function(numba.typeof(states), separator.n_src, separator.config.n_channels)
        self._separator, self._handle = separator, Handle(states)
        self.problem: BaseException | None = None
        self.function, self.pointer = process.address, self._handle.address
        shedding = separator.phase.shedding(states.core.phase) or Shedding(zeros(1, np.int64), zeros(1, np.int64))
        self.deadline, self.shed = shedding

    def reset(self) -> None:
        """Back to the beginning; not while the callback runs."""
        self._separator.reset()

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Release the memory; after the stream is closed."""
        self._handle.release()
