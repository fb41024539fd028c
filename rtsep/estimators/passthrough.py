"""The whole mixture as one source: what the engine does when nothing is separated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.kernels.jit import kernel


class PassthroughState(NamedTuple):
    """Nothing to remember."""

    unused: np.ndarray  # float32 (1,): a state must not be empty


@kernel
def estimate_passthrough(state, mixture, power, magnitudes):
    """The magnitudes of the mixture. Real-time safe; parameters as in `Denoise`."""
    for k in range(power.size):
        magnitudes[0, k] = math.sqrt(power[k])


@register_estimator("passthrough")
@dataclass(frozen=True)
class Passthrough(CompiledEstimator):
    """The mixture as one source, unchanged: for tests and for measuring latency."""

    sources = ("signal",)
    phase = "mixture"
    State: ClassVar[type] = PassthroughState
    step = estimate_passthrough

    def prepare(self, config: StreamConfig) -> PassthroughState:
        """Fresh state. Not real-time safe."""
        return PassthroughState(np.zeros(1, np.float32))
