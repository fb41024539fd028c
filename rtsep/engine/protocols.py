"""What estimators, phase recoveries and cores say of themselves.

The classes are protocols with defaults: inherit the one that fits (`class Peaks(PythonEstimator)`) and say what
differs. A class that does not inherit is taken, too, if it says all of it. docs/extending.md shows each kind from first
to last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from rtsep.config import StreamConfig
from rtsep.errors import ConfigError


class Settings(Protocol):
    """What estimators and phase recoveries have in common.

    Attributes
    ----------
    name : str
        Set by the registration; the name of the class for what is not registered.
    adjustable : mapping of str to tuple of str
        Settings, fields of the dataclass, that `Separator.set` can change while a stream runs, each with the fields of
        the state that depend on it: small arrays of memory that the step reads anew in every hop. None for an estimator
        in Python, whose step reads the settings from `self`.
    """

    name: ClassVar[str] = ""
    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {}


class Estimator(Settings, Protocol):
    """Magnitudes of the sources, frame by frame: what every estimator says.

    Attributes
    ----------
    sources : tuple of str
        Their names, in the order of the output, at least one; they become parts of file names.
    phase : str or PhaseRecovery
        The phase recovery for those who name none.
    times_ms : mapping of str to float
        Window, hop and latency of the streams that it is made for, as `StreamConfig.from_ms` takes them, for those who
        say none; empty for any.
    step : kernel or method
        `(state, mixture, power, magnitudes)`:

        mixture : ndarray, float32, (n_channels, 2, n_bins)
            Newest spectrum of every channel, real parts and imaginary parts. Read only.
        power : ndarray, float32, (n_bins,)
            Squared magnitude, mean over the channels. Read only.
        magnitudes : ndarray, float32, (n_src, n_bins)
            To be overwritten, for the mean power. What is negative or not finite counts as zero.
    """

    sources: tuple[str, ...]
    phase: str | PhaseRecovery = "omisi"
    times_ms: Mapping[str, float] = {}
    step: Any

    def for_phase(self, phase: PhaseRecovery) -> Estimator:
        """These settings for the phase recovery that follows, if the magnitudes depend on it."""
        return self

    def prepare(self, config: StreamConfig) -> Any:
        """Fresh state. Not real-time safe. Raises `ConfigError` for a stream that it is not made for."""
        raise NotImplementedError

    @classmethod
    def example(cls, references: np.ndarray) -> Estimator:
        """Settings for tests that run every estimator on every property that the engine promises.

        `references` are true sources, float32 (n_src, n_samples) or (n_src, n_channels, n_samples), for whoever needs
        some. Raises `ConfigError` if it needs what only its user has.
        """
        return cls()


class CompiledEstimator(Estimator, Protocol):
    """An estimator whose step is a `rtsep.kernels.jit.kernel`: runs everywhere, in the audio callback, too.

    Attributes
    ----------
    State : type
        The NamedTuple of arrays that `prepare` returns.
    step : kernel
        A class attribute, `step = estimate_peaks`.
    """

    State: ClassVar[type]


class PythonEstimator(Estimator, Protocol):
    """An estimator whose step is ordinary Python, a method: runs everywhere but in the audio callback."""

    def reset(self, state: Any, config: StreamConfig) -> Any:
        """The state with which a stream begins anew, by default a fresh one; None for `state`, put back in place."""
        return self.prepare(config)


class WholeEstimator(Estimator, Protocol):
    """An estimator that needs the whole signal: for `rtsep.separate` and files, not for a stream."""

    step: Any = None

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of every source in all frames.

        Parameters
        ----------
        config : StreamConfig
        power : ndarray, float64, (n_frames, n_bins)
            Squared magnitudes, mean over the channels. Read only.

        Returns
        -------
        magnitudes : ndarray, real, (n_frames, n_src, n_bins)
        """
        raise NotImplementedError

    def prepare(self, config: StreamConfig) -> Any:
        """No stream can be begun: raises `ConfigError`."""
        raise ConfigError(
            f"estimator={self.name!r} needs the whole signal: for files and rtsep.separate, not for streams"
        )

    @classmethod
    def example(cls, references: np.ndarray) -> Estimator:
        """What the engine promises of streams is not promised here: raises `ConfigError`."""
        raise ConfigError(f"{cls.__name__} has no stream")


