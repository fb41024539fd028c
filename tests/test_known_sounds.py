"""Streaming NMF, REPET-SIM and KAM against their twins; learning, dictionaries as files, and the command."""

from __future__ import annotations

from pathlib import Path

import naive_factorise
import numpy as np
import pytest
import soundfile as sf

import rtsep
from rtsep import Separator, StreamConfig
from rtsep.audio_files import FileError
from rtsep.cli import main
from rtsep.config import ConfigError
from rtsep.estimators import KAM, NMF, AdaptiveRepet, Repet, RepetSim
from rtsep.estimators.dictionary_file import DIVERGENCES, Dictionary, Framing, read_dictionary, write_dictionary
from rtsep.estimators.free_atoms import MEMORY_S, PULL, PULL_POWERS, prepare_free, renew_free
from rtsep.estimators.kam import estimate_kam
from rtsep.estimators.nmf import estimate_nmf
from rtsep.estimators.repet_sim import estimate_repet_sim, running_maxima
from rtsep.factorise import repet_sim
from rtsep.learn import features_of, learn

SR = 16_000


def notes(pitches, n=2 * SR, seed=0, sr=SR):
    """A tune of harmonic notes of 0.2 s, each of the pitches in Hz."""
    rng, t = np.random.default_rng(seed), np.arange(n) / sr
    tune = rng.choice(pitches, n // (sr // 5) + 1)[np.arange(n) // (sr // 5)]
    phase = 2 * np.pi * np.cumsum(tune) / sr
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, 6)) * np.exp(-8 * (t % 0.2))


LOW, HIGH = (220.0, 262.0, 294.0), (523.0, 698.0, 880.0)


@pytest.fixture
def takes(tmp_path):
    """Recordings of two sounds in folders of their own."""
    for name, pitches in (("low", LOW), ("high", HIGH)):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "take.wav", notes(pitches), SR, "FLOAT")
    return tmp_path


def learned(takes, **settings):
    return learn({name: [takes / name / "take.wav"] for name in ("low", "high")}, **{"n_atoms": 12, **settings})


