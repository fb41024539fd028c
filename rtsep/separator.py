"""Separator: composes the hop and keeps its state; every other module only brings hops to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import rtsep.phase  # noqa: F401
from rtsep.config import ConfigError, StreamConfig
from rtsep.estimators import default_estimator
from rtsep.kernels.jit import kernel, pasted
from rtsep.kernels.memory import arrays, zeros
from rtsep.kernels.simd import move
from rtsep.stages.analysis import AnalysisState, analyse, prepare_analysis
from rtsep.stages.output import Output, OutputState, finish
from rtsep.stages.registry import ESTIMATORS, create, create_phase, estimate, recover


class FramingState(NamedTuple):
    """Hops on their way in and out."""

    hop_in: np.ndarray  # float32 (n_channels, hop): filled up to `position`
    hop_out: np.ndarray  # float32 (n_src, n_channels, hop): emptied up to `position`
    position: np.ndarray  # int64 (1,)


class States(NamedTuple):
    """Everything that changes while a stream runs."""

    framing: FramingState
    analysis: AnalysisState
    estimator: Any
    magnitudes: np.ndarray  # float32 (n_src, n_bins)
    phase: Any
    output: OutputState


@pasted
def process_hop(states, hop_in, hop_out):
    """The hop: mixture in, sources out; the one function that everything else calls.

    Parameters
    ----------
    states : States
        Updated in place.
    hop_in : ndarray, float32, (n_channels, hop)
        Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten; `win_length - hop + lookahead * hop` samples behind `hop_in`.

    Notes
    -----
    Real-time safe: allocates nothing, takes no lock, never raises.
    """
    analyse(states.analysis, hop_in)
    estimate(states.estimator, states.analysis.mixture, states.analysis.power, states.magnitudes)
    recover(states.phase, states.analysis, states.magnitudes, hop_out)
    finish(states.output, states.analysis.line, hop_out)


@kernel
def process_block(states, block_in, block_out):
    """Cut a block of any size into hops.

    One index serves both directions: a hop is emptied while the next one is filled, so that every block
    size has the same latency, one hop more than `process_hop`.

    Parameters
    ----------
    states : States
        Updated in place.
    block_in : ndarray, float32, (n_channels, n_samples)
        Read only.
    block_out : ndarray, float32, (n_src, n_channels, n_samples)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    hop_in, hop_out, position = states.framing.hop_in, states.framing.hop_out, states.framing.position
    n_src, n_channels, hop = hop_out.shape
    n_samples = block_in.shape[1]
    done = 0
    while done < n_samples:
        at = position[0]
        n = min(n_samples - done, hop - at)
        for c in range(n_channels):
            move(hop_in, c * hop + at, block_in, c * n_samples + done, n)
        for row in range(n_src * n_channels):
            move(block_out, row * n_samples + done, hop_out, row * hop + at, n)
        done += n
        position[0] = at + n
        if at + n == hop:
            process_hop(states, hop_in, hop_out)
            position[0] = 0


@kernel
def _recover_hop(phase, analysis, magnitudes, output, hop_out):
    recover(phase, analysis, magnitudes, hop_out)
    finish(output, analysis.line, hop_out)


