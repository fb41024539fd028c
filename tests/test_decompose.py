"""Differentiable dictionary search: flows, learning, search, and the commands `learn --method` and `decompose`."""

# ruff: noqa: E402

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

torch = pytest.importorskip("torch", reason="needs PyTorch, the extra `train`")

import rtsep
from rtsep.cli import main
from rtsep.config import ConfigError
from rtsep.dds import dictionary_search, learn_signals, learn_sources, read_model, write_model
from rtsep.dds.flows import Flow, FlowShape
from rtsep.dds.learning import Size
from rtsep.dds.search import alternate
from rtsep.dds.spectra import compress, expand
from rtsep.evaluation import psa
from rtsep.models import read_container, write_container
from rtsep.notes import find_notes, pitch_name, pitch_of

SR = 8000
BAND_HZ = 1500.0
PITCHES = (60, 63, 66, 69)  # their partials do not meet
SMALL = {"dds1": Size(4, 1, 32, 1e-3, 32, 12), "dds3": Size(2, 1, 64, 1e-3, 32, 8)}


def hz(pitch: int) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def tone(pitch: int, seconds: float, tilt: float = 0.6, decay: float = 2.0) -> np.ndarray:
    """A string: partials that die away, the higher ones sooner, and a damper."""
    t = np.arange(round(seconds * SR)) / SR
    n = np.arange(1, int(SR / 2 / hz(pitch)))[:, None]
    partials = np.exp(-decay * n**0.5 * t) * tilt**n * np.sin(2 * np.pi * hz(pitch) * n * t)
    return 0.3 * partials.sum(0) * np.minimum(1, np.minimum(t, seconds - t) / 0.03)


@pytest.fixture(scope="module")
def notes() -> dict[str, list[np.ndarray]]:
    kinds = [(tilt, decay) for tilt in (0.5, 0.6, 0.7) for decay in (1.0, 2.0, 3.0)]
    return {pitch_name(p): [tone(p, 0.5, *kind) for kind in kinds] for p in PITCHES}


@pytest.fixture(scope="module")
def models(notes):
    return {m: learn_signals(notes, SR, m, band_hz=BAND_HZ, size=SMALL.get(m)) for m in ("nmf", "dds1", "dds3")}


@pytest.fixture(scope="module")
def chord() -> np.ndarray:
    """c4 with f#4, then d#4, of a timbre that was not learned."""
    return np.concatenate([tone(60, 0.6, 0.65, 1.5) + tone(66, 0.6, 0.65, 1.5), tone(63, 0.6, 0.65, 1.5)])


