"""An estimator in ordinary Python, called by its address from the same compiled hop as all others."""

from __future__ import annotations

import ctypes
from typing import ClassVar, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.config import StreamConfig
from rtsep.engine.protocols import CompiledEstimator, PythonEstimator
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

    Notes
    -----
    What the step raises cannot pass through compiled code: it is kept, no further step is called, and `check` raises
    it.
    The instance must live as long as the states that it prepared; it prepares one.
    """

    State: ClassVar[type] = PythonState
    step = estimate_in_python

    def __init__(self, estimator: PythonEstimator) -> None:
        self.estimator = estimator
        self._problem: BaseException | None = None
        self._function = _FUNCTION(self._run)

    @property
    def sources(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the estimator."""
        return self.estimator.sources

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
            self.estimator.step(self._state, mixture, power, magnitudes)
        except BaseException as problem:  # also what interrupts: it would be lost at the border
            self._problem = problem
            self._arrays.magnitudes[...] = 0

    def check(self) -> None:
        """Raise what the step has raised since the last time."""
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    def reset(self) -> None:
        """Let the estimator begin anew."""
        self._problem = None
        self._state = self.estimator.reset(self._state, self._config)
