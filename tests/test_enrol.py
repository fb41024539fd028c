"""`rtsep enrol` and the estimator `target`: one person, told by recordings, in the weights of an ordinary network."""

from dataclasses import replace

import naive_network
import numpy as np
import pytest
import soundfile as sf
from models import random_voices, tiny
from signals import voices as voice_signals

import rtsep
from rtsep import ConfigError, Separator, StreamConfig
from rtsep.cli import main
from rtsep.enrol import _features, enrol, write_person
from rtsep.errors import FileError
from rtsep.estimators import Speech, Talkers, Target
from rtsep.estimators.enrolment import (
    CONTEXT,
    FORMAT,
    LEAST_DEVIATION,
    SHIPPED,
    STRIDE,
    VERSION,
    read_voices,
    write_voices,
)
from rtsep.estimators.model_file import LEAK, read_model
from rtsep.evaluation import si_sdr
from rtsep.models import read_container, write_container

SR = 16_000
GRUS = ("wide", "each")


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    return random_voices(tmp_path_factory.mktemp("voices") / "voices.npz")


@pytest.fixture
def anna():
    return voice_signals(3 * SR, n_src=1, seed=1)[0]


def test_a_voice_is_what_its_slow_twin_hears(voices):
    known = read_voices(voices)
    features = np.random.default_rng(3).normal(size=(23, known.shape.n_features)).astype(np.float32)

    def layer(name, x):
        weight, bias = known.weights[f"encoder_{name}_weight"], known.weights[f"encoder_{name}_bias"]
        return np.array([sum(w * value for w, value in zip(row, x, strict=True)) for row in weight]) + bias

    def leaky(x):
        return np.array([value if value > 0 else LEAK * value for value in x])

    near = [leaky(layer("near", frame)) for frame in features]
    looks = []
    for start in range(0, len(near) - CONTEXT + 1, STRIDE):
        some = near[start : start + CONTEXT]
        looks.append(leaky(layer("over", [frame[c] for c in range(known.channels) for frame in some])))
    worth = np.exp([layer("worth", look)[0] for look in looks])
    share = worth / worth.sum()
    mean = sum(s * look for s, look in zip(share, looks, strict=True))
    deviation = np.sqrt(sum(s * look**2 for s, look in zip(share, looks, strict=True)) - mean**2 + LEAST_DEVIATION)
    expected = np.tanh(layer("voice", [*mean, *deviation]))
    assert known.hear(features) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("channels", "says", "hear"),
    [
        (0, ["dense_{}"], [["gru1_input_{}", "heads_{}"]]),
        (16, ["blocks.0.near.{}", "blocks.1.near.{}"], [[f"blocks.{i}.{g}.{{}}_ih_l0" for g in GRUS] for i in (0, 1)]),
    ],
)
def test_what_is_told_is_in_the_weights(channels, says, hear, tmp_path):
    """Scales and shifts, layer by layer: of what the first of a block says, and of what the others hear."""
    known = read_voices(random_voices(tmp_path / "voices.npz", channels))
    rng = np.random.default_rng(4)
    voice = rng.uniform(-1, 1, known.voice).astype(np.float32)
    said = known.weights["modulation_weight"] @ voice + known.weights["modulation_bias"]
    changed = known.told(voice)
    at, untouched = 0, set(changed)

    def heard_by(name):
        return rng.normal(size=known.weights[name.format("weight")].shape[1])

    def layer(weights, name, x):
        weight, bias = name.format("weight"), name.format("bias")
        untouched.difference_update((weight, bias))
        return weights[weight] @ x + weights[bias]

    def next_two(n):
        nonlocal at
        at += 2 * n
        return 1 + said[at - 2 * n : at - n], said[at - n : at]

    for speaker, listeners in zip(says, hear, strict=True):
        x = heard_by(speaker)
        before = layer(known.weights, speaker, x)
        scale, shift = next_two(len(before))
        assert layer(changed, speaker, x) == pytest.approx(scale * before + shift, abs=1e-4)
        for name in listeners:
            x = heard_by(name)
            scale, shift = next_two(len(x))
            assert layer(changed, name, x) == pytest.approx(layer(known.weights, name, scale * x + shift), abs=1e-4)
    assert at == len(said)
    assert all(np.array_equal(changed[name], known.weights[name]) for name in untouched)