@dataclass(frozen=True)
class Latency:
    """The latency ledger of a separator, in samples: when a sample that goes in comes out.

    Parameters
    ----------
    window : int
        A sample can be emitted once all frames that cover it are there: one window, of which one hop is
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


class Separator:
    """Separates a stream: hops or blocks of the mixture in, the same number of samples of every source out.

    Parameters
    ----------
    config : StreamConfig
        Rate, window, hop, channels. Channels are linked: the estimator sees their mean power, and all get
        the same mask.
    estimator : str, estimator settings or None
        Name (`rtsep.list_estimators()`) or settings such as `rtsep.estimators.Denoise(...)`. None for `speech`, or
        for `denoise` where the window is not the 16 ms, or the hop not the 4 or 8 ms, that `speech` is trained for.
    phase : str, phase-recovery settings or None
        Name (`rtsep.list_phases()`) or settings such as `rtsep.phase.OMISI(...)`. None for what suits the
        estimator, and its model: oMISI, or the mixture's phase where phase recovery has nothing to gain.
    output : Output
        Strength, ceiling and fade-in.

    Attributes
    ----------
    sources : tuple of str
        Names of the sources, in the order of the output.
    latency : int
        Samples by which the output is behind the input, whatever the block size.
    ledger : Latency
        What `latency` is made of.

    Raises
    ------
    ConfigError
        For names and settings that cannot work.

    Notes
    -----
    Making a separator compiles the hop (seconds the first time, then from the cache on disk) and allocates
    everything. Afterwards `process` with `out` is real-time safe but for the Python call itself. Not for use
    from several threads at once.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> separator = rtsep.Separator(rtsep.StreamConfig(16_000))
    >>> block = np.zeros(480, np.float32)
    >>> separator.process(block).shape
    (2, 480)
    """

    def __init__(
        self,
        config: StreamConfig,
        estimator: Any = None,
        phase: Any = None,
        output: Output | None = None,
    ) -> None:
        check_type("config", config, StreamConfig)
        self.config = config
        if estimator is None:
            estimator = default_estimator(config.win_length / config.sr, config.hop_s)
        self.estimator = create("estimator", ESTIMATORS, estimator, {})
        self.phase = create_phase(phase, self.estimator)
        if hasattr(self.estimator, "suited"):
            self.estimator = self.estimator.suited(self.phase)
        self.output = Output() if output is None else output
        check_type("output", self.output, Output)
        if getattr(self.phase, "offline", False):
            raise ConfigError(f"phase={self.phase.name!r} needs the whole signal; use rtsep.separate")
        self.sources: tuple[str, ...] = tuple(self.estimator.sources)
        lookahead = self.phase.lookahead
        self.ledger = Latency(config.win_length, lookahead * config.hop, config.sr)
        self.latency = self.ledger.samples
        self.compiled = hasattr(self.estimator, "State")
        n_src = len(self.sources)
        self._states = States(
            framing=FramingState(
                zeros((config.n_channels, config.hop)),
                zeros((n_src, config.n_channels, config.hop)),
                zeros(1, np.int64),
            ),
            analysis=prepare_analysis(config, lookahead),
            estimator=self.estimator.prepare(config),
            magnitudes=zeros((n_src, config.n_bins)),
            phase=self.phase.prepare(config, n_src),
            output=self.output.prepare(config, self.phase.consistent, self.latency - config.hop),
        )
        self._fresh = [array.copy() for array in self._changing()]
        # Compile now, by a hop of silence.
        self._run(zeros((config.n_channels, config.hop)), zeros((n_src, config.n_channels, config.hop)))
        self.reset()

    def _changing(self) -> list[np.ndarray]:
        states = self._states if self.compiled else self._states._replace(estimator=())
        return list(arrays(states))

    def reset(self) -> None:
        """Back to the state of a new separator, bit by bit. Not real-time safe."""
        for array, fresh in zip(self._changing(), self._fresh, strict=True):
            np.copyto(array, fresh)
        if not self.compiled:
            self._states = self._states._replace(estimator=self.estimator.prepare(self.config))

    @property
    def n_src(self) -> int:
        """Number of sources."""
        return len(self.sources)

    @property
    def counts(self) -> dict[str, int]:
        """What was put right since the start.

        `replaced`: input samples that were not finite or beyond +120 dBFS; `limited`: samples at which the
        limiter was at work; `muted`: output samples that were not finite and became zero.
        """
        states = self._states
        return {
            "replaced": int(states.analysis.replaced[0]),
            "limited": int(states.output.limited[0]),
            "muted": int(states.output.muted[0]),
        }

    def process(self, block: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Separate the next block.

        Parameters
        ----------
        block : ndarray, real, (n_samples,) or (n_channels, n_samples)
            Any number of samples from 0 on, full scale is 1. One dimension for one channel only. Values
            that are not finite count as zero.
        out : ndarray, float32, (n_src, n_samples) or (n_src, n_channels, n_samples), optional
            Overwritten and returned, instead of a new array.

        Returns
        -------
        sources : ndarray, float32
            Shaped like `out`; `latency` samples behind the block.

        Raises
        ------
        ValueError
            For wrong shapes.
        TypeError
            For samples that are not real numbers, and an `out` that is not writable contiguous float32.
        """
        samples = check_audio(block, self.config.n_channels)
        shape = (self.n_src, *np.shape(block))
        if out is None:
            out = np.empty(shape, np.float32)
        elif not isinstance(out, np.ndarray) or not out.flags.writeable:
            raise TypeError(f"out is {type(out).__name__}, not an array that can be written to")
        elif out.dtype != np.float32 or not out.flags.c_contiguous:
            raise TypeError(f"out is {out.dtype}, not contiguous float32")
        elif out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, not {shape}")
        if np.may_share_memory(samples, out):
            samples = samples.copy()
        self._run(samples, out.reshape(self.n_src, self.config.n_channels, -1))
        return out

    def flush(self) -> np.ndarray:
        """End the stream: the last `latency` samples, shaped like the output of `process`; then `reset`.

        For one channel the result is (n_src, latency), for more (n_src, n_channels, latency).
        """
        n_channels = self.config.n_channels
        silence = np.zeros((n_channels, self.latency), np.float32)
        rest = self.process(silence[0] if n_channels == 1 else silence)
        self.reset()
        return rest

    def _run(self, block_in: np.ndarray, block_out: np.ndarray) -> None:
        if self.compiled:
            process_block(self._states, block_in, block_out)
        else:
            self._run_python(block_in, block_out)

    def _run_python(self, block_in: np.ndarray, block_out: np.ndarray) -> None:
        """`process_block` and `process_hop` for an estimator in ordinary Python."""
        states = self._states
        hop_in, hop_out, position = states.framing
        hop, done, n_samples = hop_in.shape[1], 0, block_in.shape[1]
        while done < n_samples:
            at = int(position[0])
            n = min(n_samples - done, hop - at)
            hop_in[:, at : at + n] = block_in[:, done : done + n]
            block_out[:, :, done : done + n] = hop_out[:, :, at : at + n]
            done += n
            position[0] = at + n
            if at + n == hop:
                analyse(states.analysis, hop_in)
                mixture, power = states.analysis.mixture, states.analysis.power
                self.estimator.step(states.estimator, mixture, power, states.magnitudes)
                _recover_hop(states.phase, states.analysis, states.magnitudes, states.output, hop_out)
                position[0] = 0


def check_audio(x: Any, n_channels: int) -> np.ndarray:
    """`x` as contiguous float32 (n_channels, n_samples).

    Raises `ValueError` for a wrong shape and `TypeError` for anything but real numbers.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"audio is {type(x).__name__}, not an array")
    if x.dtype.kind not in "fiu":
        raise TypeError(f"audio is {x.dtype}, not real numbers")
    if x.dtype.kind in "iu":
        raise TypeError(f"audio is {x.dtype}; scale it to floats with full scale 1")
    if not (x.ndim == 2 and x.shape[0] == n_channels) and not (x.ndim == 1 and n_channels == 1):
        expected = "(n_samples,)" if n_channels == 1 else f"({n_channels}, n_samples)"
        raise ValueError(f"audio has shape {x.shape}, not {expected}")
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(np.atleast_2d(x), np.float32)
    # A read-only array is another type to numba and would be compiled for.
    return samples if samples.flags.writeable else samples.copy()


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `ConfigError` unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={value!r} is no {kind.__name__}")