def spectra(x, config):
    """Powers of the frames of a stream, float32 (n_bins, n_hops)."""
    line = np.concatenate([np.zeros(config.analysis), x])
    starts = config.hop * np.arange(1, x.size // config.hop + 1)
    frames = line[starts[:, None] + np.arange(config.analysis)]
    return (np.abs(np.fft.rfft(frames * config.windows.analysis, config.n_fft)) ** 2).astype(np.float32).T


def stream(step, state, power, n_src=2):
    """Shares (n_src, n_bins, n_frames) that a step gives its sources."""
    magnitudes, shares = np.zeros((n_src, len(power)), np.float32), []
    for frame in power.T:
        step(state, np.zeros((1, 2, frame.size), np.float32), np.ascontiguousarray(frame), magnitudes)
        shares.append(magnitudes / np.maximum(np.sqrt(frame), 1e-30))
    return np.stack(shares, 2)


@pytest.mark.parametrize("divergence", [*DIVERGENCES, 0.5, 3.0])
@pytest.mark.parametrize("context", [(), (4, 8)])
@pytest.mark.parametrize("with_rest", [False, True])
def test_streaming_nmf_equals_its_twin(divergence, context, with_rest):
    rng = np.random.default_rng(0)
    framing = Framing(SR, 256, 256, 64, 512, divergence, context)
    atoms = rng.random((framing.n_features, 9)).astype(np.float32) ** 4 + np.float32(1e-3)
    atoms /= atoms.sum(0)
    heard = (atoms[:257] * rng.uniform(0, 2, (257, 9))).astype(np.float32)
    estimator = NMF(Dictionary(framing, ("a", "b"), (4, 5), atoms, {}, heard), with_rest=with_rest)
    x = notes(LOW, 6400) + rng.normal(0, 1e-3, 6400)
    x[2000:3000] = 0
    state = estimator.prepare(framing.config)
    given = {}
    if with_rest:
        free, scale = state.free.atoms[:, : framing.n_features].T.astype(float), framing.n_features / 19
        given = {
            "free": free,
            "memory": np.exp(-0.004 / MEMORY_S),
            "pull": (PULL_POWERS if framing.powers else PULL) * scale,
        }
    found = stream(estimate_nmf, state, spectra(x, framing.config), 2 + with_rest)
    features = features_of(x, framing, np.arange(100))
    silent = ~spectra(x, framing.config).any(0)
    assert silent.any()
    features[:, silent] = 0
    wanted = naive_factorise.nmf_masks(
        features, atoms.astype(float), heard.astype(float), (4, 5), divergence, 10, **given
    )
    sounds = ~silent
    assert np.abs(found - wanted)[:, :, sounds].max() < 2e-3
    assert np.allclose(found.sum(0)[:, sounds], 1, atol=1e-5)
    if with_rest:
        assert np.abs(state.free.atoms[:, : framing.n_features].T - free).max() > 1e-3  # they have learned something


@pytest.mark.parametrize(("exponent", "powers"), [(1.0, False), (0.5, True)])
def test_free_atoms_that_nothing_needs_become_wide_again(exponent, powers):
    free = prepare_free(2, 56, 56, exponent, 0.004, 4.0, powers)
    start, narrow, even = free.atoms.copy(), np.full(56, 1e-3, np.float32), np.ones(56, np.float32)
    narrow[[7, 30]] = 2
    for _ in range(2000):
        renew_free(free, np.full(2, 4, np.float32), 0, narrow, even)
    assert np.abs(free.atoms - start).max() > 0.1
    for _ in range(5000):  # twenty seconds
        renew_free(free, np.zeros(2, np.float32), 0, narrow, even)
    assert np.abs(free.atoms - start).max() < 1e-4


def test_streaming_repet_sim_is_the_offline_one_with_the_past_alone():
    rng, config = np.random.default_rng(0), StreamConfig(SR)
    v = np.tile(rng.random((257, 40)), (1, 6)) * (1 + 0.2 * rng.random((257, 240)))
    state = RepetSim(buffer_s=0.5, distance_s=0.05, number=5, cutoff_hz=0).prepare(config)
    found = stream(estimate_repet_sim, state, (v**2).astype(np.float32))[1]
    hops_s = config.hop_s
    wanted = repet_sim(v, distance=round(0.05 / hops_s), number=5, past=round(0.5 / hops_s))
    assert np.abs(found - wanted).max() < 1e-5
    assert (wanted < 0.99).mean() > 0.3


@pytest.mark.parametrize(("n", "span"), [(10, 3), (7, 1), (5, 9), (23, 4), (1, 2)])
def test_running_maxima_are_the_largest_of_each_span(n, span):
    values, out = np.random.default_rng(n).random(n).astype(np.float32), np.zeros(n + 2 * span + 2, np.float32)
    running_maxima(values, n, span, out)
    for start in range(-span, n + 1):
        assert out[start + span] == max(values[max(0, start) : max(0, start + span)], default=-2)


@pytest.mark.parametrize("sr", [16_000, 48_000])
def test_streaming_kam_equals_its_twin(sr):
    config = StreamConfig(sr)
    power = (np.random.default_rng(0).random((config.n_bins, 16)) ** 4).astype(np.float32)
    found = stream(estimate_kam, KAM().prepare(config), power)
    wanted = naive_factorise.kam_share(power.astype(float), sr / config.n_fft, config.hop_s, 2)
    assert np.abs(found[0] - wanted).max() < 1e-5
    assert np.allclose(found.sum(0), 1, atol=1e-5)


def test_levels_do_not_change_what_nmf_hears(takes):
    x = notes(LOW, seed=1) + notes(HIGH, seed=2)
    estimator = NMF(learned(takes))
    power = spectra(x, estimator.dictionary.framing.config)
    loud, soft = (
        stream(estimate_nmf, estimator.prepare(estimator.dictionary.framing.config), power * np.float32(gain))
        for gain in (1, 1e-5)
    )
    assert np.abs(loud - soft).max() < 0.02


def si_sdr(source, estimate):
    scaled = (estimate @ source) / (source @ source) * source
    return 10 * np.log10((scaled**2).sum() / ((estimate - scaled) ** 2).sum())


@pytest.mark.parametrize("settings", [{}, {"context_ms": ()}, {"divergence": "is"}, {"exemplars": True}])
def test_other_tunes_of_the_same_instruments_are_told_apart(takes, settings):
    sources = np.stack([notes(LOW, seed=11), notes(HIGH, seed=12)])
    found = rtsep.separate(sources.sum(0), SR, NMF(learned(takes, **settings)))
    gains = [si_sdr(s, e) - si_sdr(s, sources.sum(0)) for s, e in zip(sources, found, strict=True)]
    assert min(gains) > 8


def test_mixtures_teach_what_atoms_stand_for(takes):
    dictionary = learned(takes, n_atoms=4)  # too few to tell the notes apart by
    alone = Dictionary(dictionary.framing, dictionary.sources, dictionary.n_atoms, dictionary.atoms, {})
    sources = np.stack([notes(LOW, seed=21), notes(HIGH, seed=22)])
    gains = []
    for model in (alone, dictionary):
        found = rtsep.separate(sources.sum(0), SR, NMF(model))
        gains.append(np.mean([si_sdr(s, e) for s, e in zip(sources, found, strict=True)]))
    assert gains[1] > gains[0]
    one = learn({"low": [takes / "low" / "take.wav"]}, n_atoms=4)
    assert np.array_equal(one.spectra, one.atoms[: one.framing.n_bins])


def test_a_dictionary_survives_its_file_and_every_change_is_refused(takes):
    dictionary = learned(takes, divergence="is", context_ms=(16,))
    path = takes / "duo.npz"
    write_dictionary(path, dictionary)
    found = read_dictionary(path)
    assert (found.framing, found.sources, found.n_atoms) == (dictionary.framing, ("low", "high"), (12, 12))
    assert np.array_equal(found.atoms, dictionary.atoms)
    assert np.array_equal(found.spectra, dictionary.spectra)
    assert found.manifest["low"] == {"files": 1, "seconds": 2.0, "frames": found.manifest["low"]["frames"]}
    with np.load(path) as file:
        content = dict(file)
    content["dictionary"] = content["dictionary"][::-1]
    np.savez(path, **content)
    with pytest.raises(ConfigError, match="does not match its SHA-256"):
        read_dictionary(path)
    shipped = Path(rtsep.__file__).parent / "data" / "speech.npz"
    with pytest.raises(ConfigError, match="its format is 'rtsep-gru', not 'rtsep-nmf'"):
        NMF(shipped)


def test_the_same_recordings_and_seed_make_the_same_dictionary(takes):
    one, same, other = learned(takes), learned(takes), learned(takes, seed=1)
    assert np.array_equal(one.atoms, same.atoms)
    assert not np.array_equal(one.atoms, other.atoms)
    assert np.allclose(one.atoms.sum(0), 1, atol=1e-5)


def test_another_rate_or_framing_is_refused_in_a_line(takes):
    estimator = NMF(learned(takes))
    for config, words in (
        (StreamConfig(48_000), "sr=16000, the stream has sr=48000"),
        (StreamConfig(SR, 512), "the stream has analysis=512"),
    ):
        with pytest.raises(ConfigError) as caught:
            Separator(config, estimator)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="needs a model: rtsep learn makes one"):
        rtsep.separate(np.zeros(100), SR, "nmf")


