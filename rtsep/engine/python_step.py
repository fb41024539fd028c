"""An estimator in ordinary Python, called by its address from the same compiled hop as all others."""

from __future__ import annotations

import ctypes
import traceback
from typing import ClassVar, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.config import StreamConfig
from rtsep.engine.protocols import CompiledEstimator, PythonEstimator
from rtsep.errors import StepError
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import Code, code, zeros
from rtsep.kernels.simd import move

_FUNCTION = ctypes.CFUNCTYPE(None)


class PythonState(NamedTuple):
    """What is handed over; float32."""

    function: Code  # calls the step on the arrays below
    mixture: np.ndarray  # (n_channels, 2, n_bins)
    power: np.ndarray  # (n_bins,)
    magnitudes: np.ndarray  # (n_src, n_bins)


@intrinsic
def _call(typingctx, address):
    def codegen(context, builder, sig, args):
        function_type = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.inttoptr(args[0], function_type.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@kernel
def estimate_in_python(state, mixture, power, magnitudes):
    """The step of a `PythonStep`; parameters as for an estimator. Waits for the interpreter: not real-time safe."""
    move(state.mixture, 0, mixture, 0, mixture.size)
    move(state.power, 0, power, 0, power.size)
    _call(state.function.address[0])
    move(magnitudes, 0, state.magnitudes, 0, magnitudes.size)


class PythonStep(CompiledEstimator):
    """An estimator in ordinary Python as the hop sees it.

    Parameters
    ----------
    estimator : PythonEstimator
        May be exchanged for one with other settings and the same state.
    sources : tuple of str

    Notes
    -----
    What the step raises cannot pass through compiled code: it is kept, no further step is called, and `check` raises
    it.
    The instance must live as long as the states that it prepared; it prepares one.
    """

    State: ClassVar[type] = PythonState
    step = estimate_in_python

    def __init__(self, estimator: PythonEstimator, sources: tuple[str, ...]) -> None:
        self.estimator, self.sources = estimator, sources
        self.name = estimator.name  # type: ignore[misc]
        self._problem: BaseException | None = None
        self._function = _FUNCTION(self._run)

    def prepare(self, config: StreamConfig) -> PythonState:
        """Fresh state, of the estimator, too."""
        self._config, self._state = config, self.estimator.prepare(config)
        address = ctypes.cast(self._function, ctypes.c_void_p).value
        assert address is not None
        self._arrays = PythonState(
            function=code(address),
            mixture=zeros((config.n_channels, 2, config.n_bins)),
            power=zeros(config.n_bins),
            magnitudes=zeros((len(self.sources), config.n_bins)),
        )
        return self._arrays

    def _run(self) -> None:
        if self._problem is not None:
            return
        try:
            _, mixture, power, magnitudes = self._arrays
            result = self.estimator.step(self._state, mixture, power, magnitudes)
            if result is not None:
                raise TypeError(f"step returned {type(result).__name__}; it has to write into magnitudes[...]")
        except BaseException as problem:  # also what interrupts: it would be lost at the border
            self._problem = problem
            self._arrays.magnitudes[...] = 0

    def check(self) -> None:
        """Raise `StepError` for what the step has raised since the last time; what ends programs, as it is."""
        if self._problem is not None:
            problem, self._problem = self._problem, None
            if not isinstance(problem, Exception):
                raise problem
            at = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{at.filename}, line {at.lineno}"
            said = f"{type(problem).__name__}: {problem}"
            raise StepError(f"estimator {self.estimator.name} failed: {said} ({place})") from problem

    def reset(self) -> None:
        """Let the estimator begin anew."""
        self._problem = None
        fresh = self.estimator.reset(self._state, self._config)
        if fresh is not None:
            self._state = fresh
