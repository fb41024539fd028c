"""Losses, the loop and `rtsep train`; skipped without PyTorch."""

# ruff: noqa: E402
from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import naive
import numpy as np
import pytest
import soundfile as sf
from models import random_model
from signals import voices

import rtsep
from rtsep import ConfigError, StreamConfig
from rtsep.cli import main
from rtsep.cli.signals import WORDS
from rtsep.estimators import Oracle, Speech, Talkers
from rtsep.estimators.bands import expansion_bands
from rtsep.estimators.enrolment import read_voices
from rtsep.estimators.model_file import TOP_BANDS, Shape, read_model
from rtsep.staging import alone

torch = pytest.importorskip("torch", reason="needs PyTorch, the extra `train`")

from rtsep.evaluation.perceptual import estoi, pesq
from rtsep.phase import MISI, OMISI
from rtsep.training import adapt, corpus
from rtsep.training import losses as L
from rtsep.training.checkpoint import MAGIC, read_checkpoint
from rtsep.training.corpus import Clip, Pool
from rtsep.training.enrolment import export_told
from rtsep.training.expansion import expansion_matrix
from rtsep.training.framing import framing, magnitude_of
from rtsep.training.intelligibility import intelligibility
from rtsep.training.loudness import disturbance
from rtsep.training.mixer import Mixer
from rtsep.training.network import CONFIG, Heads, Network, export, weights_for, weights_of, with_weights
from rtsep.training.recipe import SHIPPED, Corpus, Enrolment, Mixtures, Recipe, Stage
from rtsep.training.spectral_loss import plain_spectral_losses, spectral_losses
from rtsep.training.train import MOST_MIXTURES, Training, checkpoint_of, learning_rate
from rtsep.training.validation import validate

SR = 16_000
FRAMES = framing(4)
SMALL = Shape(16, 16, 1, 16, 2, hop_ms=8)
STAGE = Stage("a", 10, 4, 0.5)
CORPORA = {"speech": (Corpus("s", "CC0", "nowhere"),)}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def signals(rng):
    """Two sources and the mixture's spectrum, batch of 3."""
    sources = torch.from_numpy(rng.normal(0, 0.1, (3, 2, 3000)).astype(np.float32))
    return sources, FRAMES.stft(sources.sum(1))


def heads_like(spectrum, rng, n_src=2):
    shape = (len(spectrum), n_src, *spectrum.shape[1:])
    masks, gains = (torch.from_numpy(rng.uniform(0, top, shape).astype(np.float32)) for top in (1, 2))
    return Heads(masks.requires_grad_(), gains.requires_grad_(), torch.zeros(0))