def moved_flow(kind: str, n_features: int, dtype=torch.float32) -> tuple[Flow, torch.Tensor]:
    """Two flows that are far from the identity, and spectra for them."""
    torch.manual_seed(0)
    flow = Flow(2, FlowShape(kind, n_features, 4, 2, 16))
    x = torch.rand(2, 200, n_features)
    flow.start(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.5 / n_features * torch.randn_like(parameter)
    return flow.to(dtype), x[:, :5].to(dtype)


@pytest.mark.parametrize("kind", ["realnvp", "glow"])
@pytest.mark.parametrize("n_features", [8, 65])
def test_the_inverse_of_a_flow_gives_spectra_and_codes_back(kind, n_features):
    flow, x = moved_flow(kind, n_features)
    codes = flow(x)[0]
    assert (codes - x).abs().max() > 0.5
    torch.testing.assert_close(flow.inverse(codes), x, atol=1e-4, rtol=0)
    torch.testing.assert_close(flow(flow.inverse(x))[0], x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["dds1", "dds3"])
def test_so_does_that_of_a_flow_that_has_learned(notes, models, method):
    model = models[method]
    magnitudes = [model.spectra.magnitudes(clips[0]) for clips in notes.values()]
    x = torch.from_numpy(np.stack([compress(m / m.max()).T for m in magnitudes]))
    x = x.reshape(model.flow.n_flows, -1, x.shape[2])
    torch.testing.assert_close(model.flow.inverse(model.flow(x)[0]), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["realnvp", "glow"])
def test_the_log_determinant_is_that_of_the_numerical_jacobian(kind):
    flow, x = moved_flow(kind, 8, torch.float64)
    _, log_det = flow(x)
    step = 1e-5
    for s in range(2):
        for i in range(5):
            columns = []
            for k in range(8):
                ahead, behind = x.clone(), x.clone()
                ahead[s, i, k] += step
                behind[s, i, k] -= step
                columns.append((flow(ahead)[0][s, i] - flow(behind)[0][s, i]) / (2 * step))
            jacobian = torch.stack(columns, 1).detach().numpy()
            assert np.linalg.slogdet(jacobian)[1] == pytest.approx(log_det[s, i].item(), abs=1e-5)


def test_a_search_with_an_identity_flow_and_no_prior_is_nmf_by_projected_gradients():
    rng = np.random.default_rng(0)
    n_bins, n_src, per_src, n_frames, rate = 12, 2, 2, 9, 5e-3
    v = rng.uniform(0, 1, (n_bins, n_frames))
    w, h = rng.uniform(0.5, 1, (n_bins, n_src * per_src)), rng.uniform(0, 0.3, (n_src * per_src, n_frames))
    codes = torch.from_numpy(w.T.reshape(n_src, per_src, n_bins).copy())
    found_w, found_h, losses = alternate(
        torch.from_numpy(v),
        torch.from_numpy(w),
        torch.from_numpy(h),
        codes,
        lambda z: z.relu().reshape(-1, n_bins).T,
        n_iter=100,
        prior=0.0,
        squared=True,
        steps=lambda values: torch.optim.SGD(values, rate),
    )
    for _ in range(99):  # what is returned is where the loss was lowest, before the last step
        h = np.maximum(h - rate * 2 * w.T @ (w @ h - v), 0)
        w = np.maximum(w - rate * 2 * (w @ h - v) @ h.T, 0)
    assert (h == 0).any()
    assert losses[-1] == min(losses)
    np.testing.assert_allclose(found_h.numpy(), h, atol=1e-9)
    np.testing.assert_allclose(found_w.numpy(), w, atol=1e-9)
    assert losses[-1] == pytest.approx(((v - w @ h) ** 2).sum())


@pytest.mark.parametrize("method", ["dds1", "dds3"])
def test_learning_lowers_the_validation_likelihood_and_keeps_the_best(notes, models, method):
    history = models[method].manifest["validation"]
    assert min(history) < history[0] - 0.05
    seen = []
    learn_signals(
        notes,
        SR,
        method,
        band_hz=BAND_HZ,
        size=SMALL[method],
        progress=lambda d, n, nll: seen.append((d, n, nll)) or d == 2,
    )
    assert [s[:2] for s in seen] == [(1, SMALL[method].epochs), (2, SMALL[method].epochs)]  # and may be ended
    assert seen[1][2] == pytest.approx(min(history[:2]), abs=1e-3)  # the same seed


@pytest.mark.parametrize("method", ["dds1", "dds3"])
def test_samples_of_a_pitch_have_that_pitch(models, method):
    model = models[method]
    generator = torch.Generator().manual_seed(0)
    levels = model.decode(0.7 * torch.randn(len(PITCHES), 20, model.n_free, generator=generator)).numpy()
    config = model.spectra.config
    frequencies = np.arange(1, model.spectra.n_bins + 1) * SR / config.n_fft
    right = []
    for row, pitch in zip(expand(levels), PITCHES, strict=True):
        peaks = frequencies[row.argmax(1)]  # of tones like these the first partial is the strongest
        right.append(np.abs(12 * np.log2(peaks / hz(pitch))) < 0.6)
    assert np.mean(right) > 0.9


@pytest.mark.parametrize("method", ["dds1", "dds3"])
def test_learning_goes_on_from_a_model_and_makes_it_nowhere_worse(notes, models, method):
    old = models[method]
    options = {"band_hz": BAND_HZ, "size": SMALL[method]._replace(epochs=2), "resume": old}
    best = min(old.manifest["validation"])
    went_on = learn_signals(notes, SR, method, **options)
    history = went_on.manifest["validation"]
    assert history[: len(old.manifest["validation"])] == old.manifest["validation"]
    assert min(history[-2:]) < old.manifest["validation"][0]
    spoiled = learn_signals(notes, SR, method, **options | {"size": SMALL[method]._replace(epochs=1, lr=1.0)})
    assert spoiled.manifest["validation"][-1] > best + 0.5
    for name, value in spoiled.flow.state_dict().items():
        assert torch.equal(value, old.flow.state_dict()[name]), name
    fewer = dict(list(notes.items())[:3])
    for changed, words in (
        ({"signals": fewer}, "the model to resume knows c4"),
        ({"size": SMALL[method]._replace(width=8)}, "flows of another size"),
        ({"band_hz": 2000.0}, "is for 8000 Hz up to 1500 Hz, not"),
        ({"method": "nmf"}, "nothing to resume"),
    ):
        with pytest.raises(ConfigError, match=words):
            learn_signals(**{"signals": notes, "sr": SR, "method": method} | options | changed)


@pytest.mark.parametrize("method", ["nmf", "dds1", "dds2", "dds3"])
def test_a_search_finds_the_notes_of_a_chord(models, chord, method):
    model = models["dds1" if method == "dds2" else method]
    seen = []
    # Activations alone have a loss with an edge at its minimum, around which steps of 0.02 jump: by rounding, there.
    n_iter, rate = (400, 0.005) if method == "nmf" else (120, 0.02)
    options = {"n_iter": n_iter, "n_atoms": 3, "learning_rate": rate}
    found = rtsep.dictionary_search(chord, SR, model, method, **options, progress=lambda *told: seen.append(told))
    truth = np.zeros(found.activations.shape, bool)
    truth[[0, 2]] = found.times < 0.6
    truth[1] = found.times >= 0.6
    assert psa(found.activations, truth) > 0.75
    assert set(found.active) == {"c4", "d#4", "f#4"}
    assert seen[0][:2] == (1, n_iter)
    assert [told[2] for told in seen] == list(found.losses)
    assert found.losses.min() < found.losses[0] / 3
    assert found.unexplained < 0.5
    again = dictionary_search(chord, SR, model, method, **options)
    np.testing.assert_array_equal(again.activations, found.activations)
    louder = dictionary_search(30 * chord, SR, model, method, **options)
    np.testing.assert_allclose(louder.activations, found.activations, atol=1e-3 * found.activations.max())
    sounds = rtsep.separate(chord, SR, found.estimator(), config=model.spectra.config)
    np.testing.assert_allclose(sounds.sum(0), chord, atol=1e-5)
    held = sounds[list(found.active).index("d#4")]
    assert (held[: SR // 2] ** 2).sum() < 0.2 * (held[-SR // 2 :] ** 2).sum()


def test_levels_and_magnitudes_belong_together():
    magnitudes = np.geomspace(1e-4, 1, 50)
    np.testing.assert_allclose(expand(compress(magnitudes)), magnitudes, rtol=1e-4)
    assert compress(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("method", ["nmf", "dds1", "dds3"])
def test_a_model_file_says_the_same_as_the_model(models, method, tmp_path):
    path = tmp_path / "model.npz"
    write_model(path, models[method])
    model = read_model(path)
    assert (model.sources, model.spectra) == (models[method].sources, models[method].spectra)
    if method == "nmf":
        np.testing.assert_allclose(model.frames[1], models[method].frames[1], atol=1e-3)
        return
    codes = torch.randn(len(PITCHES), 2, model.n_free)
    torch.testing.assert_close(model.decode(codes), models[method].decode(codes), rtol=0, atol=0)


def test_model_files_that_were_tampered_with_are_refused_in_one_line(models, tmp_path):
    path = tmp_path / "model.npz"
    write_model(path, models["dds3"])
    header, content, _ = read_container(path, "rtsep-dds", 1)
    kind, version = header.pop("format"), header.pop("version")

    def refused(change, more) -> str:
        write_container(path, kind, version, {**header, **more}, {**content, **change}, check=lambda part: None)
        with pytest.raises(ConfigError) as error:
            read_model(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    order = next(name for name in content if name.endswith(".order"))
    weight = next(name for name in content if name.endswith(".weight"))
    assert "is no permutation" in refused({order: content[order] * 0}, {})
    assert "not finite" in refused({weight: content[weight] * np.nan}, {})
    assert "of shape" in refused({weight: content[weight][:, :-1]}, {})
    assert "other arrays" in refused({"more": content[weight]}, {})
    assert "n_steps" in refused({}, {"shape": header["shape"] | {"n_steps": 10**9}})
    assert "header is wrong" in refused({}, {"method": "dds9"})
    assert "header is wrong" in refused({}, {"sources": ["c4", "c4"]})
    assert "header is wrong" in refused({}, {"spectra": {"sr": SR, "band_hz": 9e9}})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="damaged"):
        read_model(path)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros(4000), {}, "audio is silent"),
        (np.array([0.1, np.nan] * 2000), {}, "2000 samples that are not finite"),
        (np.zeros((4000, 2)), {}, "pass its transpose"),
        (np.zeros(0), {}, "audio has shape"),
        (1j * np.ones(4000), {}, "complex"),
        (np.ones(4000), {"sr": 16_000}, "the model is for 8000 Hz; sr=16000"),
        (np.ones(4000), {"method": "nmf"}, "was learned for dds3"),
        (np.ones(4000), {"method": "dds7"}, "is not one of"),
        (np.ones(4000), {"n_atoms": 0}, "n_atoms"),
        (np.ones(4000), {"n_iter": 0}, "n_iter"),
        (np.ones(4000), {"prior": float("nan")}, "prior"),
    ],
)
def test_mixtures_that_cannot_be_decomposed_are_refused(models, x, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        dictionary_search(x, options.pop("sr", SR), models["dds3"], **options)
    assert "\n" not in str(error.value)


def test_what_would_not_fit_into_memory_is_refused_before_it_is_tried(models):
    with pytest.raises(ConfigError, match=r"dds1 would need about .* GB for 3600 s, more than 4 GB; .* or dds2"):
        dictionary_search(np.ones(3600 * SR), SR, models["dds1"], "dds1")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"d4": [np.zeros(4000)]}, {}, "a recording of 'd4': audio is silent"),
        ({"d4": [np.full(4000, np.inf)]}, {}, "a recording of 'd4': .* not finite"),
        ({"d4": [tone(62, 0.01)]}, {}, "frames of 'd4' that are not quiet: at least 10"),
        ({"d4": []}, {}, "0 frames of 'd4'"),
        ({"mixture": [tone(62, 0.5)]}, {}, "what recordings call the input"),
        ({}, {"method": "dds4"}, "is not one of"),
        ({}, {"band_hz": 1e6}, "band_hz"),
        ({}, {"epochs": 0}, "epochs"),
    ],
)
def test_notes_that_cannot_be_learned_are_refused(notes, change, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        learn_signals(notes | change, SR, **{"band_hz": BAND_HZ, **options})
    assert "\n" not in str(error.value)


def test_recordings_of_two_rates_need_a_word(tmp_path):
    paths = []
    for i, sr in enumerate((8000, 16_000)):
        paths.append(tmp_path / f"{i}.wav")
        sf.write(paths[-1], tone(60 + i, 1.0), sr)
    with pytest.raises(ConfigError, match=r"0.wav has 8000 Hz, .*1.wav has 16000 Hz; .* Say sr"):
        learn_sources({"c4": paths[:1], "d4": paths[1:]}, "nmf")
    assert learn_sources({"c4": paths[:1], "d4": paths[1:]}, "nmf", sr=8000).spectra.sr == 8000


@pytest.mark.parametrize(
    ("name", "pitch"),
    [("c4", 60), ("C4_soft", 60), ("60", 60), ("060.wav", 60), ("eb5-2.wav", 75), ("d#3", 51), ("ds3", 51), ("a-1", 9)],
)
def test_pitches_by_name(name, pitch):
    assert pitch_of(name) == pitch
    assert pitch_of(pitch_name(pitch)) == pitch


@pytest.mark.parametrize("name", ["chord", "h4", "c", "c4x", "600", "128", "g12", "guitar4"])
def test_names_without_a_pitch(name):
    assert pitch_of(name) is None


def test_notes_are_where_activations_are():
    activations = np.zeros((2, 10))
    activations[0, 1:6], activations[1, :4], activations[1, 5:], activations[0, 7:] = 1, 1, 0.5, 0.05
    found = find_notes(activations, 0.1 * np.arange(10), ("c4", "e4"))
    assert [(n.source, n.onset, n.offset, n.level) for n in found] == [("c4", 0.05, 0.55, 1.0), ("e4", 0.45, 0.95, 0.5)]
    assert find_notes(0 * activations, np.arange(10.0), ("c4", "e4")) == []


@pytest.fixture(scope="module")
def files(tmp_path_factory, notes, chord) -> Path:
    """A folder of notes, some in folders, and a chord in stereo."""
    folder = tmp_path_factory.mktemp("decompose")
    for name, clips in notes.items():
        for i, clip in enumerate(clips):
            path = folder / "notes" / (f"{name}_{i}.wav" if name < "d" else f"{name}/{i}.wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, clip, SR, "FLOAT")
    sf.write(folder / "notes" / "room.wav", chord, SR)
    sf.write(folder / "chord.wav", np.stack([chord, 0.5 * chord], 1), SR, "FLOAT")
    return folder


def test_from_a_folder_of_notes_to_the_files_of_a_chord(files, chord, capsys):
    model, out = files / "piano.npz", files / "out"
    learned = ["learn", "--method", "dds2", str(files / "notes"), "-o", str(model), "--epochs", "6", "--band", "1500"]
    assert main(learned) == 0
    said = capsys.readouterr()
    assert "4 sounds" in said.out
    assert main([*learned, "--resume", "--epochs", "1"]) == 0
    assert "in 7 epochs" in capsys.readouterr().out
    assert "for dds2 at 8000 Hz up to 1500 Hz; validation NLL" in said.out
    assert "room.wav: its name does not begin with a pitch" in said.err
    command = ["decompose", str(files / "chord.wav"), "--model", str(model), "-o", str(out), "--atoms", "3"]
    assert main([*command, "--iterations", "100", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "dds2, 100 iterations, loss" in said
    assert "notes" in said
    sounds = sorted(path.name for path in out.glob("*.wav"))
    assert sounds == ["chord.c4.wav", "chord.d#4.wav", "chord.f#4.wav"]
    total = np.sum([sf.read(out / name)[0] for name in sounds], 0)
    np.testing.assert_allclose(total, np.stack([chord, 0.5 * chord], 1), atol=1e-5)
    assert (out / "chord.roll.png").read_bytes().startswith(b"\x89PNG")
    with open(out / "chord.notes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    report = json.loads((out / "chord.notes.json").read_text())
    assert [row["source"] for row in rows] == [note["source"] for note in report["notes"]]
    assert {(row["source"], row["midi"]) for row in rows} == {("c4", "60"), ("d#4", "63"), ("f#4", "66")}
    assert next(float(row["onset_s"]) for row in rows if row["source"] == "d#4") == pytest.approx(0.6, abs=0.08)
    assert np.shape(report["activations"]) == (4, len(report["times"]))
    assert report["seed"] == 3
    assert main(command) == 2
    assert "exists (--overwrite replaces it)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learn", "--method", "dds3", "c4=NOTES/none.wav", "d4=NOTES", "-o", "x.npz"], "none.wav"),
        (["learn", "--method", "dds3", "EMPTY", "-o", "x.npz"], "no recordings that can be read"),
        (["learn", "--method", "dds3", "CHORD", "-o", "x.npz"], "neither a folder of notes nor NAME=PATH"),
        (
            ["learn", "--method", "dds3", "NOTES", "-o", "x.npz", "--divergence", "is"],
            "--divergence is for dictionaries",
        ),
        (["learn", "a=NOTES", "b=NOTES", "-o", "x.npz", "--epochs", "3"], "--epochs goes with --method"),
        (["decompose", "CHORD", "--model", "none.npz", "-o", "out"], "there is no such file"),
        (["decompose", "CHORD", "--model", "CHORD", "-o", "out"], "cannot be used as a model"),
        (["decompose", "CHORD", "--model", "MODEL", "-o", "out", "--method", "dds1"], "was learned for nmf"),
        (["decompose", "CHORD", "--model", "MODEL", "-o", "out", "--phase", "psychic"], "psychic"),
        (["decompose", "CHORD", "--model", "MODEL", "-o", "out", "--iterations", "0"], "--iterations=0"),
        (["decompose", "FAST", "--model", "MODEL", "-o", "out"], "fast.wav has 16000 Hz, .* is for 8000 Hz"),
        (["decompose", "SILENT", "--model", "MODEL", "-o", "out"], "silent.wav: audio is silent"),
        (["decompose", "BROKEN", "--model", "MODEL", "-o", "out"], "broken.wav: .* not finite"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(files, models, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.npz", models["nmf"])
    (tmp_path / "empty").mkdir()
    sf.write("fast.wav", tone(60, 0.5), 2 * SR)
    sf.write("silent.wav", np.zeros(SR), SR)
    sf.write("broken.wav", np.full(SR, np.nan), SR, "FLOAT")
    places = {"NOTES": files / "notes", "CHORD": files / "chord.wav", "MODEL": "model.npz", "EMPTY": "empty"}
    places |= {"FAST": "fast.wav", "SILENT": "silent.wav", "BROKEN": "broken.wav"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("skipped")]
    assert len(said) == 1
    assert re.search(message, said[0]), said
    assert not Path("out").exists()
    assert not Path("x.npz").exists()


def test_a_note_that_the_model_does_not_know_is_said(models, tmp_path, capsys):
    write_model(tmp_path / "model.npz", models["nmf"])
    sf.write(tmp_path / "e4.wav", tone(64, 1.0), SR)
    command = ["decompose", str(tmp_path / "e4.wav"), "--model", str(tmp_path / "model.npz"), "-o", str(tmp_path)]
    assert main([*command, "--iterations", "100"]) == 0
    assert "is nothing that" in capsys.readouterr().err


def test_pytorch_is_imported_by_these_commands_alone(tmp_path):
    code = (
        "import sys, rtsep, rtsep.learn, rtsep.plots, rtsep.cli; rtsep.cli.make_parser()\n"
        "rtsep.separate; assert 'torch' not in sys.modules\n"
        "rtsep.dictionary_search; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pytorch_one_line_says_what_to_install(files, tmp_path):
    code = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more)\n"
        "from rtsep.cli import main\n"
        f"sys.exit(main(['decompose', {str(files / 'chord.wav')!r}, '--model', 'x.npz', '-o', 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "rtsep: a dictionary search needs PyTorch: pip install 'rtsep[train]'\n"


def test_the_page_is_what_was_measured(monkeypatch):
    docs = Path(__file__).parents[1] / "docs"
    monkeypatch.syspath_prepend(str(docs.parent / "bench"))
    import decompose

    result = json.loads((docs / "decompose.json").read_text())
    assert (docs / "decompose.md").read_text() == decompose.render_page(result)


def test_a_small_study_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    import decompose
    import piano_corpus

    font = "TimGM6mb.sf2"
    if shutil.which("fluidsynth") is None or not any((folder / font).exists() for folder in piano_corpus.FONTS):
        pytest.skip(f"needs fluidsynth and {font}")
    monkeypatch.setattr(decompose, "PIANOS", {"bright": (font, 1)})
    monkeypatch.setattr(decompose, "SEEDS", (0,))
    monkeypatch.setattr(decompose, "POLYPHONY", (2,))
    monkeypatch.setattr(decompose, "CHORDS", 1)
    monkeypatch.setattr(decompose, "PAIRS", 1)
    monkeypatch.setattr(decompose, "costs", list)
    small = decompose.Study(SR, BAND_HZ, range(60, 64), (60, 90), 0.5, SMALL, 2, 30, 0.02, "smoke")
    monkeypatch.setattr(decompose, "SMALL", small)
    monkeypatch.setattr(sys, "argv", ["decompose.py", "-o", str(tmp_path), "--work", str(tmp_path / "work")])
    calls = []
    measure = decompose.cell

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(decompose, "cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decompose.main()
    assert "**2 of 7 cells are done**" in (tmp_path / "decompose.md").read_text()
    decompose.main()
    assert len(calls) == 3 + 5  # the third again, and the four after it
    result = json.loads((tmp_path / "decompose.json").read_text())
    assert set(result["cells"]) == {"/".join(map(str, k)) for k in [("nmf", 0, 2, 0)]} | {
        f"{m}/{prior:g}/2/0" for m in ("dds1", "dds2", "dds3") for prior in (decompose.RELEASED, decompose.STRONG)
    }
    assert all(0 < scores["psa"] <= 1 and 0 <= scores["sparsity"] <= 1 for scores in result["cells"].values())
    page = (tmp_path / "decompose.md").read_text()
    assert "cells are done" not in page
    assert "Order of PSA" in page
    assert "Dictionaries for streams" in page
    assert (tmp_path / "decompose.png").stat().st_size > 1000
