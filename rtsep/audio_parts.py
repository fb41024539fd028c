"""Audio files as libsndfile reads them whole: it believes headers, and of a chain it reads the first link alone.

What a file says of its length may be wrong: an MP3 without a Xing header says nothing, and libsndfile guesses; a
program that was killed leaves sizes of zero; who joins two files has one header for both. Here a file becomes parts,
each of which libsndfile reads to its end, and remarks on what is missing.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

ENDLESS = 1 << 40  # bytes that libmpg123 is told an MP3 has, so that its guess of the length is never too short
NEARBY = 1 << 16  # bytes in which the next frame of an MP3 is looked for at a time
STREAMED = 0x7FF00000  # sizes from here on mean that the writer could not know them
_KBPS = {  # of MPEG-1 by layer, and of layer I and the others of MPEG-2
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class View:
    """A part of a file, for libsndfile, as if it were all there is.

    Parameters
    ----------
    file : binary file
        Opened for reading.
    start, stop : int
        Bytes of the file that are seen.
    patch : tuple of int and bytes, optional
        Where in the part other bytes are seen than there are, and which.
    endless : bool
        Claim a size of `ENDLESS` bytes.

    Attributes
    ----------
    position : int
        Bytes that were read; from the start of the part.
    cut : bool
        Whether the last frame of an MP3 was not all there.
    """

    def __init__(
        self, file: BinaryIO, start: int, stop: int, patch: tuple[int, bytes] | None = None, endless: bool = False
    ) -> None:
        self._file, self.start, self._n_bytes, self._patch = file, start, stop - start, patch
        self._claimed = ENDLESS if endless else self._n_bytes
        self.position = 0
        self.cut = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self._claimed}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: memoryview) -> int:
        wanted = len(buffer)
        if self._claimed == ENDLESS and self.position >= ENDLESS - 128:  # where libmpg123 looks for a tag
            buffer[:] = bytes(wanted)
            self.position += wanted
            return wanted
        self._file.seek(self.start + self.position)
        found = self._file.read(max(0, min(wanted, self._n_bytes - self.position)))
        if self._patch:
            at, new = self._patch
            for i in range(max(0, at - self.position), min(len(found), at + len(new) - self.position)):
                found = found[:i] + new[self.position + i - at :][:1] + found[i + 1 :]
        buffer[: len(found)] = found
        # Four bytes are a header, and one is a search for it.
        self.cut = self.cut or (wanted > 4 and 0 < len(found) < wanted)
        self.position += len(found)
        return len(found)

    # soundfile asks for these, too.
    def read(self, n: int) -> bytes:
        buffer = bytearray(n)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def write(self, data: bytes) -> int:
        raise OSError("only for reading")


def _frame_size(header: int) -> int:
    """Bytes of the MPEG audio frame with this header of four bytes; 0 if it is none, -1 in free format."""
    version, layer, rate, low = header >> 19 & 3, 4 - (header >> 17 & 3), header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer == 4 or rate == 15 or low == 3:
        return 0
    if rate == 0:
        return -1
    sr = (44_100, 48_000, 32_000)[low] >> {3: 0, 2: 1, 0: 2}[version]
    kbps = _KBPS[(1, layer) if version == 3 else (2, min(layer, 2))][rate - 1]
    padding = header >> 9 & 1
    if layer == 1:
        return (12_000 * kbps // sr + padding) * 4
    return (72_000 if layer == 3 and version != 3 else 144_000) * kbps // sr + padding


def next_mpeg_frame(file: BinaryIO, start: int, stop: int) -> int | None:
    """Where the next MPEG audio frame begins that another one follows, from byte `start` on."""
    while start < stop:
        file.seek(start)
        data = file.read(min(NEARBY + 4096, stop - start))  # the frame behind one at the end is seen, too
        at = data.find(b"\xff")
        while 0 <= at < min(NEARBY, len(data) - 4):
            header = int.from_bytes(data[at : at + 4], "big")
            size = _frame_size(header)
            if size < 0:  # as far away as the same header is
                size = data.find(data[at : at + 2], at + 4, at + 4096) - at
            if size > 0:
                follows = int.from_bytes(data[at + size : at + size + 4], "big")
                # The same version, layer and rate.
                if _frame_size(follows) and (header ^ follows) & 0xFFFE0C00 == 0:
                    return start + at
            at = data.find(b"\xff", at + 1)
        start += NEARBY
    return None


def begins_another(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether another MP3 begins in a frame behind the last that the header counts: there may be two of padding."""
    at = start
    for _ in range(4):
        file.seek(at)
        data = file.read(2048)
        size = _frame_size(int.from_bytes(data[:4], "big"))
        if size == 0 or at + size > stop:
            return False
        if size < 0 or any(tag in data[:size] for tag in (b"Xing", b"Info", b"VBRI")):
            return True
        at += size
    return True