def write(path, x, sr=SR):
    sf.write(path, x, sr, "FLOAT")
    return [path]


@pytest.mark.parametrize(
    ("second", "settings", "words"),
    [
        (np.zeros(SR), {}, "b.wav: it is silent"),
        (np.full(SR, np.nan), {}, "b.wav: 16000 of its samples are not finite"),
        (notes(HIGH, 100), {}, "nothing can be heard of 'b'"),
        (notes(HIGH, 4000), {"n_atoms": 50}, "50 atoms of 'b' need as many frames"),
        (notes(HIGH), {"n_atoms": 0}, "n_atoms=0"),
        (notes(HIGH), {"divergence": "magic"}, "divergence='magic'"),
        (notes(HIGH), {"context_ms": (2000,)}, "context_ms=2000"),
        (notes(HIGH), {"hop_ms": 16.0}, "hop_ms=16 is too long"),
    ],
)
def test_what_nothing_can_be_learned_from_is_said_in_a_line(tmp_path, second, settings, words):
    recordings = {"a": write(tmp_path / "a.wav", notes(LOW)), "b": write(tmp_path / "b.wav", second)}
    with pytest.raises((ConfigError, FileError)) as caught:
        learn(recordings, **{"n_atoms": 8, **settings})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recordings_of_two_rates_need_to_be_told_which(tmp_path):
    recordings = {
        "a": write(tmp_path / "a.wav", notes(LOW)),
        "b": write(tmp_path / "b.wav", notes(HIGH, 3 * 24_000, sr=24_000), 24_000),
    }
    with pytest.raises(ConfigError, match="say sr=16000 or sr=24000"):
        learn(recordings, n_atoms=8)
    assert learn(recordings, n_atoms=8, sr=SR).framing.sr == SR
    with pytest.raises(ConfigError, match=r"knows 'a' alone.*--with-rest"):
        NMF(learn({"a": recordings["a"]}, n_atoms=8))


def test_the_command_learns_and_separate_takes_what_it_made(takes, capsys):
    model = takes / "duo.npz"
    options = ["learn", f"low={takes / 'low'}", f"high={takes / 'high' / 'take.wav'}", "-o", str(model)]
    assert main([*options, "--atoms", "12", "--plot"]) == 0
    said = capsys.readouterr().out
    assert "low from 2 s, high from 2 s; 12 atoms each, for streams of 16000 Hz" in said
    assert (takes / "duo.png").stat().st_size > 1000
    sf.write(takes / "mix.wav", notes(LOW, seed=5) + notes(HIGH, seed=6), SR)
    assert main(["separate", str(takes / "mix.wav"), "-o", str(takes / "out"), "--model", str(model)]) == 0
    assert sorted(p.name for p in (takes / "out").iterdir()) == ["mix.high.wav", "mix.low.wav"]
    capsys.readouterr()
    assert main([*options, "--atoms", "12"]) == 2
    assert "exists (--overwrite replaces it)" in capsys.readouterr().err


