"""What a type checker must accept, and must not: `mypy --strict tests/typed_use.py`, as CI does.

A line with `type: ignore` that has nothing to ignore is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep import ConfigError, OfflinePhase, PythonEstimator, Separator, StreamConfig, separate
from rtsep.estimators import Denoise
from rtsep.phase import MISI, OMISI


class Own(PythonEstimator):
    sources = ("a", "b")

    def prepare(self, config: StreamConfig) -> Any:
        return None

    def step(self, state: Any, mixture: NDArray[Any], power: NDArray[Any], magnitudes: NDArray[Any]) -> None:
        magnitudes[:] = 0


class Whole(OfflinePhase):
    lookahead = None

    def run(self, config: StreamConfig, line: NDArray[Any], magnitudes: NDArray[Any]) -> NDArray[Any]:
        return np.zeros((magnitudes.shape[1], line.size), np.float32)


config = StreamConfig(16_000)
separator = Separator(config, Denoise(), OMISI(n_iter=1))
out: NDArray[np.float32] = separator.process(np.zeros(64), np.zeros((2, 64), np.float32))
out = separate(np.zeros(64), 16_000, Own(), MISI())
out = separate(np.zeros(64), 16_000, "hpss", Whole())

try:
    Separator(config, 3)  # type: ignore[arg-type]
    Separator(config, OMISI())  # type: ignore[arg-type]
    Separator(config, Own(), 3)  # type: ignore[arg-type]
    separate(np.zeros(64), 16_000, [])  # type: ignore[arg-type]
except ConfigError:
    pass
