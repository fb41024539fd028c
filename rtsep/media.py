"""What libsndfile does not read or write: M4A, MP4, WebM, WMA, the sound of films; by PyAV, the extra `media`.

PyAV brings FFmpeg. Encoder delay and padding are trimmed as far as the container tells of them, so that what is decoded
is aligned with what was encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from rtsep.audio_files import FileFormat
from rtsep.config import ConfigError
from rtsep.errors import FileError
from rtsep.reading import BLOCK, AudioReader

if TYPE_CHECKING:
    import av

HINT = "pip install 'rtsep[media]'"
MEDIA_FORMATS = {
    "opus": FileFormat(".opus", "ogg", "", 1, "libopus", 96_000),
    "mp3": FileFormat(".mp3", "mp3", "", 1, "libmp3lame", 128_000),
    "m4a": FileFormat(".m4a", "ipod", "", 1, "aac", 128_000),
}
# What the sound of a file goes to in its own format.
AUDIO_OF_VIDEO = dict.fromkeys((".mp4", ".m4v", ".m4b", ".mov", ".3gp", ".3g2", ".aac"), ".m4a") | dict.fromkeys(
    (".webm", ".weba", ".mkv", ".mka"), ".opus"
)
LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")
TAGS = ("title", "artist", "album", "date", "track", "genre", "comment", "copyright")
ALIGNED = ("mov", "mp4")  # containers whose packets say where the last sample is


def has_media() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def check_media(what: str) -> None:
    """Raise `ConfigError` if PyAV is not installed."""
    if not has_media():
        raise ConfigError(f"{what} needs PyAV: {HINT}")


class MediaReader(AudioReader):
    """The first audio track of a file, by FFmpeg; a context manager.

    Raises
    ------
    FileError
        If FFmpeg does not read it.
    ImportError
        Without PyAV.
    """

    def __init__(self, source: Any) -> None:
        import av

        super().__init__()
        try:
            self._container = av.open(source if hasattr(source, "read") else str(source))
        except (av.FFmpegError, UnicodeError) as problem:
            raise FileError(f"is not an audio file that libsndfile or FFmpeg reads: {_reason(problem)}") from None
        try:
            tracks = self._container.streams.audio
            if not tracks:
                raise FileError("has no sound")
            self._track = tracks[0]
            if len(tracks) > 1:
                self.remarks.append(f"has {len(tracks)} audio tracks, of which the first is separated")
            self.codec = self._track.codec_context.name
            self.sr, self.n_channels = self._track.rate, self._track.channels
            self.bit_rate = self._track.bit_rate or None
            if not self.sr or not self.n_channels:
                raise FileError("has sound that FFmpeg does not decode")
            duration = self._container.duration
            self.n_samples = round(duration * self.sr / av.time_base) if duration and duration > 0 else None
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> MediaReader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()

    def tags(self) -> dict[str, str]:
        found = dict(self._container.metadata) | dict(self._track.metadata)
        lower = {name.lower(): text for name, text in found.items()}
        return {name: lower[name] for name in TAGS if lower.get(name)}

    def blocks(self) -> Iterator[np.ndarray]:
        done, waiting = 0, np.zeros((self.n_channels, 0), np.float32)
        aligned = any(name in self._container.format.name.split(",") for name in ALIGNED)
        end: Fraction | float = 0 if aligned else float("inf")
        for packet, samples in self._decoded():
            if aligned and packet is not None and packet.pts is not None and packet.duration:
                end = max(end, (packet.pts + packet.duration) * packet.time_base * self.sr)
            if samples is not None:
                waiting = np.concatenate((waiting, samples), 1)
            # What lies beyond the last packet so far may be padding.
            ready = int(min(waiting.shape[1], end - done)) if end < float("inf") else waiting.shape[1]
            while ready >= BLOCK or (packet is None and ready > 0):
                n = min(BLOCK, ready)
                yield np.ascontiguousarray(waiting[:, :n])
                waiting, ready, done = waiting[:, n:], ready - n, done + n
        if not done:
            raise FileError(self.remarks[-1] if self.remarks else "has no samples")

    def _decoded(self) -> Iterator[tuple[av.Packet | None, np.ndarray | None]]:
        """Packets, and after each what is decoded of it; None at the end."""
        import av

        resampler = av.AudioResampler("fltp", self._track.layout, self.sr)
        packets = self._container.demux(self._track)
        n_bad, end = 0, 0
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as problem:
                self.remarks.append(f"ends early: {_reason(problem)}")
                break
            if packet is None:
                break
            end += packet.duration or 0
            yield packet, None
            try:
                frames = packet.decode()
            except av.FFmpegError:
                n_bad += 1
                continue
            for frame in frames:
                frame.pts = None
                try:
                    for converted in resampler.resample(frame):
                        yield packet, converted.to_ndarray()
                except (av.FFmpegError, ValueError):  # another rate or layout than before
                    n_bad += 1
        with suppress(av.FFmpegError):
            for converted in resampler.resample(None):
                yield None, converted.to_ndarray()
        if n_bad:
            self.remarks.append(f"is damaged: {n_bad} packets cannot be decoded and are left out")
        elif self._track.duration and end < 0.98 * self._track.duration:
            unit = float(self._track.time_base or 1)
            said, there = self._track.duration * unit, end * unit
            self.remarks.append(f"ends early: {there:.1f} of {said:.1f} s are there")
        yield None, None


class MediaWriter:
    """Writes one file by FFmpeg; a context manager.

    Parameters
    ----------
    path : Path
        Where to write.
    format : FileFormat
        With a codec.
    sr, n_channels : int
        Of what is written; where the codec does not know the rate, it is resampled to the next one that it does.
    tags : dict
        Title, artist and the like.
    """

    def __init__(self, path: Path, format: FileFormat, sr: int, n_channels: int, tags: dict[str, str]) -> None:
        import av

        self._sr, self._done, self._path = sr, 0, path
        if n_channels > len(LAYOUTS):
            raise FileError(f"{n_channels} channels do not fit into {format.suffix}")
        self._layout = LAYOUTS[n_channels - 1]
        # In units of samples, lest the end is rounded to milliseconds.
        options = {"movie_timescale": str(sr)} if format.container == "ipod" else {}
        self._container = av.open(str(path), "w", format=format.container, container_options=options)
        try:
            assert format.codec is not None
            rates = av.Codec(format.codec, "w").audio_rates or [sr]
            rate = sr if sr in rates else min((r for r in rates if r > sr), default=max(rates))
            track: Any = self._container.add_stream(format.codec, rate=rate, layout=self._layout)
            if format.bit_rate:
                track.bit_rate = format.bit_rate * n_channels
            self._track: Any = track
            self._container.metadata.update(tags)
            self._resampler = av.AudioResampler(_sample_format(track), self._layout, rate)
            self._container.start_encoding()
        except av.FFmpegError as problem:
            self._container.close()
            raise FileError(
                f"{format.suffix} cannot hold {n_channels} channels at {sr} Hz: {_reason(problem)}"
            ) from None

    def write(self, samples: np.ndarray) -> None:
        """Samples (n, n_channels), float32."""
        import av

        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._sr, self._done, Fraction(1, self._sr)
        self._done += len(samples)
        self._encode(frame)

    def _encode(self, frame: Any) -> None:
        for resampled in self._resampler.resample(frame):
            self._container.mux(self._track.encode(resampled))

    def close(self) -> None:
        """Finish the file and see that all of it is there. Raises `OSError`."""
        import av

        self._encode(None)
        self._container.mux(self._track.encode(None))
        self._container.close()
        with av.open(str(self._path)) as written:
            track = written.streams.audio[0]
            lasted = sum((packet.duration or 0) * packet.time_base for packet in written.demux(track))
        if lasted < Fraction(self._done, self._sr) - Fraction(1, 1000):
            raise OSError(0, "incomplete, disk full?")

    def __enter__(self) -> MediaWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(Exception):
            self._container.close()


def same_media(reader: AudioReader, suffix: str) -> FileFormat:
    """The format for outputs with this suffix, at the bit rate of the input. Raises `FileError`."""
    check = next((format for format in MEDIA_FORMATS.values() if format.suffix == suffix.lower()), None)
    if check is None:
        raise FileError(f"cannot be written as {suffix}: choose a --format")
    if not has_media():
        raise FileError(f"cannot be written as {suffix} without PyAV: {HINT}")
    if getattr(reader, "codec", None) == "alac":
        return replace(check, codec="alac", bit_rate=None, subtype="ALAC")
    bit_rate = getattr(reader, "bit_rate", None)
    return replace(check, bit_rate=bit_rate // reader.n_channels) if bit_rate else check


def _sample_format(track: Any) -> Any:
    """Floating point, if the encoder takes it; else what it takes."""
    names = [format.name for format in track.codec_context.codec.audio_formats or ()]
    return next((name for name in ("fltp", "flt") if name in names), names[0] if names else track.format)


def _reason(problem: Exception) -> str:
    return str(getattr(problem, "strerror", None) or problem)


def needs_media(path: Path) -> str:
    """What to say of a file that libsndfile does not read, where there is no PyAV."""
    return f"; {HINT} reads more, such as M4A, MP4 and WebM" if not has_media() else ""