def true_frames(x):
    """Windowed frames of a stream, as the engine sees them, by NumPy; complex128 (n_frames, 257)."""
    lead = CONFIG.analysis - CONFIG.hop
    n_frames = -(-(x.size + lead) // CONFIG.hop)
    line = np.zeros(lead + n_frames * CONFIG.hop)
    line[lead : lead + x.size] = x
    frames = [line[t * CONFIG.hop :][: CONFIG.analysis] * CONFIG.windows.analysis for t in range(n_frames)]
    return np.fft.rfft(frames, CONFIG.n_fft)


def test_spectra_are_those_of_the_engine_and_can_be_inverted(signals):
    sources, spectrum = signals
    mixture = sources.sum(1)
    np.testing.assert_allclose(spectrum[0].numpy(), true_frames(mixture[0].numpy()), atol=2e-5)
    np.testing.assert_allclose(FRAMES.istft(spectrum, 3000), mixture, atol=1e-6)


@pytest.mark.parametrize("hop_ms", [4, 8])
@pytest.mark.parametrize("n_iter", [0, 1, 3, 8])
def test_misi_with_gradients_is_the_offline_misi_of_the_package(signals, rng, n_iter, hop_ms):
    frames, config = framing(hop_ms), StreamConfig(SR, 256, 16 * hop_ms)
    sources, _ = signals
    spectrum, factors = frames.stft(sources.sum(1)), rng.uniform(0.5, 1.5, (3, 2, 1, 257)).astype(np.float32)
    size = magnitude_of(frames.stft(sources)) * torch.from_numpy(factors)
    got = frames.istft(frames.misi(spectrum, size, n_iter), 3000)
    lead = config.analysis - config.hop
    line = np.zeros(lead + spectrum.shape[1] * config.hop, np.float32)
    line[lead : lead + 3000] = sources.sum(1)[0]
    targets = np.ascontiguousarray(size[0].numpy().transpose(1, 0, 2))
    expected = MISI(n_iter=n_iter).run(config, line, targets)[:, lead : lead + 3000]
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


@pytest.mark.parametrize("hop_ms", [4, 8])
@pytest.mark.parametrize("n_iter", [0, 1, 3])
@pytest.mark.parametrize("n_src", [2, 3])
def test_online_misi_with_gradients_is_that_of_the_engine(rng, n_src, n_iter, hop_ms):
    frames, config = framing(hop_ms), StreamConfig(SR, 256, 16 * hop_ms)
    sources = rng.normal(0, 0.1, (n_src, 3000)).astype(np.float32)
    mixture, wrong = sources.sum(0), sources + rng.normal(0, 0.05, sources.shape).astype(np.float32)
    # The engine hears no offset, neither in the mixture nor in the references.
    heard, audible = ((x - naive.offset(x, SR)).astype(np.float32) for x in (mixture, wrong))
    sizes = magnitude_of(frames.stft(torch.from_numpy(audible)))
    spectra = frames.omisi(frames.stft(torch.from_numpy(heard[None])), sizes[None], n_iter)
    expected = rtsep.separate(mixture, SR, Oracle(wrong), OMISI(n_iter, gate=False), config=config)
    expected[-1] -= mixture - heard
    # Behind the end the offset decays, and does not stop.
    np.testing.assert_allclose(frames.istft(spectra, 3000)[0, :, :2700], expected[:, :2700], atol=1e-5)


def naive_expansion(n_bands):
    """Weights (n_bands, n_bins) by which values of bands become values of bins."""
    lower, share = expansion_bands(n_bands, CONFIG)
    matrix = np.zeros((n_bands + 1, CONFIG.n_bins), np.float32)
    k = np.arange(CONFIG.n_bins)
    matrix[lower, k] = 1 - share
    matrix[lower + 1, k] += share
    # The band beyond the uppermost one is the mean of the last ones.
    matrix[n_bands - TOP_BANDS : n_bands] += matrix[n_bands] / TOP_BANDS
    return torch.from_numpy(matrix[:n_bands])


def test_bands_become_bins_by_a_matrix_and_so_do_gradients(rng):
    network, matrix = Network(SMALL), naive_expansion(16)

    def naive(bands):
        masks, ratios, confidence = bands.transpose(1, 2).split([2, 2, 1], 1)
        return Heads(masks @ matrix, (masks + confidence * (ratios - masks)) @ matrix, bands)

    bands = torch.from_numpy(rng.uniform(0, 1, (2, 7, 5, 16)).astype(np.float32)).requires_grad_()
    weights = [torch.from_numpy(rng.normal(size=(2, 2, 7, 257)).astype(np.float32)) for _ in range(2)]
    found = []
    torch.testing.assert_close(expansion_matrix(16), matrix, atol=1e-6, rtol=1e-6)
    for function in (naive, network.expand):
        heads = function(bands)
        total = (heads.masks * weights[0]).sum() + (heads.gains * weights[1]).sum()
        found.append((heads.masks, heads.gains, torch.autograd.grad(total, bands)[0]))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def naive_losses(masks, gains, sources):
    """Magnitude and complex loss and SI-SDR of one mixture, in float64, by their definitions."""
    gain = 1 / np.sqrt(np.mean(sources.sum(0) ** 2))
    sources = sources * gain
    scale = np.sqrt(np.sum(CONFIG.windows.analysis**2))
    x = true_frames(sources.sum(0)) / scale
    s = np.stack([true_frames(source) for source in sources]) / scale

    def root(z):
        return (np.abs(z) + 1e-4) ** 0.25

    def lopsided(values):
        error = root(values * np.abs(x)) - root(s)
        weight = np.where(error < 0, 2.0, 1.0)
        weight[-1] = 1
        return (weight * error**2)[..., ::2].mean()

    heard = masks + (1 - masks.sum(0)) / len(masks)
    a, b = root(np.maximum(heard, 0) * x), root(s)
    angle = np.angle(x)[None] - np.angle(s)
    complex_loss = np.abs(a * np.exp(1j * angle) - b)[..., ::2] ** 2
    ratios = []
    for estimate, source in zip(
        FRAMES.istft(torch.from_numpy(heard * x * scale), sources.shape[1]), sources, strict=True
    ):
        y = estimate.numpy()
        target = (y @ source) / (source @ source) * source
        wanted = target @ target
        ratios.append(10 * np.log10(wanted / ((y - target) @ (y - target) + 1e-3 * wanted)))
    return lopsided(masks) + lopsided(gains), complex_loss.mean(), np.mean(ratios)


def test_losses_are_those_of_their_definitions(signals, rng):
    sources, spectrum = signals
    heads = heads_like(spectrum, rng)
    found = L.losses(heads, spectrum, sources, STAGE)
    for i in range(3):
        values = [x[i].detach().numpy().astype(float) for x in (heads.masks, heads.gains, sources)]
        magnitude, complex_loss, ratio = naive_losses(*values)
        assert found.magnitude[i].item() == pytest.approx(magnitude, rel=1e-4)
        assert found.complex[i].item() == pytest.approx(complex_loss, rel=1e-3)
        assert found.si_sdr[i].item() == pytest.approx(ratio, abs=1e-3)
        total = 10 * magnitude + 5 * complex_loss - 0.1 * ratio
        assert found.total[i].item() == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("n_src", [2, 3])
def test_spectral_losses_have_the_gradients_that_pytorch_finds(rng, n_src):
    def random(*shape):
        return torch.from_numpy(rng.uniform(0, 1, shape).astype(np.float32))

    mixture, wanted = random(3, 9, 129), random(3, n_src, 9, 129)
    towards = 2 * wanted * (2 * random(3, n_src, 9, 129) - 1)
    masks, gains = 2 * random(3, n_src, 9, 257), 2 * random(3, n_src, 9, 257)  # what is heard may be less than nothing
    found = []
    for function in (naive_spectral_losses, plain_spectral_losses, spectral_losses):
        inputs = masks.clone().requires_grad_(), gains.clone().requires_grad_()
        total, *parts = function(*inputs, mixture, wanted, towards, (10.0, 5.0))
        found.append((total, *parts, *torch.autograd.grad((total * torch.arange(1.0, 4.0)).sum(), inputs)))
    for expected, *both in zip(*found, strict=True):
        for got in both:
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-3)


def naive_spectral_losses(masks, gains, mixture, wanted, towards, weights):
    def root(size):
        return (size + 1e-4) ** 0.25

    def lopsided(error):
        weight = torch.where(error < 0, 2.0, 1.0)
        weight[:, -1] = 1
        return (weight * error**2).mean((1, 2, 3))

    masks, gains, x = masks[..., ::2], gains[..., ::2], mixture[:, None]
    magnitude = lopsided(root(masks * x) - wanted) + lopsided(root(gains * x) - wanted)
    heard = masks + (1 - masks.sum(1, keepdim=True)) / masks.shape[1]
    output = root(heard.clamp(min=0) * x)
    distance = (output**2 - output * towards + wanted**2).mean((1, 2, 3))
    return weights[0] * magnitude + weights[1] * distance, magnitude, distance


def test_losses_do_not_depend_on_the_level(signals, rng):
    sources, spectrum = signals
    heads = heads_like(spectrum, rng)
    loud, quiet = (
        L.losses(heads, spectrum * g, sources * g, replace(STAGE, misi=0.1, omisi=0.1, perceptual=0.1)).total
        for g in (1, 1e-3)
    )
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "sign"), [("si_sdr", -1), ("misi", -1), ("omisi", -1), ("perceptual", 1)])
def test_what_is_heard_counts_in_the_loss_by_its_weight(signals, rng, name, sign):
    sources, spectrum = signals
    heads = heads_like(spectrum, rng)
    without, found = (
        L.losses(heads, spectrum, sources, replace(STAGE, **({"si_sdr": 0.0} | more))) for more in ({}, {name: 0.3})
    )
    assert getattr(found, name).abs().min() > 0.01
    torch.testing.assert_close(found.total, without.total + sign * 0.3 * getattr(found, name))


def test_the_perceptual_loss_is_the_disturbance_of_the_talkers_that_speak(signals, rng):
    sources, spectrum = signals
    sources = sources.clone()
    sources[1, 0] = 0
    heads = heads_like(spectrum, rng)
    found = L.losses(heads, spectrum, sources, replace(STAGE, perceptual=1.0)).perceptual
    gain = sources.sum(1).square().mean(-1).rsqrt()[:, None, None]
    heard = FRAMES.istft(L.share_error(heads.masks) * (spectrum * gain)[:, None], 3000)[:, 0]
    expected = (disturbance(heard, (sources * gain)[:, 0]) + L.UNHEARD).log()
    expected[1] = 0
    torch.testing.assert_close(found, expected)


