"""Files in, one file per source out: block by block, aligned with the input, all of them or none."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile as sf

from rtsep.choose import choose
from rtsep.config import ConfigError, StreamConfig
from rtsep.engine.output import Output, finish
from rtsep.offline import separate
from rtsep.separator import Separator

BLOCK = 1 << 14  # samples per channel that are read, separated and written at a time
UNKNOWN_LENGTH = np.iinfo(np.int64).max  # what libsndfile reports for a FLAC stream that does not say it
WAV_LIMIT = 0xFFFF0000  # bytes: the 32-bit sizes of a WAV, less 64 KiB for its header
MAX_MEMORY = 4_000_000_000  # bytes that an algorithm which needs the whole signal may take


class FileError(OSError):
    """A file that cannot be read or written; the message is one line."""


@dataclass(frozen=True)
class FileFormat:
    """An output format: suffix, and libsndfile's names of container and sample format."""

    suffix: str
    container: str
    subtype: str
    sample_bytes: int


# Lossless ones only: what they hold is aligned with the input to the sample.
FORMATS = {
    "wav": FileFormat(".wav", "WAV", "FLOAT", 4),
    "wav24": FileFormat(".wav", "WAV", "PCM_24", 3),
    "wav16": FileFormat(".wav", "WAV", "PCM_16", 2),
    "flac": FileFormat(".flac", "FLAC", "PCM_24", 3),
}


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


class StagedFiles:
    """Files that are written beside their final names and appear there together or not at all.

    A context manager: what was not committed when it ends is removed.

    Parameters
    ----------
    paths : list of Path
        Final names.
    overwrite : bool
        Whether files with these names may be replaced.

    Raises
    ------
    FileError
        If one exists and may not be replaced.
    """

    def __init__(self, paths: list[Path], overwrite: bool) -> None:
        self.paths = paths
        for path in paths:
            if path.exists() and not overwrite:
                raise FileError(f"{path} exists (--overwrite replaces it)")
            if path.is_dir():
                raise FileError(f"{path} is a folder")

    def part(self, path: Path) -> Path:
        """Where to write what will be `path`: hidden, in the same folder."""
        return path.with_name(f".{path.name}.{os.getpid()}.part")

    def commit(self) -> None:
        """Make all files durable, then rename them. Raises `OSError`."""
        for path in self.paths:
            with open(self.part(path), "rb+") as file:
                os.fsync(file.fileno())
        # What is replaced stays at hand until all are in place.
        old = {path: self.part(path).with_suffix(".old") for path in self.paths if path.exists()}
        renamed: list[Path] = []
        try:
            for path in self.paths:
                if path in old:
                    os.replace(path, old[path])
                renamed.append(path)
                os.replace(self.part(path), path)
        except BaseException:
            for path in renamed:
                if not self.part(path).exists():
                    path.unlink(missing_ok=True)
            for path, backup in old.items():
                if backup.exists():
                    os.replace(backup, path)
            raise
        for backup in old.values():
            backup.unlink()

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for path in self.paths:
            with suppress(OSError):
                self.part(path).unlink()


