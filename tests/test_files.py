"""Files in, one file per source out: aligned, complete, and nothing half done."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile as sf

from rtsep import ConfigError, Output, PythonEstimator, StreamConfig, audio_files, separate
from rtsep.audio_files import BLOCK, FileError
from rtsep.files import FileSeparator
from rtsep.phase import MISI

MINUS_100_DB = 1e-5
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


class Halves(PythonEstimator):
    """The lower half of the bins, and the upper one."""

    sources = ("low", "high")

    def prepare(self, config):
        return ()

    @staticmethod
    def step(state, mixture, power, magnitudes):
        magnitudes[:] = np.sqrt(power)
        magnitudes[0, power.size // 2 :] = 0
        magnitudes[1, : power.size // 2] = 0


def separator(**options) -> FileSeparator:
    return FileSeparator(Halves(), "mixture", **options)


def recording(n_samples: int, n_channels: int = 1) -> np.ndarray:
    """(n_channels, n_samples), peaks below 0.6."""
    return signals.voices(n_samples, n_src=n_channels, seed=n_channels)


def write(path: Path, x: np.ndarray, sr: int = 16_000, subtype: str | None = "FLOAT") -> Path:
    sf.write(path, np.atleast_2d(x).T, sr, subtype=subtype)
    return path


def read(path: Path) -> np.ndarray:
    x, _ = sf.read(path, dtype="float32", always_2d=True)
    return x.T


def sparse_wav(path: Path, seconds: float, sr: int = 48_000, n_channels: int = 2) -> Path:
    """16-bit silence of any length that takes no space."""
    size = int(seconds * sr) * n_channels * 2
    header = struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
    header += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, n_channels, sr, sr * n_channels * 2, n_channels * 2, 16)
    path.write_bytes(header + struct.pack("<4sI", b"data", size))
    os.truncate(path, len(header) + 8 + size)
    return path


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Writing more fails, as on a full disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("suffix", "subtype", "sr", "n_channels"),
    [
        ("wav", "PCM_16", 8_000, 1),
        ("mp3", None, 22_050, 1),
        ("ogg", "VORBIS", 16_000, 1),
        ("flac", "PCM_24", 44_100, 2),
        ("wav", "FLOAT", 48_000, 6),
        ("aiff", "PCM_16", 48_000, 2),
        ("wav", "DOUBLE", 192_000, 2),
    ],
)
def test_sources_have_length_rate_and_channels_of_the_input_and_add_up_to_it(tmp_path, suffix, subtype, sr, n_channels):
    path = write(tmp_path / f"in.{suffix}", recording(30_011, n_channels), sr, subtype)
    report = separator().separate(path, tmp_path / "out")
    assert report.outputs == {name: tmp_path / "out" / f"in.{name}.wav" for name in ("low", "high")}
    mixture = read(path)
    sources = [read(output) for output in report.outputs.values()]
    assert sources[0].shape == mixture.shape == (n_channels, report.n_samples)
    assert np.abs(sum(sources) - mixture).max() < MINUS_100_DB
    assert np.mean(sources[0] ** 2) > 10 * np.mean(sources[1] ** 2) > 0
    for output in report.outputs.values():
        info = sf.info(output)
        assert (info.samplerate, info.format, info.subtype) == (sr, "WAV", "FLOAT")
    assert sorted(os.listdir(tmp_path / "out")) == ["in.high.wav", "in.low.wav"]
    assert report.remarks == []


@pytest.mark.parametrize("n_samples", [1, 63, 64, 255, 256, 257, BLOCK - 256, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_files_of_any_length_hold_what_the_library_gives(tmp_path, n_samples):
    x = recording(n_samples)
    report = separator().separate(write(tmp_path / "in.wav", x), tmp_path)
    expected = separate(x, 16_000, Halves(), "mixture")
    assert np.array_equal(np.stack([read(path) for path in report.outputs.values()]), expected)


def test_one_separator_serves_many_files_and_forgets_each(tmp_path):
    shared = separator()
    for n_channels in (1, 2, 1):
        path = write(tmp_path / "in.wav", recording(9_000, n_channels))
        several = shared.separate(path, tmp_path / "several")
        single = separator().separate(path, tmp_path / "single")
        for name in shared.sources:
            assert several.outputs[name].read_bytes()[-8_000:] == single.outputs[name].read_bytes()[-8_000:]
            several.outputs[name].unlink()
            single.outputs[name].unlink()


def test_window_hop_and_strength_reach_the_engine(tmp_path):
    x = recording(9_000)
    path = write(tmp_path / "in.wav", x)
    output = Output(strength_db=6)
    report = separator(window_ms=32, hop_ms=16, output=output).separate(path, tmp_path)
    config = StreamConfig.from_ms(16_000, 32, 16)
    expected = separate(x, 16_000, Halves(), "mixture", config=config, output=output)
    assert np.array_equal(np.stack([read(path) for path in report.outputs.values()]), expected)


def test_offline_phase_recovery_gives_what_the_library_gives_and_counts(tmp_path):
    x = recording(9_000, 2)
    loud = 4 * x
    loud[0, 100] = np.nan
    for signal in (x, loud):
        path = write(tmp_path / "in.wav", signal)
        report = FileSeparator(Halves(), MISI(n_iter=1), overwrite=True).separate(path, tmp_path)
        expected = separate(signal, 16_000, Halves(), MISI(n_iter=1))
        assert np.array_equal(np.stack([read(path) for path in report.outputs.values()]), expected)
    online = separator(overwrite=True).separate(path, tmp_path)
    assert report.counts["replaced"] == online.counts["replaced"] == 1
    assert report.counts["limited"] == 0
    limited = FileSeparator(Halves(), MISI(n_iter=1), Output(ceiling_db=-1), overwrite=True).separate(path, tmp_path)
    assert 0 < limited.counts["limited"] <= limited.n_samples


def test_what_would_not_fit_in_memory_is_refused_with_the_way_out(tmp_path):
    path = sparse_wav(tmp_path / "in.wav", 3600)
    with pytest.raises(FileError, match=r"phase 'misi' needs the whole signal, here about \d+\.\d GB.*--phase omisi"):
        FileSeparator(Halves(), "misi").separate(path, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


@pytest.mark.parametrize(
    ("format", "subtype", "step"),
    [("wav", "FLOAT", 0), ("wav24", "PCM_24", 2**-23), ("wav16", "PCM_16", 2**-15), ("flac", "PCM_24", 2**-23)],
)
def test_formats_are_what_they_are_called_and_do_not_clip(tmp_path, format, subtype, step):
    square = np.where(np.arange(9_000) // 50 % 2, 1, -1).astype(np.float32)
    path = write(tmp_path / "in.wav", square)
    report = separator(format=format).separate(path, tmp_path)
    output = Output(ceiling_db=math.inf if subtype == "FLOAT" else -1)
    expected = separate(square, 16_000, Halves(), "mixture", output=output)
    for output, source in zip(report.outputs.values(), expected, strict=True):
        assert sf.info(output).subtype == subtype
        assert output.suffix == (".flac" if format == "flac" else ".wav")
        assert np.abs(read(output)[0] - source).max() <= step
    assert ("peaks are at +" if subtype == "FLOAT" else "limiter") in report.remarks[0]
    assert report.counts["limited"] <= report.n_samples


def test_a_loud_master_is_the_sum_of_its_sources_in_files_of_floats(tmp_path):
    x = np.clip(np.random.default_rng(0).normal(0, 0.5, 20_000), -1, 1).astype(np.float32)
    report = separator().separate(write(tmp_path / "in.wav", x), tmp_path)
    assert np.abs(sum(map(read, report.outputs.values())) - x).max() < MINUS_100_DB
    assert report.counts["limited"] == 0
    assert report.peak_db == pytest.approx(20 * np.log10(max(np.abs(read(p)).max() for p in report.outputs.values())))


def test_unknown_formats_are_refused():
    with pytest.raises(ConfigError, match="format='wma' is not one of wav, wav24, wav16, flac, opus, mp3, m4a, same"):
        FileSeparator("passthrough", format="wma")
    with pytest.raises(ConfigError, match="source='drums' is not one of signal"):
        FileSeparator("passthrough", source="drums")


def test_a_wav_that_would_be_too_large_becomes_an_rf64(tmp_path, monkeypatch):
    x = recording(9_000)
    path = write(tmp_path / "in.wav", x)
    for limit, container in ((9_000 * 4, "WAV"), (9_000 * 4 - 1, "RF64")):
        monkeypatch.setattr(audio_files, "WAV_LIMIT", limit)
        report = separator(overwrite=True).separate(path, tmp_path)
        for output in report.outputs.values():
            assert sf.info(output).format == container
        assert np.abs(sum(map(read, report.outputs.values())) - x).max() < MINUS_100_DB


@pytest.mark.parametrize("name", signals.hostile())
def test_any_signal_gives_finite_outputs_below_the_ceiling(tmp_path, name):
    x = signals.hostile()[name]
    report = separator(output=Output()).separate(write(tmp_path / "in.wav", x), tmp_path)
    for output in report.outputs.values():
        assert np.isfinite(read(output)).all()
        assert np.abs(read(output)).max() <= np.float32(10 ** (-1 / 20))
    words = " ".join(report.remarks)
    assert ("not finite" in words) == (name in ("not finite", "huge"))
    assert ("limiter" in words) == bool(report.counts["limited"])


def test_a_wav_and_a_flac_from_a_pipe_are_complete(tmp_path):
    x = recording(20_000)
    wav = write(tmp_path / "a.wav", x)
    data = bytearray(wav.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    wav.write_bytes(data)
    flac = write(tmp_path / "b.flac", x, subtype="PCM_24")
    data = bytearray(flac.read_bytes())
    # STREAMINFO: 36 bits of samples in total, 0 for unknown.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    flac.write_bytes(data)
    for path in (wav, flac):
        report = separator().separate(path, tmp_path)
        assert np.abs(sum(map(read, report.outputs.values())) - x).max() < MINUS_100_DB
        assert report.remarks == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is not a regular file"),
        pytest.param(lambda path: os.mkfifo(path), "is not a regular file", marks=posix),
        (lambda path: path.touch(), "is empty: 0 bytes"),
        (lambda path: path.write_text("words"), "is not an audio file"),
        (lambda path: write(path, np.zeros((1, 0))), "has no samples"),
        (lambda path: path.write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt "), "is not an audio file"),
    ],
    ids=["missing", "folder", "pipe", "empty", "text", "no samples", "header"],
)
def test_what_is_not_audio_is_refused(tmp_path, make, message):
    path = tmp_path / "in.wav"
    make(path)
    with pytest.raises(FileError, match=message):
        separator().separate(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sr", "n_channels", "message"),
    [(4_000, 1, "sr=4000 is not between"), (384_000, 1, "sr=384000")],
)
def test_rates_and_channels_out_of_range_are_named(tmp_path, sr, n_channels, message):
    path = write(tmp_path / "in.wav", np.zeros((n_channels, 100)), sr)
    with pytest.raises(ConfigError, match=message):
        separator().separate(path, tmp_path)


def test_too_many_channels_for_a_format_are_named(tmp_path):
    path = write(tmp_path / "in.wav", np.zeros((9, 100)))
    with pytest.raises(FileError, match=r"in\.low\.flac cannot be written: "):
        separator(format="flac").separate(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_outputs_are_kept_unless_told(tmp_path):
    path = write(tmp_path / "in.wav", recording(2_000))
    (tmp_path / "in.high.wav").write_text("precious")
    with pytest.raises(FileError, match=r"in\.high\.wav exists \(--overwrite replaces it\)"):
        separator().separate(path, tmp_path)
    assert (tmp_path / "in.high.wav").read_text() == "precious"
    assert not (tmp_path / "in.low.wav").exists()
    separator(overwrite=True).separate(path, tmp_path)
    assert read(tmp_path / "in.high.wav").shape == (1, 2_000)


@posix
def test_folders_that_cannot_be_written_are_named(tmp_path):
    path = write(tmp_path / "in.wav", recording(2_000))
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"file cannot be made: File exists"):
        separator().separate(path, tmp_path / "file")
    (tmp_path / "out" / "in.low.wav").mkdir(parents=True)
    with pytest.raises(FileError, match=r"in\.low\.wav is a folder"):
        separator(overwrite=True).separate(path, tmp_path / "out")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(FileError, match="cannot be written: Permission denied"):
            separator().separate(path, tmp_path / "locked")
        path.chmod(0)
        with pytest.raises(FileError, match="Permission denied"):
            separator().separate(path, tmp_path / "out2")


@posix
@pytest.mark.parametrize("room", [0, 20_000, 39_000, 79_990, 81_000])
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_a_full_disk_is_noticed_and_leaves_nothing(tmp_path, format, room):
    path = write(tmp_path / "in.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 20_000))
    whole = separator(format=format).separate(path, tmp_path / "whole")
    fits = all(output.stat().st_size <= room for output in whole.outputs.values())
    with limited_file_size(room):
        if fits:
            separator(format=format).separate(path, tmp_path / "out")
        else:
            with pytest.raises(FileError, match=r"in\.(low|high)\.\w+ cannot be written: "):
                separator(format=format).separate(path, tmp_path / "out")
    assert len(os.listdir(tmp_path / "out")) == 2 if fits else not (tmp_path / "out").exists()


@posix
def test_a_picture_that_cannot_be_written_takes_the_sources_along(tmp_path):
    path = write(tmp_path / "in.wav", recording(1_000))
    with limited_file_size(10_000), pytest.raises(OSError, match="File too large"):
        separator(plot=True).separate(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_ends_at_the_end(tmp_path):
    path = write(tmp_path / "in.wav", recording(3 * BLOCK + 5))
    heard: list[tuple[int, int]] = []
    separator().separate(path, tmp_path, lambda done, total: heard.append((done, total)))
    done = [d for d, _ in heard]
    assert done == sorted(done)
    assert len(heard) >= 4
    assert heard[-1] == (3 * BLOCK + 5, 3 * BLOCK + 5)


@pytest.mark.parametrize(
    "x", [recording(16_000, 2), np.zeros((1, 1)), np.full((1, 500), np.nan)], ids=["voices", "one sample", "NaN"]
)
def test_a_picture_is_drawn_of_anything(tmp_path, x):
    report = separator(plot=True).separate(write(tmp_path / "in.wav", x), tmp_path)
    assert report.plot == tmp_path / "in.png"
    assert report.plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_spectrogram_has_its_line_where_the_sine_is_and_columns_for_any_length(tmp_path):
    from rtsep.plots import MAX_COLUMNS, spectrogram

    sr = 8_000
    for seconds in (2, 120):
        t = np.arange(seconds * sr) / sr
        x = np.where(t < seconds / 2, np.sin(2 * np.pi * 1_000 * t), np.sin(2 * np.pi * 3_000 * t))
        level, rate = spectrogram(write(tmp_path / "in.wav", x, sr), x.size)
        assert rate == sr
        assert level.shape[1] <= MAX_COLUMNS
        frequency = np.argmax(level, 0) * sr / 2 / (level.shape[0] - 1)
        quarter = level.shape[1] // 4
        assert abs(frequency[quarter] - 1_000) < 40
        assert abs(frequency[3 * quarter] - 3_000) < 40
        assert abs(level[:, quarter].max()) < 1.5  # dB; full scale
