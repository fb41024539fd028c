"""Channels of a recording that are separated each for itself, instead of by one mask."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.config import StreamConfig, check_choice
from rtsep.engine.gate import Gate
from rtsep.engine.output import Output, finish
from rtsep.separator import Separator

CHANNELS = ("linked", "independent")


def check_channels(channels: str) -> None:
    """Raise `ConfigError` unless it is "linked" or "independent"."""
    check_choice("channels", channels, CHANNELS)


class IndependentSeparator:
    """A stream whose channels have a separator each, and one limiter: as `Separator`, as far as files need it.

    Parameters
    ----------
    config, estimator, phase, output, gate
        As in `Separator`; an estimator that knows the channels apart cannot be used.
    """

    def __init__(
        self, config: StreamConfig, estimator: Any, phase: Any, output: Output, gate: Gate | None = None
    ) -> None:
        self.config, self._output = config, output
        unlimited = replace(output, ceiling_db=math.inf)
        mono = replace(config, n_channels=1)
        self._each = [Separator(mono, estimator, phase, unlimited, gate) for _ in range(config.n_channels)]
        self.sources, self.latency, self.n_src = self._each[0].sources, self._each[0].latency, self._each[0].n_src
        self.reset()

    def reset(self) -> None:
        """Back to the start of a stream."""
        for separator in self._each:
            separator.reset()
        self._limiter = _prepare_limiter(self.config, self._output)

    @property
    def counts(self) -> dict[str, int]:
        """As `Separator.counts`."""
        total = {name: sum(each.counts[name] for each in self._each) for name in self._each[0].counts}
        return total | {"limited": int(self._limiter.limited[0])}

    def process(self, block: np.ndarray) -> NDArray[np.float32]:
        """As `Separator.process`."""
        channels = np.atleast_2d(block)
        sources = np.stack([each.process(x) for each, x in zip(self._each, channels, strict=True)], 1)
        if self._output.ceiling_db != math.inf:
            finish(self._limiter, sources[0], sources)
        return sources if block.ndim == 2 else sources[:, 0]


def make_separator(
    config: StreamConfig, estimator: Any, phase: Any, output: Output, gate: Gate | None, channels: str
) -> Separator | IndependentSeparator:
    """A separator of linked or independent channels."""
    if channels == "independent" and config.n_channels > 1:
        return IndependentSeparator(config, estimator, phase, output, gate)
    return Separator(config, estimator, phase, output, gate)


def limit(config: StreamConfig, output: Output, sources: np.ndarray) -> dict[str, int]:
    """Turn sources (n_src, n_channels, n_samples) down to the ceiling, in place; `limited` and `muted` samples."""
    limiter = _prepare_limiter(config, output)
    finish(limiter, sources[0], sources)
    return {"limited": int(limiter.limited[0]), "muted": int(limiter.muted[0])}


def _prepare_limiter(config: StreamConfig, output: Output) -> Any:
    return Output(ceiling_db=output.ceiling_db).prepare(config, False)
