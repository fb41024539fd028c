"""M4A, MP4, WebM and more through PyAV: aligned to the sample in both directions."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import resample_poly
from test_cli import separate
from test_files import recording, write

from rtsep.audio_files import FileError, read_audio
from rtsep.config import ConfigError
from rtsep.files import FileSeparator

av = pytest.importorskip("av", reason="needs the extra `media`")
SR = 44_100
N = 60_011


def sound(n_channels: int = 1) -> np.ndarray:
    """Noise in the voice, so that the lag has one answer."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n_channels, N))
    smooth = np.stack([np.convolve(x, np.hanning(9) / 4, "same") for x in noise])
    return (0.1 * smooth).astype(np.float32)


def encode(path: Path, x: np.ndarray, container: str, codec: str, rate: int = SR, film: bool = False) -> Path:
    layout = ("mono", "stereo")[len(x) - 1]
    with av.open(str(path), "w", format=container) as out:
        picture = None
        if film:
            picture = out.add_stream("mpeg4", rate=25)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        track = out.add_stream(codec, rate=rate, layout=layout)
        names = [format.name for format in track.codec_context.codec.audio_formats]
        resampler = av.AudioResampler("fltp" if "fltp" in names else names[-1], layout, rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = SR, 0, Fraction(1, SR)
        for part in (frame, None):
            for resampled in resampler.resample(part):
                out.mux(track.encode(resampled))
        out.mux(track.encode(None))
        if picture is not None:
            for _ in range(40):
                out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
            out.mux(picture.encode(None))
    return path


def lag(y: np.ndarray, x: np.ndarray) -> int:
    n = 2 * max(len(x), len(y))
    c = np.fft.irfft(np.fft.rfft(y, n) * np.conj(np.fft.rfft(x, n)), n)
    k = int(np.argmax(c))
    return k if k < n // 2 else k - n


@pytest.mark.parametrize(
    ("name", "container", "codec", "rate"),
    [
        ("a.m4a", "ipod", "aac", SR),
        ("a.mov", "mov", "aac", SR),
        ("b.m4a", "ipod", "alac", SR),
        ("a.webm", "webm", "libopus", 48_000),
        ("a.mka", "matroska", "libopus", 48_000),
        ("a.mp4", "mp4", "aac", SR),
    ],
)
def test_what_is_read_is_aligned_with_what_was_encoded(tmp_path, name, container, codec, rate):
    x = sound(2)
    y, sr = read_audio(encode(tmp_path / name, x, container, codec, rate, film=name == "a.mp4"))
    expected = x if rate == SR else resample_poly(x, rate // 300, SR // 300, axis=1)
    assert sr == rate
    assert lag(y[1], expected[1]) == 0
    assert abs(y.shape[1] - expected.shape[1]) <= (0 if rate == SR else 1)


@pytest.mark.parametrize("format", ["opus", "mp3", "m4a"])
def test_outputs_are_aligned_with_the_input(tmp_path, format):
    x = sound(2)
    report = FileSeparator("passthrough", format=format).separate(write(tmp_path / "in.wav", x, SR), tmp_path)
    (output,) = report.outputs.values()
    assert output.name == f"in.signal.{format}"
    y, sr = read_audio(output)
    expected = x if sr == SR else resample_poly(x, 160, 147, axis=1)
    assert lag(y[0], expected[0]) == 0
    assert abs(y.shape[1] - expected.shape[1]) <= (0 if sr == SR else 1)


@pytest.mark.parametrize("format", ["mp3", "m4a"])
@pytest.mark.parametrize("sr", [8_000, 96_000, 192_000])
def test_rates_that_a_codec_does_not_know_become_the_next_one(tmp_path, format, sr):
    path = write(tmp_path / "in.wav", recording(sr // 2), sr)
    (output,) = FileSeparator("passthrough", format=format).separate(path, tmp_path).outputs.values()
    y, rate = read_audio(output)
    assert rate <= 96_000
    assert abs(y.shape[1] / rate - 0.5) < 0.002


def test_same_keeps_format_depth_and_tags(tmp_path):
    for suffix, container, subtype in (("wav", "WAV", "PCM_24"), ("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS")):
        path = tmp_path / f"in.{suffix}"
        with sf.SoundFile(path, "w", 16_000, 2, subtype, format=container) as file:
            file.title, file.artist = "Talk", "Nobody"
            file.write(recording(9_000, 2).T)
        (output,) = FileSeparator("passthrough", format="same").separate(path, tmp_path / "out").outputs.values()
        with sf.SoundFile(output) as file:
            assert (file.format, file.subtype, file.frames) == (container, subtype, 9_000)
            assert (file.title, file.artist) == ("Talk", "Nobody")
        assert output.suffix == f".{suffix}"


def test_same_for_what_ffmpeg_reads(tmp_path):
    encode(tmp_path / "a.m4a", sound(), "ipod", "aac")
    write(tmp_path / "b.mp3", sound(), SR, None)
    for name in ("a.m4a", "b.mp3"):
        path = tmp_path / name
        (output,) = FileSeparator("passthrough", format="same").separate(path, tmp_path / "out").outputs.values()
        assert output.suffix == path.suffix
        x, y = read_audio(path)[0], read_audio(output)[0]
        assert x.shape == y.shape
        assert lag(y[0], x[0]) == 0
    encode(tmp_path / "c.mp4", sound(), "mp4", "aac", film=True)
    (output,) = FileSeparator("passthrough", format="same").separate(tmp_path / "c.mp4", tmp_path).outputs.values()
    assert output.name == "c.signal.m4a"


def test_half_a_film_is_read_with_a_remark(tmp_path):
    path = encode(tmp_path / "a.mka", sound(), "matroska", "libopus", 48_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    report = FileSeparator("passthrough").separate(path, tmp_path)
    assert 0.3 * N < report.n_samples * SR / 48_000 < 0.7 * N


def test_a_film_without_sound_and_what_ffmpeg_does_not_read_are_named(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", format="mp4") as out:
        picture = out.add_stream("mpeg4", rate=25)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        out.mux(picture.encode(None))
    with pytest.raises(FileError, match="has no sound"):
        FileSeparator("passthrough").separate(path, tmp_path)
    (tmp_path / "b.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(FileError, match="is not an audio file that libsndfile or FFmpeg reads"):
        FileSeparator("passthrough").separate(tmp_path / "b.m4a", tmp_path)


def test_more_channels_than_a_format_holds_are_named(tmp_path):
    path = write(tmp_path / "in.wav", np.zeros((9, 100)))
    with pytest.raises(FileError, match=r"9 channels do not fit into \.mp3"):
        FileSeparator("passthrough", format="mp3").separate(path, tmp_path / "out")
    path = write(tmp_path / "in.wav", np.zeros((6, 1_000)))
    with pytest.raises(FileError, match=r"\.mp3 cannot hold 6 channels"):
        FileSeparator("passthrough", format="mp3").separate(path, tmp_path / "out")


def test_without_pyav_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    path = encode(tmp_path / "a.m4a", sound(), "ipod", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("rtsep.media.find_spec", lambda name: None)
    assert separate(path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "a.m4a: is not an audio file that libsndfile reads; pip install 'rtsep[media]' reads more, "
        "such as M4A, MP4 and WebM"
    )
    with pytest.raises(ConfigError, match=r"format='mp3' needs PyAV: pip install 'rtsep\[media\]'"):
        FileSeparator("passthrough", format="mp3")


def test_a_film_has_a_picture_of_its_sound(tmp_path):
    path = encode(tmp_path / "a.mp4", sound(), "mp4", "aac", film=True)
    report = FileSeparator("passthrough", plot=True).separate(path, tmp_path / "out")
    assert report.plot is not None
    assert report.plot.read_bytes().startswith(b"\x89PNG")
