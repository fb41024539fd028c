"""Separates files: one file per source, block by block, aligned with the input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Condition, Lock
from typing import Any

import numpy as np

from rtsep.audio_files import FORMATS, SUFFIXES, FileFormat, StagedFiles, write_sources
from rtsep.channels import IndependentSeparator, check_channels, limit, make_separator
from rtsep.choose import choose, usual_times
from rtsep.config import MAX_SR, ConfigError, StreamConfig, check_choice
from rtsep.engine.gate import Gate
from rtsep.engine.output import Output
from rtsep.engine.registry import is_compiled, is_whole
from rtsep.errors import FileError
from rtsep.media import AUDIO_OF_VIDEO, MEDIA_FORMATS, check_media, same_media
from rtsep.offline import separate
from rtsep.plain import describe
from rtsep.reading import BLOCK, AudioReader, read_from
from rtsep.separator import Separator

MAX_MEMORY = 4_000_000_000  # bytes that an algorithm which needs the whole signal may take, all jobs together
INTEGER_CEILING_DB = -1.0  # of formats that cannot hold more than full scale


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
    peak_db : float
        Level of the loudest output sample in dBFS.
    said : tuple of str
        What is wrong with the input, in words.
    """

    input: Path
    outputs: dict[str, Path]
    plot: Path | None
    sr: int
    n_channels: int
    n_samples: int
    elapsed_s: float
    counts: dict[str, int]
    peak_db: float = -math.inf
    said: tuple[str, ...] = ()

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
        """What was wrong with the input, and why the sources do not add up to it everywhere; mostly empty."""
        reasons = {
            "replaced": "input samples were not finite, or beyond +120 dBFS, and were replaced",
            "limited": "samples were turned down by the limiter: there the sources add up to less than the input",
            "muted": "output samples were not finite and are silent",
        }
        remarks = [f"the input {said}" if not said.startswith("its ") else said for said in self.said]
        remarks += [f"{self.counts[name]} {reason}" for name, reason in reasons.items() if self.counts[name]]
        if self.peak_db > 0:
            remarks.append(
                f"peaks are at {self.peak_db:+.1f} dBFS, which 32-bit float keeps and players clip: --ceiling -1 "
                "turns them down"
            )
        return remarks