class SpectraEstimator(WholeEstimator, Protocol):
    """An estimator of the whole signal that finds the phases, too, for `rtsep.phase.own.OwnPhases`."""

    def estimate_all(self, config: StreamConfig, spectra: np.ndarray) -> np.ndarray:
        """Spectra of every source in all frames of every channel.

        Parameters
        ----------
        config : StreamConfig
        spectra : ndarray, complex128, (n_channels, n_frames, n_bins)
            Of the mixture. Read only.

        Returns
        -------
        sources : ndarray, complex, (n_channels, n_frames, n_src, n_bins)
        """
        raise NotImplementedError


class Shedding(NamedTuple):
    """How a live stream makes a phase recovery leave out iterations instead of being late."""

    deadline: np.ndarray  # int64 (1,): when the hop should be done, by the clock in ns; 0 for no limit
    shed: np.ndarray  # int64 (1,): iterations left out so far


class PhaseRecovery(Settings, Protocol):
    """Phases for the magnitudes: what every phase recovery says.

    Attributes
    ----------
    lookahead : int or None
        Future hops that it waits for; None if it needs the whole signal (`OfflinePhase`).
    consistent : bool
        Whether the output stage shares the mixing error among the sources.
    keeps_mixture_phase : bool
        Whether every source gets the phase of the mixture, so that masks suit it better than magnitudes.
    window_pairs : bool
        Whether it can work with a synthesis window that is shorter than the analysis window.
    """

    window_pairs: ClassVar[bool] = True

    lookahead: int | None = 0
    consistent: bool = True
    keeps_mixture_phase: bool = False


class OnlinePhase(PhaseRecovery, Protocol):
    """A phase recovery with a compiled step.

    Attributes
    ----------
    State : type
        The NamedTuple of arrays that `prepare` returns.
    step : kernel
        A class attribute, a `rtsep.kernels.jit.kernel`: `(state, mixture, power, line, magnitudes, hop_out)`.

        mixture, power, magnitudes : ndarray, float32
            As for an estimator. Read only.
        line : ndarray, float32, (n_channels, analysis + lookahead * hop)
            Newest samples of the mixture. Read only.
        hop_out : ndarray, float32, (n_src, n_channels, hop)
            To be overwritten, `synthesis - hop + lookahead * hop` samples behind the newest.
    """

    State: ClassVar[type]
    step: Any

    def prepare(self, config: StreamConfig, n_src: int) -> Any:
        """Fresh state for `n_src` sources. Not real-time safe."""
        raise NotImplementedError

    def shedding(self, state: Any) -> Shedding | None:
        """The fields of the state that a deadline goes through, if the step minds one."""
        return None


class OfflinePhase(PhaseRecovery, Protocol):
    """A phase recovery that needs the whole signal: `rtsep.separate` alone."""

    lookahead: int | None = None

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources (n_src, n_samples) of one channel.

        line : ndarray, float32, (n_samples,)
            The mixture; frame t starts at sample `t * hop`.
        magnitudes : ndarray, float32, (n_frames, n_src, n_bins)
            Targets, not negative.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Latency:
    """The latency ledger of a separator, in samples: when a sample that goes in comes out.

    Parameters
    ----------
    window : int
        A sample can be emitted once all frames that add to it are there: one synthesis window, of which one hop is
        the time that a hop takes to fill.
    lookahead : int
        Future hops that the phase recovery waits for.
    sr : int
        Sample rate in Hz.
    """

    window: int
    lookahead: int
    sr: int

    @property
    def samples(self) -> int:
        """The sum."""
        return self.window + self.lookahead


class Core(Protocol):
    """What stands between the line and the output: `take_in -> set_aside -> core -> give_back -> finish`.

    Attributes
    ----------
    State : type
        The NamedTuple that `prepare` returns; its class chooses the step, as for the stages.
        Its `shares` are those of the mixing error that each source gets, float32 (n_src,), if it is shared.
    step : kernel
        `(state, line, hop_out)`: the newest samples of the mixture, float32 (n_channels, line_length), and the hop of
        every source to be overwritten, float32 (n_src, n_channels, hop).
    """

    State: ClassVar[type]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""
        ...

    @property
    def consistent(self) -> bool:
        """Whether the output stage shares the mixing error."""
        ...

    def latency(self, config: StreamConfig) -> Latency:
        """When a sample that goes in comes out."""
        ...

    def line_length(self, config: StreamConfig) -> int:
        """Newest samples of the mixture that the step needs, at least the latency."""
        ...

    def prepare(self, config: StreamConfig) -> Any:
        """Fresh state. Not real-time safe."""
        ...

    @property
    def step(self) -> Any:
        """The step, a kernel."""
        ...
