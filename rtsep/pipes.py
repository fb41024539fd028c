"""Sound through pipes: a WAV without an end, or bare samples; what has come is handed on at once."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from rtsep.config import MAX_CHANNELS, MAX_SR, MIN_SR, ConfigError
from rtsep.errors import FileError
from rtsep.pcm import from_pcm, to_pcm
from rtsep.reading import AudioReader

AT_ONCE = 1 << 16  # bytes that are read at a time, if there are so many
UNKNOWN = 0xFFFFFFFF  # the size of what has no end
MAX_HEADER = 1 << 20  # bytes before the samples of a WAV
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags of WAV
# Names that FFmpeg gives them, and what they are in WAV: kind and bits.
SAMPLES = {
    "u8": ("uint8", PCM, 8),
    "s16le": ("<i2", PCM, 16),
    "s24le": ("int24", PCM, 24),
    "s32le": ("<i4", PCM, 32),
    "f32le": ("<f4", FLOAT, 32),
    "f64le": ("<f8", FLOAT, 64),
}


@dataclass(frozen=True)
class Raw:
    """How bare samples are to be understood: a name of `SAMPLES`, Hz, channels."""

    samples: str
    sr: int
    n_channels: int

    @classmethod
    def parse(cls, text: str) -> Raw:
        """From `s16le:48000:2`. Raises `ConfigError`."""
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts[1:]):
            raise ConfigError(f"--raw {text!r} is not like s16le:48000:2, samples, rate and channels")
        if parts[0] not in SAMPLES:
            raise ConfigError(f"--raw {text!r}: samples are one of {', '.join(SAMPLES)}")
        sr, n_channels = int(parts[1]), int(parts[2]) if len(parts) == 3 else 1
        if not MIN_SR <= sr <= MAX_SR or not 1 <= n_channels <= MAX_CHANNELS:
            raise ConfigError(
                f"--raw {text!r}: from {MIN_SR} to {MAX_SR} Hz and from 1 to {MAX_CHANNELS} channels are possible"
            )
        return cls(parts[0], sr, n_channels)


class PipeReader(AudioReader):
    """A stream from a pipe, in blocks as they come.

    Parameters
    ----------
    file : binary file
        With a file descriptor.
    raw : Raw, optional
        How to understand bare samples; otherwise it must be a WAV.

    Raises
    ------
    FileError
        If it is no WAV of a kind that can be read, or ends in its header.
    """

    def __init__(self, file: BinaryIO, raw: Raw | None = None, begun: bytes = b"") -> None:
        super().__init__()
        self._fd, self._begun, self._left = file.fileno(), begun, float("inf")
        self.format = self._read_header() if raw is None else raw
        self.sr, self.n_channels = self.format.sr, self.format.n_channels

    def _exactly(self, n: int) -> bytes:
        data, self._begun = self._begun[:n], self._begun[n:]
        while len(data) < n:
            more = os.read(self._fd, n - len(data))
            if not more:
                raise FileError("ends in its header" if data else "is empty: 0 bytes")
            data += more
        return data

    def _read_header(self) -> Raw:
        if self._exactly(12)[8:] != b"WAVE":
            raise FileError("is no WAV")
        format: Raw | None = None
        long_size = None
        for _ in range(64):
            name, size = struct.unpack("<4sI", self._exactly(8))
            if name == b"data":
                if format is None:
                    raise FileError("is a WAV without a format")
                if size == UNKNOWN and long_size is not None:
                    self._left = long_size or float("inf")
                elif 0 < size < 0x7FF00000:
                    self._left = size
                return format
            if size > MAX_HEADER:
                break
            chunk = self._exactly(size + size % 2)
            if name == b"ds64" and size >= 16:
                long_size = struct.unpack_from("<Q", chunk, 8)[0]
            if name == b"fmt " and size >= 16:
                format = _wav_format(chunk)
        raise FileError("is a WAV without samples")

    def blocks(self) -> Iterator[np.ndarray]:
        dtype, _, bits = SAMPLES[self.format.samples]
        width = bits // 8 * self.n_channels
        rest, done, declared = self._begun, 0, self._left
        while True:
            while self._left > 0 and len(rest) < width:
                more = os.read(self._fd, int(min(AT_ONCE, self._left)))
                if not more:
                    break
                rest += more
                self._left -= len(more)
            n = len(rest) // width
            if not n:
                break
            yield from_pcm(rest[: n * width], dtype, self.n_channels)
            rest, done = rest[n * width :], done + n
        if self._left > 0 and declared != float("inf"):
            self.remarks.append(f"ends early: {declared - self._left:.0f} of {declared:.0f} bytes of audio came")
        elif rest:
            self.remarks.append(f"ends early: {len(rest)} of {width} bytes of its last sample came")
        if not done:
            raise FileError("has no samples")


def _wav_format(chunk: bytes) -> Raw:
    tag, n_channels, sr, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == EXTENSIBLE and len(chunk) >= 26:
        tag = struct.unpack_from("<H", chunk, 24)[0]
    for name, (_, kind, width) in SAMPLES.items():
        if (kind, width) == (tag, bits) and n_channels:
            return Raw(name, sr, n_channels)
    raise FileError(f"is a WAV with samples of format {tag} and {bits} bits, which is not read from a pipe")


class PipeWriter:
    """Writes one source to a pipe: bare samples, or a WAV whose header says that its end is not known.

    Parameters
    ----------
    file : binary file
        With a file descriptor; nothing is kept back.
    format : Raw
    header : bool
        Whether it is to be a WAV.
    """

    def __init__(self, file: BinaryIO, format: Raw, header: bool) -> None:
        self._fd, self._format, self._header, self._n_bytes = file.fileno(), format, header, 0
        if header:
            self._send(_wav_header(format, UNKNOWN))

    def write(self, samples: np.ndarray) -> None:
        """Samples (n_channels, n), float32. Raises `OSError`, `BrokenPipeError` if nobody reads any more."""
        data = encode(samples, self._format.samples)
        self._n_bytes += len(data)
        self._send(data)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Say in the header how much it was, if it is a file after all."""
        n_bytes = self._n_bytes
        if not self._header or n_bytes >= 0xFFFF0000:
            return
        try:
            start = os.lseek(self._fd, 0, os.SEEK_CUR) - n_bytes - len(_wav_header(self._format, 0))
            if start != 0:
                return
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._send(_wav_header(self._format, n_bytes))
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:  # a pipe
            return


def encode(samples: np.ndarray, name: str) -> bytes:
    """Bytes of samples (n_channels, n)."""
    frames = np.ascontiguousarray(samples.T)
    dtype: Any = SAMPLES[name][0]
    if name in ("f32le", "f64le"):
        return frames.astype(dtype).tobytes()
    if name == "s24le":
        wide = np.clip(np.rint(frames.astype(np.float64) * 2**23), -(2**23), 2**23 - 1).astype("<i4")
        return wide.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
    return to_pcm(frames, dtype).tobytes()


def _wav_header(format: Raw, n_bytes: int) -> bytes:
    _, kind, bits = SAMPLES[format.samples]
    frame = format.n_channels * bits // 8
    chunk = struct.pack("<HHIIHH", kind, format.n_channels, format.sr, format.sr * frame, frame, bits)
    size = UNKNOWN if n_bytes == UNKNOWN else n_bytes + 36
    return struct.pack("<4sI8sI", b"RIFF", size, b"WAVEfmt ", 16) + chunk + struct.pack("<4sI", b"data", n_bytes)
