"""Files whose headers say too little, too much or nothing: all that is there is read, and what is missing is said."""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from test_files import read, recording, write

from rtsep.audio_files import read_audio
from rtsep.audio_parts import _frame_size
from rtsep.errors import FileError
from rtsep.files import FileSeparator
from rtsep.reading import read_from

SR = 16_000


def all_of(path: Path) -> tuple[np.ndarray, list[str]]:
    with read_from(path) as reader:
        return np.concatenate(list(reader.blocks()), 1), reader.remarks


def encoded(x: np.ndarray, sr: int = SR, format: str = "MP3", **options) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, np.atleast_2d(x).T, sr, format=format, **options)
    return buffer.getvalue()


def frames(data: bytes) -> list[bytes]:
    """The frames of an MP3, without the one that has the header of LAME."""
    found, at = [], 0
    while at + 4 <= len(data):
        size = _frame_size(int.from_bytes(data[at : at + 4], "big"))
        if size <= 0:
            break
        found.append(data[at : at + size])
        at += size
    return found[1:] if b"Xing" in found[0] or b"Info" in found[0] else found


def id3v2(n: int) -> bytes:
    return b"ID3\x04\0\0" + bytes([n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127]) + bytes(n)


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 5000, 1, 0) + bytes(5000)
TAGS = {
    "none": (b"", b""),
    "ID3v2 with a picture": (id3v2(300_000), b""),
    "ID3v1": (b"", b"TAG" + bytes(125)),
    "APE": (b"", APE),
    "Lyrics": (b"", b"LYRICSBEGIN" + b"la " * 900 + b"LYRICS200TAG" + bytes(125)),
    "zeros": (bytes(3000), bytes(3000)),
}


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tags", TAGS)
def test_an_mp3_without_a_length_is_read_whole(tmp_path, mode, tags, capfd):
    loud_first = recording(3 * SR) * np.linspace(1, 0, 3 * SR) ** 4
    body = frames(encoded(loud_first, bitrate_mode=mode, compression_level=0.4))
    before, behind = TAGS[tags]
    path = tmp_path / "a.mp3"
    path.write_bytes(before + b"".join(body) + behind)
    y, remarks = all_of(path)
    assert y.shape[1] == 576 * len(body)
    assert remarks == []
    assert capfd.readouterr().err == ""


def test_an_mp3_in_free_format_is_read_whole(tmp_path):
    body = frames(encoded(recording(48_000), 48_000, bitrate_mode="CONSTANT", compression_level=0.4))
    assert len({len(frame) for frame in body}) == 1
    free = [frame[:2] + bytes([frame[2] & 0x0F]) + frame[3:] for frame in body]
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(free))
    y, remarks = all_of(path)
    assert y.shape[1] == 1152 * len(free)
    assert remarks == []


@pytest.mark.parametrize("second", ["with a header", "without", "behind a tag"])
def test_mp3s_that_were_joined_are_read_one_after_the_other(tmp_path, second):
    a, b = recording(20_000), recording(30_000)[:, ::-1]
    data = encoded(b)
    if second == "without":
        data = b"".join(frames(data))
    elif second == "behind a tag":
        data = id3v2(2_000) + data
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded(a) + data)
    y, remarks = all_of(path)
    assert remarks == []
    assert 50_000 <= y.shape[1] <= 50_000 + 4 * 576
    assert np.abs(y[:, :20_000] - a).max() < 0.1
    if second != "without":
        assert np.abs(y[:, 20_000:50_000] - b).max() < 0.1


def test_a_hole_in_an_mp3_is_said_and_what_is_behind_it_is_read(tmp_path):
    body = frames(encoded(recording(4 * SR)))
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(body[:50]) + bytes(range(1, 200)) * 30 + b"".join(body[50:]))
    y, remarks = all_of(path)
    assert y.shape[1] >= 576 * (len(body) - 2)
    assert len(remarks) <= 1
    assert all("goes on behind" in remark for remark in remarks)


