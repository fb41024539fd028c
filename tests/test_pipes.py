"""Sound through pipes: with the latency of the engine, whatever the header says."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import soundfile as sf
from test_cli import PLAIN
from test_files import posix, recording, write

from rtsep import separate, to_pcm
from rtsep.cli import main
from rtsep.config import ConfigError
from rtsep.errors import FileError
from rtsep.pipes import SAMPLES, PipeReader, Raw, encode

SR = 16_000
pytestmark = posix


def pipe(data: bytes, *options: str, source: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "rtsep", "separate", "-", "-o", "-", *options]
    return subprocess.run(command, input=data, capture_output=True, timeout=120)


def wav(x: np.ndarray, sr: int = SR, size: int | None = 0xFFFFFFFF, format: str = "WAV", **options) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, x.T, sr, format=format, **options)
    data = bytearray(buffer.getvalue())
    if size is not None:
        at = data.index(b"data") + 4
        data[at : at + 4] = struct.pack("<I", size)
    return bytes(data)


def through_a_pipe(data: bytes, raw: Raw | None = None) -> tuple[PipeReader, np.ndarray]:
    """What the reader makes of bytes that come in pieces of any size."""
    ours, theirs = os.pipe()

    def send() -> None:
        rng, at = np.random.default_rng(0), 0
        with os.fdopen(theirs, "wb", buffering=0) as out:
            while at < len(data):
                n = int(rng.integers(1, 3_000))
                out.write(data[at : at + n])
                at += n

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with os.fdopen(ours, "rb") as file:
            reader = PipeReader(file, raw)
            return reader, np.concatenate(list(reader.blocks()), 1)
    finally:
        thread.join()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, None])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
def test_a_wav_is_read_whatever_it_says_of_its_length(subtype, size, container):
    x = recording(20_011, 2)
    reader, y = through_a_pipe(wav(x, size=None if container == "RF64" else size, subtype=subtype, format=container))
    assert (reader.sr, reader.remarks) == (SR, [])
    assert y.shape == x.shape
    assert np.abs(y - x).max() < 2 ** -(6 if subtype == "PCM_U8" else 14)


@pytest.mark.parametrize("samples", SAMPLES)
def test_bare_samples_are_read_and_written(samples):
    x = recording(5_003, 3)
    data = encode(x, samples)
    assert len(data) == x.size * SAMPLES[samples][2] // 8
    _, y = through_a_pipe(data, Raw(samples, 22_050, 3))
    assert np.abs(y - x).max() <= 2.0 ** -min(24, SAMPLES[samples][2] - 1)
    assert encode(y, samples) == data or samples == "f64le"


def test_a_wav_goes_through():
    x = recording(20_011, 2)
    run = pipe(wav(x, subtype="PCM_16"), "--source", "signal", *PLAIN)
    assert run.returncode == 0, run.stderr
    assert run.stderr.decode().startswith("estimator passthrough, ")
    y, sr = sf.read(io.BytesIO(run.stdout), dtype="float32")
    assert (y.shape, sr) == ((20_011, 2), SR)
    assert np.abs(y.T - x).max() < 2**-14


def test_a_source_of_a_pipe_is_that_of_a_file():
    x = recording(16_000)
    run = pipe(wav(x, subtype="FLOAT"), "--source", "speech", "--estimator", "denoise")
    y, _ = sf.read(io.BytesIO(run.stdout), dtype="float32")
    assert np.array_equal(y, separate(x[0].astype(np.float32), SR, "denoise")[0])


def test_what_goes_in_comes_out_after_the_latency_and_not_later():
    command = [sys.executable, "-m", "rtsep", "separate", "-", "-o", "-", "--raw", "f32le:16000", *PLAIN]
    x = recording(16_000)[0].astype("<f4")
    latency = 256
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        os.set_blocking(run.stdout.fileno(), False)
        heard = b""
        for start in range(0, 16_000, 320):
            run.stdin.write(x[start : start + 320].tobytes())
            run.stdin.flush()
            due = max(0, start + 320 - latency)
            deadline = time.monotonic() + 60
            # Nothing more goes in before what is due came out.
            while len(heard) < 4 * due and time.monotonic() < deadline:
                heard += os.read(run.stdout.fileno(), 1 << 20) if _readable(run.stdout.fileno()) else b""
            assert len(heard) == 4 * due
        os.set_blocking(run.stdout.fileno(), True)
        run.stdin.close()
        heard += run.stdout.read()
    assert np.abs(np.frombuffer(heard, "<f4") - x).max() < 1e-6


def _readable(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 0.1)[0])


def test_a_file_into_a_pipe_and_a_pipe_into_files(tmp_path):
    x = recording(9_000)
    path = write(tmp_path / "a.wav", x)
    target = tmp_path / "b.wav"
    with open(target, "wb") as out:
        command = [sys.executable, "-m", "rtsep", "separate", str(path), "-o", "-", *PLAIN]
        subprocess.run(command, stdout=out, check=True, timeout=120, stderr=subprocess.DEVNULL)
    assert sf.info(target).frames == 9_000
    assert struct.unpack_from("<I", target.read_bytes(), 4)[0] == target.stat().st_size - 8  # known after all
    command = [sys.executable, "-m", "rtsep", "separate", "-", "-o", str(tmp_path / "out"), *PLAIN]
    subprocess.run(command, input=wav(x, subtype="PCM_16"), check=True, timeout=120, stdout=subprocess.DEVNULL)
    assert sf.info(tmp_path / "out" / "stdin.signal.wav").frames == 9_000


def test_whole_numbers_are_limited_and_floats_are_not():
    x = 2 * recording(9_000) / np.abs(recording(9_000)).max()
    floats = pipe(wav(x, subtype="FLOAT"), *PLAIN)
    y, _ = sf.read(io.BytesIO(floats.stdout))
    assert np.abs(y - x[0]).max() < 1e-6
    integers = pipe(wav(x, subtype="FLOAT"), "--format", "wav16", *PLAIN)
    y, _ = sf.read(io.BytesIO(integers.stdout))
    assert 0.8 < np.abs(y).max() <= 10 ** (-1 / 20) + 2**-15


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: 0 bytes"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "ends in its header"),
        (b"words, words, words", "is no WAV"),
        (b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff", "is a WAV without a format"),
        (b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\x7f" + bytes(1000), "is a WAV without samples"),
        (wav(np.zeros((1, 0))), "has no samples"),
        (wav(np.zeros((1, 9)), subtype="ULAW"), "is a WAV with samples of format 7 and 8 bits"),
    ],
)
def test_what_is_no_sound_is_one_line(data, message):
    with pytest.raises(FileError, match=message):
        through_a_pipe(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-", "-o", "-", "--raw", "s16:48000:2", *PLAIN), "--raw 's16:48000:2': samples are one of u8, s16le"),
        (("-", "-o", "-", "--raw", "s16le", *PLAIN), "--raw 's16le' is not like s16le:48000:2"),
        (("-", "-o", "-", "--raw", "s16le:1:2", *PLAIN), "--raw 's16le:1:2': from 8000 to 192000 Hz"),
        (("-", "-o", "-", "--estimator", "denoise"), "-o - takes one source: --source speech or --source noise"),
        (("-", "-o", "-", "--format", "flac", *PLAIN), "--format flac cannot be written to a pipe"),
        (("-", "-o", "-", "--plot", *PLAIN), "- is the only input, and has no --plot"),
        (("-", "a.wav", "-o", "-", *PLAIN), "- is the only input"),
        (("-", *PLAIN), "where do the outputs go?"),
        (("a.wav", "--raw", "s16le:48000:2", *PLAIN), "--raw s16le:48000:2 is for a pipe: the input is -"),
        (("a.wav", "b.wav", "-o", "-", *PLAIN), "-o - is for one input"),
        (("a.wav", "-o", "-", "--json", *PLAIN), "-o - has neither --json nor --plot"),
    ],
)
def test_options_that_cannot_be_are_one_line(capsys, options, message):
    assert main(["separate", *options]) == 2
    captured = capsys.readouterr()
    assert ("error" in captured.out) if "--json" in options else (captured.out == "")
    assert message in captured.err.splitlines()[-1]


def test_a_pipe_that_is_no_wav_is_one_line():
    run = pipe(b"words, words, words", *PLAIN)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.decode().splitlines()[-1] == "rtsep: -: is no WAV"


def test_a_pipe_that_breaks_off_is_said_and_what_came_is_heard():
    data = wav(recording(9_000), size=None, subtype="PCM_16")
    run = pipe(data[: len(data) // 2 + 1], *PLAIN)
    assert run.returncode == 0
    assert "the input ends early" in run.stderr.decode()
    assert 4_000 < sf.read(io.BytesIO(run.stdout))[0].size < 5_000


def test_a_reader_that_goes_away_ends_the_run():
    command = [sys.executable, "-m", "rtsep", "separate", "-", "-o", "-", "--raw", "f32le:16000", *PLAIN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        run.stdout.close()
        with suppress(BrokenPipeError):
            for _ in range(10_000):
                run.stdin.write(bytes(64_000))
        assert run.wait(60) == 141
        assert run.stderr is not None
        assert b"Traceback" not in run.stderr.read()


def test_raw_is_read_as_it_is_meant():
    assert Raw.parse("s24le:44100") == Raw("s24le", 44_100, 1)
    for wrong in ("", "s16le:-1:2", "s16le:1e4:2", "s16le:48000:2:1", "s16le:48000:0"):
        with pytest.raises(ConfigError, match="--raw"):
            Raw.parse(wrong)
    assert encode(np.array([[0.5, -1, 2]]), "s16le") == to_pcm(np.array([0.5, -1, 2])).tobytes()