def test_what_is_understood_of_the_talkers_that_speak_counts_by_its_weight(rng):
    sources = torch.from_numpy(rng.normal(0, 0.1, (2, 3, 9000)).astype(np.float32))
    sources[1, 0] = 0
    spectrum = FRAMES.stft(sources.sum(1))
    heads = heads_like(spectrum, rng, 3)
    stage, kept = replace(STAGE, si_sdr=0.0), torch.tensor([True, True])
    without, found = (L.losses(heads, spectrum, sources, replace(stage, estoi=w), kept) for w in (0.0, 2.0))
    heard = FRAMES.istft(L.share_error(heads.masks) * spectrum[:, None], 9000)[:, :2]
    each = intelligibility(heard, sources[:, :2])
    assert each[0].min() > 0.1 < each[1, 1]
    torch.testing.assert_close(found.estoi, torch.stack([each[0].mean(), each[1, 1]]), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.total, without.total - 2 * found.estoi)


def test_too_little_speech_costs_twice_and_too_little_residual_once(signals):
    sources, spectrum = signals
    truth = magnitude_of(FRAMES.stft(sources)) / magnitude_of(spectrum)[:, None].clamp(min=1e-6)

    def cost(source, factor):
        gains = truth.clone()
        gains[:, source] *= factor
        return L.losses(Heads(gains, truth, gains), spectrum, sources, STAGE).magnitude.mean().item()

    root = 2**0.25
    # (1 - 1/root)^2 against (root - 1)^2 of the same compressed magnitudes.
    assert cost(0, 0.5) / cost(0, 2.0) == pytest.approx(2 / root**2, rel=0.05)
    assert cost(1, 0.5) / cost(1, 2.0) == pytest.approx(1 / root**2, rel=0.05)


@pytest.mark.parametrize("silent", [(0,), (1,), (0, 1)])
def test_silent_sources_give_finite_losses_and_gradients(rng, silent):
    sources = torch.from_numpy(rng.normal(0, 0.1, (3, 2, 9000)).astype(np.float32))
    sources[:, list(silent)] = 0
    spectrum = FRAMES.stft(sources.sum(1))
    heads = heads_like(spectrum, rng)
    found = L.losses(heads, spectrum, sources, replace(STAGE, misi=0.1, omisi=0.1, perceptual=0.1, estoi=0.1))
    found.total.sum().backward()
    assert found.estoi.all() == (0 not in silent)
    assert torch.isfinite(found.total).all()
    assert all(torch.isfinite(x.grad).all() for x in (heads.masks, heads.gains))


def test_talkers_may_be_exchanged_and_the_residual_may_not(rng):
    sources = torch.from_numpy(rng.normal(0, 0.1, (2, 3, 2000)).astype(np.float32))
    spectrum = FRAMES.stft(sources.sum(1))
    heads = heads_like(spectrum, rng, 3)
    first = L.losses(heads, spectrum, sources, STAGE).total
    torch.testing.assert_close(L.losses(heads, spectrum, sources[:, [1, 0, 2]], STAGE).total, first)
    assert not torch.allclose(L.losses(heads, spectrum, sources[:, [2, 1, 0]], STAGE).total, first)
    # Unless their order can be heard.
    kept = torch.tensor([True, False])
    exchanged = L.losses(heads, spectrum, sources[:, [1, 0, 2]], STAGE, kept).total
    assert torch.equal(L.losses(heads, spectrum, sources, STAGE, kept).total == exchanged, ~kept)
    # Each mixture has an order of its own.
    sizes = magnitude_of(FRAMES.stft(sources))
    exchanged = torch.stack([sizes[0], sizes[1][[1, 0, 2]]])
    assert L.best_order(sizes.sqrt(), exchanged.sqrt()).tolist() == [[0, 1, 2], [1, 0, 2]]


def test_the_learning_rate_rises_then_falls_to_a_twentieth():
    stage = Stage("a", 1000, 1, 1.0, lr=1e-3)
    rates = [learning_rate(stage, step) for step in range(1000)]
    assert np.argmax(rates) in (99, 100)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(5e-5, rel=0.01)


# Harmonic bursts against white noise: separable by a glance at the bands.
def harmonic(seed, seconds=4.0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SR)) / SR
    x = sum(np.sin(2 * np.pi * rng.uniform(90, 300) * k * t) / k for k in range(1, 6))
    return 0.1 * x * (np.sin(2 * np.pi * 3 * t) > -0.3)


def pools(first):
    def pool(name, made):
        clips = [Clip(f"{name}{i}", f"{name}{i}", f"{name}{i}", (32767 * x).astype(np.int16)) for i, x in made]
        return Pool([(1.0, clips)])

    rng = np.random.default_rng(first)
    return (
        pool("s", [(i, harmonic(first + i)) for i in range(3)]),
        pool("n", [(i, rng.normal(0, 0.1, 4 * SR).clip(-1, 1)) for i in range(3)]),
        Pool([]),
    )


