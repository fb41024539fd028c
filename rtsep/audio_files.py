"""Audio files: which there are, reading and writing them, all of a set or none."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rtsep.errors import FileError
from rtsep.reading import BLOCK, UNKNOWN_LENGTH, check_readable, read_from, sound_name
from rtsep.staging import StagedFiles, make_folder, writing

__all__ = ["BLOCK", "FileError", "StagedFiles", "make_folder"]  # and what stands here

# What is taken for audio in a folder, by libsndfile and by FFmpeg; a file that is named itself may have any name.
_SUFFIXES = """
    .wav .wave .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mp1 .mpga .aif .aiff .aifc .au .snd .caf .sph .nist .voc .avr
    .ircam .sf .paf .pvf .svx .8svx .xi .sds .htk .mat4 .mat5 .m4a .m4b .mp4 .m4v .mov .aac .webm .weba .mka .mkv .wma
    .wmv .asf .avi .3gp .3g2 .amr .ac3 .eac3 .dts .mpg .mpeg .ts .mts .flv .ogv .ape .wv .mpc .tta .spx .ra .rm
"""
SUFFIXES = frozenset(_SUFFIXES.split())
WAV_LIMIT = 0xFFFF0000  # bytes: the 32-bit sizes of a WAV, less 64 KiB for its header


@dataclass(frozen=True)
class FileFormat:
    """An output format.

    Parameters
    ----------
    suffix : str
        Of the files.
    container, subtype : str
        libsndfile's names of container and sample format; those of FFmpeg if there is a `codec`.
    sample_bytes : int
        Bytes of a sample, roughly where it is compressed.
    codec : str or None
        FFmpeg's name of the encoder, if libsndfile does not write it.
    bit_rate : int or None
        Bits per second and channel of the encoder; None for its own choice.
    """

    suffix: str
    container: str
    subtype: str
    sample_bytes: int
    codec: str | None = None
    bit_rate: int | None = None

    @property
    def holds_any_level(self) -> bool:
        """Whether samples above full scale are kept."""
        return self.subtype in ("FLOAT", "DOUBLE")


# Lossless ones, which libsndfile writes: what they hold is aligned with the input to the sample.
FORMATS = {
    "wav": FileFormat(".wav", "WAV", "FLOAT", 4),
    "wav24": FileFormat(".wav", "WAV", "PCM_24", 3),
    "wav16": FileFormat(".wav", "WAV", "PCM_16", 2),
    "flac": FileFormat(".flac", "FLAC", "PCM_24", 3),
}


def is_audio(path: Path) -> bool:
    """Whether a file in a folder is taken for audio, by its suffix; hidden ones are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_audio(folder: Path) -> list[str]:
    """Audio files in a folder and below it: their paths below it, with slashes, sorted; none that is hidden."""
    below = (path.relative_to(folder) for path in folder.rglob("*") if is_audio(path))
    return sorted(path.as_posix() for path in below if not any(part.startswith(".") for part in path.parts))


@contextmanager
def open_audio(path: Path) -> Iterator[sf.SoundFile]:
    """Open a file of known length that libsndfile reads, for reading parts of it.

    Raises
    ------
    FileError
        If it cannot be opened, is no audio file, has no samples, or is shorter than its header says.
    """
    check_readable(path)
    with ExitStack() as stack:
        with read_from(path) as reader:
            if reader.kind is None:
                raise FileError("is not an audio file that libsndfile reads")
            if reader.remarks:
                raise FileError(reader.remarks[0])
        file = stack.enter_context(sf.SoundFile(sound_name(path)))
        if file.frames == UNKNOWN_LENGTH:  # soundfile could read its first block alone
            raise FileError("does not say its length, like FLAC from a pipe; convert it to WAV first")
        yield file


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
    """A whole recording: float32, (n_channels, n_samples), and its rate in Hz.

    Raises `FileError` with the path, also if something is missing.
    """
    try:
        with read_from(path) as reader:
            return np.concatenate(list(reader.checked()), 1), reader.sr
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
    n_samples: int | None,
    format: FileFormat,
    progress: Callable[[int], None] | None = None,
    tags: dict[str, str] | None = None,
) -> int:
    """Write pieces of all sources, (n_src, n_channels, n) each, to their staged files, and check these.

    Parameters
    ----------
    n_samples : int or None
        In all, or more than that; None if it is not known.
    progress : callable, optional
        Called with the samples that were written.
    tags : dict, optional
        Title, artist and the like, as far as the format takes them.

    Returns
    -------
    n_samples : int
        In all.

    Raises
    ------
    FileError
        If a file cannot be written, or is not complete in the end.
    """
    container = format.container
    if container == "WAV" and (n_samples is None or n_samples * n_channels * format.sample_bytes > WAV_LIMIT):
        container = "RF64"
    with ExitStack() as stack:
        files: dict[Path, Any] = {}
        for path in outputs.values():
            with _says_what_failed(path):
                part = staged.part(path)
                if format.codec is not None:
                    from rtsep.media import MediaWriter

                    files[path] = stack.enter_context(MediaWriter(part, format, sr, n_channels, tags or {}))
                    continue
                file = sf.SoundFile(sound_name(part), "w", sr, n_channels, format.subtype, None, container)
                for name, text in (tags or {}).items():
                    with suppress(sf.LibsndfileError):  # formats that have no tags
                        setattr(file, name, text)
                files[path] = stack.enter_context(file)
        done = 0
        for piece in pieces:
            for (path, file), source in zip(files.items(), piece, strict=True):
                with _says_what_failed(path):
                    file.write(source.T)
            done += piece.shape[2]
            if progress:
                progress(done)
        for path, file in files.items():
            with _says_what_failed(path):
                file.close()
                if format.codec is None:
                    _check_complete(staged.part(path), done)
        if container == "RF64":
            for path in files:
                _as_wav(staged.part(path))
    return done


@contextmanager
def _says_what_failed(path: Path) -> Iterator[None]:
    """As `writing`, with what libsndfile says."""
    with writing(path):
        try:
            yield
        except sf.LibsndfileError as problem:
            reason = "disk full?" if problem.code == 2 else problem.error_string  # 2: a system call failed
            raise FileError(f"{path} cannot be written: {reason}") from None


def _check_complete(path: Path, n_samples: int) -> None:
    """Raise `OSError` unless the last sample can be read back: what fails at closing is not reported."""
    with suppress(sf.LibsndfileError), sf.SoundFile(sound_name(path)) as file:
        if file.frames == n_samples:
            file.seek(n_samples - 1)
            if len(file.read(1, dtype="float32")) == 1:
                return
    raise OSError(0, "incomplete, disk full?")


def _as_wav(path: Path) -> None:
    """Turn an RF64 that turned out smaller than 4 GB into a WAV: its extra chunk becomes one that readers skip."""
    size = path.stat().st_size
    with open(path, "rb+") as file:
        head = bytearray(file.read(4096))
        at = head.find(b"data")
        if size > WAV_LIMIT or head[:4] != b"RF64" or head[12:16] != b"ds64" or at < 0:
            return
        n_bytes = struct.unpack_from("<Q", head, 28)[0]
        struct.pack_into("<4sI", head, 0, b"RIFF", size - 8)
        head[12:16] = b"JUNK"
        struct.pack_into("<I", head, at + 4, n_bytes)
        file.seek(0)
        file.write(head)