def is_mpeg(file: BinaryIO) -> bool:
    """Whether a file begins like an MP3, with a frame or a tag."""
    file.seek(0)
    data = file.read(4)
    return data[:3] == b"ID3" or _frame_size(int.from_bytes(data, "big")) != 0


def ogg_links(file: BinaryIO) -> Iterator[tuple[int, int, bool]]:
    """First and last byte of every link of a chain of Ogg streams, and whether it is complete."""
    size = file.seek(0, os.SEEK_END)
    at = start = stop = 0
    ended, beginning = False, True
    while True:
        file.seek(at)
        head = file.read(27 + 255)
        n_segments = head[26] if len(head) >= 27 else 0
        length = 27 + n_segments + sum(head[27 : 27 + n_segments])
        file.seek(at + length)
        follows = file.read(4)
        # A page that is not followed by another one, or the end, has lost its last bytes.
        if head[:4] != b"OggS" or len(head) < 27 + n_segments or at + length > size or follows not in (b"", b"OggS"):
            skipped = _find(file, b"OggS", at + 1, size)
            if skipped is None:
                break
            at = skipped
            continue
        begins = bool(head[5] & 2)
        if begins and not beginning:
            yield start, stop, ended
            start, ended = at, False
        beginning, ended = begins, ended or bool(head[5] & 4)
        at = stop = at + length
    if stop > start:
        yield start, stop, ended


def _find(file: BinaryIO, wanted: bytes, start: int, stop: int) -> int | None:
    while start < stop:
        file.seek(start)
        data = file.read(NEARBY + len(wanted) - 1)
        if wanted in data:
            return start + data.index(wanted)
        start += NEARBY
    return None


def mended_riff(file: BinaryIO) -> tuple[tuple[int, bytes], str] | None:
    """Where a WAV gets another size of its samples, and a remark, if its header says too little: none, or a part."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        stop = at + 8 + length + length % 2
        if name == b"data":
            file.seek(stop)
            follows = file.read(8)
            rest = size - at - 8
            if length >= rest or (length and _is_chunk(follows, stop, size)):
                return None
            if not length and _is_chunk(follows, stop, size):
                return None  # no samples, on purpose
            if not rest or rest >= STREAMED:
                return None
            said = "header says that it has no samples" if not length else f"header says {length} bytes of audio"
            return (at + 4, struct.pack("<I", rest)), f"its {said}, and {rest} are there: all are taken"
        at = stop
    return None


def _is_chunk(head: bytes, at: int, size: int) -> bool:
    """Whether a chunk begins with these bytes, or nothing but an incomplete one."""
    if len(head) < 8:
        return True
    name, length = struct.unpack("<4sI", head)
    return bool(re.fullmatch(rb"[\x20-\x7e]{4}", name)) and at + 8 + length <= size + 1


def open_binary(path: Path) -> BinaryIO:
    """A file for reading, that a `View` shares."""
    return open(path, "rb", buffering=1 << 16)
