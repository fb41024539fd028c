"""Reading audio to its end: every sample that can be decoded, in blocks, and a remark on what is missing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile as sf

from rtsep.audio_parts import (
    ENDLESS,
    STREAMED,
    View,
    begins_another,
    is_mpeg,
    mended_riff,
    next_mpeg_frame,
    ogg_links,
    open_binary,
)
from rtsep.errors import FileError
from rtsep.quiet import quiet

BLOCK = 1 << 14  # samples per channel that are read, separated and written at a time
UNKNOWN_LENGTH = np.iinfo(np.int64).max  # what libsndfile reports for a FLAC stream that does not say it
FINE = 32  # samples that are read at a time before damage: what is asked for together with an error is lost
MPEG_SUFFIXES = (".mp3", ".mp2", ".mp1", ".mpga")


class AudioReader:
    """A recording that is read once, from its first sample to its last.

    Attributes
    ----------
    sr, n_channels : int
        Rate in Hz, channels.
    n_samples : int or None
        Samples per channel, as far as is known: what the file says may be wrong. None where it says nothing.
    certain : bool
        Whether `n_samples` can be relied on.
    remarks : list of str
        What is wrong with the file; complete when all has been read.
    kind : tuple of str or None
        Format and sample format, as libsndfile calls them, if it reads the file.
    """

    sr: int
    n_channels: int
    n_samples: int | None = None
    certain: bool = False
    kind: tuple[str, str] | None = None

    def __init__(self) -> None:
        self.remarks: list[str] = []

    @property
    def at_most(self) -> int | None:
        """What `n_samples` will not exceed; None if that cannot be said."""
        return self.n_samples if self.certain else None

    def blocks(self) -> Iterator[np.ndarray]:
        """All samples: float32, (n_channels, at most `BLOCK`). Raises `FileError` if there are none."""
        raise NotImplementedError

    def tags(self) -> dict[str, str]:
        """Title, artist and the like."""
        return {}

    def checked(self) -> Iterator[np.ndarray]:
        """As `blocks`; raises `FileError` in the end if something was missing."""
        yield from self.blocks()
        if self.remarks:
            raise FileError(self.remarks[0])


class _ToTheEnd(sf.SoundFile):
    """Reads on beyond the length that is in the header, and does not seek after each read."""

    def seekable(self) -> bool:
        return False


class SndfileReader(AudioReader):
    """What libsndfile reads. Not to be shared among threads."""

    def __init__(self, path: Path, file: BinaryIO, stack: ExitStack) -> None:
        super().__init__()
        self._file, self._stack = file, stack
        self._size = os.fstat(file.fileno()).st_size
        self._chat = nullcontext
        self._links: list[tuple[int, int, bool]] = []
        self._view: View | None = None
        file.seek(0)
        if file.read(4) == b"OggS":
            self._links = list(ogg_links(file))
            if not self._links:
                raise FileError("has no page of an Ogg that is complete")
            self._first = self._open(View(file, *self._links[0][:2]))
        elif self._begins_mpeg(path):
            pass
        elif mended := mended_riff(file):
            patch, remark = mended
            self.remarks.append(remark)
            self._reopened = lambda: self._open(View(file, 0, self._size, patch))
            self._first = self._reopened()
        else:
            self._reopened = lambda: self._open(sound_name(path))
            self._first = self._reopened()
        first = self._first
        self.sr, self.n_channels, self.kind = first.samplerate, first.channels, (first.format, first.subtype)
        self._mpeg = first.format == "MP3"
        if not self._mpeg and first.frames != UNKNOWN_LENGTH:
            complete = not self._links or (len(self._links) == 1 and self._links[0][2])
            self.n_samples, self.certain = first.frames, complete
        elif first.frames < ENDLESS // 8:
            self.n_samples = first.frames
        self._note_truncation(first)

    def _open(self, what: Any) -> sf.SoundFile:
        with self._chat():
            return self._stack.enter_context(_ToTheEnd(what))

    def _begins_mpeg(self, path: Path) -> bool:
        """Open an MP3, whatever is before its first frame."""
        self._chat = quiet  # type: ignore[assignment]
        start: int | None = 0
        if not is_mpeg(self._file):
            looked_at = self._size if path.suffix.lower() in MPEG_SUFFIXES else 0
            start = next_mpeg_frame(self._file, 0, looked_at)
        while start is not None:
            self._view = View(self._file, start, self._size, endless=True)
            try:
                self._first = self._open(self._view)
            except sf.LibsndfileError:
                start = next_mpeg_frame(self._file, start + 1, self._size) if start == 0 else None
            else:
                if self._first.format == "MP3":
                    return True
                break
        self._chat = nullcontext
        return False

    def _note_truncation(self, file: sf.SoundFile) -> None:
        """Compare the size of the samples in the header with the actual one, where libsndfile has noticed.

        It says so in its log alone, "data : 384000 (should be 191956)". Streamed files declare a size near 2 or 4 GiB
        because they could not know it: these are complete.
        """
        for declared, actual in re.findall(
            r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE
        ):
            if int(actual) < int(declared) < STREAMED:
                self.remarks.append(f"ends early: {actual} of {declared} bytes of audio are there")
                return

    @property
    def at_most(self) -> int | None:
        return self._size // 1000 * self.sr + self.sr if self._mpeg else super().at_most  # at 8 kbit/s

    def blocks(self) -> Iterator[np.ndarray]:
        done = 0
        for block in self._mpeg_blocks() if self._mpeg else self._link_blocks() if self._links else self._plain():
            done += block.shape[1]
            yield block
        if not done:
            raise FileError(self.remarks[0] if self.remarks else "has no samples")
        if self._links and not self._links[-1][2]:
            self.remarks.append(f"ends early, after {done} samples: its last page is missing")

    def _plain(self) -> Iterator[np.ndarray]:
        done = yield from self._read(self._first, self._reopened)
        if self.certain and self.n_samples is not None and done < self.n_samples and not self.remarks:
            self.remarks.append(f"ends early: {done} of {self.n_samples} samples are there")

    def _link_blocks(self) -> Iterator[np.ndarray]:
        """Of a chain of Ogg streams."""
        file = self._first
        for number, (start, stop, _) in enumerate(self._links):
            if number:
                try:
                    file = self._open(View(self._file, start, stop))
                except sf.LibsndfileError:
                    self.remarks.append(f"part {number + 1} of the file cannot be read")
                    continue
                if not self._fits(file, number + 1):
                    continue
            yield from self._read(file, lambda: self._open(View(self._file, start, stop)))  # noqa: B023  used at once

    def _mpeg_blocks(self) -> Iterator[np.ndarray]:
        """Of MP3s that follow one another, and beyond what is damaged."""
        assert self._view is not None
        file, view, part, total = self._first, self._view, 1, 0
        while True:
            declared = file.frames if file.frames < ENDLESS // 8 else None
            before = len(self.remarks)
            start, done = view.start, 0

            def reopen(start: int = start) -> sf.SoundFile:
                return self._open(View(self._file, start, self._size, endless=True))

            for block in self._read(file, reopen):
                done += block.shape[1]
                if declared is None:  # the share of the bytes that were read is that of the samples
                    self.n_samples = (total + done) * (self._size - view.start) // max(1, view.position)
                yield block
            total += done
            damaged = self.remarks[before:]
            del self.remarks[before:]
            at = view.start + view.position
            following = next_mpeg_frame(self._file, max(view.start + 1, at - 3), self._size)
            whole = declared is not None and done >= declared
            if whole and following is not None and not begins_another(self._file, following, self._size):
                following = None
            if following is None:
                if declared is not None and done < declared:
                    self.remarks.append(f"ends early: {done} of {declared} samples are there")
                elif view.cut and not whole:
                    self.remarks.append(f"ends early, after {total} samples: its last frame is not complete")
                return
            if not whole and damaged:
                self.remarks.append(f"is damaged after {total} samples, and goes on behind")
            view, part = View(self._file, following, self._size, endless=True), part + 1
            try:
                file = self._open(view)
            except sf.LibsndfileError:
                self.remarks.append(f"part {part} of the file cannot be read")
                return
            if not self._fits(file, part):
                return

    def _fits(self, file: sf.SoundFile, number: int) -> bool:
        """Whether the next part of a file goes on like the first."""
        same = (file.samplerate, file.channels) == (self.sr, self.n_channels)
        if not same:
            self.remarks.append(
                f"part {number} of the file has {file.samplerate} Hz and {file.channels} channels, not {self.sr} and "
                f"{self.n_channels}: it is left out"
            )
        return same

    def _read(self, file: sf.SoundFile, reopen: Callable[[], sf.SoundFile]) -> Any:
        """Blocks to the end of `file`, or to where it is damaged; returns the number of samples."""
        done = 0
        while True:
            block, problem = self._next(file, BLOCK)
            if problem is not None:
                # What libsndfile had decoded of this block is lost; once more from the beginning, in small steps.
                block = self._before_damage(reopen(), done)
            done += block.shape[1]
            if problem is not None:
                self.remarks.append(f"is damaged or ends early, after {done} samples: {problem}")
            if block.shape[1]:
                yield block
            if block.shape[1] < BLOCK or problem is not None:
                return done

    def _next(self, file: sf.SoundFile, n: int) -> tuple[np.ndarray, str | None]:
        """At most `n` samples, and why there are no more."""
        block = np.empty((n, self.n_channels), np.float32)
        filled, problem = 0, None
        with self._chat():
            try:
                while filled < n and (more := len(file.read(out=block[filled:]))):
                    filled += more
            except sf.LibsndfileError as error:
                problem = error.error_string
        return np.ascontiguousarray(block[:filled].T), problem

    def _before_damage(self, file: sf.SoundFile, start: int) -> np.ndarray:
        """The samples from `start` to the damage, less than a block."""
        while start > 0:
            start -= self._next(file, min(start, BLOCK))[0].shape[1]
        pieces, problem = [], None
        while problem is None:
            piece, problem = self._next(file, FINE)
            pieces.append(piece)
        return np.concatenate(pieces, 1)

    def tags(self) -> dict[str, str]:
        return {name: text for name, text in self._first.copy_metadata().items() if text}


@contextmanager
def read_from(path: Path) -> Iterator[AudioReader]:
    """Open a recording: with libsndfile if it reads that, else with PyAV if that is installed.

    Raises
    ------
    FileError
        If it cannot be opened or is no audio file, without its path.
    """
    size = check_readable(path)
    with ExitStack() as stack:
        try:
            reader: AudioReader = SndfileReader(path, stack.enter_context(open_binary(path)), stack)
        except (sf.LibsndfileError, TypeError):  # the latter for *.raw
            if not size:
                raise FileError("is empty: 0 bytes") from None
            reader = _open_media(path, stack)
        if reader.certain and not reader.n_samples:
            raise FileError("has no samples")
        yield reader


def _open_media(path: Path, stack: ExitStack) -> AudioReader:
    from rtsep.media import MediaReader, needs_media

    try:
        return stack.enter_context(MediaReader(path))
    except ImportError:
        raise FileError(f"is not an audio file that libsndfile reads{needs_media(path)}") from None


def check_readable(path: Path) -> int:
    """Size in bytes of a regular file that may be read. Raises `FileError`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait
            raise FileError("is not a regular file")
        open(path, "rb").close()  # for the reason, if that fails: libsndfile says but "System error"
    except FileError:
        raise
    except OSError as problem:
        raise FileError(problem.strerror or str(problem)) from None
    return status.st_size


def sound_name(path: Path) -> Any:
    """`path` as soundfile takes it; on POSIX a name is any bytes, which soundfile would decode."""
    return path if os.name == "nt" else os.fsencode(path)