@pytest.mark.parametrize("channels", [0, 16])
def test_a_model_of_a_person_is_an_ordinary_one(channels, anna, tmp_path):
    model = enrol([anna], "anna", voices=random_voices(tmp_path / "voices.npz", channels))
    path = tmp_path / "anna.npz"
    write_person(path, model)
    read = read_model(path)
    assert read.sources == ("anna", "rest")
    assert read.manifest["enrolled"]["seconds"] == 3
    assert all(np.array_equal(read.weights[name], value) for name, value in model.weights.items())
    heads = naive_network.heads(model.golden_spectra, model, StreamConfig(SR, 256, 128))
    assert model.golden_heads == pytest.approx(heads, abs=2e-5)
    mixture = 0.1 * np.random.default_rng(0).normal(size=SR).astype(np.float32)
    assert Separator(StreamConfig(SR), Target(model)).sources == ("anna", "rest")
    heard = rtsep.separate(mixture, SR, Target(path))
    assert heard.sum(0) == pytest.approx(mixture, abs=1e-5)


def test_level_and_rate_of_the_recording_do_not_matter(voices, anna):
    def voice(x, sr=SR):
        return np.array(enrol([x], sr=sr, voices=voices).manifest["enrolled"]["voice"])

    assert voice(1e-3 * anna) == pytest.approx(voice(anna), abs=1e-4)
    from scipy.signal import resample_poly

    assert voice(resample_poly(anna, 3, 1), 48_000) == pytest.approx(voice(anna), abs=0.05)
    assert voice(np.stack([anna, anna])) == pytest.approx(voice(anna), abs=1e-6)


