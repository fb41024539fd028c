"""Restoration: what must come back exactly, what is found, what stays as it was, and the command."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf
from test_factorise import DATA

import rtsep
from rtsep.cli import main
from rtsep.config import ConfigError, StreamConfig
from rtsep.restoration import ClickRemover, alternating_minimisation, convex_relaxation, find_clicks, restore
from rtsep.restoration.autoregressive import burg
from rtsep.restoration.unwrapping import interpolated_magnitudes, unwrap_frames

SR = 16_000


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "model_based_reference.npz", allow_pickle=False) as file:
        return dict(file)


def chord(n=SR, sr=SR):
    t = np.arange(n) / sr
    return sum(a * np.sin(2 * np.pi * f * t + f) for a, f in ((0.2, 220), (0.15, 331.3), (0.1, 1237.1)))


def gap(start, length, n=SR):
    missing = np.zeros(n, bool)
    missing[start : start + length] = True
    return missing


def error_db(wanted, found, missing):
    return 10 * np.log10(((wanted - found)[missing] ** 2).sum() / (wanted[missing] ** 2).sum())


@pytest.mark.parametrize("n_missing", [6, 26])
def test_frames_from_their_magnitudes_equal_the_reference(golden, n_missing):
    s = golden["inpainting_magnitudes/s"]
    missing, b = gap(50, n_missing, 128), np.abs(np.fft.rfft(s))
    for n_iter in (1, 10, 50):
        found = alternating_minimisation(s, missing, b, n_iter=n_iter)
        assert np.allclose(found[missing], golden[f"inpainting_magnitudes/am_d{n_missing}_it{n_iter}"], atol=1e-9)
        assert np.array_equal(found[~missing], s[~missing])
    for n_iter in (1, 10):
        found = convex_relaxation(s, missing, b, n_iter=n_iter)
        assert np.allclose(found[missing], golden[f"inpainting_magnitudes/cr_d{n_missing}_it{n_iter}"], atol=1e-9)


def test_a_frame_comes_back_from_its_magnitudes_and_best_after_both():
    rng = np.random.default_rng(1)
    s, missing = rng.normal(size=96), gap(30, 24, 96)
    b = np.abs(np.fft.rfft(s))
    relaxed = convex_relaxation(s, missing, b, n_iter=30)
    both = alternating_minimisation(s, missing, b, start=relaxed[missing], n_iter=3000)
    assert error_db(s, both, missing) < -60
    assert error_db(s, both, missing) < error_db(s, relaxed, missing)


def test_unwrapped_phases_equal_the_reference(golden):
    """Phases of damaged frames go on from the frame before, by the frequencies of their own magnitudes."""
    x, config = golden["complex_inputs/S"][:, :, 0].T, StreamConfig(8000, 128, 32, 128)
    damaged = golden["phase_helpers/delta"][0].astype(bool)
    found = unwrap_frames(x, np.abs(x), damaged, config)
    assert np.array_equal(found[~damaged], x[~damaged])
    wanted = np.exp(1j * golden["phase_helpers/unwrapped"].T)
    apart = np.abs(found / np.abs(found) - wanted)[damaged]
    assert apart[:, 1:].max() < 1e-5  # the first bin follows its own centre here


def test_unwrapping_goes_on_as_a_sine_and_magnitudes_between():
    config = StreamConfig(8000, 256, 64, 256)
    bins = 20.3
    x = np.exp(2j * np.pi * bins * np.arange(4000) / 256).real
    frames = np.lib.stride_tricks.sliding_window_view(x, 256)[::64]
    spectra = np.fft.rfft(frames * config.windows.analysis)
    damaged = gap(20, 6, len(spectra))
    v = interpolated_magnitudes(np.abs(spectra), damaged)
    found = unwrap_frames(spectra, v, damaged, config)
    assert np.abs(found - spectra)[:, 18:23].max() < 0.2 * np.abs(spectra).max()
    silent = interpolated_magnitudes(np.abs(spectra), np.ones(len(spectra), bool))
    assert not silent.any()


def test_burg_finds_the_filter_of_a_process():
    rng = np.random.default_rng(0)
    poles = np.array([0.95 * np.exp(0.7j), 0.95 * np.exp(-0.7j), 0.8])
    a = np.poly(poles).real
    x = np.zeros(20_000)
    for i, drive in enumerate(rng.normal(size=x.size)):
        x[i] = drive - a[1:] @ x[max(0, i - 3) : i][::-1] if i >= 3 else drive
    assert np.allclose(burg([x[:9000], x[9100:]], 3), a, atol=0.02)


@pytest.mark.parametrize(("method", "most_db"), [("autoregressive", -40), ("unwrapping", -15)])
@pytest.mark.parametrize("length", [16, 160])
def test_tones_go_on_through_gaps(method, most_db, length):
    x, missing = chord(), gap(8000, length) | gap(11_000, length)
    damaged = np.where(missing, np.nan, x)
    found = rtsep.restore(damaged, SR, missing=missing, method=method)
    assert found.dtype == np.float32
    assert np.array_equal(found[~missing], x[~missing].astype(np.float32))
    assert error_db(x, found, missing) < most_db


def test_gaps_at_the_ends_and_beside_each_other_are_filled():
    x = chord()
    missing = gap(0, 10) | gap(SR - 7, 7) | gap(5000, 20) | gap(5025, 20) | gap(5100, 1)
    for method in ("autoregressive", "unwrapping"):
        found = rtsep.restore(x, SR, missing=missing, method=method)
        assert np.isfinite(found).all()
        assert np.abs(found).max() < 1
        assert np.array_equal(found[~missing], x[~missing].astype(np.float32))


def test_clicks_are_found_and_removed_and_what_is_sound_stays():
    rng = np.random.default_rng(0)
    x = chord() + rng.normal(0, 1e-3, SR)
    damaged, clicks = x.copy(), np.zeros(SR, bool)
    for start in rng.integers(500, SR - 500, 10):
        length = rng.integers(2, 16)
        damaged[start : start + length] += rng.normal(0, 0.3, length)
        clicks[start : start + length] = True
    found = find_clicks(damaged, SR)
    assert found[clicks].mean() > 0.95
    assert found[~clicks].mean() < 0.02
    restored = rtsep.restore(damaged, SR)
    everywhere = np.ones(SR, bool)
    assert error_db(x, restored, everywhere) < error_db(x, damaged, everywhere) - 20
    assert not find_clicks(x, SR).any()
    assert np.array_equal(rtsep.restore(x, SR), x.astype(np.float32))


def test_channels_are_restored_each_and_values_that_are_not_finite_count_as_missing():
    x = np.stack([chord(), -chord()])
    damaged = x.copy()
    damaged[1, 4000:4010] = np.nan
    damaged[0, 9000] = np.inf
    restored = rtsep.restore(damaged, SR)
    assert np.abs(restored - x).max() < 1e-3
    assert not rtsep.restore(np.zeros(SR), SR).any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rtsep.restore(np.zeros((2, 2, 2)), SR), "shape (2, 2, 2)"),
        (lambda: rtsep.restore(np.zeros((3000, 2)), SR), "pass its transpose"),
        (lambda: rtsep.restore(np.zeros(9), 100), "sr=100"),
        (lambda: rtsep.restore(np.zeros(9), SR, method="magic"), "method='magic'"),
        (lambda: rtsep.restore(np.zeros(9), SR, missing=np.zeros(8, bool)), "missing has shape (8,)"),
        (lambda: rtsep.restore(np.zeros(9), SR, missing=np.zeros(9)), "booleans"),
        (lambda: rtsep.restore(np.zeros(9), SR, missing=np.ones(9, bool)), "100 % of channel 0 are missing"),
        (lambda: rtsep.restore(np.zeros(9), SR, threshold=1.0), "threshold=1.0"),
        (lambda: find_clicks(np.zeros(0), SR), "shape (0,)"),
        (lambda: alternating_minimisation(np.zeros(8), np.zeros(8), np.zeros(5)), "booleans"),
        (lambda: convex_relaxation(np.zeros(8), np.zeros(8, bool), np.zeros(8)), "not (5,)"),
    ],
)
def test_what_cannot_be_restored_is_said_in_a_line(call, words):
    with pytest.raises(ConfigError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_restores_a_file_and_says_what_it_did(tmp_path, capsys):
    x = np.stack([chord(), chord()[::-1]], 1) + np.random.default_rng(0).normal(0, 1e-3, (SR, 2))
    damaged = x.copy()
    damaged[3000:3008, 0] = 0.9
    sf.write(tmp_path / "in.wav", damaged, SR, "FLOAT")
    assert main(["restore", str(tmp_path / "in.wav"), "-o", str(tmp_path / "new" / "out.flac")]) == 0
    assert "1 click, " in capsys.readouterr().out
    assert np.abs(sf.read(tmp_path / "new" / "out.flac")[0] - x).max() < 1e-2
    options = ["restore", str(tmp_path / "in.wav"), "-o", str(tmp_path / "filled.wav"), "--missing", "0.1875", "0.188"]
    assert main(options) == 0
    assert "2 gaps, " in capsys.readouterr().out  # one in each channel
    assert main(options) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("n", [300, 2 * SR + 777])
def test_the_command_restores_as_a_stream_what_it_would_restore_live(tmp_path, capsys, n):
    clean = np.resize(np.stack([chord(), chord()[::-1]]), (2, n)) + np.random.default_rng(0).normal(0, 1e-3, (2, n))
    damaged = clean.astype(np.float32)
    damaged[0, 200:206] = 0.9
    damaged[1, n - 90 : n - 85] = -0.9
    sf.write(tmp_path / "in.wav", damaged.T, SR, "FLOAT")
    assert main(["restore", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--stream", "--json"]) == 0
    remover = ClickRemover(SR, 2)
    wanted = np.concatenate([remover.process(damaged), remover.flush()], 1)[:, remover.latency :]
    assert np.array_equal(sf.read(tmp_path / "out.wav", dtype="float32")[0].T, wanted)
    assert f'"samples": {remover.n_replaced},' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.wav", "--stream", "--missing", "0", "0.1"], "leave --missing and --method out"),
        (["-o", "out.mp3"], "ends neither in .wav nor in .flac"),
        (["-o", "in.wav"], "is the input"),
        (["-o", "out.wav", "--missing", "3", "4"], "is no span within 1.000 s"),
        (["-o", "out.wav", "--threshold", "1"], "--threshold=1.0 is not between"),
    ],
)
def test_the_command_says_what_cannot_be(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    sf.write("in.wav", chord(), SR)
    assert main(["restore", "in.wav", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.wav").exists()


def crackling(seed=0, n=2 * SR):
    """Two notes, and clicks: clean, damaged."""
    rng, t = np.random.default_rng(seed), np.arange(n) / SR
    clean = 0.2 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 1330 * t) + rng.normal(0, 1e-3, n)
    damaged = clean.copy()
    for start in rng.integers(1000, n - 1000, 15):
        damaged[start : start + 9] += rng.normal(0, 0.4, 9)
    return clean, damaged


def test_clicks_are_removed_from_a_stream_and_what_is_sound_stays():
    clean, damaged = crackling()
    remover = ClickRemover(SR)
    assert remover.latency == SR // 10
    out = np.concatenate([remover.process(damaged[:5000]), remover.process(damaged[5000:])])
    replaced = remover.n_replaced
    out = np.concatenate([out, remover.flush()])[remover.latency :]
    assert 15 * 9 <= replaced < 15 * 60

    def error_db(found):
        return 10 * np.log10(np.sum(clean**2) / np.sum((clean - found) ** 2))

    assert error_db(out) > error_db(damaged) + 20
    assert error_db(out) > error_db(restore(damaged, SR)) - 3
    changed = np.abs(out - damaged) > 1e-6
    assert changed[: len(damaged) - remover.latency].sum() <= replaced
    assert not changed[-100:].any()  # the end is no click
    # Nothing but the delay happens to what is not damaged.
    quiet = ClickRemover(SR)
    passed = quiet.process(clean)
    assert quiet.n_replaced == 0
    assert np.array_equal(passed[quiet.latency :], clean[: -quiet.latency].astype(np.float32))


def test_blocks_of_any_size_give_the_same_restored_stream():
    _, damaged = crackling(1, SR)
    both = np.stack([damaged, damaged[::-1]])
    whole = ClickRemover(SR, 2).process(both)
    for size in (1, 333, 800, 5000):
        remover = ClickRemover(SR, 2)
        starts = range(0, SR, size) if size > 1 else range(2000)
        found = np.concatenate([remover.process(both[:, start : start + size]) for start in starts], 1)
        assert np.array_equal(found, whole[:, : found.shape[1]])
    one = ClickRemover(SR)
    assert np.array_equal(one.process(damaged), whole[0])
    one.reset()
    assert np.array_equal(one.process(damaged), whole[0])


def test_a_stream_that_cannot_be_restored_stays_finite():
    remover = ClickRemover(SR)
    x = np.full(SR, np.nan)
    x[: SR // 4] = 0.1
    assert np.isfinite(remover.process(x)).all()
    assert np.isfinite(remover.process(np.full(SR, np.inf))).all()
    assert not remover.flush().any()
    with pytest.raises(ValueError, match=r"not \(1, n\)"):
        remover.process(np.zeros((2, 10)))
    with pytest.raises(ConfigError, match="threshold=1"):
        ClickRemover(SR, threshold=1)
