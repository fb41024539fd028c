"""The spectral core: a spectrum of the newest samples, magnitudes of the sources, their phases, and a hop of each.

Between magnitudes and phases stand the gates, which take away sources that are not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rtsep.config import ConfigError, StreamConfig
from rtsep.engine.analysis import AnalysisState, analyse, prepare_analysis
from rtsep.engine.gate import Gate, GateState, gate, silence
from rtsep.engine.protocols import CompiledEstimator, Latency, OnlinePhase, PhaseRecovery
from rtsep.engine.registry import STEPS, bound_state, estimate, recover
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros


class SpectralState(NamedTuple):
    """State of analysis, estimator, gates and phase recovery."""

    analysis: AnalysisState
    estimator: Any
    magnitudes: np.ndarray  # float32 (n_src, n_bins)
    gate: GateState
    phase: Any

    @property
    def shares(self) -> np.ndarray:
        """Of the mixing error: a source that is silent gets none."""
        return self.gate.shares


@kernel
def separate_spectra(state, line, hop_out):
    """One hop of every source.

    Parameters
    ----------
    state : SpectralState
        Updated in place.
    line : ndarray, float32, (n_channels, analysis + lookahead * hop)
        Newest samples of the mixture. Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    analyse(state.analysis, line)
    mixture, power = state.analysis.mixture, state.analysis.power
    estimate(state.estimator, mixture, power, state.magnitudes)
    gate(state.gate, power, state.magnitudes)
    recover(state.phase, mixture, power, line, state.magnitudes, hop_out)
    silence(state.gate, hop_out)


@dataclass(frozen=True)
class Spectral:
    """Settings of the spectral core.

    Parameters
    ----------
    estimator : CompiledEstimator
    phase : OnlinePhase
    sources : tuple of str
        Those of the estimator.
    gate : Gate
    """

    estimator: CompiledEstimator
    phase: OnlinePhase
    sources: tuple[str, ...]
    gate: Gate

    State: ClassVar[type] = SpectralState
    step: ClassVar[Any] = separate_spectra

    @property
    def consistent(self) -> bool:
        """As the phase recovery says."""
        return self.phase.consistent

    def latency(self, config: StreamConfig) -> Latency:
        """One synthesis window, and the look-ahead of the phase recovery."""
        assert self.phase.lookahead is not None
        return Latency(config.synthesis, self.phase.lookahead * config.hop, config.sr)

    def line_length(self, config: StreamConfig) -> int:
        """One analysis window, and the look-ahead."""
        assert self.phase.lookahead is not None
        return config.analysis + self.phase.lookahead * config.hop

    def prepare(self, config: StreamConfig) -> SpectralState:
        """Fresh state. Not real-time safe."""
        check_windows(config, self.phase)
        n_src = len(self.sources)
        return SpectralState(
            analysis=prepare_analysis(config),
            estimator=prepared(self.estimator, config),
            magnitudes=zeros((n_src, config.n_bins)),
            gate=self.gate.prepare(config, n_src, self.phase.lookahead or 0),
            phase=bound_state(self.phase, self.phase.prepare(config, n_src)),
        )


def prepared(estimator: CompiledEstimator, config: StreamConfig) -> Any:
    """Fresh state of an estimator. Raises `ConfigError`, also for what else its `prepare` raises."""
    try:
        state = estimator.prepare(config)
    except ConfigError:
        raise
    except Exception as problem:  # of whoever wrote it
        said = f"{type(problem).__name__}: {problem}"
        raise ConfigError(f"estimator {estimator.name}: prepare failed: {said}") from problem
    return bound_state(estimator, state)


def check_windows(config: StreamConfig, phase: PhaseRecovery) -> None:
    """Raise `ConfigError` if the phase recovery cannot work with the windows of the stream."""
    if config.windows.is_pair and not phase.window_pairs:
        raise ConfigError(
            f"phase={phase.name!r} needs windows of one length, not of {config.analysis} and {config.synthesis} samples"
        )


STEPS[SpectralState] = separate_spectra