def test_recordings_that_say_nothing_are_refused(voices, anna, tmp_path):
    for x, said in (
        (np.zeros(SR), "silent"),
        (np.stack([anna, -anna]), "its channels cancel each other"),
        (np.where(np.arange(3 * SR) == 7, np.nan, anna), "1 of its samples are not finite"),
    ):
        with pytest.raises(FileError, match=said):
            enrol([x], voices=voices)
    with pytest.raises(ConfigError, match=r"0\.. s of speech: at least 1 s"):
        enrol([anna[: SR // 2]], voices=voices)
    with pytest.raises(ConfigError, match="there are none"):
        enrol([], voices=voices)
    with pytest.raises(ConfigError, match="the other source"):
        enrol([anna], "rest", voices=voices)
    with pytest.raises(ConfigError, match="cannot be part of a file name"):
        enrol([anna], "a/b", voices=voices)
    (tmp_path / "no.wav").write_bytes(b"no")
    with pytest.raises(FileError, match=r"no\.wav"):
        enrol([tmp_path / "no.wav"], voices=voices)
    with pytest.raises(ConfigError, match="its format is 'rtsep-gru'"):
        enrol([anna], voices=tiny(Speech))
    with pytest.raises(FileError, match="silent"):
        enrol(np.full(6 * SR, 0.5), voices=voices)  # DC
    with pytest.raises(ConfigError, match="sr=7 is"):
        enrol(anna, sr=7, voices=voices)
    sf.write(tmp_path / "slow.wav", anna, 4000)
    with pytest.raises(FileError, match=r"slow\.wav: its rate is 4000 Hz"):
        enrol(tmp_path / "slow.wav", voices=voices)
    for x, kind, said in (
        (np.zeros((SR, 2)), ValueError, "pass its transpose"),
        (np.zeros((0, 3)), ValueError, r"shape \(0, 3\), no samples"),
        ((1000 * anna).astype(np.int16), TypeError, "from_pcm"),
        (anna * 1j, TypeError, "not real"),
    ):
        with pytest.raises(kind, match=said):
            enrol(x, voices=voices)


def test_pauses_do_not_count_and_recordings_share_what_is_heard(voices, anna):
    def told(*recordings):
        return enrol(list(recordings), voices=voices).manifest["enrolled"]

    hiss = 1e-5 * np.random.default_rng(0).normal(size=130 * SR).astype(np.float32)
    alone = told(anna)
    late = told(np.concatenate([hiss, anna]))
    assert late["speech_s"] == pytest.approx(alone["speech_s"], abs=0.1)
    assert late["used_s"] < 4
    assert late["voice"] == pytest.approx(alone["voice"], abs=0.1)
    long, other = np.tile(anna, 50), voice_signals(3 * SR, n_src=2, seed=2)[1]
    assert told(long, other)["voice"] != told(long)["voice"]
    assert told(long)["used_s"] <= 120
    assert told(long, other)["used_s"] == pytest.approx(120)
    for short in (100, 3200, 5120):
        assert told(long, anna[SR : SR + short])["used_s"] > 119
    assert told(10 * anna + 0.2)["voice"] == pytest.approx(alone["voice"], abs=1e-3)


def test_models_of_other_kinds_are_refused(voices, anna):
    with pytest.raises(ConfigError, match="rtsep enrol makes one"):
        Target()
    with pytest.raises(ConfigError, match="knows nobody yet"):
        Target(voices)
    with pytest.raises(ConfigError, match="listens to nobody in particular"):
        Target(tiny(Speech))
    with pytest.raises(ConfigError, match="separates anna, rest; estimator='speech' is for speech, residual"):
        Separator(StreamConfig(SR), Speech(enrol([anna], "anna", voices=voices)))


def test_damaged_files_of_voices_are_refused(voices, tmp_path):
    known = read_voices(voices)
    for name, wrong, said in (
        ("modulation_bias", np.zeros(3, np.float32), "modulation_bias has shape"),
        ("encoder_near_weight", np.full(known.weights["encoder_near_weight"].shape, np.nan), "encoder_near_weight is"),
    ):
        with pytest.raises(ConfigError, match=said):
            write_voices(tmp_path / "wrong.npz", replace(known, weights=known.weights | {name: wrong}))
    assert not list(tmp_path.iterdir())
    header, content, _ = read_container(voices, FORMAT, VERSION)
    for name in ("voice", "channels"):
        wrong = header | {name: float("inf")}
        write_container(tmp_path / "wrong.npz", FORMAT, VERSION, wrong, content, lambda part: None)
        with pytest.raises(ConfigError, match=r"wrong\.npz cannot be used as a model: its header is wrong"):
            read_voices(tmp_path / "wrong.npz")


@pytest.mark.filterwarnings("error")
def test_voices_that_are_too_large_are_refused_with_their_file(voices, anna, tmp_path):
    known = read_voices(voices)
    huge = {name: np.full_like(value, 1e30) for name, value in known.weights.items()}
    write_voices(tmp_path / "huge.npz", replace(known, weights=huge))
    with pytest.raises(ConfigError, match=r"huge\.npz cannot be used as a model: .* not finite"):
        enrol([anna], voices=tmp_path / "huge.npz")


def test_the_command_enrols_and_the_others_listen(voices, anna, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sf.write("anna1.wav", anna, SR)
    sf.write("mix.wav", 0.5 * anna, SR)
    assert main(["enrol", "anna1.wav", "-o", "anna.npz", "--voices", str(voices)]) == 0
    said = capsys.readouterr().out
    assert "anna.npz: anna, from" in said
    assert "5 s and more are better" in said
    assert main(["separate", "mix.wav", "-o", "out", "--voice", "anna.npz"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.wav")) == ["mix.anna.wav", "mix.rest.wav"]
    assert main(["separate", "mix.wav", "-o", "out2", "--estimator", "target", "--model", "anna.npz"]) == 0
    capsys.readouterr()
    for words, reason in (
        (["anna1.wav", "-o", "anna.npz"], "anna.npz exists (--overwrite replaces it)"),
        (["anna1.wav", "-o", "anna.wav"], "anna.wav does not end in .npz"),
        (["nobody.wav", "-o", "b.npz"], "nobody.wav"),
    ):
        assert main(["enrol", *words, "--voices", str(voices)]) == 2
        assert reason in capsys.readouterr().err
    (tmp_path / "ben").mkdir()
    sf.write("ben/a.flac", anna, SR)
    (tmp_path / "ben" / "notes.wav").write_text("no")
    assert main(["enrol", "ben", "--name", "Ben", "-o", "voices/b.npz", "--voices", str(voices), "--json"]) == 0
    assert '"Ben"' in capsys.readouterr().out


def test_a_model_says_its_estimator(voices, anna, tmp_path):
    from rtsep.choose import choose

    model = enrol([anna], "anna", voices=voices)
    write_person(tmp_path / "a.npz", model)
    for path, name in ((tmp_path / "a.npz", "target"), (tiny(Talkers), "talkers"), (tiny(Speech), "speech")):
        assert choose(None, None, 0.016, 0.004, estimator_options={"model": path}).estimator.name == name
    with pytest.raises(ConfigError, match="knows nobody yet"):
        choose(None, None, 0.016, 0.004, estimator_options={"model": voices})


def test_the_shipped_file_hears_what_pytorch_heard():
    known = read_voices(SHIPPED)
    assert known.hear(_features(known.shape, known.golden_spectra)) == pytest.approx(known.golden_voice, abs=1e-4)


def test_the_shipped_file_hears_who_is_enrolled():
    assert SHIPPED.stat().st_size < 1_500_000
    assert read_voices(SHIPPED).manifest["recipe"]["name"] == "target"
    pair = voice_signals(4 * SR)
    elsewhere = voice_signals(6 * SR, seed=3)
    mixture = pair.sum(0)
    for asked, other in ((0, 1), (1, 0)):
        heard = rtsep.separate(mixture, SR, Target(enrol([elsewhere[asked]])))[0]
        assert si_sdr(pair[asked], heard) > si_sdr(pair[asked], mixture) + 2
        assert si_sdr(pair[other], heard) < -5
        quiet = rtsep.separate(0.01 * mixture, SR, Target(enrol([0.01 * elsewhere[asked]])))[0]
        assert si_sdr(heard, quiet) > 60
