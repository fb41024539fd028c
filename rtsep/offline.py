"""separate: the same engine, fed from an array."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rtsep.channels import check_channels, limit
from rtsep.choose import Chosen, choose, usual_times
from rtsep.config import ConfigError, StreamConfig, check_axes, check_type
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.channels import share_of_channel
from rtsep.engine.gate import Gate
from rtsep.engine.line import MAX_SAMPLE, prepare_line, take_in
from rtsep.engine.offset import prepare_offset, set_aside
from rtsep.engine.output import Output, finish
from rtsep.engine.protocols import (
    CompiledEstimator,
    Estimator,
    OfflinePhase,
    PhaseRecovery,
    PythonEstimator,
    SpectraEstimator,
    WholeEstimator,
)
from rtsep.engine.python_step import PythonStep
from rtsep.engine.registry import estimate, finds_phases, is_compiled, is_whole
from rtsep.engine.spectral import check_windows, prepared
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros
from rtsep.separator import Separator, check_audio

BLOCK = 1 << 16  # samples; more at a time gain nothing


def separate(
    x: np.ndarray,
    sr: int,
    estimator: str | Estimator | None = None,
    phase: str | PhaseRecovery | None = None,
    *,
    config: StreamConfig | None = None,
    output: Output | None = None,
    gate: Gate | None = None,
    channels: str = "linked",
) -> NDArray[np.float32]:
    """Separate a whole signal: what a live stream would give, aligned with the input.

    Parameters
    ----------
    x : ndarray, real, (n_samples,) or (n_channels, n_samples)
        Mixture, full scale is 1 (`rtsep.from_pcm` makes that of integers). Values that are not finite count as zero.
    sr : int
        Sample rate in Hz, 8000 to 192000.
    estimator : str, Estimator or None
        As in `Separator`.
    phase : str, PhaseRecovery or None
        As in `Separator`; also the offline algorithms, such as "misi".
    config : StreamConfig, optional
        Window, hop and FFT size, if not the default ones; its rate and channels must be those of `x`.
    output : Output, optional
        Strength, ceiling and fade-in. Default: no ceiling, so that the sources add up whatever the level.
    gate : Gate, optional
        When a source is taken for absent; not for the offline algorithms.
    channels : {"linked", "independent"}
        One mask for all channels, made from their mean power, which keeps the stereo image; or each channel for itself,
        for channels that have nothing in common, such as two speakers with a microphone each.

    Returns
    -------
    sources : ndarray, float32, (n_src, n_samples) or (n_src, n_channels, n_samples)
        For one dimension or two dimensions of `x`. They add up to `x` unless a limiter worked,
        `Output.strength_db` is finite, or the phase recovery has the published order.

    Raises
    ------
    ConfigError, ValueError, TypeError
        For settings that cannot work, wrong shapes, and samples that are not real numbers.

    Notes
    -----
    Bit by bit the output of `Separator.process` on the same machine, with the same `output`, without its first
    `latency` samples, for every phase recovery that has a stream. Not real-time safe.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> x = np.random.default_rng(0).normal(0, 0.1, 16_000)
    >>> speech, residual = rtsep.separate(x, 16_000)
    >>> bool(np.allclose(speech + residual, x, atol=1e-6))
    True
    """
    n_channels = len(x) if np.ndim(x) == 2 else 1
    check_axes(np.asarray(x), known=config is not None)
    if config is None:
        config = StreamConfig.from_ms(sr, n_channels=n_channels, **usual_times(estimator))
    check_type("config", config, StreamConfig)
    if (config.sr, config.n_channels) != (sr, n_channels):
        raise ConfigError(f"config is for {config.sr} Hz, {config.n_channels} channels; {sr=}, {n_channels=}")
    check_channels(channels)
    output = Output(ceiling_db=math.inf) if output is None else output
    samples = check_audio(x, n_channels) if np.ndim(x) != 2 or n_channels > 1 else check_audio(x[0], 1)
    chosen = choose(estimator, phase, config.window_s, config.hop_s)
    if channels == "independent" and n_channels > 1:
        return _separate_each(samples, config, chosen, output, gate)
    if is_whole(chosen.estimator) and not finds_phases(chosen.estimator):
        chosen = chosen._replace(estimator=_Played(cast(WholeEstimator, chosen.estimator), config, samples))
    if chosen.phase.lookahead is None:
        if gate is not None and gate.min_presence > 0:
            raise ConfigError(f"min_presence={gate.min_presence:g} needs a stream, which phase={phase!r} has not")
        sources = _separate_offline(samples, config, chosen, output)
    else:
        sources = _separate_stream(samples, Separator(config, chosen.estimator, chosen.phase, output, gate))
    return sources if np.ndim(x) == 2 else sources[:, 0]


def _separate_each(
    x: np.ndarray, config: StreamConfig, chosen: Chosen, output: Output, gate: Gate | None
) -> np.ndarray:
    mono, unlimited = replace(config, n_channels=1), replace(output, ceiling_db=math.inf)
    sources = np.stack(
        [separate(c, config.sr, chosen.estimator, chosen.phase, config=mono, output=unlimited, gate=gate) for c in x], 1
    )
    if output.ceiling_db != math.inf:
        limit(config, output, sources)
    return sources


def power_of(x: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Squared magnitudes of all frames that hear a signal, mean over its channels.

    Parameters
    ----------
    x : ndarray, real, (n_channels, n_samples)
        Values that are not finite count as zero.
    config : StreamConfig

    Returns
    -------
    power : ndarray, float64, (n_frames, n_bins)
        Frame t ends with hop t.
    """
    lead = config.analysis - config.hop
    n_frames = -(-(x.shape[1] + lead) // config.hop)
    line = np.zeros((len(x), lead + n_frames * config.hop))
    line[:, lead : lead + x.shape[1]] = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    line[:, lead:] = _without_offset(line[:, lead:], config)
    power = np.zeros((n_frames, config.n_bins))
    for channel in line:
        power += np.abs(_spectra(channel, config)) ** 2 / len(x)
    return power


class _Played(PythonEstimator):
    """What an estimator of the whole signal has found, frame by frame."""

    sources: tuple[str, ...] = ()

    def __init__(self, estimator: WholeEstimator, config: StreamConfig, x: np.ndarray) -> None:
        self.sources = estimator.sources
        self.magnitudes = estimator.estimate_all(config, power_of(x, config))

    def prepare(self, config: StreamConfig) -> Iterator[np.ndarray]:
        return iter(self.magnitudes)

    def step(self, state: Iterator[np.ndarray], mixture: np.ndarray, power: np.ndarray, magnitudes: np.ndarray) -> None:
        magnitudes[:] = next(state, 0)  # nothing after the last frame that hears the signal


def _spectra(line: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Of all frames of a channel; complex128 (n_frames, n_bins)."""
    frames = np.lib.stride_tricks.sliding_window_view(line, config.analysis)[:: config.hop]
    return np.fft.rfft(frames * config.windows.analysis, config.n_fft)


def _separate_stream(x: np.ndarray, separator: Separator) -> np.ndarray:
    n_channels, n_samples = x.shape
    sources = np.empty((separator.n_src, n_channels, n_samples), np.float32)
    latency = separator.latency
    # The stream and `latency` zeros go in; its first `latency` samples are dropped.
    for start in range(0, n_samples + latency, BLOCK):
        stop = min(start + BLOCK, n_samples + latency)
        block = np.zeros((n_channels, stop - start), np.float32)
        part = x[:, start : min(stop, n_samples)]
        block[:, : part.shape[1]] = part
        separated = separator.process(block if n_channels > 1 else block[0]).reshape(separator.n_src, n_channels, -1)
        first = max(0, latency - start)
        sources[:, :, start + first - latency : stop - latency] = separated[:, :, first:]
    return sources


def _without_offset(x: np.ndarray, config: StreamConfig) -> np.ndarray:
    """A whole number of hops (n_channels, n_samples) as the core hears them, float32."""
    state, hop = prepare_offset(len(x), config.hop, config.sr), config.hop
    heard = np.empty(x.shape, np.float32)
    for start in range(0, x.shape[1], hop):
        set_aside(state, np.ascontiguousarray(x[:, start : start + hop], np.float32), hop)
        heard[:, start : start + hop] = state.samples
    return heard


@kernel
def _collect(line, analysis, estimator, hops, magnitudes, scratch):
    """Magnitudes of all frames, for every channel: (n_channels, n_frames, n_src, n_bins)."""
    n_channels, n_frames = magnitudes.shape[0], magnitudes.shape[1]
    for t in range(n_frames):
        take_in(line, hops[t])
        analyse(analysis, line.samples)
        estimate(estimator, analysis.mixture, analysis.power, scratch)
        for c in range(n_channels):
            share_of_channel(analysis.mixture, c, analysis.power, scratch, magnitudes[c, t])


def _separate_offline(x: np.ndarray, config: StreamConfig, chosen: Chosen, output: Output) -> np.ndarray:
    """For algorithms that need all frames at once."""
    estimator, phase = chosen.estimator, cast(OfflinePhase, chosen.phase)
    check_windows(config, phase)
    n_channels, n_samples = x.shape
    hop, lead = config.hop, config.analysis - config.hop
    n_frames = -(-(n_samples + config.synthesis - hop) // hop)
    # Frame t sees the samples up to the end of hop t, as in a stream: a lead of zeros before the first.
    line = np.zeros((n_channels, lead + n_frames * hop), np.float32)
    line[:, lead : lead + n_samples] = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    np.clip(line, -MAX_SAMPLE, MAX_SAMPLE, out=line)
    mixture = line[:, lead:].copy()
    line[:, lead:] = _without_offset(mixture, config)
    if finds_phases(estimator):
        spectra = np.stack([_spectra(channel.astype(float), config) for channel in line])
        magnitudes = _checked(cast(SpectraEstimator, estimator), config, spectra)
    else:
        magnitudes = _estimate_all(estimator, config, chosen.sources, line)
    sources = np.stack([_run(phase, config, line[c], magnitudes[c]) for c in range(n_channels)], 1)
    sources = np.ascontiguousarray(sources[:, :, lead : lead + n_samples])
    sources[-1] += (mixture - line[:, lead:])[:, :n_samples]
    finish(output.prepare(config, phase.consistent), mixture, sources)
    return sources


def _estimate_all(estimator: Estimator, config: StreamConfig, names: tuple[str, ...], line: np.ndarray) -> np.ndarray:
    """Magnitudes of all frames by a step, for every channel: float32 (n_channels, n_frames, n_src, n_bins)."""
    n_channels, hop, lead = len(line), config.hop, config.analysis - config.hop
    hops = np.ascontiguousarray(line[:, lead:].reshape(n_channels, -1, hop).transpose(1, 0, 2))
    magnitudes = zeros((n_channels, len(hops), len(names), config.n_bins))
    scratch = zeros((len(names), config.n_bins))
    python = None if is_compiled(estimator) else PythonStep(cast(PythonEstimator, estimator), names)
    compiled = python or cast(CompiledEstimator, estimator)
    _collect(
        prepare_line(n_channels, config.analysis),
        prepare_analysis(config),
        prepared(compiled, config),
        hops,
        magnitudes,
        scratch,
    )
    if python is not None:
        python.check()
    return magnitudes


def _checked(estimator: SpectraEstimator, config: StreamConfig, spectra: np.ndarray) -> np.ndarray:
    """Spectra of the sources, (n_channels, n_frames, n_src, n_bins). Raises `ConfigError` for another shape."""
    sources = np.asarray(estimator.estimate_all(config, spectra))
    expected = (*spectra.shape[:2], len(estimator.sources), spectra.shape[2])
    if sources.shape != expected:
        raise ConfigError(f"estimator {estimator.name}: estimate_all returned shape {sources.shape}, not {expected}")
    return sources


def _run(phase: OfflinePhase, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """What the algorithm makes of one channel, float32. Raises `ConfigError` for another shape than it promised."""
    sources = phase.run(config, line, magnitudes)
    expected = (magnitudes.shape[1], line.size)
    if np.shape(sources) != expected or np.iscomplexobj(sources):
        said = f"{np.asarray(sources).dtype} of shape {np.shape(sources)}"
        raise ConfigError(f"phase {phase.name}: run returned {said}, not real numbers of shape {expected}")
    return np.asarray(sources, np.float32)