def make_training(output, steps=8, jobs=2, stages=None, models=(), network=SMALL, **changes):
    mixtures = Mixtures(rooms=0.1, babble=0.0, music=0.0, noise=1.0)
    stages = stages or (Stage("a", steps // 2, 4, 0.5, lr=3e-3), Stage("b", steps - steps // 2, 2, 0.5, misi=0.05))
    recipe = Recipe("tiny", network, mixtures, stages, CORPORA, epoch=5, validation=4, validation_s=1.0, **changes)
    enrol_s = recipe.enrolment.seconds if recipe.enrolment else 0.0
    mixers = Mixer(mixtures, *pools(0), 0, enrol_s), Mixer(mixtures, *pools(10), 1, enrol_s)
    return Training(recipe, *mixers, output, {"speech": 1}, jobs, *models)


def weights(training):
    return {name: value.clone() for name, value in training.network.state_dict().items()}


def test_a_resumed_training_is_that_which_was_not_interrupted_bit_by_bit(tmp_path):
    whole = make_training(tmp_path / "whole.npz")
    assert whole.run()
    cut = make_training(tmp_path / "cut.npz")
    cut.run(seconds=1e-9)  # one step
    assert cut.progress.step == 1
    # Interrupted in the middle of an epoch, and not where the stages meet.
    again = make_training(tmp_path / "cut.npz", jobs=1)
    again.resume()
    assert again.jobs == 2
    assert again.progress.step == 1
    assert again.run()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    assert torch.equal(
        torch.cat([p.flatten() for p in whole.average.parameters()]),
        torch.cat([p.flatten() for p in again.average.parameters()]),
    )
    scores = ("step", "mask", "magnitudes", "misi", "omisi")
    assert [whole.progress.history[-1][k] for k in scores] == [again.progress.history[-1][k] for k in scores]


def test_a_small_network_learns_and_the_engine_hears_it(tmp_path):
    stage = Stage("a", 60, 8, 1.0, lr=5e-2, hop_ms=8)
    training = make_training(tmp_path / "m.npz", stages=(stage,), seed=1)
    entries = []
    training.run(report=entries.append)
    assert entries[-1]["loss"] < entries[0]["loss"] - 1
    assert max(entry["mask"] for entry in entries) > 3
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert [entry["audio_h"] * 3600 for entry in entries] == [8.0 * entry["step"] for entry in entries]
    model = read_model(tmp_path / "m.npz")
    assert model.manifest["recipe"]["speech"][0]["licence"] == "CC0"
    assert model.manifest["validation"]["mask"] == pytest.approx(training.progress.best, abs=1e-3)
    # What validation reports is what the engine does.
    x = training.held_out[0].numpy()
    separated = rtsep.separate(x.sum(0), SR, rtsep.estimators.Speech(model=tmp_path / "m.npz"), "mixture")
    best = max(training.progress.history, key=lambda entry: entry["mask"])
    assert best["step"] == model.manifest["step"]
    if best["step"] == training.progress.step:
        with torch.no_grad():
            spectrum = FRAMES.stft(torch.from_numpy(x.sum(0))[None])
            heads = training.average(spectrum, 2)
            expected = FRAMES.istft(L.share_error(heads.masks) * spectrum[:, None], x.shape[1])[0]
        np.testing.assert_allclose(separated, expected, atol=2e-3)  # weights are stored in float16


def test_validation_is_of_what_the_engine_makes_by_three_measures(tmp_path):
    training = make_training(tmp_path / "m.npz")
    sources = training.held_out
    sources[1, 0] = 0  # no speech, which does not count
    with ThreadPoolExecutor(2) as pool:
        found = validate(training.network, sources, pool, listening=True)
        assert found[:4] == validate(training.network, sources, pool)[:4]
    export(training.network, tmp_path / "now.npz", {}, sources=("speech", "residual"))
    gains = []
    for talker, rest in sources.numpy():
        if not talker.any():
            continue
        heard = rtsep.separate(talker + rest, SR, Speech(tmp_path / "now.npz"), "mixture")[0]
        gains.append([score(talker, heard, SR) - score(talker, talker + rest, SR) for score in (pesq, estoi)])
    np.testing.assert_allclose(found[4:6], np.mean(gains, 0), atol=5e-3)
    assert found.silence is None  # nobody is enrolled
    assert found.all == pytest.approx(found.mask + 10 * found.pesq + 60 * found.estoi)


def test_validation_counts_what_is_left_where_who_is_enrolled_is_silent(tmp_path):
    training = make_training(tmp_path / "voices.npz", enrolment=Enrolment(4, 8, 1.0))
    sources, network = training.held_out, training.network
    torch.nn.init.normal_(network.modulation.weight, 0, 0.5)
    sources[1, 0] = 0
    with ThreadPoolExecutor(2) as pool:
        found = validate(network, sources, pool, enrolled=training.held_out_voices)
    export_told(network, tmp_path / "voices.npz", {}, np.float32)
    known, levels = read_voices(tmp_path / "voices.npz"), []
    for (talker, rest), voice in zip(sources.numpy(), training.held_out_voices.numpy(), strict=True):
        if not talker.any():
            told = with_weights(known.shape, known.told(known.hear(voice)))
            export(told, tmp_path / "anna.npz", {}, sources=Speech.sources)
            heard = rtsep.separate(rest, SR, Speech(tmp_path / "anna.npz"), "mixture")[0]
            levels.append(10 * np.log10(np.mean(heard**2) / np.mean(rest**2)))
    assert found.silence == pytest.approx(np.mean(levels), abs=0.05)
    assert found.told == pytest.approx(found.mask - 0.2 * found.silence)


def test_pieces_of_a_batch_have_the_gradient_of_the_whole(tmp_path, monkeypatch):
    mixtures, stage = Mixtures(talkers=2), Stage("a", 1, 5, 0.5, misi=0.05)
    recipe = Recipe("two", replace(SMALL, n_src=3, advance_cue=True), mixtures, (stage,), CORPORA, validation=1)
    training = Training(recipe, Mixer(mixtures, *pools(0), 0), Mixer(mixtures, *pools(3), 1), tmp_path / "m", {}, 1)
    make = training.mixer.batch
    # Some mixtures have an order that can be heard, and some have none.
    monkeypatch.setattr(training.mixer, "batch", lambda *of: (make(*of)[0], np.arange(of[1]) % 2 == 0, make(*of)[2]))
    found = []
    for chunk in (10 * SR, SR):
        monkeypatch.setattr("rtsep.training.train.CHUNK", chunk)
        found.append(training._gradients(training._make(stage, 0, 5, SR // 2), stage))
    (value, whole), (sum_of_values, sum_of_pieces) = found
    assert sum_of_values == pytest.approx(value, rel=1e-5)
    for expected, got in zip(whole, sum_of_pieces, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)


def test_what_is_kept_of_the_start_is_in_the_model(tmp_path):
    make_training(tmp_path / "first.npz").run()
    start = read_model(tmp_path / "first.npz")
    training = make_training(tmp_path / "m.npz", models=(start,), start="first.npz", keep=0.25)
    training.progress.best = -math.inf
    training.run()
    training.progress.best = -math.inf  # so that what is written is of the last step
    with ThreadPoolExecutor(2) as pool:
        training._validate(pool, {"step": 8})
    written, average = read_model(tmp_path / "m.npz").weights, weights_of(training.average)
    for name, value in written.items():
        expected = 0.75 * average[name] + 0.25 * start.weights[name]
        assert np.abs(value - expected).max() < 1e-3 * np.abs(expected).max() + 1e-6, name


def test_a_student_says_what_its_teacher_says(tmp_path):
    make_training(tmp_path / "large.npz", seed=5).run()
    model = read_model(tmp_path / "large.npz")
    teacher = replace(model, weights={name: 3 * value for name, value in model.weights.items()})  # more decided
    alone = {"magnitude": 0.0, "complex": 0.0, "si_sdr": 0.0}
    stages = (Stage("taught", 60, 4, 0.5, lr=1e-2, distil=1.0, **alone),)
    training = make_training(tmp_path / "m.npz", 60, stages=stages, models=(None, teacher), teacher="large.npz")
    n = SR // 2

    def difference():
        *_, spectrum, features = training._make(stages[0], 10**6, 4, n)
        with torch.no_grad():
            said = training.network.say(features)[:, : spectrum.shape[1]]
            return float((said - training.teacher.say(features)[:, : spectrum.shape[1]]).square().mean())

    before = difference()
    training.run()
    assert difference() < 0.7 * before  # of what is far from saying nothing
    assert read_model(tmp_path / "m.npz").manifest["taught_by"] == teacher.sha256


def test_batches_that_are_made_ahead_are_those_that_would_be_made(tmp_path):
    training = make_training(tmp_path / "m.npz")
    first, last = training.recipe.stages
    with ThreadPoolExecutor(2) as pool:
        for stage, step in (
            (first, 0),
            (first, 1),
            (first, 2),
            (last, 3),
            (last, 9),
        ):  # and where stages meet, or one resumes
            start = step * MOST_MIXTURES
            found = training._made(pool, stage, np.array([start, start + 1]), [1, stage.batch - 1], SR // 2)
            for got, expected in zip(found, training._make(stage, start, stage.batch, SR // 2), strict=True):
                torch.testing.assert_close(got, expected)


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    training = make_training(tmp_path / "m.npz")
    training.save()
    path = checkpoint_of(tmp_path / "m.npz")
    good = path.read_bytes()
    for data, message in (
        (good[: len(good) // 2], "is damaged"),
        (good[:-100] + bytes([good[-100] ^ 1]) + good[-99:], "is damaged"),
        (b"something else", "is no checkpoint"),
        (MAGIC, "is damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            training.resume()
    path.write_bytes(good)
    with pytest.raises(ConfigError, match="is of another recipe"):
        make_training(tmp_path / "m.npz", steps=10).resume()
    path.unlink()
    taught = {"stages": (replace(STAGE, distil=1.0),), "teacher": "t.npz"}
    for name, seed in (("t.npz", 5), ("other.npz", 6)):
        export(make_training(tmp_path / name, seed=seed).network, tmp_path / name, {}, sources=Speech.sources)
    first, other = (read_model(tmp_path / name) for name in ("t.npz", "other.npz"))
    make_training(tmp_path / "m.npz", models=(None, first), **taught).save()
    with pytest.raises(ConfigError, match="is of another teacher"):
        make_training(tmp_path / "m.npz", models=(None, other), **taught).resume()
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        read_checkpoint(path)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    training = make_training(tmp_path / "m.npz")
    with torch.no_grad():
        training.network.core.heads.bias[0] = math.nan
    with pytest.raises(ConfigError, match="the loss is nan at step 0 of stage 'a'"):
        training.run()


TOML = """
name = "tiny"
epoch = 2
validation = 2
validation_s = 1.0
[network]
bands_in = 16
hidden = 16
n_layers = 1
bands_out = 16
[mixtures]
babble = 0.0
music = 0.0
[[stages]]
name = "a"
steps = 4
batch = 2
seconds = 0.5
[[speech]]
name = "s"
licence = "CC0"
source = "nowhere"
validation = 0.4
[[noise]]
name = "n"
licence = "CC0"
source = "nowhere"
validation = 0.4
"""


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(5)
    for i in range(4):
        (tmp_path / "speech" / f"voice{i}").mkdir(parents=True)
        sf.write(tmp_path / "speech" / f"voice{i}" / "x.wav", harmonic(i, 2.0), SR)
        (tmp_path / "noise").mkdir(exist_ok=True)
        sf.write(tmp_path / "noise" / f"{i}.wav", rng.normal(0, 0.1, SR), SR)
    (tmp_path / "tiny.toml").write_text(TOML)
    return tmp_path


def train(folder: Path, *options: object) -> int:
    return main(["train", "--jobs", "1", *map(str, options), "-o", str(folder / "m.npz")])


def test_the_command_trains_resumes_and_adapts(recordings, capsys, monkeypatch):
    given = (recordings / "tiny.toml", "--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, *given, "--hours", "1e-9") == 0
    assert "stopped after 1 of 4 steps" in capsys.readouterr().out
    assert train(recordings, *given) == 2
    assert "exists (--resume goes on, --overwrite starts again)" in capsys.readouterr().err
    checkpoint_of(recordings / "m.npz").rename(recordings / "kept")
    assert train(recordings, *given) == 2
    assert "exists (--overwrite starts again)" in capsys.readouterr().err
    (recordings / "kept").rename(checkpoint_of(recordings / "m.npz"))
    assert train(recordings, *given, "--resume", "--jobs", "2") == 0
    out = capsys.readouterr().out
    assert "resumed at step 1 of 4" in out
    assert "--jobs 2 has no effect: to go on exactly, it keeps the 1 of its start" in out
    assert "1 threads" in out
    assert "complete after 4 of 4 steps" in out
    model = read_model(recordings / "m.npz")
    assert model.sources == ("speech", "residual")

    monkeypatch.setitem(adapt.STAGES, 1, (replace(adapt.STAGES[1][0], steps=2),))
    own = recordings / "speech" / "voice0"
    options = ["train", "--adapt", recordings / "m.npz", "--speech", own, "-o", recordings / "me.npz"]
    assert main(list(map(str, options))) == 0
    adapted = read_model(recordings / "me.npz")
    assert adapted.manifest["adapted_from"] == model.sha256
    assert re.search(r"step 0 \(before, 0.0 h of mixtures in [0-9.]+ h\): SI-SDR mask", capsys.readouterr().out)
    assert adapted.shape == model.shape
    options = ["train", "--adapt", "speech", "--speech", own, "-o", recordings / "shipped.npz", "--hours", "1e-9"]
    assert main(list(map(str, options))) == 0
    assert read_model(recordings / "shipped.npz").manifest["adapted_from"] == Speech().load().sha256


def test_two_voices_are_adapted_to_by_masks_and_then_through_online_misi(tmp_path, monkeypatch, capsys):
    assert adapt.adapt_recipe(Speech().load(), ("speech",), ()).select == "mask"
    recipe = adapt.adapt_recipe(Talkers().load(), ("speech",), ())
    assert [(stage.hop_ms, stage.omisi > 0) for stage in recipe.stages] == [(8, False), (4, True)]
    assert recipe.select == "heard"
    for name, seed in (("anna", 1), ("ben", 2)):
        (tmp_path / "us" / name).mkdir(parents=True)
        sf.write(tmp_path / "us" / name / "x.wav", voices(8 * SR, SR, 1, seed)[0], SR)
    short = tuple(replace(stage, steps=1, batch=2, seconds=0.5) for stage in adapt.STAGES[2])
    monkeypatch.setitem(adapt.STAGES, 2, short)
    given = ["train", "--adapt", "talkers", "--speech", tmp_path / "us", "-o", tmp_path / "us.npz"]
    assert main(list(map(str, given))) == 0
    found = re.findall(r"mask ([-+.\d]+), .* omisi ([-+.\d]+) dB", out := capsys.readouterr().out)
    assert len(found) == 2  # before and after
    assert f"best heard {max(max(map(float, scores)) for scores in found):.2f} dB" in out
    scores = read_model(tmp_path / "us.npz").manifest["validation"]
    assert Talkers(tmp_path / "us.npz").phase == (OMISI(1) if scores["omisi"] > scores["mask"] else "mixture")


def test_a_noise_is_adapted_to_among_others_and_is_the_only_recorded_one_that_is_validated_with(
    recordings, capsys, monkeypatch
):
    monkeypatch.setitem(adapt.STAGES, 1, (replace(adapt.STAGES[1][0], steps=2),))
    mine = recordings / "mine"
    mine.mkdir()
    sf.write(mine / "fan.wav", np.random.default_rng(8).normal(0, 0.1, 2 * SR), SR)
    flat = recordings / "flat"
    flat.mkdir()
    for file in recordings.glob("speech/*/x.wav"):
        shutil.copy(file, flat / f"{file.parent.name}.wav")
    options = ["train", "--adapt", "speech", "--noise", mine, "--general-noise", recordings / "noise"]
    options += ["-o", recordings / "fan.npz", "--general-speech"]
    assert main([*map(str, options), str(flat)]) == 2
    assert "flat has no subfolders: it needs one for each speaker" in capsys.readouterr().err
    assert main([*map(str, options), str(recordings / "speech")]) == 0
    out = capsys.readouterr().out
    assert "noise, training: 0.00 h, 5 recordings, 5 speakers" in out
    assert "noise, validation: 0.00 h, 1 recordings, 1 speakers" in out
    assert "speech, training: 0.00 h, 3 recordings, 3 speakers" in out
    assert "speech, validation: 0.00 h, 1 recordings, 1 speakers" in out
    assert read_model(recordings / "fan.npz").sources == ("speech", "residual")


def test_an_adaptation_that_makes_nothing_better_gives_the_model_it_came_from(recordings, capsys, monkeypatch):
    def ruin(self, *step):
        with torch.no_grad():
            for parameter in self.average.parameters():
                parameter.zero_()
        return 0.0

    monkeypatch.setattr(Training, "_step", ruin)
    monkeypatch.setitem(adapt.STAGES, 1, (replace(adapt.STAGES[1][0], steps=2),))
    own = recordings / "speech" / "voice0"
    options = ["train", "--adapt", "speech", "--speech", own, "-o", recordings / "me.npz"]
    assert main(list(map(str, options))) == 0
    assert "the model it came from: nothing here is better" in capsys.readouterr().out
    adapted, model = read_model(recordings / "me.npz"), Speech().load()
    assert all(np.array_equal(adapted.weights[name], model.weights[name]) for name in model.weights)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_training_that_is_stopped_in_its_first_minute_goes_on_from_there(recordings):
    text = TOML.replace("steps = 4", "steps = 100000").replace("epoch = 2", "epoch = 100000")
    (recordings / "long.toml").write_text(text)
    given = [
        str(recordings / "long.toml"),
        "--speech",
        str(recordings / "speech"),
        "--noise",
        str(recordings / "noise"),
    ]
    command = [sys.executable, "-m", "rtsep", "train", *given, "-o", str(recordings / "m.npz"), "--jobs", "1"]
    steps = []
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        more = ["--resume"] if steps else []
        with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            while "Ctrl-C stops" not in (line := run.stdout.readline()):
                assert line, run.stderr.read()
            time.sleep(1)
            run.send_signal(number)
            out, err = run.stdout.read(), run.stderr.read()
        assert run.returncode == status, err
        assert "not validated yet, so there is no model; --resume goes on" in out
        assert err.strip().splitlines()[-1] == f"rtsep: {WORDS[status]}"
        steps.append(int(re.search(r"stopped after (\d+) of", out)[1]))
        assert read_checkpoint(recordings / "m.checkpoint")["progress"]["step"] == steps[-1]
    assert steps[0] <= steps[1]
    assert not (recordings / "m.npz").exists()


def test_a_resumed_training_whose_model_is_gone_writes_the_next_one_however_good(tmp_path):
    training = make_training(tmp_path / "m.npz")
    training.run(seconds=1e-9)
    training.progress.best = 1000.0
    training.save()
    (tmp_path / "m.npz").unlink()
    again = make_training(tmp_path / "m.npz")
    again.resume()
    again.run()
    assert read_model(tmp_path / "m.npz").manifest["step"] > 1


@pytest.mark.parametrize("channels", [0, 16])
def test_what_a_start_says_of_one_talker_is_said_of_two(channels, tmp_path):
    both = {"bands_out": SMALL.bands_in, "advance_cue": True, "channels": channels} if channels else {}
    shape = replace(SMALL, **both)
    start = read_model(random_model(tmp_path / "start.npz", shape, Speech.sources))
    two = with_weights(replace(shape, n_src=3), weights_for(start, 3))
    features = torch.randn(2, 5, shape.n_features)
    with torch.no_grad():
        mask, rest, ratio, rest_ratio, confidence = with_weights(shape, start.weights).say(features).unbind(2)
        expected = torch.stack([mask, mask, rest, ratio, ratio, rest_ratio, confidence], 2)
        torch.testing.assert_close(two.say(features), expected)


@pytest.mark.parametrize("channels", [0, 16])
def test_a_network_is_told_whom_to_listen_to(channels, tmp_path):
    """Weights of one person, as `rtsep enrol` makes them, say what the told network says; it goes on exactly."""
    both = {"bands_out": SMALL.bands_in, "advance_cue": True, "channels": channels} if channels else {}
    shape = replace(SMALL, **both)
    start = read_model(random_model(tmp_path / "start.npz", replace(shape, n_src=3), Talkers.sources))
    told = {"models": (start,), "enrolment": Enrolment(4, 8, 1.0), "start": "talkers", "network": shape}
    whole = make_training(tmp_path / "whole.npz", **told)
    heads = start.weights["heads_place" if channels else "heads_bias"].reshape(7, -1, order="F" if channels else "C")
    merged = weights_of(whole.network)["heads_place" if channels else "heads_bias"]
    merged = merged.reshape(5, -1, order="F" if channels else "C")
    np.testing.assert_allclose(merged[0], (heads[0] + heads[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(merged[[1, 3, 4]], heads[[2, 5, 6]], atol=1e-6)
    assert whole.run()
    cut = make_training(tmp_path / "cut.npz", **told)
    cut.run(seconds=1e-9)
    again = make_training(tmp_path / "cut.npz", **told)
    again.resume()
    assert again.run()
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())
    network = whole.average
    torch.nn.init.normal_(network.modulation.weight, 0, 0.5)
    export_told(network, tmp_path / "voices.npz", {})
    known = read_voices(tmp_path / "voices.npz")
    assert known.golden_voice.std() > 0.01
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    *_, enrolled, _, features = whole._make(replace(whole.recipe.stages[0], hop_ms=8), 0, 2, SR)
    with torch.no_grad():
        for one, heard in zip(enrolled, features, strict=True):
            expected = network.say(heard[None], 1, one[None])
            found = with_weights(shape, known.told(known.hear(one.numpy()))).say(heard[None])
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
            # Whoever else is told of, is not said the same.
            assert (
                network.say(heard[None], 1, enrolled[:1]) - network.say(heard[None], 1, enrolled[1:])
            ).abs().max() > 0.01
    with pytest.raises(ValueError, match="whom"):
        network.say(features)
    # What was trained is gone on with, and scored first.
    further = make_training(tmp_path / "further.npz", **told | {"models": (known,), "start": "voices.npz"})
    assert all(torch.equal(value, further.network.state_dict()[name]) for name, value in network.state_dict().items())
    assert further.run()
    assert further.progress.history[0]["step"] == 0


def test_a_complete_training_whose_model_is_gone_gives_it_again(recordings, capsys):
    given = (recordings / "tiny.toml", "--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, *given) == 0
    first = read_model(recordings / "m.npz")
    (recordings / "m.npz").unlink()
    assert train(recordings, *given, "--resume") == 0
    out = capsys.readouterr().out
    assert "m.npz is gone: the best model from here on is kept" in out
    assert re.search(r"complete after 4 of 4 steps.*; best mask -?\d", out)
    assert read_model(recordings / "m.npz").manifest["step"] == 4
    assert first.shape == read_model(recordings / "m.npz").shape
    (recordings / "m.npz").write_text("something else")
    assert train(recordings, *given, "--resume") == 0
    assert "m.npz is damaged: the best model from here on is kept" in capsys.readouterr().out
    assert read_model(recordings / "m.npz").manifest["step"] == 4


def test_one_training_at_a_time_writes_a_model(recordings, capsys):
    given = (recordings / "tiny.toml", "--speech", recordings / "speech", "--noise", recordings / "noise")
    with alone(recordings / "m.npz"):
        for options in ((), ("--overwrite",)):
            assert train(recordings, *given, *options) == 2
            assert capsys.readouterr().err == f"rtsep: {recordings / 'm.npz'} is being written by another run\n"
    assert train(recordings, *given) == 0
    assert sorted(path.name for path in recordings.glob("*m.*")) == ["m.checkpoint", "m.npz", "m.png"]
    assert not list(recordings.glob(".*"))


def test_the_loss_that_is_said_is_that_of_the_stage(tmp_path):
    losses = []
    stages = (Stage("a", 3, 2, 0.5, magnitude=1000.0), Stage("b", 2, 2, 0.5))
    make_training(tmp_path / "m.npz", stages=stages).run(report=lambda entry: losses.append(entry["loss"]))
    make_training(tmp_path / "n.npz", stages=stages[1:]).run(report=lambda entry: losses.append(entry["loss"]))
    assert losses[0] < 3 * losses[1]  # not the 100 times of the stage before


def test_validation_needs_something_to_improve(tmp_path):
    mixtures = Mixtures(noise=0.0, noise_only=0.0, rooms=0.0, clipping=0.0, pauses=0.0)
    recipe = Recipe("tiny", SMALL, mixtures, (STAGE,), CORPORA, validation=2, validation_s=1.0)
    with pytest.raises(ConfigError, match="nothing can be improved"):
        Training(recipe, Mixer(mixtures, *pools(0), 0), Mixer(mixtures, *pools(10), 1), tmp_path / "m.npz", {}, 1)


def test_a_shipped_recipe_trains_on_folders_of_ones_own(recordings, capsys, monkeypatch):
    text = (SHIPPED / "speech.toml").read_text()
    text, changed = re.subn(r"^(batch|validation) = \d+$", r"\1 = 2", text, flags=re.MULTILINE)
    assert changed == 4
    (recordings / "quick.toml").write_text(text)
    monkeypatch.chdir(recordings)
    assert train(recordings, "quick.toml", "--speech", "speech", "--noise", "noise", "--hours", "1e-6") == 0
    assert "speech has none of librispeech, speechocean762, commands" in capsys.readouterr().out
    manifest = read_model(recordings / "m.npz").manifest
    assert [corpus["name"] for kind in ("speech", "noise") for corpus in manifest["recipe"][kind]] == ["own", "own"]
    assert manifest["recipe"]["music"] == []


def test_overwrite_leaves_nothing_to_resume(recordings, capsys, monkeypatch):
    given = (recordings / "tiny.toml", "--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, *given, "--hours", "1e-9") == 0

    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", interrupted)
    assert train(recordings, *given, "--overwrite") == 130
    assert train(recordings, *given, "--resume") == 2
    assert "there is none to resume from" in capsys.readouterr().err


def test_silent_speech_is_refused_before_the_training(recordings, capsys):
    for i, path in enumerate((recordings / "speech").rglob("*.wav")):
        sf.write(path, np.zeros(SR + i), SR)  # no two are the same
    assert (
        train(recordings, recordings / "tiny.toml", "--speech", recordings / "speech", "--noise", recordings / "noise")
        == 2
    )
    assert "no recordings that can be read, last 0.1 s and are not silent" in capsys.readouterr().err


def test_a_recipe_starts_from_a_model_of_its_network_alone(recordings, capsys):
    folders = ("--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, recordings / "tiny.toml", *folders) == 0
    (recordings / "m.npz").rename(recordings / "first.npz")
    first = read_model(recordings / "first.npz")
    for start, refused in ((recordings / "first.npz", ""), ("speech", "the network is not that of its start, speech")):
        (recordings / "more.toml").write_text(f'start = "{start}"\n{TOML}')
        assert train(recordings, recordings / "more.toml", *folders, "--overwrite") == (2 if refused else 0)
        assert refused in capsys.readouterr().err
    (recordings / "more.toml").write_text(f'start = "{recordings / "m.npz"}"\n{TOML}')
    assert train(recordings, recordings / "more.toml", *folders, "--overwrite") == 2
    assert "m.npz is the start of the recipe: another name for the new one" in capsys.readouterr().err
    made = read_model(recordings / "m.npz").manifest
    assert made["adapted_from"] == first.sha256
    assert made["recipe"]["start"] == str(recordings / "first.npz")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("keep = 0.5", "keep=0.5, but there is no start"),
        ('select = "told"', "select='told', but there is no [enrolment]"),
        ('teacher = "speech"', "a teacher and stages with distil need each other"),
    ],
)
def test_what_is_kept_taught_or_told_needs_what_does_it(lines, message, recordings, capsys):
    (recordings / "more.toml").write_text(f"{lines}\n{TOML}")
    folders = ("--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, recordings / "more.toml", *folders) == 2
    assert message in capsys.readouterr().err


def test_the_best_model_is_one_of_the_last_stage(recordings):
    text = TOML.replace("steps = 4", "steps = 20\nlr = 1.0")
    spoiling = '[[stages]]\nname = "b"\nsteps = 20\nbatch = 2\nseconds = 0.5\nlr = 1.0\nsi_sdr = 0.0\n[[speech]]'
    (recordings / "two.toml").write_text(text.replace("[[speech]]", spoiling))
    folders = ("--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, recordings / "two.toml", *folders) == 0
    history = read_checkpoint(checkpoint_of(recordings / "m.npz"))["progress"]["history"]
    assert max((e for e in history if e["stage"] == "b"), key=lambda e: e["score"])["best"]


def test_a_teacher_has_the_bands_of_the_network(recordings, capsys):
    text = TOML.replace("[[stages]]", "[[stages]]\ndistil = 1.0", 1)
    (recordings / "more.toml").write_text(f'teacher = "speech"\n{text}')
    folders = ("--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, recordings / "more.toml", *folders) == 2
    assert "the bands are not those of its teacher, speech" in capsys.readouterr().err


def test_two_talkers_need_two_speakers_on_each_side(recordings, capsys):
    text = TOML.replace("bands_out = 16", "bands_out = 16\nn_src = 3").replace("[mixtures]", "[mixtures]\ntalkers = 2")
    (recordings / "two.toml").write_text(text.replace("validation = 0.4", "validation = 0.1"))
    given = (recordings / "two.toml", "--speech", recordings / "speech", "--noise", recordings / "noise")
    assert train(recordings, *given) == 0
    out = capsys.readouterr().out
    assert "speech, validation: 0.00 h, 2 recordings, 2 speakers" in out
    for path in (recordings / "speech" / "voice3").iterdir():
        path.unlink()
    assert train(recordings, *given, "--overwrite") == 2
    assert "speakers for training: 1, of 2 that a mixture needs" in capsys.readouterr().err
    alone = ("train", "--adapt", recordings / "m.npz", "--speech", recordings / "speech" / "voice0")
    assert main([*map(str, alone), "-o", str(recordings / "me.npz")]) == 2
    assert "speakers for training: 1, of 2 that a mixture needs" in capsys.readouterr().err


def test_no_recording_is_read_where_a_folder_of_another_kind_is_missing(recordings, capsys, monkeypatch):
    text = (recordings / "tiny.toml").read_text()
    (recordings / "tiny.toml").write_text(text.replace("[[noise]]", '[[noise]]\nfolder = "none"'))
    monkeypatch.setattr(corpus, "read_audio", lambda *args, **kwargs: pytest.fail("a recording was read"))
    assert train(recordings, recordings / "tiny.toml", "--speech", recordings / "speech", "--noise", recordings) == 2
    assert f"{recordings / 'none'}: there is no such folder" in capsys.readouterr().err
    assert train(recordings, recordings / "tiny.toml", "--speech", recordings / "speech") == 2
    assert "recipe 'tiny' needs noise: --noise DIR" in capsys.readouterr().err


def test_a_training_on_a_packed_corpus_needs_no_folders(recordings, capsys):
    folders = ("--speech", recordings / "speech", "--noise", recordings / "noise")
    pack = ["train", recordings / "tiny.toml", *folders, "--pack", "-o", recordings / "corpus.zip"]
    assert main(list(map(str, pack))) == 0
    assert "corpus.zip: 0.00 h in 0 MiB" in capsys.readouterr().out
    for more, said in (((), "corpus.zip exists (--overwrite replaces it)"), (("--resume",), "--pack is none")):
        assert main([*map(str, pack), *more]) == 2
        assert said in capsys.readouterr().err
    packed = (recordings / "tiny.toml", "--packed", recordings / "corpus.zip")
    assert train(recordings, *packed, "--test", recordings / "noise") == 2
    assert "is for testing, and in training" in capsys.readouterr().err
    assert train(recordings, *packed, "--hours", "1e-9") == 0
    whole = read_model(recordings / "m.npz").manifest["recordings"]
    assert train(recordings, recordings / "tiny.toml", *folders, "--hours", "1e-9", "--overwrite") == 0
    assert read_model(recordings / "m.npz").manifest["recordings"] == whole


def test_a_folder_that_is_missing_is_found_out_before_the_training(recordings, capsys, monkeypatch):
    monkeypatch.chdir(recordings)
    options = ["tiny.toml", "--speech", "speech", "--noise", "noise", "-o", "none/m.npz"]
    assert main(["train", *options]) == 2
    assert capsys.readouterr().err == "rtsep: none/m.npz: there is no such folder\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give either a RECIPE or --adapt MODEL"),
        (("tiny.toml",), "recipe 'tiny' needs speech: --speech DIR"),
        (("tiny.toml", "--speech", "empty", "--noise", "noise"), "no recordings that can be read"),
        (("tiny.toml", "--speech", "tiny.toml"), "tiny.toml: there is no such folder"),
        (("tiny.toml", "--speech", "speech", "--noise", "noise", "--test", "none"), "none: there is no such folder"),
        (("tiny.toml", "--speech", "speech", "--noise", "noise", "--test", "noise"), "is for testing, and in training"),
        (("tiny.toml", "--resume"), "there is none to resume from"),
        (("tiny.toml", "--resume", "--overwrite"), "--overwrite starts again: give one of them"),
        (("tiny.toml", "--hours", "0"), "--hours=0 is not above 0"),
        (("--adapt", "tiny.toml", "--speech", "speech"), "cannot be used as a model"),
        (("--adapt", "m.npz", "--speech", "speech"), "m.npz is the model to adapt"),
        (("--adapt", "tiny.toml", "--speech", "speech", "--music", "noise"), "--music is not for --adapt"),
        (("tiny.toml", "--speech", "speech/voice0", "--noise", "noise"), "has no subfolders: it needs one for"),
        (
            ("tiny.toml", "--speech", "speech", "--packed", "c.zip"),
            "--packed has all recordings: leave out the folders",
        ),
        (("tiny.toml", "--packed", "c.zip"), "c.zip cannot be used as a packed corpus: [Errno 2] No such file"),
        (("--adapt", "speech", "--packed", "c.zip"), "--pack and --packed are for a RECIPE"),
        (("tiny.toml", "--pack"), "m.npz does not end in .zip"),
        (
            ("none.toml", "--speech", "speech"),
            "No such file or directory; shipped ones: speech, speech_small, talkers",
        ),
    ],
)
def test_what_cannot_be_is_one_line_that_says_why(recordings, monkeypatch, capsys, options, message):
    (recordings / "empty").mkdir()
    monkeypatch.chdir(recordings)
    assert train(recordings, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
