"""Recipes, corpora and mixtures of the training; skipped without PyTorch."""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import lfilter, resample_poly

from rtsep import ConfigError

pytest.importorskip("torch", reason="needs PyTorch, the extra `train`")

from rtsep.training.corpus import Clip, Pool, check_disjoint, check_unseen, load_corpora, split_corpora
from rtsep.training.mixer import RESAMPLED, Mixer, _low_pass, _occasions, active_power, filter_rows
from rtsep.training.noises import GENERATORS, synthetic
from rtsep.training.pack import read_pack, write_pack
from rtsep.training.pitch import pitch_of
from rtsep.training.recipe import SHIPPED, Corpus, Mixtures, read_recipe, recipe_from
from rtsep.training.rooms import EARLY_S, draw_response, in_room

SR = 16_000
PLAIN = Mixtures(
    noise=1, noise_only=0, pauses=0, rooms=0, clipping=0, speed=0, noise_speed=1, babble=0, music=0, synthetic=0
)


def split_of(corpora, kind, skipped, least=1):
    return split_corpora(load_corpora(corpora, kind, skipped), least)


def refuse(path: Path, reason: str) -> None:
    raise AssertionError(f"{path}: {reason}")


def bursts(seed: int, seconds: float) -> np.ndarray:
    """Noise in bursts, like syllables."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SR)
    return 0.1 * rng.normal(size=n) * (np.arange(n) % 4000 < 2500)


def pool(seeds: range, seconds: float = 3.0) -> Pool:
    clips = [Clip(f"c/{i}", f"c/{i}", str(i), (32768 * bursts(i, seconds)).astype(np.int16)) for i in seeds]
    return Pool([(1.0, clips)])


@pytest.fixture
def folder(tmp_path):
    """Six speakers with two recordings each, `SPEAKER_NUMBER.wav`."""
    for i in range(12):
        sf.write(tmp_path / f"{'abcdef'[i // 2]}_{i % 2}.wav", bursts(i, 1.0), SR)
    return tmp_path


def corpus(**settings: object) -> Corpus:
    return Corpus("c", "CC0", "nowhere", **{"group": "^([a-z])_", "validation": 0.3} | settings)


def test_shipped_recipes_can_be_read_and_name_licence_and_source_of_every_corpus():
    names = [path.stem for path in SHIPPED.glob("*.toml")]
    assert {"speech", "talkers"} <= set(names)
    for name in names:
        recipe = read_recipe(Path(name))
        for part in (part for parts in recipe.corpora.values() for part in parts):
            assert part.licence
            assert part.source
        assert recipe_from(recipe.as_dict()) == recipe


@pytest.mark.parametrize("recipe", ["speech", "talkers"])
@pytest.mark.parametrize(
    ("kind", "name", "group"),
    [
        ("speech", "1183/124566/1183-124566-0001.flac", "1183"),  # in librispeech, as in its archive
        ("speech", "1183_F.ogg", "1183"),
        ("noise", "audio/1-100032-A-0.ogg", "1-100032"),
        ("noise", "dog_1-100032-A.ogg", "1-100032"),
        ("noise", "0ad/amb_rain_00.ogg", "0ad/amb_rain"),
        ("noise", "0ad_amb_rain_00.ogg", "0ad_amb_rain"),
    ],
)
def test_shipped_recipes_know_recordings_by_the_names_of_their_archives(recipe, kind, name, group):
    corpora = read_recipe(Path(recipe)).corpora[kind]
    side_by_side = [c for c in corpora if c.folder == corpora[0].folder]
    taken = [c for c in side_by_side if not (c.exclude and re.search(c.exclude, name))]
    assert re.search(taken[0].group, name)[1] == group
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixtures": {"talkers": 3}}, "talkers=3 is neither 1 nor 2"),
        ({"mixtures": {"loudness": 1.0}}, r"\[mixtures\] has 'loudness'; known are talkers"),
        ({"mixtures": {"snr_db": 5}}, r"\[mixtures\]: snr_db=5 is not a list"),
        ({"mixtures": {"snr_db": [5, -7, -7, 20]}}, "deviation in snr_db=-7.0 is not between 0 and 100"),
        ({"mixtures": {"level_db": [np.nan, -10]}}, r"level_db=\[nan, -10.0\] is not 2 numbers that end in a range"),
        ({"stages": {"name": "a"}}, r"\[\[stages\]\] needs two brackets"),
        ({"stages": [{"name": "a", "steps": 1, "batch": 1}]}, "has no 'seconds'"),
        ({"stages": [{"name": "a", "steps": 1.5, "batch": 1, "seconds": 1}]}, "steps=1.5 is not of type int"),
        ({"stages": [{"name": "a", "steps": 1, "batch": 1, "seconds": 0.3, "estoi": 1}]}, "not seconds=0.3"),
        ({"speech": []}, r"there is no \[\[speech\]\]"),
        ({"network": {"n_src": 3}}, "n_src=3, but the mixtures have 2 sources"),
        ({"speech": [{"name": "a", "licence": "b", "source": "c", "group": "("}]}, "is no regular expression"),
        ({"speech": [{"name": "a", "licence": "b", "source": "c", "group": "a{99999999999}"}]}, "is no regular expr"),
        ({"mixtures": {"level_db": [-1e308, 1e308]}}, r"level_db=-1e\+308 is not between -200 and 200"),
        ({"mixtures": {"talkers_db": [900, 900]}}, "talkers_db=900.0 is not between -200 and 200"),
        ({"stages": [{"name": "a", "steps": 1, "batch": 1, "seconds": 10**400}]}, "beyond what a float can be"),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_is_wrong(change, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from(read_recipe(Path("speech")).as_dict() | change)


@pytest.mark.parametrize("text", ["x=" + "[" * 5000, "x=" + "1" * 5001, "x="])
def test_what_toml_cannot_say_is_refused_with_the_file(text, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe .*r\.toml: "):
        read_recipe(path)


def test_a_folder_with_the_name_of_a_shipped_recipe_is_not_in_its_way(tmp_path, monkeypatch):
    (tmp_path / "speech").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_recipe(Path("speech")).name == "speech"


def test_a_missing_recipe_names_those_that_are_shipped(tmp_path):
    shipped = "speech, speech_small, talkers"
    with pytest.raises(ConfigError, match=f"No such file or directory; shipped ones: {shipped}"):
        read_recipe(tmp_path / "none.toml")


def test_no_speaker_is_on_both_sides_and_the_split_is_always_the_same(folder):
    split = split_of([(corpus(), folder)], "speech", refuse)
    training, validation = ({clip.group for clip in side.clips} for side in (split.training, split.validation))
    assert training.isdisjoint(validation)
    assert len(training) == 4
    assert len(validation) == 2
    assert len(split_of([(corpus(), folder)], "speech", refuse, least=3).validation) == 3
    again = split_of([(corpus(), folder)], "speech", refuse)
    assert again.as_dict() == split.as_dict()


def test_a_speaker_is_the_first_folder_however_deep_the_recordings_are(folder):
    for name in ("anna/monday/long", "anna/tuesday", "ben/monday", "ben"):
        (folder / "deep" / name).mkdir(parents=True, exist_ok=True)
        sf.write(folder / "deep" / name / "x.wav", bursts(len(name), 1.0), SR)
    split = split_of([(corpus(group="", validation=0.5), folder / "deep")], "speech", refuse)
    assert {clip.group for side in (split.training, split.validation) for clip in side.clips} == {"c/anna", "c/ben"}


def test_speech_without_folders_for_its_speakers_is_refused(folder):
    with pytest.raises(ConfigError, match="has no subfolders: it needs one for each speaker"):
        split_of([(corpus(group=""), folder)], "speech", refuse)
    assert len(split_of([(corpus(group="", validation=0.0), folder)], "speech", refuse).training) == 1
    assert len(split_of([(corpus(group="", known=True), folder)], "speech", refuse).training) == 1
    assert len(split_of([(corpus(group=""), folder)], "noise", refuse).training) > 1


def test_known_voices_are_validated_with_the_end_of_each_recording(folder):
    split = split_of([(corpus(known=True, validation=0.25), folder)], "speech", refuse)
    first = {clip.name: clip.samples for clip in split.training.clips}
    last = {clip.name: clip.samples for clip in split.validation.clips}
    assert set(first) == set(last)
    for name, samples in first.items():
        whole = (32768 * sf.read(folder / name.removeprefix("c/"))[0]).astype(int)
        assert samples.size == 0.75 * SR
        np.testing.assert_allclose(np.concatenate([samples, last[name]]), whole, atol=1.5)


def test_a_speaker_or_a_content_on_both_sides_is_an_error():
    x = np.zeros(SR, np.int16)
    one = Clip("c/a_1.wav", "c/a", "1", x)
    with pytest.raises(ConfigError, match=r"'c/a' is in training \(c/a_1.wav\) and in validation \(c/a_2.wav\)"):
        check_disjoint([one], [Clip("c/a_2.wav", "c/a", "2", x)])
    with pytest.raises(ConfigError, match=r"c/b\.wav is in validation, and in training as c/a_1.wav"):
        check_disjoint([one], [Clip("c/b.wav", "c/b", "1", x)])


def test_a_test_recording_in_training_is_refused(folder, tmp_path):
    split = split_of([(corpus(validation=0.0), folder)], "speech", refuse)
    (tmp_path / "test").mkdir()
    sf.write(tmp_path / "test" / "x.wav", bursts(99, 1.0), SR, subtype="PCM_16")
    check_unseen(split.training.clips, [tmp_path / "test"], refuse)
    x, _ = sf.read(folder / "d_1.wav", dtype="int16")
    sf.write(tmp_path / "test" / "y.flac", x, SR)
    with pytest.raises(ConfigError, match=r"y\.flac is for testing, and in training as c/d_1.wav"):
        check_unseen(split.training.clips, [tmp_path / "test"], refuse)


def test_missing_and_empty_folders_are_named_with_where_to_get_the_corpus(folder):
    with pytest.raises(ConfigError, match="there is no such folder; 'c' is from nowhere"):
        split_of([(corpus(), folder / "none")], "speech", refuse)
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="no recordings that can be read"):
        split_of([(corpus(), folder / "empty")], "speech", refuse)


def test_a_file_that_cannot_be_read_is_named_and_left_out(folder):
    (folder / "a_7.wav").write_bytes(b"not audio")
    named = []
    split = split_of([(corpus(), folder)], "speech", lambda path, reason: named.append(path.name))
    assert named == ["a_7.wav"]
    assert split.as_dict()["recordings"] == 8


def test_what_teaches_nothing_is_named_and_left_out(folder):
    sf.write(folder / "g_0.wav", np.zeros(SR), SR)
    sf.write(folder / "g_1.wav", np.full(SR, np.nan), SR, "FLOAT")
    sf.write(folder / "g_2.flac", sf.read(folder / "a_0.wav", dtype="int16")[0], SR)
    skipped = {}
    split = split_of([(corpus(), folder)], "speech", lambda path, why: skipped.update({path.name: why}))
    assert skipped == {
        "g_0.wav": "is silent",
        "g_1.wav": "has samples that are not finite",
        "g_2.flac": f"has the samples of {folder / 'a_0.wav'}",
    }
    assert len(split.training) + len(split.validation) == 6


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_and_recordings_of_less_than_100_ms(folder):
    try:
        (folder / "f_0.wav").rename(os.fsdecode(bytes(folder) + b"/\xff\xe9_0.wav"))
    except OSError:
        pytest.skip("a file system whose names are text")
    sf.write(folder / "f_1.wav", bursts(0, 0.09), SR)
    named = []
    split = split_of([(corpus(group="^(.+)_"), folder)], "speech", lambda *why: named.append(why))
    assert named == [(folder / "f_1.wav", "lasts less than 0.1 s")]
    assert len(split.training) + len(split.validation) == 6
    json.dumps(split.as_dict()).encode()


def test_mixtures_depend_on_seed_and_number_alone():
    for mixtures in (Mixtures(), Mixtures(talkers=2)):
        one, two = (Mixer(mixtures, pool(range(5)), pool(range(5, 9)), Pool([]), seed=3) for _ in range(2))
        assert np.array_equal(one.batch(0, 6, SR)[0], np.stack([two.make(i, SR)[0] for i in range(6)]))
        other = Mixer(mixtures, pool(range(5)), pool(range(5, 9)), Pool([]), seed=4)
        assert not np.array_equal(one.make(0, SR)[0], other.make(0, SR)[0])


def test_mixtures_are_finite_float32_below_full_scale_and_have_all_kinds():
    mixer = Mixer(Mixtures(babble=0.3, noise_only=0.2), pool(range(5)), pool(range(5, 9)), pool(range(9, 11)), seed=0)
    batch, distinct, _ = mixer.batch(0, 80, SR)
    assert not distinct.any()  # a single talker has no order
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert np.abs(batch.sum(1)).max() < 1.01
    silent = (np.abs(batch[:, 0]).max(1) == 0).mean()
    assert 0.08 < silent < 0.35  # 0.2 of 80
    assert (np.mean(batch[:, 1] ** 2, 1) > 0).all()  # a microphone is never silent


@pytest.mark.parametrize("snr_db", [-5.0, 12.0])
@pytest.mark.parametrize("talkers", [1, 2])
def test_snr_and_level_are_as_asked(snr_db, talkers):
    mixtures = replace(PLAIN, talkers=talkers, snr_db=(snr_db, 0, -20, 30), level_db=(-20, -20), talkers_db=(-3, -3))
    mixer = Mixer(mixtures, pool(range(5), 9.0), pool(range(5, 9), 9.0), Pool([]), seed=0)
    ratios, levels = [], []
    for i in range(100):
        sources, _, _ = mixer.make(i, 2 * SR)
        ratios.append(10 * np.log10(active_power(sources[:-1].sum(0)) / active_power(sources[-1])))
        if np.abs(sources.sum(0)).max() < 0.97:
            levels.append(10 * np.log10(np.mean(sources.sum(0) ** 2)))
    # The microphone's filter comes last, and turns one of them up or down.
    assert np.mean(ratios) == pytest.approx(snr_db, abs=0.7)
    np.testing.assert_allclose(np.quantile(ratios, [0.05, 0.95]), snr_db, atol=4)
    np.testing.assert_allclose(levels, -20, atol=0.1)


def test_shares_of_mixtures_are_as_asked():
    for name, finds in (
        ("noise_only", lambda sources: np.abs(sources[0]).max() == 0),
        ("clipping", lambda sources: (np.abs(np.diff(np.sort(np.abs(sources.sum(0)))[-9:])) < 1e-6).all()),
        ("pauses", lambda sources: (np.abs(sources[0]).reshape(-1, SR // 10).max(1) == 0).sum() >= 2),
    ):
        for share, expected in ((0, 0), (1, 1)):
            mixer = Mixer(replace(PLAIN, **{name: share}), pool(range(5), 9.0), pool(range(5, 9)), Pool([]), seed=0)
            found = np.mean([finds(mixer.make(i, 2 * SR)[0]) for i in range(10)])
            assert found == pytest.approx(expected, abs=0.2), name


def test_two_talkers_are_never_the_same_speaker():
    mixer = Mixer(replace(PLAIN, talkers=2), pool(range(2), 9.0), pool(range(5, 9)), Pool([]), seed=0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        heard: list[str] = []
        for _ in range(2):
            mixer._speaker(rng, heard)
        assert len(set(heard)) == 2


def test_the_talker_is_enrolled_by_other_recordings():

    def pitch(x):
        return pitch_of((2e4 * x / np.abs(x).max()).astype(np.int16))

    clips = [
        Clip(f"c/{j}_{i}", f"c/{j}", f"{j}{i}", voice(hz * (1 + 0.02 * i)))
        for j, hz in enumerate((100, 180))
        for i in range(4)
    ]
    mixtures = replace(PLAIN, others=1.0, noise=0.0, rooms=0.0, noise_only=0.3)
    mixer = Mixer(mixtures, Pool([(1.0, clips)]), pool(range(5, 9)), Pool([]), seed=0, enrol_s=2.0)
    sources, distinct, enrolments = mixer.batch(0, 16, 2 * SR)
    assert (enrolments.shape, sources.shape) == ((16, 2 * SR), (16, 2, 2 * SR))
    assert not distinct.any()
    silent = ~sources[:, 0].any(1)
    assert 1 <= silent.sum() <= 10
    assert sources[:, 1].any(1).all()  # somebody else is always there
    for target, rest, enrolled in zip(*sources[~silent].transpose(1, 0, 2), enrolments[~silent], strict=True):
        same, other = (abs(np.log(pitch(x) / pitch(enrolled))) for x in (target, rest))
        assert same < 0.15 < other
    there, group = _occasions(np.random.default_rng(0), clips[:4], 2 * SR)
    assert {clip.name for clip in there + group} == {clip.name for clip in clips[:4]}
    assert len(there) == 1
    half_silent = clips[0].samples * (np.arange(clips[0].samples.size) < clips[0].samples.size // 3)
    for whole in (clips[0].samples, half_silent):
        parts = _occasions(np.random.default_rng(0), [replace(clips[0], samples=whole)], 9 * SR)
        first, second = sorted(
            (part[0].samples for part in parts), key=lambda x: x.tobytes() != whole[: x.size].tobytes()
        )
        np.testing.assert_array_equal(np.concatenate([first, second]), whole)
        assert np.abs(first.astype(float)).sum() == pytest.approx(np.abs(second.astype(float)).sum(), rel=0.01)


def voice(hz: float, seconds: float = 3.0) -> np.ndarray:
    """A harmonic sound in syllables, int16."""
    t = np.arange(int(seconds * SR)) / SR
    harmonics = sum(np.sin(2 * np.pi * k * hz * t + k * k) / k for k in range(1, int(4_000 / hz)))
    return (3_000 * harmonics * (t % 0.25 < 0.18)).astype(np.int16)


@pytest.mark.parametrize("hz", [72, 95, 130, 178, 240, 310, 385])
def test_the_pitch_of_a_voice_is_its_fundamental_frequency(hz):
    rng = np.random.default_rng(hz)
    clean = voice(hz)
    for x in (clean, clean + 300 * rng.normal(size=clean.size)):
        assert pitch_of(x) == pytest.approx(hz, rel=0.03)
    assert pitch_of(clean / 2**20) == pitch_of(clean)


def test_a_pitch_is_found_after_a_long_silence():
    quiet = np.random.default_rng(1).integers(-5, 6, 9 * SR).astype(np.int16)
    assert pitch_of(np.concatenate([quiet, voice(178)])) == pytest.approx(178, rel=0.03)


@pytest.mark.parametrize("x", [np.zeros(SR), np.random.default_rng(0).normal(size=SR), voice(100)[:900], np.ones(3)])
def test_what_has_no_pitch_has_none(x):
    assert np.isnan(pitch_of(x))


def test_the_lower_voice_comes_first_and_close_ones_are_not_distinct():
    def mixer(first, second):
        clips = [Clip(f"c/{hz}", f"c/{hz}", str(hz), voice(hz, 9.0)) for hz in (first, second)]
        return Mixer(replace(PLAIN, talkers=2, speed=0.02), Pool([(1.0, clips)]), pool(range(5, 9)), Pool([]), seed=0)

    sources, distinct, _ = mixer(120, 190).batch(0, 12, 3 * SR)
    both = np.abs(sources[:, :2]).max(2).all(1)  # some mixtures have one talker
    assert np.array_equal(distinct, both)
    assert both.sum() > 8
    for low, high in sources[both, :2]:
        assert 114 < pitch_of(low) < 126 < 182 < pitch_of(high) < 198
    assert not mixer(150, 165).batch(0, 12, 3 * SR)[1].any()


def test_two_talkers_are_mostly_of_one_corpus(monkeypatch):
    """Else it would learn to tell microphones apart."""
    corpora = [(1.0, [Clip("c", f"{c}/{hz}", f"{c}{hz}", voice(hz, 3.0)) for hz in (100, 200)]) for c in "ab"]
    mixer = Mixer(replace(PLAIN, talkers=2), Pool(corpora), Pool([]), Pool([]), seed=0)
    talks, heard = mixer._talk, []
    monkeypatch.setattr(mixer, "_talk", lambda *of: heard.append(of[2][0].group) or talks(*of))
    same = []
    for i in range(80):
        heard.clear()
        mixer.make(i, SR)
        if len(heard) == 2:
            assert heard[0] != heard[1]
            same.append(heard[0][0] == heard[1][0])
    assert np.mean(same) == pytest.approx(0.6 + 0.4 / 3, abs=0.15)


def test_known_voices_keep_their_order_however_close():
    clips = [Clip(f"c/{hz}", f"c/{hz}", str(hz), voice(hz, 9.0), known=True) for hz in (165, 150)]
    mixtures = replace(PLAIN, talkers=2, speed=0.01)
    mixer = Mixer(mixtures, Pool([(1.0, clips)]), pool(range(5, 9)), Pool([]), seed=0)
    assert mixer.known == ["c/150", "c/165"]
    sources, distinct, _ = mixer.batch(0, 80, 3 * SR)
    assert distinct.all()
    present = np.abs(sources[:, :2]).max(2) > 0
    assert {tuple(row) for row in present} == {(True, True), (True, False), (False, True)}
    for pair, there in zip(sources[:, :2], present, strict=True):
        for source, hz in zip(pair[there], np.array((150, 165))[there], strict=True):
            octaves = np.log2(pitch_of(source) / hz)
            assert octaves - round(octaves) == pytest.approx(0, abs=0.06)  # the other one is 0.14 away


def test_known_voices_are_never_the_babble_of_the_noise():
    own = [Clip(f"c/{hz}", f"c/{hz}", str(hz), voice(hz, 3.0), known=True) for hz in (150, 165)]
    babble = replace(PLAIN, babble=1.0)
    alone = Mixer(babble, Pool([(1.0, own)]), Pool([]), Pool([]), 0)
    assert np.isfinite(alone.make(0, SR)[0]).all()  # synthetic noise in its place
    drawn = set()
    speech = Pool([(100.0, own), (1.0, [Clip("g/200", "g/200", "200", voice(200))])])
    both = Mixer(babble, speech, Pool([]), Pool([]), 0)
    draw = speech.draw

    def note(*of):
        group = draw(*of)
        drawn.add(group[0].group)
        return group

    speech.draw = note
    both._noise(np.random.default_rng(0), SR)
    assert drawn == {"g/200"}


def test_who_is_heard_is_not_in_the_babble_too():
    two = pool(range(2))
    mixer = Mixer(replace(PLAIN, babble=1.0), two, Pool([]), Pool([]), 0)
    draw, drawn = two.draw, []

    def note(*of, **more):
        group = draw(*of, **more)
        drawn.append(group[0].group)
        return group

    two.draw = note
    for index in range(20):
        drawn.clear()
        mixer.make(index, SR // 2)
        assert drawn[0] not in drawn[1:]


def test_where_only_known_voices_are_left_there_is_no_babble():
    own = [Clip("own/me", "own/me", "me", voice(150, 3.0), known=True)]
    speech = Pool([(1.0, own), (1.0, [Clip("g/", "g/", "200", voice(200))])])
    mixer = Mixer(replace(PLAIN, babble=1.0), speech, Pool([]), Pool([]), 0)
    speech.draw = lambda *of, **more: pytest.fail("a voice was drawn")
    assert np.isfinite(mixer._noise(np.random.default_rng(0), SR, ["g/"])).all()


def test_a_voice_that_is_seldom_drawn_is_still_another_one():
    long, short = (Clip(f"c/{i}", f"c/{i}", str(i), np.ones(n, np.int16)) for i, n in enumerate((20 * SR, SR // 10)))
    pool, rng = Pool([(1.0, [long, short])]), np.random.default_rng(0)
    assert {pool.draw(rng, ["c/0"])[0].group for _ in range(100)} == {"c/1"}
    assert pool.draw(rng, ["c/0", "c/1"])[0].group in ("c/0", "c/1")


def test_the_room_leaves_the_direct_sound_in_place_and_is_a_convolution():
    rng = np.random.default_rng(0)
    response = draw_response(rng, 0.4)
    assert response[0] == 1
    assert np.argmax(np.abs(response)) == 0
    early, late = np.split(response, [round(EARLY_S * SR)])
    assert -21 < 10 * np.log10(late @ late / (early @ early)) < -2
    x = rng.normal(size=2000).astype(np.float32)
    np.testing.assert_allclose(in_room(x, response), np.convolve(x, response)[:2000], atol=1e-4)


def test_speech_in_a_room_stays_there_and_nothing_of_it_is_residual():
    mixer = Mixer(replace(PLAIN, noise=0, rooms=1), pool(range(3)), Pool([]), Pool([]), 0)
    for index in range(5):
        (talker, residual), _, _ = mixer.make(index, SR)
        assert talker.std() > 10 ** (-46 / 20)
        assert residual.std() < 10 ** (-59 / 20)  # the noise of the microphone


def test_a_packed_corpus_is_that_of_the_folders_but_for_its_codec(folder, tmp_path):
    one, other = corpus(), Corpus("other", "CC0", "nowhere", group="^([a-z])_", validation=1.0)
    loaded = {"speech": load_corpora([(one, folder)], "speech", refuse), "noise": [], "music": []}
    loaded["speech"].append(
        (
            other,
            [
                replace(c, name=f"other{c.name[1:]}", group=f"other{c.group[1:]}", digest=f"o{c.digest}")
                for c in loaded["speech"][0][1]
            ],
        )
    )
    long = np.tile(loaded["speech"][0][1][0].samples, 400)  # of a length that libvorbis cannot take at once
    loaded["speech"][1][1].append(replace(loaded["speech"][1][1][0], name="other/a_long", digest="long", samples=long))
    path = tmp_path / "corpus.zip"
    write_pack(path, loaded, 2)
    assert path.stat().st_size < 0.3 * sum(2 * clip.samples.size for _, clips in loaded["speech"] for clip in clips)
    again = read_pack(path, {"speech": (one, other), "noise": (), "music": ()}, 2)
    assert split_corpora(again["speech"]).as_dict() == split_corpora(loaded["speech"]).as_dict()
    for (_, expected), (_, found) in zip(loaded["speech"], again["speech"], strict=True):
        for before, after in zip(sorted(expected, key=lambda clip: clip.group), found, strict=True):
            assert (before.name, before.group, before.digest) == (after.name, after.group, after.digest)
            error = after.samples.astype(float) - before.samples
            assert np.std(error) < 0.5 * np.std(before.samples.astype(float))  # noise is what Vorbis is worst at
    assert len(read_pack(path, {"speech": (other,)}, 1)["speech"]) == 1
    each = read_pack(path, {"speech": (replace(other, group="^(.+)$"),)}, 1)["speech"][0][1]  # packed by another recipe
    assert {clip.group for clip in each} == {clip.name for clip in each}
    with pytest.raises(ConfigError, match="has no c"):
        read_pack(path, {"noise": (one,)}, 1)
    for change in ({"exclude": "^a"}, {"range_db": 30.0}):
        with pytest.raises(ConfigError, match=rf"'c' was packed with {next(iter(change))}="):
            read_pack(path, {"speech": (replace(one, **change),)}, 1)


def test_a_damaged_pack_is_refused(folder, tmp_path):
    one, path = corpus(), tmp_path / "corpus.zip"
    write_pack(path, {"speech": load_corpora([(one, folder)], "speech", refuse)}, 1)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        index, streams = json.loads(file.read("index.json")), {n: file.read(n) for n in file.namelist()}
    assert len(read_pack(path, {"speech": (one,)}, 1)["speech"][0][1]) == 12
    at = good.index(b"index.json") + 10
    for data in (good[:1000], *(good[:i] + bytes([good[i] ^ 16]) + good[i + 1 :] for i in range(at, at + 60, 3))):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="cannot be used as a packed corpus: "):
            read_pack(path, {"speech": (one,)}, 1)
    name, digest, _ = index[0]["clips"][0]
    for wrong in (
        5,
        [1],
        {"a": 1},
        [index[0] | {"group": None}],
        [index[0] | {"clips": [[name, digest, 1.5]]}],
        [index[0] | {"clips": [[name, digest, -5]]}],
        [index[0] | {"range_db": "x"}],
        [{name: value for name, value in index[0].items() if name != "exclude"}],  # of an earlier version
    ):
        with zipfile.ZipFile(path, "w") as file:
            for stream, data in (streams | {"index.json": json.dumps(wrong)}).items():
                file.writestr(stream, data)
        with pytest.raises(ConfigError, match="cannot be used as a packed corpus: "):
            read_pack(path, {"speech": (one,)}, 1)


@pytest.mark.parametrize("least", [1, 2])
def test_what_is_for_validation_alone_is_never_trained_on(folder, least):
    loaded = load_corpora([(corpus(validation=1.0, group="^"), folder)], "speech", refuse)
    split = split_corpora(loaded, least)
    assert (len(split.training), len(split.validation)) == (0, 1)
    most = split_corpora(load_corpora([(corpus(validation=0.95), folder)], "speech", refuse), least)
    assert (len(most.training), len(most.validation)) == (1, 5)


def test_noisy_recordings_are_left_out_where_a_recipe_says_so(folder):
    reasons = []
    sf.write(folder / "a_9.wav", bursts(1, 1.0) + np.random.default_rng(0).normal(0, 0.05, SR), SR)
    loaded = load_corpora(
        [(corpus(range_db=30.0), folder)], "speech", lambda path, reason: reasons.append((path, reason))
    )
    assert reasons == [(folder / "a_9.wav", "has less than 30 dB between loud and quiet frames")]
    assert len(loaded[0][1]) == 12


def test_the_random_filter_is_that_of_scipy_and_stable():
    rng = np.random.default_rng(0)
    x, out = rng.normal(size=(2, 500)).astype(np.float32), np.empty((2, 500), np.float32)
    b1, b2, a1, a2 = np.float32([0.3, -0.2, -0.37, 0.37])
    filter_rows(x, b1, b2, a1, a2, out)
    np.testing.assert_allclose(out, lfilter([1, b1, b2], [1, a1, a2], x), atol=1e-4)


def test_recorded_noise_is_heard_at_other_speeds():
    tone = (10_000 * np.sin(2 * np.pi * 1000 / SR * np.arange(4 * SR))).astype(np.int16)
    tones = Pool([(1.0, [Clip("tone", "tone", "0", tone)])])
    pitches = {}
    for most in (1.0, 2.0):
        mixer = Mixer(replace(PLAIN, noise_speed=most), pool(range(2)), tones, Pool([]), seed=0)
        heard = [mixer._recorded(np.random.default_rng(i), tones, SR) for i in range(30)]
        assert {x.size for x in heard} == {SR}
        pitches[most] = np.array([np.abs(np.fft.rfft(x * np.hanning(SR))).argmax() for x in heard])
    np.testing.assert_allclose(pitches[1.0], 1000, atol=1)
    assert 500 <= pitches[2.0].min() < 700
    assert 1400 < pitches[2.0].max() <= 2000


def test_the_filter_of_every_speed_is_the_one_that_scipy_designs():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for speed in (*range(16, RESAMPLED), *range(RESAMPLED + 1, 151)):
        expected = resample_poly(x, RESAMPLED, speed)
        np.testing.assert_allclose(resample_poly(x, RESAMPLED, speed, window=_low_pass(speed)), expected, atol=1e-4)


def test_synthetic_noises_are_finite_and_not_silent():
    for seed in range(20):
        x = synthetic(np.random.default_rng(seed), SR)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert x.std() > 1e-3
    assert all(g(np.random.default_rng(0), 1000).shape == (1000,) for g in GENERATORS)