@pytest.mark.parametrize("header", [True, False])
def test_half_an_mp3_is_read_with_a_remark(tmp_path, header):
    data = encoded(recording(4 * SR))
    body = data if header else b"".join(frames(data))
    path = tmp_path / "a.mp3"
    path.write_bytes(body[: len(body) // 2 + 30])
    y, remarks = all_of(path)
    assert y.shape[1] > 1.8 * SR
    (remark,) = remarks
    assert remark.startswith("ends early")
    with pytest.raises(FileError, match=r"a\.mp3: ends early"):
        read_audio(path)


def test_what_follows_at_another_rate_is_left_out_with_a_remark(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded(recording(20_000)) + encoded(recording(20_000), 22_050))
    y, remarks = all_of(path)
    assert y.shape[1] == 20_000
    assert remarks == ["part 2 of the file has 22050 Hz and 1 channels, not 16000 and 1: it is left out"]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_of_several_links_and_half_an_ogg(tmp_path, subtype):
    a, b = recording(100_000), recording(60_000)
    first, second = (encoded(x, format="OGG", subtype=subtype) for x in (a, b))
    path = tmp_path / "a.ogg"
    path.write_bytes(first + second)
    y, remarks = all_of(path)
    assert (y.shape[1], remarks) == (160_000, [])
    path.write_bytes(first[: len(first) // 2])
    y, remarks = all_of(path)
    assert y.shape[1] > 30_000
    assert remarks == [f"ends early, after {y.shape[1]} samples: its last page is missing"]
    path.write_bytes(first[: len(first) // 2] + second)
    y, remarks = all_of(path)
    assert y.shape[1] > 90_000


@pytest.mark.parametrize(("said", "words"), [(0, "says that it has no samples"), (1_000, "says 1000 bytes")])
def test_a_wav_whose_header_says_too_little_is_read_whole(tmp_path, said, words):
    x = recording(20_000)
    path = write(tmp_path / "a.wav", x, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", said)
    path.write_bytes(data)
    y, remarks = all_of(path)
    assert np.abs(y - x).max() < 2**-15
    assert words in remarks[0]


def test_chunks_behind_the_samples_of_a_wav_are_no_samples(tmp_path):
    path = write(tmp_path / "a.wav", recording(1_000), subtype="PCM_16")
    data = path.read_bytes() + struct.pack("<4sI4s8x", b"LIST", 12, b"INFO")
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    y, remarks = all_of(path)
    assert (y.shape[1], remarks) == (1_000, [])


@pytest.mark.parametrize(
    ("suffix", "format", "words"),
    [
        ("wav", None, r"ends early: \d+ of 36000 bytes"),
        ("aiff", None, "ends early"),
        ("au", None, "ends early"),
        ("w64", None, "ends early"),
        ("wav", "RF64", "ends early"),
        ("flac", None, "is damaged or ends early, after 4096 samples"),
        ("mp3", None, r"ends early: \d+ of 9000 samples"),
    ],
)
def test_truncated_files_are_salvaged_with_a_remark(tmp_path, suffix, format, words):
    path = tmp_path / f"in.{suffix}"
    x = recording(9_000, 2)
    sf.write(path, x.T, SR, format=format)
    os.truncate(path, path.stat().st_size // 2)
    report = FileSeparator("passthrough").separate(path, tmp_path / "out")
    assert 3_000 < report.n_samples < 6_000
    assert re.search(words, report.remarks[0])
    (output,) = report.outputs.values()
    tolerance = 0.1 if suffix == "mp3" else 1e-4
    assert np.abs(read(output) - x[:, : report.n_samples]).max() < tolerance


def test_every_length_of_a_truncated_file_is_read_or_refused_in_one_line(tmp_path):
    x = recording(3_000)
    for format, suffix in (("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3")):
        data = encoded(x, format=format)
        path = tmp_path / f"a.{suffix}"
        for n in [*range(0, 200, 7), *range(200, len(data), len(data) // 60)]:
            path.write_bytes(data[:n])
            said = ""
            try:
                y, _ = all_of(path)
                assert np.isfinite(y).all()
            except FileError as problem:
                said = str(problem)
            assert "\n" not in said


def test_noise_is_not_taken_for_sound_for_long(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8).tobytes()
    for suffix in ("wav", "mp3", "ogg", "m4a"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes({"wav": b"RIFF", "ogg": b"OggS"}.get(suffix, b"") + noise)
        with pytest.raises(FileError) as caught:
            all_of(path)
        assert "\n" not in str(caught.value)


def test_memory_and_progress_of_an_mp3_without_a_length(tmp_path):
    body = frames(encoded(recording(20 * SR)))
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(body))
    heard: list[tuple[int, int]] = []
    report = FileSeparator("passthrough").separate(path, tmp_path, lambda done, total: heard.append((done, total)))
    assert report.n_samples == 576 * len(body)
    assert heard[-1] == (report.n_samples, report.n_samples)
    guesses = [total for _, total in heard[2:]]
    assert max(guesses) < 1.5 * report.n_samples
    assert sf.info(next(iter(report.outputs.values()))).format == "WAV"
