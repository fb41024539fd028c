"""Separates files: one file per source, block by block, aligned with the input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rtsep.audio_files import (
    BLOCK,
    FORMATS,
    FileError,
    StagedFiles,
    make_folder,
    open_audio,
    read_blocks,
    write_sources,
)
from rtsep.choose import choose, usual_times
from rtsep.config import MAX_SR, ConfigError, StreamConfig
from rtsep.engine.gate import Gate
from rtsep.engine.output import Output, finish
from rtsep.engine.registry import is_whole
from rtsep.offline import separate
from rtsep.plain import describe
from rtsep.separator import Separator

MAX_MEMORY = 4_000_000_000  # bytes that an algorithm which needs the whole signal may take


@dataclass(frozen=True)
class FileReport:
    """What was done with one file.

    Parameters
    ----------
    input : Path
    outputs : dict of str to Path
        File of each source.
    plot : Path or None
        Picture of the spectrograms.
    sr : int
        Sample rate in Hz.
    n_channels, n_samples : int
        Channels, samples per channel.
    elapsed_s : float
        Seconds for reading, separating and writing; without compiling, without the picture.
    counts : dict of str to int
        As `Separator.counts`.
    """

    input: Path
    outputs: dict[str, Path]
    plot: Path | None
    sr: int
    n_channels: int
    n_samples: int
    elapsed_s: float
    counts: dict[str, int]

    @property
    def duration_s(self) -> float:
        """Duration of the audio in seconds."""
        return self.n_samples / self.sr

    @property
    def real_time_factor(self) -> float:
        """Time taken per time of audio; below 1 is faster than it plays."""
        return self.elapsed_s / self.duration_s

    @property
    def remarks(self) -> list[str]:
        """Why the sources do not add up to the input everywhere, in words; empty if they do."""
        reasons = {
            "replaced": "input samples were not finite, or beyond +120 dBFS, and were replaced",
            "limited": "samples were turned down by the limiter: there the sources add up to less than the input",
            "muted": "output samples were not finite and are silent",
        }
        return [f"{self.counts[name]} {reason}" for name, reason in reasons.items() if self.counts[name]]


class FileSeparator:
    """Separates files with one choice of settings.

    Parameters
    ----------
    estimator, phase : str or settings
        As in `rtsep.separate`.
    output : Output, optional
        Strength, ceiling and fade-in.
    gate : Gate, optional
        When a source is taken for absent.
    window_ms, hop_ms, latency_ms : float, optional
        As in `StreamConfig.from_ms`.
    format : {"wav", "wav24", "wav16", "flac"}
        Of the outputs: 32-bit float, 24-bit and 16-bit WAV, 24-bit FLAC. A WAV that would be larger than 4 GB
        becomes an RF64.
    overwrite : bool
        Whether existing outputs may be replaced.
    plot : bool
        Whether to draw the spectrograms, too.

    Attributes
    ----------
    sources : tuple of str
        Names of the sources.

    Raises
    ------
    ConfigError
        For names and settings that cannot work.
    """

    def __init__(
        self,
        estimator: Any = None,
        phase: Any = None,
        output: Output | None = None,
        gate: Gate | None = None,
        *,
        window_ms: float | None = None,
        hop_ms: float | None = None,
        latency_ms: float | None = None,
        format: str = "wav",
        overwrite: bool = False,
        plot: bool = False,
    ) -> None:
        if format not in FORMATS:
            raise ConfigError(f"{format=} is not one of {', '.join(FORMATS)}")
        self._times: dict[str, Any] = {"window_ms": window_ms, "hop_ms": hop_ms, "latency_ms": latency_ms}
        if all(value is None for value in self._times.values()):
            self._times.update(usual_times(estimator))
        finest = StreamConfig.from_ms(MAX_SR, **self._times)
        self.estimator, self.phase, self.sources = choose(estimator, phase, finest.window_s, finest.hop_s)
        self._times_ms = finest.times_ms
        self.output = Output() if output is None else output
        self.gate = Gate() if gate is None else gate
        self.format, self.overwrite, self.plot = FORMATS[format], overwrite, plot
        self._separators: dict[tuple[int, int], Separator] = {}

    def settings(self) -> dict[str, Any]:
        """All settings as plain values, for reports."""
        return {
            "estimator": describe(self.estimator),
            "phase": describe(self.phase),
            "output": asdict(self.output),
            "gate": asdict(self.gate),
            **self._times_ms,
        }

    def outputs(self, path: Path, folder: Path) -> dict[str, Path]:
        """Where the sources of `path` go: `STEM.SOURCE.SUFFIX` in `folder`."""
        return {name: folder / f"{path.stem}.{name}{self.format.suffix}" for name in self.sources}

    def separate(self, path: Path, folder: Path, progress: Callable[[int, int], None] | None = None) -> FileReport:
        """Separate one file.

        Parameters
        ----------
        path : Path
            Any file that libsndfile reads, 8 to 192 kHz.
        folder : Path
            For the outputs; made if it is not there.
        progress : callable, optional
            Called with the samples done and the samples in all.

        Raises
        ------
        FileError, ConfigError, OSError
            One line each. No output is left.

        Notes
        -----
        The outputs have length, rate and channels of the input, and are aligned with it. Memory does not grow
        with the length, but for offline algorithms, which are refused above 4 GB.
        """
        with open_audio(path) as file:
            sr, n_channels, n_samples = file.samplerate, file.channels, file.frames
            config = StreamConfig.from_ms(sr, n_channels=n_channels, **self._times)
            counts: dict[str, int] = {}
            if self.phase.lookahead is None or is_whole(self.estimator):
                pieces = self._separate_whole(file, config, n_samples, counts)
            else:
                pieces = _separate_stream(file, self._separator(config), n_samples, counts)
            start = time.perf_counter()
            outputs = self.outputs(path, folder)
            plot = folder / f"{path.stem}.png" if self.plot else None
            with StagedFiles([*outputs.values(), *([plot] if plot else [])], self.overwrite) as staged:
                make_folder(folder)
                write_sources(staged, outputs, pieces, sr, n_channels, n_samples, self.format, progress)
                elapsed_s = time.perf_counter() - start
                if plot:
                    from rtsep.plots import plot_files

                    parts = {name: staged.part(output) for name, output in outputs.items()}
                    plot_files(staged.part(plot), {"mixture": path} | parts, n_samples)
                staged.commit()
        return FileReport(path, outputs, plot, sr, n_channels, n_samples, elapsed_s, counts)

    def _separator(self, config: StreamConfig) -> Separator:
        key = (config.sr, config.n_channels)
        if key not in self._separators:
            self._separators[key] = Separator(config, self.estimator, self.phase, self.output, self.gate)
        return self._separators[key]

    def _separate_whole(
        self, file: sf.SoundFile, config: StreamConfig, n_samples: int, counts: dict[str, int]
    ) -> Iterator[np.ndarray]:
        """As `_separate_stream`, by an algorithm that needs the whole signal."""
        needed = memory_of_whole(config, len(self.sources), n_samples)
        if needed > MAX_MEMORY:
            whole, other = f"phase {self.phase.name!r}", "use --phase omisi"
            if is_whole(self.estimator):
                whole, other = f"estimator {self.estimator.name!r}", "use an estimator of streams"
            raise FileError(
                f"{whole} needs the whole signal, here about {needed / 1e9:.1f} GB of memory, more "
                f"than {MAX_MEMORY / 1e9:.0f} GB; {other}, or a shorter file"
            )
        x = np.concatenate(list(read_blocks(file, n_samples)), 1)
        counts["replaced"] = x.size - int(np.count_nonzero(np.isfinite(x)))
        np.nan_to_num(x, copy=False, nan=0, posinf=0, neginf=0)
        # The limiter comes after, for its counts.
        unlimited = Output(self.output.strength_db, np.inf, self.output.fade_in_ms)
        sources = separate(x, config.sr, self.estimator, self.phase, config=config, output=unlimited, gate=self.gate)
        limiter = Output(ceiling_db=self.output.ceiling_db).prepare(config, False)
        finish(limiter, x, sources)
        counts.update(limited=int(limiter.limited[0]), muted=int(limiter.muted[0]))
        for start in range(0, n_samples, BLOCK):
            yield sources[:, :, start : start + BLOCK]


def _separate_stream(
    file: sf.SoundFile, separator: Separator, n_samples: int, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    """Pieces of the sources, (n_src, n_channels, n) each, from blocks of the file; `counts` is filled at the end."""
    n_channels = separator.config.n_channels
    separator.reset()
    to_drop = separator.latency
    # Not `flush`, which resets the counts.
    tail = np.zeros((n_channels, separator.latency), np.float32)
    for block in chain(read_blocks(file, n_samples), [tail]):
        separated = separator.process(block if n_channels > 1 else block[0])
        separated = separated.reshape(separator.n_src, n_channels, -1)
        dropped = min(to_drop, separated.shape[2])
        to_drop -= dropped
        yield separated[:, :, dropped:]
    counts.update(separator.counts)


def memory_of_whole(config: StreamConfig, n_src: int, n_samples: int) -> int:
    """Bytes that `rtsep.separate` takes for an offline algorithm, roughly; all float32."""
    n_frames = n_samples // config.hop + 1
    magnitudes = n_frames * n_src * config.n_bins
    signals = n_samples * (5 + 4 * n_src)  # copies of the mixture, copies of the sources
    # One channel at a time: spectra, magnitudes and waves of the sources, spectra of the mixture.
    window = n_frames * (n_src * (3 * config.n_bins + config.analysis) + 2 * config.n_bins)
    return 4 * (config.n_channels * (magnitudes + signals) + window)