class FileSeparator:
    """Separates files with one choice of settings.

    Parameters
    ----------
    estimator, phase : str or settings
        As in `rtsep.separate`.
    output : Output, optional
        Strength, ceiling and fade-in.
    window_ms : float
        Window in ms.
    hop_ms : float, optional
        Hop in ms; default: a quarter of the window.
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
        *,
        window_ms: float = 16.0,
        hop_ms: float | None = None,
        format: str = "wav",
        overwrite: bool = False,
        plot: bool = False,
    ) -> None:
        if format not in FORMATS:
            raise ConfigError(f"{format=} is not one of {', '.join(FORMATS)}")
        hop_s = (window_ms / 4 if hop_ms is None else hop_ms) / 1e3
        self.estimator, self.phase = choose(estimator, phase, window_ms / 1e3, hop_s)
        self.output = Output() if output is None else output
        self.window_ms, self.hop_ms = window_ms, hop_ms
        self.format, self.overwrite, self.plot = FORMATS[format], overwrite, plot
        self.sources: tuple[str, ...] = tuple(self.estimator.sources)
        self._separators: dict[tuple[int, int], Separator] = {}

    def settings(self) -> dict[str, Any]:
        """All settings as plain values, for reports."""
        return {
            "estimator": describe(self.estimator),
            "phase": describe(self.phase),
            "output": asdict(self.output),
            "window_ms": self.window_ms,
            "hop_ms": self.window_ms / 4 if self.hop_ms is None else self.hop_ms,
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
            config = StreamConfig.from_ms(sr, self.window_ms, self.hop_ms, n_channels)
            counts: dict[str, int] = {}
            if self.phase.lookahead is None:
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
            self._separators[key] = Separator(config, self.estimator, self.phase, self.output)
        return self._separators[key]

    def _separate_whole(
        self, file: sf.SoundFile, config: StreamConfig, n_samples: int, counts: dict[str, int]
    ) -> Iterator[np.ndarray]:
        """As `_separate_stream`, by an algorithm that needs the whole signal."""
        needed = memory_of_whole(config, len(self.sources), n_samples)
        if needed > MAX_MEMORY:
            raise FileError(
                f"phase {self.phase.name!r} needs the whole signal, here about {needed / 1e9:.1f} GB of memory, more "
                f"than {MAX_MEMORY / 1e9:.0f} GB; use --phase omisi, or a shorter file"
            )
        x = np.concatenate(list(read_blocks(file, n_samples)), 1)
        counts["replaced"] = x.size - int(np.count_nonzero(np.isfinite(x)))
        np.nan_to_num(x, copy=False, nan=0, posinf=0, neginf=0)
        # The limiter comes after, for its counts.
        unlimited = Output(self.output.strength_db, np.inf, self.output.fade_in_ms)
        sources = separate(x, config.sr, self.estimator, self.phase, config=config, output=unlimited)
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
    window = n_frames * (n_src * (3 * config.n_bins + config.win_length) + 2 * config.n_bins)
    return 4 * (config.n_channels * (magnitudes + signals) + window)


@contextmanager
def open_audio(path: Path) -> Iterator[sf.SoundFile]:
    """Open a file for reading.

    Raises
    ------
    FileError
        If it cannot be opened, is no audio file, has no samples, or is shorter than its header says.
    """
    with ExitStack() as stack:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait
                raise FileError("is not a regular file")
            open(path, "rb").close()  # for the reason, if that fails: libsndfile says but "System error"
        except OSError as problem:
            raise FileError(problem.strerror or str(problem)) from None
        try:
            file = stack.enter_context(sf.SoundFile(_name(path)))
        except (sf.LibsndfileError, TypeError):  # the latter for *.raw
            reason = "is not an audio file that libsndfile reads" if status.st_size else "is empty: 0 bytes"
            raise FileError(reason) from None
        _check_not_truncated(file)
        if file.frames == 0:
            raise FileError("has no samples")
        if file.frames == UNKNOWN_LENGTH:  # soundfile could read its first block alone
            raise FileError("does not say its length, like FLAC from a pipe; convert it to WAV first")
        yield file


def _name(path: Path) -> Any:
    """`path` as soundfile takes it; on POSIX a name is any bytes, which soundfile would decode."""
    return path if os.name == "nt" else os.fsencode(path)


def _check_not_truncated(file: sf.SoundFile) -> None:
    """Compare the declared size of the audio data with the actual one, where libsndfile has noticed.

    It goes on with what is there and says so in its log alone, "data : 384000 (should be 191956)". Streamed
    files declare a size near 2 or 4 GiB because they could not know it: these are complete.
    """
    for declared, actual in re.findall(
        r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE
    ):
        if int(actual) < int(declared) < 0x7FF00000:
            raise FileError(f"is truncated: {actual} of {declared} bytes of audio are there")


def read_blocks(file: sf.SoundFile, n_samples: int) -> Iterator[np.ndarray]:
    """The next `n_samples` as float32 (n_channels, at most BLOCK).

    Raises
    ------
    FileError
        If they end early.
    """
    done = 0
    while done < n_samples:
        try:
            block = file.read(min(BLOCK, n_samples - done), dtype="float32", always_2d=True)
        except sf.LibsndfileError as problem:
            raise FileError(f"is damaged or truncated after {done} samples: {problem.error_string}") from None
        if not len(block):
            raise FileError(f"is truncated: {done} of {n_samples} frames are there")
        done += len(block)
        yield np.ascontiguousarray(block.T)


def write_sources(
    staged: StagedFiles,
    outputs: dict[str, Path],
    pieces: Iterator[np.ndarray],
    sr: int,
    n_channels: int,
    n_samples: int,
    format: FileFormat,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write pieces of all sources, (n_src, n_channels, n) each, to their staged files, and check these.

    Raises
    ------
    FileError
        If a file cannot be written, or is not complete in the end.
    """
    container = format.container
    if container == "WAV" and n_samples * n_channels * format.sample_bytes > WAV_LIMIT:
        container = "RF64"
    with ExitStack() as stack:
        files: dict[Path, sf.SoundFile] = {}
        for path in outputs.values():
            with _says_what_failed(path):
                part = staged.part(path)
                part.touch()  # as in `open_audio`
                file = sf.SoundFile(_name(part), "w", sr, n_channels, format.subtype, None, container)
                files[path] = stack.enter_context(file)
        done = 0
        for piece in pieces:
            for (path, file), source in zip(files.items(), piece, strict=True):
                with _says_what_failed(path):
                    file.write(source.T)
            done += piece.shape[2]
            if progress:
                progress(done, n_samples)
        for path, file in files.items():
            with _says_what_failed(path):
                file.close()
                _check_complete(staged.part(path), n_samples)


@contextmanager
def _says_what_failed(path: Path) -> Iterator[None]:
    try:
        yield
    except sf.LibsndfileError as problem:
        reason = "disk full?" if problem.code == 2 else problem.error_string  # 2: a system call failed
        raise FileError(f"{path} cannot be written: {reason}") from None
    except OSError as problem:
        raise FileError(f"{path} cannot be written: {problem.strerror}") from None


def _check_complete(path: Path, n_samples: int) -> None:
    """Raise `OSError` unless the last sample can be read back: what fails at closing is not reported."""
    with suppress(sf.LibsndfileError), sf.SoundFile(_name(path)) as file:
        if file.frames == n_samples:
            file.seek(n_samples - 1)
            if len(file.read(1, dtype="float32")) == 1:
                return
    raise OSError(0, "incomplete, disk full?")


def make_folder(folder: Path) -> None:
    """Make a folder for outputs unless it is there. Raises `FileError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise FileError(f"{folder} cannot be made: {problem.strerror}") from None


def describe(stage: Any) -> dict[str, Any]:
    """Name and plain settings of an estimator or a phase recovery."""
    values = asdict(stage) if is_dataclass(stage) and not isinstance(stage, type) else {}
    return {"name": stage.name} | {
        key: value for key, value in values.items() if isinstance(value, (str, int, float, bool))
    }
