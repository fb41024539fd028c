"""Separator: prepares the states of the hop and keeps them; every other module only brings hops to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, cast

import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import NDArray

from rtsep.choose import choose
from rtsep.config import ConfigError, StreamConfig, check_type
from rtsep.engine.gate import Gate
from rtsep.engine.hop import prepare_states, process_block
from rtsep.engine.output import Output
from rtsep.engine.protocols import CompiledEstimator, Estimator, OnlinePhase, PhaseRecovery, PythonEstimator
from rtsep.engine.python_step import PythonStep
from rtsep.engine.registry import is_compiled, is_whole
from rtsep.engine.spectral import Spectral, prepared
from rtsep.kernels.memory import memory, zeros


class Separator:
    """Separates a stream: hops or blocks of the mixture in, the same number of samples of every source out.

    Parameters
    ----------
    config : StreamConfig
        Rate, window, hop, channels. Channels are linked: the estimator sees their mean power, and all get
        the same mask.
    estimator : str, Estimator or None
        Name (`rtsep.list_estimators()`) or settings such as `rtsep.estimators.Denoise(...)`. None for `speech`, or
        for `denoise` where the window is not the 16 ms, or the hop not the 4 or 8 ms, that `speech` is trained for.
    phase : str, PhaseRecovery or None
        Name (`rtsep.list_phases()`) or settings such as `rtsep.phase.OMISI(...)`. None for what suits the
        estimator, and its model: oMISI, or the mixture's phase where phase recovery has nothing to gain.
    output : Output
        Strength, ceiling and fade-in.
    gate : Gate
        When a source is taken for absent.

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
        estimator: str | Estimator | None = None,
        phase: str | PhaseRecovery | None = None,
        output: Output | None = None,
        gate: Gate | None = None,
    ) -> None:
        check_type("config", config, StreamConfig)
        self.config = config
        chosen = choose(estimator, phase, config.window_s, config.hop_s)
        self.estimator: Estimator = chosen.estimator
        self.phase = cast(OnlinePhase, chosen.phase)
        self.output = Output() if output is None else output
        check_type("output", self.output, Output)
        if is_whole(self.estimator):
            self.estimator.prepare(config)  # which says so
        self.gate = Gate() if gate is None else gate
        check_type("gate", self.gate, Gate)
        if self.phase.lookahead is None:
            raise ConfigError(f"phase={self.phase.name!r} needs the whole signal; use rtsep.separate")
        self.compiled = is_compiled(self.estimator)
        self.sources = chosen.sources
        self._python = None if self.compiled else PythonStep(cast(PythonEstimator, self.estimator), self.sources)
        compiled = self._python or cast(CompiledEstimator, self.estimator)
        self._core = Spectral(compiled, self.phase, self.sources, self.gate)
        self._setting = Lock()
        self.ledger = self._core.latency(config)
        self.latency = self.ledger.samples
        self._states = prepare_states(config, self._core, self.output)
        self._check_adjustable()
        self._memory = memory(self._states)
        self._fresh = [array.copy() for array in self._memory]
        self._compile()

    def _compile(self) -> None:
        """Compile now, by a hop of silence."""
        n_channels, hop = self.config.n_channels, self.config.hop
        try:
            self._run(zeros((n_channels, hop)), zeros((self.n_src, n_channels, hop)))
        except NumbaError as problem:
            names = f"{self.estimator.name} + {self.phase.name}"
            raise ConfigError(f"{names} cannot be compiled: {_reason(problem)}") from problem
        self.reset()

    def reset(self) -> None:
        """Back to the state of a new separator, bit by bit; what `set` changed stays. Not real-time safe."""
        for array, fresh in zip(self._memory, self._fresh, strict=True):
            np.copyto(array, fresh)
        if self._python is not None:
            self._python.reset()

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
            "replaced": int(states.line.replaced[0]),
            "limited": int(states.output.limited[0]),
            "muted": int(states.output.muted[0]),
        }

    @property
    def presence(self) -> dict[str, float]:
        """How much of each source there is in the newest frame, 0 to 1, as the gate judges it."""
        return dict(zip(self.sources, map(float, self._states.core.gate.presence), strict=True))

    def process(self, block: np.ndarray, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
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

    def flush(self) -> NDArray[np.float32]:
        """End the stream: the last `latency` samples, shaped like the output of `process`; then `reset`.

        For one channel the result is (n_src, latency), for more (n_src, n_channels, latency).
        """
        n_channels = self.config.n_channels
        silence = np.zeros((n_channels, self.latency), np.float32)
        rest = self.process(silence[0] if n_channels == 1 else silence)
        self.reset()
        return rest

    def set(self, **values: Any) -> None:
        """Change settings while the stream runs; other threads may be in `process` meanwhile.

        Parameters
        ----------
        **values
            Settings that can be changed: those which the classes of estimator, phase recovery, gate and output name as
            `adjustable`, such as `strength_db`, `ceiling_db`, `min_presence`, `n_iter` of most phase recoveries, and
            `max_attenuation_db` of `denoise`. They hold from the next hop on; the strength gets there within 20 ms.

        Raises
        ------
        ConfigError
            For a setting that cannot be changed, and values out of range; then nothing has changed.

        Notes
        -----
        The hop takes no lock: the values stand in small arrays that it reads anew each time.
        """
        with self._setting:
            self._set(values)

    def _set(self, values: dict[str, Any]) -> None:
        config, states = self.config, self._states
        output, phase, estimator, gate = self.output, self.phase, self.estimator, self.gate
        for name, value in values.items():
            if name in output.adjustable:
                output = replace(output, **{name: value})
            elif name in gate.adjustable:
                gate = replace(gate, **{name: value})
            elif name in phase.adjustable:
                phase = replace(phase, **{name: value})  # type: ignore[type-var]
            elif name in estimator.adjustable:
                estimator = replace(estimator, **{name: value})  # type: ignore[type-var]
            else:
                known = sorted({*output.adjustable, *gate.adjustable, *phase.adjustable, *estimator.adjustable})
                raise ConfigError(f"{name}={value!r} cannot be set while a stream runs; {', '.join(known)} can")
        estimator = estimator.for_phase(phase)
        # All that can fail comes first.
        renewed = self._renewed(
            self.output, output, states.output, lambda: output.prepare(config, self._core.consistent)
        )
        renewed += self._renewed(self.gate, gate, states.core.gate, lambda: gate.prepare(config, self.n_src))
        renewed += self._renewed(self.phase, phase, states.core.phase, lambda: phase.prepare(config, self.n_src))
        if self._python is None:
            fresh = partial(prepared, cast(CompiledEstimator, estimator), config)
            renewed += self._renewed(self.estimator, estimator, states.core.estimator, fresh)
        else:
            self._python.estimator = cast(PythonEstimator, estimator)
        self.output, self.phase, self.estimator, self.gate = output, phase, estimator, gate
        for array, value in renewed:
            np.copyto(array, value)
            for kept, restored in zip(self._memory, self._fresh, strict=True):
                if kept is array:
                    np.copyto(restored, value)

    def _renewed(self, before: Any, after: Any, running: Any, prepare: Callable[[], Any]) -> list[tuple[Any, Any]]:
        """Arrays of the running state, and what they get from a fresh one, where settings have changed."""
        if after is before:
            return []
        fresh = prepare()
        fields = {field for names in after.adjustable.values() for field in names}
        return [(getattr(running, field), getattr(fresh, field)) for field in sorted(fields)]

    def _check_adjustable(self) -> None:
        """Raise `ConfigError` for settings of one name in two places, and fields that cannot be changed."""
        seen: set[str] = set()
        core = self._states.core
        parts: tuple[tuple[Any, Any], ...] = ((self.output, self._states.output), (self.gate, core.gate))
        for settings, state in (*parts, (self.phase, core.phase), (self.estimator, core.estimator)):
            for name, fields in settings.adjustable.items():
                label = f"adjustable {name!r} of {type(settings).__name__}"
                if name in seen:
                    raise ConfigError(f"{label} is the name of another setting, too")
                for field in fields:
                    if not getattr(state, field).flags.writeable:
                        raise ConfigError(f"{label} changes {field!r}, which is a constant: make it with `aligned`")
            seen |= set(settings.adjustable)

    def __deepcopy__(self, memo: Any) -> Separator:
        """A separator of its own, at the same place in the stream."""
        if self._python is not None:
            raise TypeError(f"a Separator of {self.estimator.name}, in Python, cannot be copied: make another one")
        other = Separator(self.config, self.estimator, self.phase, self.output, self.gate)
        for array, value in zip(other._memory, self._memory, strict=True):
            np.copyto(array, value)
        for array, value in zip(other._fresh, self._fresh, strict=True):
            np.copyto(array, value)
        return other

    def __copy__(self) -> Separator:
        """As a deep copy: two separators never share a stream."""
        return self.__deepcopy__({})

    def __reduce__(self) -> Any:
        raise TypeError("a Separator cannot be pickled: pickle its settings and make it anew")

    def _run(self, block_in: np.ndarray, block_out: np.ndarray) -> None:
        process_block(self._states, block_in, block_out)
        if self._python is not None:
            self._python.check()


def _reason(problem: NumbaError) -> str:
    """What a message of numba says is wrong, and in which line."""
    told = re.sub(r"\x1b\[[0-9;]*m", "", str(problem))  # colours, where colorama is installed
    if "NRT required" in told:
        reason = "it allocates memory, as array expressions do, which a kernel must not: write a loop"
    else:
        found = re.search(r"(?:Error: (?!Failed in)|(?=Unknown |Untyped |Cannot |Invalid |Undecided ))([^\n]+)", told)
        reason = found[1].strip() if found else told.strip().partition("\n")[0]
    # Of the lines that numba names, one outside itself and the engine is the one to look at.
    places = re.findall(r'(?:File "|at )([^"\s]+)"?(?:, line | \()(\d+)', told)
    ours = [(path, line) for path, line in places if not re.search(r"site-packages|numba/|rtsep.engine", path)]
    return reason + (f" ({ours[0][0]}, line {ours[0][1]})" if ours else "")


def check_audio(x: Any, n_channels: int) -> np.ndarray:
    """`x` as contiguous float32 (n_channels, n_samples).

    Raises `ValueError` for a wrong shape and `TypeError` for anything but real numbers.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"audio is {type(x).__name__}, not an array")
    if x.dtype.kind not in "fiu":
        raise TypeError(f"audio is {x.dtype}, not real numbers")
    if x.dtype.kind in "iu":
        raise TypeError(f"audio is {x.dtype}; rtsep.from_pcm makes floats with full scale 1 of it")
    if not (x.ndim == 2 and x.shape[0] == n_channels) and not (x.ndim == 1 and n_channels == 1):
        expected = "(n_samples,)" if n_channels == 1 else f"({n_channels}, n_samples)"
        raise ValueError(f"audio has shape {x.shape}, not {expected}")
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(np.atleast_2d(x), np.float32)
    # A read-only array is another type to numba and would be compiled for.
    return samples if samples.flags.writeable else samples.copy()
