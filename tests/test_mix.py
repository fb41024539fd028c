"""Mixtures: the same bits from the same seed, and what the manifest says is what is there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rtsep import ConfigError
from rtsep.cli import main
from rtsep.evaluation import exact
from rtsep.evaluation.mix import Mixer, Mixtures
from rtsep.recordings import Recording, find_recordings

SR = 16_000
DIGEST = "60ec95db91e587a0a9d72df89edcaeb72dffff5df3e750a635241231d65114da"  # of three mixtures


def integers(n: int, seed: int, peak: int = 8_000) -> np.ndarray:
    """Noise of 16 bits from integer arithmetic alone, the same everywhere."""
    bits = np.random.PCG64(seed).random_raw(n).astype(np.uint64)
    return ((bits >> np.uint64(40)).astype(np.int64) % (2 * peak) - peak).astype(np.int16)


@pytest.fixture
def recordings(tmp_path):
    """Folders of speech (16 kHz), noise in two classes (44.1 kHz, short), music (stereo) and room responses."""
    files = {
        "speech/a.wav": (integers(40_000, 0), SR),
        "speech/b.wav": (integers(9_000, 1), SR),
        "speech/c.wav": (integers(30_000, 2), SR),
        "noise/rain/1.wav": (integers(30_000, 3), 44_100),
        "noise/wind/1.flac": (integers(90_000, 4), 44_100),
        "music/m_1.wav": (np.stack([integers(20_000, 5), integers(20_000, 6)], 1), 8_000),
        "rooms/r.wav": (np.stack([integers(500, 7), integers(500, 8)], 1), SR),
    }
    for name, (x, sr) in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / name, x, sr, subtype="PCM_16")
    return tmp_path


def mix(recordings: Path, *options: object, out: str = "out") -> list[dict]:
    arguments = ["mix", "--speech", recordings / "speech", "-o", recordings / out, "--duration", "1", *options]
    assert main(list(map(str, arguments))) == 0
    return [json.loads(line) for line in (recordings / out / "manifest.jsonl").read_text().splitlines()]


def read(recordings: Path, name: str, out: str = "out") -> np.ndarray:
    """(n_channels, n_samples), of full scale 2^31."""
    return sf.read(recordings / out / name, dtype="int32", always_2d=True)[0].T.astype(np.int64)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_samples_on_any_machine(recordings):
    options = ("--noise", recordings / "noise", "--music", recordings / "music", "--rooms", recordings / "rooms")
    entries = mix(recordings, *options, "--count", 3, "--seed", 7)
    # Made on another machine: resampling, convolution, levels and rounding are in these numbers.
    assert hashlib.sha256("".join(entry["sha256"] for entry in entries).encode()).hexdigest() == DIGEST
    for entry in entries:
        digest = hashlib.sha256()
        for source in entry["sources"].values():
            digest.update((read(recordings, source["file"]) >> 8).astype("<i4").tobytes())
        assert digest.hexdigest() == entry["sha256"]


def test_a_run_again_gives_the_same_files_and_another_seed_gives_others(recordings):
    options = ("--noise", recordings / "noise", "--count", 2, "--format", "wav16")
    mix(recordings, *options)
    mix(recordings, *options, out="again")
    mix(recordings, *options, "--seed", 1, out="other")
    first, again, other = (files_of(recordings / name) for name in ("out", "again", "other"))
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_the_first_of_many_mixtures_are_those_of_few(recordings):
    few = mix(recordings, "--noise", recordings / "noise", "--count", 2)
    many = mix(recordings, "--noise", recordings / "noise", "--count", 4, out="many")
    assert many[:2] == few
    assert len({entry["sha256"] for entry in many}) == 4


@pytest.mark.parametrize("options", [[], ["--talkers", 2], ["--rooms", "rooms"], ["--format", "wav24"]])
def test_sources_add_up_to_the_mixture_exactly_at_the_level_and_snr_of_the_manifest(recordings, options):
    options = [recordings / option if option == "rooms" else option for option in options]
    entries = mix(recordings, "--noise", recordings / "noise", "--count", 4, *options)
    for entry in entries:
        sources = {name: read(recordings, source["file"]) for name, source in entry["sources"].items()}
        mixture = read(recordings, entry["mixture"])
        assert np.array_equal(sum(sources.values()), mixture)
        assert mixture.shape == (2 if "--rooms" in options else 1, SR)
        assert 10 * np.log10(np.mean(mixture / 2**31 * (mixture / 2**31))) == pytest.approx(entry["level_db"], abs=0.01)
        assert -30 <= entry["level_db"] <= -20
        assert -5 <= entry["snr_db"] <= 15
        powers = {
            name: np.mean(source.astype(float) ** 2) * SR / entry["sources"][name]["n_samples"]
            for name, source in sources.items()
        }
        speech = sum(power for name, power in powers.items() if name != "noise")
        assert 10 * np.log10(speech / powers["noise"]) == pytest.approx(entry["snr_db"], abs=0.02)
        assert entry["class"] in ("rain", "wind")
        if "--talkers" in options:
            assert -5.01 <= 10 * np.log10(powers["speech2"] / powers["speech1"]) <= 0.01
            names = [entry["sources"][name]["recording"] for name in ("speech1", "speech2")]
            assert names[0] != names[1]


def test_a_piece_is_where_the_manifest_says(recordings):
    entries = mix(recordings, "--noise", recordings / "noise", "--count", 8)
    shapes = set()
    for entry in entries:
        source = entry["sources"]["speech"]
        piece, _ = sf.read(recordings / "speech" / source["recording"], dtype="int16")
        piece = piece[source["start"] :][: source["n_samples"]].astype(float)
        heard = read(recordings, source["file"])[0].astype(float)
        there = heard[source["at"] :][: source["n_samples"]]
        gain = (there @ piece) / (piece @ piece)
        assert np.abs(there - gain * piece).max() <= 130  # half a step of 24 bits
        assert not np.delete(heard, np.s_[source["at"] : source["at"] + source["n_samples"]]).any()
        shapes.add(source["n_samples"])
    assert shapes == {9_000, SR}  # what is too short stands in silence


def test_a_mixture_that_would_be_clipped_is_turned_down(recordings):
    x = np.zeros(20_000, np.int16)
    x[::4_000] = 30_000
    sf.write(recordings / "speech" / "a.wav", x, SR)
    for name in ("b.wav", "c.wav"):
        (recordings / "speech" / name).unlink()
    (entry,) = mix(recordings, "--noise", recordings / "noise", "--count", 1, "--level", -3, -3, "--snr", 30, 30)
    mixture = read(recordings, entry["mixture"])
    assert 0.97 < np.abs(mixture).max() / 2**31 <= 0.985


def test_files_that_cannot_be_read_are_named_once_and_left_out(recordings, capsys):
    (recordings / "speech" / "empty.wav").touch()
    (recordings / "noise" / "rain" / "words.wav").write_text("words")
    whole = (recordings / "noise" / "wind" / "1.flac").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 3)
    (recordings / "noise" / "wind" / "2.flac").write_bytes(damaged)
    silent = recordings / "noise" / "rain" / "silent.wav"
    sf.write(silent, np.zeros(20_000), SR)
    entries = mix(recordings, "--noise", recordings / "noise", "--count", 12)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    for name, reason in (("empty.wav", "is empty"), ("words.wav", "is not an audio file"), ("2.flac", "damaged")):
        (line,) = [line for line in errors if name in line]
        assert reason in line
        assert line.endswith("; skipped")
    assert {entry["sources"]["noise"]["recording"] for entry in entries} == {"rain/1.wav", "wind/1.flac"}


def test_of_many_files_with_one_fault_the_first_are_named_and_the_others_counted(recordings, capsys):
    for number in range(7):
        (recordings / "noise" / "rain" / f"empty{number}.wav").touch()
    mix(recordings, "--noise", recordings / "noise", "--count", 1)
    errors = capsys.readouterr().err.splitlines()
    assert [Path(line.split(": ")[1]).name for line in errors] == ["empty0.wav", "empty1.wav", "empty2.wav", "rain"]
    assert errors[-1].endswith("rain: 4 more: is empty: 0 bytes; skipped")


def test_nothing_but_silence_is_an_error_that_says_so(recordings, capsys):
    for name in ("a", "b", "c"):
        sf.write(recordings / "speech" / f"{name}.wav", np.zeros(20_000), SR)
    arguments = ["mix", "--speech", recordings / "speech", "--noise", recordings / "noise", "-o", recordings / "out"]
    assert main(list(map(str, arguments))) == 2
    assert "no piece for 'speech' in 50 tries" in capsys.readouterr().err
    assert not (recordings / "out" / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "1 source is no mixture"),
        (["--noise", "empty"], "no recordings that can be read"),
        (["--talkers", "9"], "talkers=9 is not between 1 and 8"),
        (["--talkers", "2", "--snr", "5", "-5"], "--snr=5 to -5 is no range between -60 and 60 dB"),
        (["--talkers", "2", "--level", "-10", "3"], "--level=-10 to 3 is no range between -60 and 0 dB"),
        (["--talkers", "2", "--duration", "0"], "--duration=0.0 is not between 0.1 and 600 s"),
        (["--talkers", "2", "--count", "0"], "count=0 is not between"),
        (["--talkers", "2", "--rate", "100"], "--rate=100 is not between 8000 and 192000 Hz"),
        (["--talkers", "2", "--seed", "-1"], "seed=-1 is below 0"),
    ],
)
def test_bad_options_are_refused_in_one_line_with_the_value(recordings, capsys, options, message):
    (recordings / "empty").mkdir()
    options = [str(recordings / option) if option == "empty" else option for option in options]
    assert main(["mix", "--speech", str(recordings / "speech"), "-o", str(recordings / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (recordings / "out").exists()


def test_existing_mixtures_are_refused_and_replaced_if_told(recordings, capsys):
    options = ("--talkers", 2, "--count", 1)
    mix(recordings, *options)
    arguments = ["mix", "--speech", str(recordings / "speech"), "-o", str(recordings / "out"), *map(str, options)]
    assert main(arguments) == 2
    assert "manifest.jsonl exists (--overwrite replaces it)" in capsys.readouterr().err
    mix(recordings, *options, "--overwrite")


def test_recordings_are_in_the_order_of_their_names_and_have_classes(recordings):
    found = find_recordings(recordings, lambda path, reason: None)
    assert [recording.name for recording in found] == sorted(recording.name for recording in found)
    labels = {name: Recording(Path(), name, SR, 1).label for name in ("baby_cry_4-167-A.ogg", "a/b.wav", "12_F.flac")}
    assert labels == {"baby_cry_4-167-A.ogg": "baby_cry", "a/b.wav": "a", "12_F.flac": "other"}


def test_mixers_need_two_sources(recordings):
    with pytest.raises(ConfigError, match="0 source is no mixture"):
        Mixer(Mixtures())


# --- exact arithmetic


@pytest.mark.parametrize(("sr", "rate"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (16_000, 44_100)])
def test_resampling_keeps_sines_in_place_and_removes_what_the_new_rate_cannot_hold(sr, rate):
    seconds = 0.2
    t, u = np.arange(int(seconds * sr)) / sr, np.arange(int(np.ceil(int(seconds * sr) * rate / sr))) / rate
    low = min(sr, rate)
    for hz in (0.05 * low, 0.42 * low):
        x = np.rint(2**22 * np.sin(2 * np.pi * hz * t)).astype(np.int64)
        y = exact.resample(x, sr, rate)
        inner = slice(len(u) // 4, -len(u) // 4)
        expected = 2**22 * np.sin(2 * np.pi * hz * u)
        assert len(y) == len(u)
        assert np.abs(y - expected)[inner].max() < 2**22 * 10 ** (-55 / 20)
    if rate < sr:
        above = np.rint(2**22 * np.sin(2 * np.pi * 0.55 * rate * t)).astype(np.int64)
        assert np.abs(exact.resample(above, sr, rate)[inner]).max() < 2**22 * 10 ** (-55 / 20)


def test_convolution_equals_that_of_whole_numbers():
    x, response = integers(3_000, 1).astype(np.int64) << 8, integers(400, 2).astype(np.int64)
    peak = int(np.abs(response).max())
    taps = np.rint(response * (2**15 / peak)).astype(np.int64)
    expected = (np.convolve(x, taps)[:3_000] + 2**14) >> 15
    assert np.array_equal(exact.convolve(x, response, peak), expected)
    with pytest.raises(ValueError, match="the response is silent"):
        exact.convolve(x, 0 * response, 0)


def test_energy_is_that_of_whole_numbers_of_any_size():
    for bits in (4, 24, 29):
        x = (integers(100_000, 3, 1 << 14).astype(np.int64)) << max(0, bits - 15)
        assert exact.energy(x) == sum(int(value) ** 2 for value in x)


def test_draws_are_within_their_range_and_reach_its_ends():
    draws = exact.Draws(0, 1)
    values = [draws.hundredths(-0.02, 0.01) for _ in range(200)]
    assert set(values) == {-0.02, -0.01, 0.0, 0.01}
    assert {draws.integer(3) for _ in range(100)} == {0, 1, 2}
    assert (
        exact.Draws(5, 6).integer(1 << 40) == exact.Draws(5, 6).integer(1 << 40) != exact.Draws(6, 5).integer(1 << 40)
    )
