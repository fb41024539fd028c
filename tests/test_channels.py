"""Channels together or each for itself, and integers."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import signals
from test_files import read, write

from rtsep import ConfigError, Output, Separator, StreamConfig, from_pcm, separate, to_pcm
from rtsep.files import FileSeparator
from rtsep.phase import MISI

SR = 16_000


def apart(n: int = 2 * SR) -> tuple[np.ndarray, np.ndarray]:
    """A voice on the left, noise on the right; with the noise that is on the left, too."""
    rng = np.random.default_rng(0)
    voice = 0.1 * signals.voices(n)[0]
    left = voice + 0.003 * rng.normal(size=n)
    return voice, np.stack([left, 0.2 * rng.normal(size=n)]).astype(np.float32)


def si_sdr(x: np.ndarray, reference: np.ndarray) -> float:
    target = (x @ reference) / (reference @ reference) * reference
    return float(10 * np.log10((target @ target) / ((x - target) @ (x - target))))


@pytest.mark.parametrize("phase", ["mixture", MISI(n_iter=1)])
def test_independent_channels_are_as_if_each_were_alone(phase):
    _, x = apart(SR)
    together = separate(x, SR, "denoise", phase, channels="independent")
    for c in range(2):
        assert np.array_equal(together[:, c], separate(x[c], SR, "denoise", phase))
    assert np.abs(together.sum(0) - x).max() < 1e-6


def test_channels_that_have_nothing_in_common_are_better_off_alone():
    voice, x = apart()
    linked, independent = (separate(x, SR, "denoise", channels=how)[0, 0] for how in ("linked", "independent"))
    late = slice(SR // 2, None)
    assert si_sdr(independent[late], voice[late]) > si_sdr(linked[late], voice[late]) + 8


@pytest.mark.parametrize("ceiling_db", [math.inf, -20])
def test_files_give_what_the_library_gives_with_one_limiter_for_all(tmp_path, ceiling_db):
    _, x = apart(SR)
    output = Output(ceiling_db=ceiling_db)
    expected = separate(x, SR, "denoise", output=output, channels="independent")
    separator = FileSeparator("denoise", output=output, channels="independent")
    report = separator.separate(write(tmp_path / "a.wav", x), tmp_path)
    found = np.stack([read(path) for path in report.outputs.values()])
    assert np.array_equal(found, expected)
    assert np.abs(expected).max() <= 10 ** (ceiling_db / 20)
    assert bool(report.counts["limited"]) == (ceiling_db == -20)


def test_another_word_is_refused():
    with pytest.raises(ConfigError, match="channels='both' is not one of linked, independent"):
        separate(np.zeros((2, 100)), SR, channels="both")
    with pytest.raises(ConfigError, match="channels='both'"):
        FileSeparator("passthrough", channels="both")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", ">i2", "<i4"])
def test_integers_come_back_as_they_were(dtype):
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, 1_000, endpoint=True).astype(dtype)
    x[:2] = info.min, info.max
    y = from_pcm(x)
    assert y.dtype == np.float32
    assert y[0] == -1
    assert 0.99 < y[1] <= 1
    back = to_pcm(y, dtype)
    if np.dtype(dtype).itemsize < 4:
        assert np.array_equal(back, x)
    else:
        assert np.abs(back.astype(float) - x).max() <= 2**8  # float32 has 24 bits


def test_bytes_are_read_as_they_are_meant():
    x = np.array([[1, -2], [300, 4], [-32768, 32767]], "<i2")
    assert np.array_equal(from_pcm(x.tobytes(), "int16", 2), x.T / 32768)
    assert np.array_equal(from_pcm(x.astype(">i2").tobytes(), ">i2"), x.ravel() / 32768)
    assert np.array_equal(from_pcm(x.astype("<f4").tobytes(), "float32"), x.ravel())
    assert np.array_equal(from_pcm(b"\xff\xff\x7f\0\0\x80", "int24"), [1 - 2**-23, -1])
    for wrong, message in (((bytes(3), "int16"), "3 bytes are no whole number"), ((bytes(6), "int16", 2), "6 bytes")):
        with pytest.raises(ValueError, match=message):
            from_pcm(*wrong)
    for wrong in ((bytes(2),), (np.zeros(3),), (np.zeros(3, np.int64),), ([1, 2],), (x, "int16")):
        with pytest.raises(TypeError):
            from_pcm(*wrong)
    with pytest.raises(TypeError, match="not an array of floats"):
        to_pcm(x)
    with pytest.raises(TypeError, match="dtype=int64"):
        to_pcm(np.zeros(3), "int64")
    assert np.array_equal(to_pcm(np.array([np.nan, np.inf, -np.inf, 9, 0.9999999])), [0, 32767, -32768, 32767, 32767])


def test_integers_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"audio is int16; rtsep\.from_pcm makes floats"):
        separate(np.zeros(100, np.int16), SR)


def test_copies_of_a_separator_go_their_own_ways():
    one = Separator(StreamConfig(SR), "denoise")
    x = apart(4_000)[1][0]
    one.process(x[:1_000])
    two, three = copy.copy(one), copy.deepcopy(one)
    expected = one.process(x[1_000:])
    for other in (two, three):
        assert np.array_equal(other.process(x[1_000:]), expected)
    two.reset()
    assert np.array_equal(one.process(x), three.process(x))
