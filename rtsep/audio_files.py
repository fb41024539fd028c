"""Audio files: which there are, reading and writing them, all of a set or none."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile as sf

# What is taken for audio in a folder; a file that is named itself may have any name.
_SUFFIXES = ".wav .wave .rf64 .w64 .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf"
SUFFIXES = frozenset(_SUFFIXES.split())
BLOCK = 1 << 14  # samples per channel that are read, separated and written at a time
UNKNOWN_LENGTH = np.iinfo(np.int64).max  # what libsndfile reports for a FLAC stream that does not say it
WAV_LIMIT = 0xFFFF0000  # bytes: the 32-bit sizes of a WAV, less 64 KiB for its header


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


def is_audio(path: Path) -> bool:
    """Whether a file in a folder is taken for audio, by its suffix; hidden ones are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_audio(folder: Path) -> list[str]:
    """Audio files in a folder and below it: their paths below it, with slashes, sorted; none that is hidden."""
    below = (path.relative_to(folder) for path in folder.rglob("*") if is_audio(path))
    return sorted(path.as_posix() for path in below if not any(part.startswith(".") for part in path.parts))


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


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """A whole recording: float32, (n_channels, n_samples), and its rate in Hz. Raises `FileError` with the path."""
    try:
        with open_audio(path) as file:
            return np.concatenate(list(read_blocks(file, file.frames)), 1), file.samplerate
    except FileError as problem:
        raise FileError(f"{path}: {problem}") from None


def read_alike(paths: list[Path]) -> tuple[np.ndarray, int]:
    """Recordings of the same rate, channels and length.

    Parameters
    ----------
    paths : list of Path
        At least one.

    Returns
    -------
    signals : ndarray, float32, (n_files, n_channels, n_samples)
    sr : int
        Rate in Hz.

    Raises
    ------
    FileError
        If one cannot be read, or differs from the first.
    """
    first, sr = read_audio(paths[0])
    signals = [first]
    for path in paths[1:]:
        x, rate = read_audio(path)
        for unit, here, there in (
            ("Hz", rate, sr),
            ("channels", len(x), len(first)),
            ("samples", x.shape[1], first.shape[1]),
        ):
            if here != there:
                raise FileError(f"{path} has {here} {unit}, {paths[0]} has {there}")
        signals.append(x)
    return np.stack(signals), sr


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