class FileSeparator:
    """Separates files with one choice of settings; several threads may do so at once.

    Parameters
    ----------
    estimator, phase : str or settings
        As in `rtsep.separate`.
    output : Output, optional
        Strength, ceiling and fade-in. Default: no ceiling, so that sources add up to the input whatever its level. For
        formats of whole numbers an infinite ceiling becomes -1 dBFS.
    gate : Gate, optional
        When a source is taken for absent.
    window_ms, hop_ms, latency_ms : float, optional
        As in `StreamConfig.from_ms`.
    channels : {"linked", "independent"}
        One mask for all channels, or each for itself.
    format : str
        Of the outputs: "wav", "wav24", "wav16" and "flac", 32-bit float, 24-bit and 16-bit WAV, 24-bit FLAC; "opus",
        "mp3" and "m4a", by PyAV; "same", that of the input, with its sample format and tags. A WAV that would be larger
        than 4 GB becomes an RF64.
    source : str, optional
        Write this one only.
    overwrite : bool
        Whether existing outputs may be replaced.
    plot : bool
        Whether to draw the spectrograms, too.

    Attributes
    ----------
    sources : tuple of str
        Names of the sources.
    parallel : bool
        Whether several threads are faster than one: not if the estimator is in Python.

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
        channels: str = "linked",
        format: str = "wav",
        source: str | None = None,
        overwrite: bool = False,
        plot: bool = False,
    ) -> None:
        formats = FORMATS | MEDIA_FORMATS
        if format not in formats and format != "same":
            raise ConfigError(f"{format=} is not one of {', '.join(formats)}, same")
        check_channels(channels)
        self._times: dict[str, Any] = {"window_ms": window_ms, "hop_ms": hop_ms, "latency_ms": latency_ms}
        if all(value is None for value in self._times.values()):
            self._times.update(usual_times(estimator))
        self._finest = StreamConfig.from_ms(MAX_SR, **self._times)
        self.estimator, self.phase, self.sources = choose(estimator, phase, self._finest.window_s, self._finest.hop_s)
        self.written = self.sources if source is None else (source,)
        if source is not None:
            check_choice("source", source, self.sources)
        self.output = Output(ceiling_db=math.inf) if output is None else output
        self.gate = Gate() if gate is None else gate
        self.channels, self.overwrite, self.plot = channels, overwrite, plot
        self.format = formats.get(format)
        if self.format is not None and self.format.codec is not None:
            check_media(f"{format=}")
        self.parallel = is_compiled(self.estimator)
        self._idle: list[tuple[tuple[StreamConfig, Output], Separator | IndependentSeparator]] = []
        self._lock = Lock()
        self._memory = _Budget(MAX_MEMORY)

    @property
    def _needs_whole(self) -> bool:
        return self.phase.lookahead is None or is_whole(self.estimator)

    def settings(self) -> dict[str, Any]:
        """All settings as plain values, for reports."""
        return {
            "estimator": describe(self.estimator),
            "phase": describe(self.phase),
            "output": asdict(self.output),
            "gate": asdict(self.gate),
            "channels": self.channels,
            **self._finest.times_ms,
        }

    def outputs(self, path: Path, folder: Path, stem: str | None = None) -> dict[str, Path]:
        """Where the sources of `path` go: `STEM.SOURCE.SUFFIX` in `folder`."""
        suffix = self.format.suffix if self.format else _same_suffix(path)
        return {name: folder / f"{path.stem if stem is None else stem}.{name}{suffix}" for name in self.written}

    def separate(
        self,
        path: Path,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
        *,
        stem: str | None = None,
        reader: AudioReader | None = None,
    ) -> FileReport:
        """Separate one file.

        Parameters
        ----------
        path : Path
            Any file that libsndfile reads, or PyAV if that is installed, 8 to 192 kHz.
        folder : Path
            For the outputs; made if it is not there.
        progress : callable, optional
            Called with the samples done and the samples in all, as far as they are known. What it raises ends the
            separation.
        stem : str, optional
            Beginning of the names of the outputs, if not that of `path`.
        reader : AudioReader, optional
            What is read instead of the file `path`.

        Raises
        ------
        FileError, ConfigError, OSError
            One line each. No output is left.

        Notes
        -----
        The outputs have length, rate and channels of the input, and are aligned with it. Memory does not grow
        with the length, but for offline algorithms, which are refused above 4 GB.
        """
        outputs = self.outputs(path, folder, stem)
        plot = folder / f"{path.stem if stem is None else stem}.png" if self.plot else None
        with nullcontext(reader) if reader else read_from(path) as reader:
            config = self.config_of(reader)
            format = self.format or _same_format(reader, path)
            output = self.output
            if not format.holds_any_level and output.ceiling_db == math.inf:
                output = replace(output, ceiling_db=INTEGER_CEILING_DB)
            counts: dict[str, int] = {}
            peak = [0.0]
            if not self._needs_whole:
                with self._separator(config, output):  # compiled before the time is taken
                    pass
            start = time.perf_counter()
            with StagedFiles([*outputs.values(), *([plot] if plot else [])], self.overwrite) as staged:

                def said(done: int) -> None:
                    if progress:
                        progress(done, max(done, reader.n_samples or 0))

                n_samples = write_sources(
                    staged,
                    outputs,
                    _noting_peak(self.pieces(reader, config, output, counts), peak),
                    config.sr,
                    config.n_channels,
                    reader.at_most,
                    format,
                    said,
                    reader.tags() if self.format is None else None,
                )
                if progress:
                    progress(n_samples, n_samples)
                elapsed_s = time.perf_counter() - start
                if plot:
                    from rtsep.plots import plot_files

                    parts = {name: staged.part(output) for name, output in outputs.items()}
                    plot_files(staged.part(plot), {"mixture": path} | parts, n_samples)
                staged.commit()
        # The last hop reaches beyond the end.
        counts["limited"] = min(counts["limited"], n_samples)
        peak_db = 20 * math.log10(peak[0]) if peak[0] > 0 else -math.inf
        said_of_input = tuple(reader.remarks)
        return FileReport(
            path, outputs, plot, config.sr, config.n_channels, n_samples, elapsed_s, counts, peak_db, said_of_input
        )

    def pieces(
        self, reader: AudioReader, config: StreamConfig, output: Output, counts: dict[str, int]
    ) -> Iterator[np.ndarray]:
        """Pieces of the sources that are written, (n_written, n_channels, n) each, aligned with what is read."""
        for piece in self._all_pieces(reader, config, output, counts):
            yield piece if self.written == self.sources else piece[[self.sources.index(name) for name in self.written]]

    def config_of(self, reader: AudioReader) -> StreamConfig:
        """The configuration for a recording. Raises `ConfigError`."""
        return StreamConfig.from_ms(reader.sr, n_channels=reader.n_channels, **self._times)

    def _all_pieces(
        self, reader: AudioReader, config: StreamConfig, output: Output, counts: dict[str, int]
    ) -> Iterator[np.ndarray]:
        if self._needs_whole:
            yield from self._separate_whole(reader, config, output, counts)
            return
        with self._separator(config, output) as separator:
            yield from separate_stream(reader.blocks(), separator, counts)

    @contextmanager
    def _separator(self, config: StreamConfig, output: Output) -> Iterator[Separator | IndependentSeparator]:
        """One that no other thread uses."""
        key = (config, output)
        with self._lock:
            found = next((pair for pair in self._idle if pair[0] == key), None)
            if found:
                self._idle.remove(found)
            else:
                self._idle.clear()  # of another rate
        separator = (
            found[1]
            if found
            else make_separator(config, self.estimator, self.phase, output, self.gate, channels=self.channels)
        )
        try:
            yield separator
        finally:
            with self._lock:
                self._idle.append((key, separator))

    def _separate_whole(
        self, reader: AudioReader, config: StreamConfig, output: Output, counts: dict[str, int]
    ) -> Iterator[np.ndarray]:
        """By an algorithm that needs the whole signal."""
        blocks: list[np.ndarray] = []
        n_samples = reader.n_samples if reader.certain and reader.n_samples else 0
        self._check_memory(config, n_samples)
        for block in reader.blocks():
            blocks.append(block)
            n_samples = max(n_samples, sum(b.shape[1] for b in blocks)) if not reader.certain else n_samples
            self._check_memory(config, n_samples)
        x = np.concatenate(blocks, 1)
        del blocks
        with self._memory.share(memory_of_whole(config, len(self.sources), x.shape[1])):
            counts["replaced"] = x.size - int(np.count_nonzero(np.isfinite(x)))
            np.nan_to_num(x, copy=False, nan=0, posinf=0, neginf=0)
            # The limiter comes after, for its counts.
            unlimited = replace(output, ceiling_db=math.inf)
            sources = separate(
                x,
                config.sr,
                self.estimator,
                self.phase,
                config=config,
                output=unlimited,
                gate=self.gate,
                channels=self.channels,
            )
            counts.update(limit(config, output, sources))
            for start in range(0, x.shape[1], BLOCK):
                yield sources[:, :, start : start + BLOCK]

    def _check_memory(self, config: StreamConfig, n_samples: int) -> None:
        needed = memory_of_whole(config, len(self.sources), n_samples)
        if needed > MAX_MEMORY:
            whole, other = f"phase {self.phase.name!r}", "use --phase omisi"
            if is_whole(self.estimator):
                whole, other = f"estimator {self.estimator.name!r}", "use an estimator of streams"
            raise FileError(
                f"{whole} needs the whole signal, here about {needed / 1e9:.1f} GB of memory, more "
                f"than {MAX_MEMORY / 1e9:.0f} GB; {other}, or a shorter file"
            )


class _Budget:
    """Memory that threads share: who needs more than is left waits."""

    def __init__(self, n_bytes: int) -> None:
        self._left, self._changed = n_bytes, Condition()

    @contextmanager
    def share(self, n_bytes: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= n_bytes)
            self._left -= n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._left += n_bytes
                self._changed.notify_all()


def separate_stream(
    blocks: Iterator[np.ndarray], separator: Separator | IndependentSeparator, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    """Pieces of the sources, (n_src, n_channels, n) each, from blocks (n_channels, n); aligned with them.

    A piece is there as soon as the block that it ends with; `counts` is filled at the end.
    """
    n_channels = separator.config.n_channels
    separator.reset()
    to_drop = separator.latency

    def run(block: np.ndarray) -> np.ndarray:
        nonlocal to_drop
        separated = separator.process(block if n_channels > 1 else block[0])
        separated = separated.reshape(separator.n_src, n_channels, -1)
        dropped = min(to_drop, separated.shape[2])
        to_drop -= dropped
        return separated[:, :, dropped:]

    for block in blocks:
        yield run(block)
    # Not `flush`, which resets the counts.
    yield run(np.zeros((n_channels, separator.latency), np.float32))
    counts.update(separator.counts)


def _noting_peak(pieces: Iterator[np.ndarray], peak: list[float]) -> Iterator[np.ndarray]:
    for piece in pieces:
        if piece.size:
            peak[0] = max(peak[0], float(piece.max()), -float(piece.min()))
        yield piece


def _same_suffix(path: Path) -> str:
    """Suffix of outputs in the format of the input."""
    suffix = path.suffix.lower()
    return AUDIO_OF_VIDEO.get(suffix, path.suffix) if suffix in SUFFIXES else ".wav"


def _same_format(reader: AudioReader, path: Path) -> FileFormat:
    """The format of the input, with its sample format. Raises `FileError` if it cannot be written."""
    suffix = _same_suffix(path)
    if reader.kind is None or reader.kind[0] in ("MP3", "MPEG") or reader.kind[1] == "OPUS":
        return same_media(reader, suffix)
    container, subtype = reader.kind
    container = {"WAVEX": "WAV", "RF64": "WAV"}.get(container, container)
    n_bytes = {"FLOAT": 4, "DOUBLE": 8, "PCM_32": 4, "PCM_24": 3, "PCM_16": 2}.get(subtype, 1)
    return FileFormat(suffix, container, subtype, n_bytes)


def memory_of_whole(config: StreamConfig, n_src: int, n_samples: int) -> int:
    """Bytes that `rtsep.separate` takes for an offline algorithm, roughly; all float32."""
    n_frames = n_samples // config.hop + 1
    magnitudes = n_frames * n_src * config.n_bins
    signals = n_samples * (5 + 4 * n_src)  # copies of the mixture, copies of the sources
    # One channel at a time: spectra, magnitudes and waves of the sources, spectra of the mixture.
    window = n_frames * (n_src * (3 * config.n_bins + config.analysis) + 2 * config.n_bins)
    return 4 * (config.n_channels * (magnitudes + signals) + window)
