"""Factorisations of whole signals as estimators: through `rtsep.separate`, and the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import lfilter
from test_known_sounds import HIGH, LOW, SR, learned, notes, si_sdr, takes  # noqa: F401  a fixture

import rtsep
from rtsep import ConfigError, Separator, StreamConfig
from rtsep.cli import main
from rtsep.estimators import (
    EMISNMF,
    HRNMF,
    NMF,
    BinaryNMF,
    BlindLevyNMF,
    BlindNMF,
    ComplexBetaNMF,
    ComplexISNMF,
    ComplexNMF,
    WholeNMF,
)
from rtsep.factorise.factors import told_to
from rtsep.learn import learn

WITH_MODEL = [WholeNMF, ComplexNMF, ComplexISNMF, ComplexBetaNMF, EMISNMF, BinaryNMF]
BLIND = [BlindNMF, BlindLevyNMF, EMISNMF, HRNMF]


def tones(n=SR // 2, sr=SR):
    """Two tones, struck one after the other, then both: what components of one atom can be."""
    t = np.arange(n) / sr

    def struck(hz, starts):
        late = t - np.array(starts)[:, None]
        sound = 0.1 * np.sin(2 * np.pi * hz * late) * np.exp(-12 * late)
        return np.where(late >= 0, sound, 0).sum(0)

    hiss = np.random.default_rng(0).normal(0, 1e-4, (2, n))  # digital silence is for the other tests
    return np.stack([struck(440, [0.01, 0.33]), struck(1500, [0.17, 0.33])]) + hiss


def bursts(n=SR // 2):
    """Two coloured noises with envelopes of their own: what IS-NMF takes sources for."""
    rng, t = np.random.default_rng(1), np.arange(n) / SR
    low = lfilter([0.3], [1, -0.9], rng.normal(0, 0.1, n)) * (0.02 + np.exp(-9 * (t % 0.25)))
    high = lfilter([0.3], [1, 0.9], rng.normal(0, 0.1, n)) * (0.02 + np.exp(-12 * ((t + 0.1) % 0.17)))
    return np.stack([low, high])


@pytest.mark.parametrize("kind", WITH_MODEL)
def test_a_dictionary_separates_whole_signals(takes, kind):  # noqa: F811
    sources = np.stack([notes(LOW, SR, seed=11), notes(HIGH, SR, seed=12)])
    x = sources.sum(0)
    found = rtsep.separate(x, SR, kind(learned(takes), **({} if kind is BinaryNMF else {"n_iter": 10})))
    assert np.abs(found.sum(0) - x).max() < 1e-4
    assert min(si_sdr(s, e) - si_sdr(s, x) for s, e in zip(sources, found, strict=True)) > 5
    assert not rtsep.separate(np.zeros(2000), SR, kind(learned(takes), n_iter=2)).any()


@pytest.mark.parametrize("kind", BLIND)
def test_components_are_found_without_a_model(kind):
    sources = tones() if kind is HRNMF else bursts()
    x = np.stack([sources.sum(0), sources[0] - 0.5 * sources[1]])
    found = rtsep.separate(x, SR, kind(components=2, n_iter=20 if kind is HRNMF else 100))
    assert found.shape == (2, 2, x.shape[1])
    assert np.abs(found.sum(0) - x).max() < 1e-4
    # In any order; the same in both channels.
    gains = [[si_sdr(s, e[0]) - si_sdr(s, x[0]) for e in found] for s in sources]
    best = max((0, 1), (1, 0), key=lambda order: sum(gains[i][j] for i, j in enumerate(order)))
    assert min(gains[i][j] for i, j in enumerate(best)) > 6
    assert si_sdr(sources[0], found[best[0]][1]) > 6
    assert not rtsep.separate(np.zeros(2000), SR, kind(components=2, n_iter=2)).any()


def test_what_finds_phases_itself_is_heard_with_them(takes):  # noqa: F811
    x = notes(LOW, 4000) + notes(HIGH, 4000)
    estimator = ComplexISNMF(learned(takes), n_iter=2)
    with pytest.raises(ConfigError, match=r"complex_isnmf finds the phases itself; leave phase='omisi'"):
        rtsep.separate(x, SR, estimator, "omisi")
    with pytest.raises(ConfigError, match="estimator='complex_isnmf' needs the whole signal"):
        Separator(StreamConfig(SR), estimator)
    other = StreamConfig(SR, 512)
    with pytest.raises(ConfigError, match="the model is for"):
        rtsep.separate(x, SR, estimator, config=other)


def test_iterations_and_their_cost_are_told():
    told = []
    with told_to(lambda *values: told.append(values)):
        rtsep.separate(tones().sum(0), SR, BlindNMF(2, n_iter=5))
    assert [(done, total) for done, total, _ in told] == [(i + 1, 5) for i in range(5)]
    costs = [cost for _, _, cost in told]
    assert costs == sorted(costs, reverse=True)
    rtsep.separate(tones().sum(0), SR, BlindNMF(2, n_iter=5))
    assert len(told) == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BlindNMF(0), "components=0"),
        (lambda: BlindNMF(2, beta=9), "beta=9"),
        (lambda: HRNMF(65), "components=65"),
        (lambda: EMISNMF(), "either a model"),
        (lambda: ComplexNMF(), "needs a model"),
        (lambda: rtsep.separate(np.ones(60 * SR), SR, HRNMF(8, order=3)), "GB of memory"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_commands_take_components_models_and_the_rest(takes, capsys):  # noqa: F811
    sf.write(takes / "x.wav", tones().sum(0), SR, "FLOAT")
    start = ["separate", str(takes / "x.wav"), "-o"]
    assert main([*start, str(takes / "blind"), "--estimator", "levy_nmf", "--components", "3"]) == 0
    assert len(list((takes / "blind").iterdir())) == 3
    assert main([*start, str(takes / "nmf"), "--components", "2"]) == 0  # says nmf without saying so
    assert sorted(p.name for p in (takes / "nmf").iterdir()) == ["x.component1.wav", "x.component2.wav"]
    model = str(takes / "duo.npz")
    sounds = [f"{name}={takes / name}" for name in ("low", "high")]
    assert main(["learn", *sounds, "-o", model, "--atoms", "6", "--divergence", "0.5"]) == 0
    assert main([*start, str(takes / "rest"), "--model", model, "--with-rest"]) == 0
    assert sorted(p.name for p in (takes / "rest").iterdir()) == ["x.high.wav", "x.low.wav", "x.rest.wav"]
    assert main([*start, str(takes / "em"), "--model", model, "--estimator", "em_isnmf", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out[-3000:].partition("{")[2].join(["{", ""]))["settings"]
    assert settings["estimator"]["name"] == "em_isnmf"
    assert (settings["window_ms"], settings["latency_ms"]) == (64, 16)  # those that the model is for
    for options, words in (
        (["--estimator", "kam", "--components", "2"], "does not take --components=2"),
        (["--estimator", "nmf", "--components", "0"], "components=0"),
        (["--estimator", "levy_nmf", "--model", model], "--divergence 0.5, not levy"),
        (["--estimator", "complex_nmf", "--model", model, "--iterations", "3"], "finds the phases itself"),
    ):
        assert main([*start, str(takes / "no"), *options]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    for name in (
        "whole_nmf",
        "blind_nmf",
        "complex_nmf",
        "complex_isnmf",
        "complex_beta_nmf",
        "em_isnmf",
        "hrnmf",
        "binary_nmf",
    ):
        line = next(line for line in listed.splitlines() if line.strip().startswith(f"{name} "))
        assert "whole signal" in line


@pytest.mark.parametrize("kind", [NMF, WholeNMF])
def test_the_rest_is_what_is_not_known(takes, kind):  # noqa: F811
    """A voice alone is known; a hiss that comes to it goes to the rest, and from there on ever better."""
    known, n = notes(LOW, 4 * SR, seed=11), 4 * SR
    hiss = np.random.default_rng(0).normal(0, 0.03, n)
    hiss = np.diff(hiss, prepend=0)  # nothing like the tones
    estimator = kind(learn({"low": [takes / "low" / "take.wav"]}, n_atoms=12), with_rest=True)
    found = rtsep.separate(known + hiss, SR, estimator)
    late = slice(2 * SR, None)
    assert si_sdr(known[late], found[0][late]) - si_sdr(known[late], (known + hiss)[late]) > 5
    assert si_sdr(hiss[late], found[1][late]) > 5


@pytest.mark.parametrize("divergence", ["kl", "is", "euclidean", "levy", 0.5])
def test_the_whole_signal_is_found_by_the_divergence_of_the_model_at_any_level(takes, divergence):  # noqa: F811
    sources = np.stack([notes(LOW, SR, seed=11), notes(HIGH, SR, seed=12)])
    x = sources.sum(0)
    model = learned(takes, divergence=divergence)
    found = rtsep.separate(x, SR, WholeNMF(model, 20))
    assert min(si_sdr(s, e) - si_sdr(s, x) for s, e in zip(sources, found, strict=True)) > 5
    soft = rtsep.separate(1e-3 * x, SR, WholeNMF(model, 20))
    assert np.abs(1e3 * soft - found).max() < 0.01


def test_an_evaluation_takes_whole_signals_and_says_so(takes, capsys):  # noqa: F811
    for seed in (1, 2):
        sources = {"low": notes(LOW, 8000, seed=seed), "high": notes(HIGH, 8000, seed=seed + 10)}
        for name, x in (sources | {"mixture": sum(sources.values())}).items():
            (takes / "corpus" / name).mkdir(parents=True, exist_ok=True)
            sf.write(takes / "corpus" / name / f"{seed}.wav", x, SR, "FLOAT")
    model = str(takes / "duo.npz")
    assert main(["learn", *(f"{name}={takes / name}" for name in ("low", "high")), "-o", model, "--atoms", "8"]) == 0
    setups = ["nmf", "whole_nmf", "nmf+omisi:2:1", "nmf+misi:2"]
    options = ["-o", str(takes / "known"), "--model", model, "--jobs", "1", "--compare", *setups]
    assert main(["evaluate", str(takes / "corpus"), *options]) == 0
    summary = json.loads((takes / "known" / "summary.json").read_text())
    found = {setup["label"]: setup["latency"] for setup in summary["evaluation"]["setups"]}
    whole = {"whole_nmf", "nmf+misi:2"}
    assert found == {"nmf": "16 ms", "nmf+omisi:2:1": "20 ms"} | dict.fromkeys(whole, "whole signal")
    gains = [e["mean"] for e in summary["all"] if (e["setup"], e["column"]) == ("whole_nmf", "si_sdr_gain")]
    assert min(gains) > 5
    line = "whole signal, `whole_nmf` and `nmf+misi:2`"
    assert line in capsys.readouterr().out
    assert "whole signal, <code>whole_nmf</code>" in (takes / "known" / "report.html").read_text()
    options = ["-o", str(takes / "blind"), "--components", "2", "--estimator", "nmf", "--jobs", "1"]
    assert main(["evaluate", str(takes / "corpus"), *options]) == 0
    assert "Latency: whole signal." in capsys.readouterr().out
