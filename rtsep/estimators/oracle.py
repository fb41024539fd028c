"""True magnitudes of given sources: the upper bound that phase recovery is measured with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import ConfigError, StreamConfig
from rtsep.engine.analysis import AnalysisState, analyse, prepare_analysis
from rtsep.engine.line import LineState, prepare_line, take_in
from rtsep.engine.offset import OffsetState, prepare_offset, set_aside
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import constant, zeros


class OracleState(NamedTuple):
    """References and how far they are used up."""

    references: np.ndarray  # float32 (n_src, n_channels, n_samples)
    position: np.ndarray  # int64 (1,)
    hop: np.ndarray  # float32 (n_src * n_channels, hop) scratch
    line: LineState  # of all sources, as channels of one stream
    offset: OffsetState  # the references lose theirs like the mixture does
    analysis: AnalysisState


@kernel
def estimate_oracle(state, mixture, power, magnitudes):
    """Magnitudes of the references at the time of the newest hop; silence after their end."""
    n_src, n_channels, n_samples = state.references.shape
    hop = state.hop.shape[1]
    start = state.position[0]
    for row in range(n_src * n_channels):
        for i in range(hop):
            inside = start + i < n_samples
            state.hop[row, i] = state.references[row // n_channels, row % n_channels, start + i] if inside else 0
    take_in(state.line, state.hop)
    set_aside(state.offset, state.line.samples, hop)
    analyse(state.analysis, state.offset.samples)
    spectra = state.analysis.mixture
    for j in range(n_src):
        for k in range(power.size):
            total = np.float32(0)
            for row in range(j * n_channels, (j + 1) * n_channels):
                total += spectra[row, 0, k] * spectra[row, 0, k] + spectra[row, 1, k] * spectra[row, 1, k]
            magnitudes[j, k] = math.sqrt(total / np.float32(n_channels))
    state.position[0] = start + hop


@register_estimator("oracle")
@dataclass(frozen=True, eq=False)
class Oracle(CompiledEstimator):
    """True magnitudes of given reference sources: for tests and benchmarks.

    Parameters
    ----------
    references : ndarray, real, (n_src, n_samples) or (n_src, n_channels, n_samples)
        The sources, aligned with the mixture from its first sample on.
    """

    references: np.ndarray | None = field(default=None, repr=False)

    State: ClassVar[type] = OracleState
    step = estimate_oracle

    def __post_init__(self) -> None:
        if not isinstance(self.references, np.ndarray):
            raise ConfigError("the oracle estimator needs references=, the true sources, an array")
        if self.references.ndim not in (2, 3) or self.references.dtype.kind != "f" or not len(self.references):
            raise ConfigError(
                f"references are {self.references.dtype} of shape {self.references.shape}, not floats of shape "
                "(n_src, n_samples) or (n_src, n_channels, n_samples)"
            )

    @classmethod
    def example(cls, references: np.ndarray) -> Oracle:
        """With the true sources."""
        return cls(references)

    @property
    def sources(self) -> tuple[str, ...]:  # type: ignore[override]
        """source1, source2, ..."""
        assert self.references is not None
        return tuple(f"source{j + 1}" for j in range(len(self.references)))

    def prepare(self, config: StreamConfig) -> OracleState:
        """Fresh state. Not real-time safe."""
        assert self.references is not None
        n_src, n_samples = self.references.shape[0], self.references.shape[-1]
        n_channels = self.references.shape[1] if self.references.ndim == 3 else 1
        if n_channels != config.n_channels:
            raise ConfigError(f"references have {n_channels} channels, the stream {config.n_channels}")
        references = self.references.reshape(n_src, n_channels, n_samples)
        return OracleState(
            references=constant(references),
            position=zeros(1, np.int64),
            hop=zeros((n_src * n_channels, config.hop)),
            line=prepare_line(n_src * n_channels, config.analysis),
            offset=prepare_offset(n_src * n_channels, config.analysis, config.sr),
            analysis=prepare_analysis(replace(config, n_channels=n_src * n_channels)),
        )