@pytest.mark.parametrize("sr", [11_025, 22_050, 44_100, 48_000])
def test_a_dictionary_is_for_streams_of_the_rate_that_it_learned_at(tmp_path, sr):
    for name, pitches in (("low", LOW), ("high", HIGH)):
        sf.write(tmp_path / f"{name}.wav", notes(pitches, sr, sr=sr), sr, "FLOAT")
    model = tmp_path / "duo.npz"
    assert main(["learn", *(f"{n}={tmp_path / n}.wav" for n in ("low", "high")), "-o", str(model), "--atoms", "4"]) == 0
    framing = read_dictionary(model).framing
    assert StreamConfig.from_ms(sr, **framing.times_ms) == framing.config
    assert main(["separate", str(tmp_path / "low.wav"), "-o", str(tmp_path / "out"), "--model", str(model)]) == 0


@pytest.mark.parametrize(
    ("sounds", "words"),
    [
        (["low"], "'low' is not NAME=PATH"),
        (["a=low", "a=high"], "two sounds have the name 'a'"),
        (["a=low", "b=empty"], "no recordings that can be read"),
        (["a=low", "b=nothing.wav"], "nothing.wav"),
        (["a/b=low", "b=high"], "cannot be part of a file name"),
    ],
)
def test_the_command_says_what_cannot_be_learned(takes, monkeypatch, capsys, sounds, words):
    monkeypatch.chdir(takes)
    (takes / "empty").mkdir()
    assert main(["learn", *sounds, "-o", "duo.npz"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (takes / "duo.npz").exists()


def repeating(seed=0, n=6 * SR):
    """A loop of 0.5 s, and a tone that glides over it: foreground and background."""
    rng, t = np.random.default_rng(seed), np.arange(n) / SR
    period = SR // 2
    loop = sum(
        np.where(np.arange(period) >= at, rng.normal(0, 0.2, period) * np.exp(-(np.arange(period) - at) / 600), 0)
        for at in rng.integers(0, period, 4)
    )
    return 0.1 * np.sin(2 * np.pi * (400 * t + 60 * t**2)), np.resize(loop, n)


@pytest.mark.parametrize(
    ("estimator", "least_db"),
    [
        (Repet(shortest_s=0.25, longest_s=1.0), 6),
        (AdaptiveRepet(shortest_s=0.25, longest_s=1.0, segment_s=3.0), 5),
        (RepetSim(distance_s=0.25, number=10), 2),
    ],
)
def test_a_loop_and_what_is_over_it_are_told_apart(estimator, least_db):
    foreground, background = repeating()
    x = foreground + background
    config = StreamConfig.from_ms(SR, 40)
    found = rtsep.separate(x, SR, estimator, config=config)
    assert np.abs(found.sum(0) - x).max() < 1e-4
    late = slice(3 * SR, None)  # in the stream something has come again by then
    assert si_sdr(background[late], found[1][late]) - si_sdr(background[late], x[late]) > least_db


def test_an_estimator_of_the_whole_signal_has_no_stream(tmp_path, capsys):
    with pytest.raises(ConfigError, match="estimator='repet' needs the whole signal"):
        Separator(StreamConfig(SR), "repet")
    foreground, background = repeating()
    x = np.stack([foreground + background] * 2)
    sf.write(tmp_path / "in.wav", x.T, SR, "FLOAT")
    options = ["separate", str(tmp_path / "in.wav"), "-o", str(tmp_path), "--estimator", "repet", "--window-ms", "40"]
    assert main(options) == 0
    parts = [sf.read(tmp_path / f"in.{name}.wav")[0].T for name in ("foreground", "background")]
    assert np.abs(sum(parts) - x).max() < 1e-4
    offline = rtsep.separate(x, SR, Repet(), "misi", config=StreamConfig.from_ms(SR, 40, n_channels=2))
    assert np.abs(offline.sum(0) - x).max() < 1e-4
    assert not rtsep.separate(np.zeros(SR), SR, "repet").any()
    for settings in ({"shortest_s": 5.0, "longest_s": 2.0}, {"cutoff_hz": -1.0}):
        with pytest.raises(ConfigError):
            Repet(**settings)
    with pytest.raises(ConfigError, match="a third of the time"):
        rtsep.separate(x[0, :SR], SR, "repet")
    with pytest.raises(ConfigError, match=r"segment_s=2 has no room for three periods of 1 s"):
        AdaptiveRepet(segment_s=2.0)
