"""The onnx estimator: on small networks whose results are known, and on real ones where they are given."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest
import signals
import soundfile
from test_live_callback import Device

from rtsep import ConfigError, Separator, StreamConfig, separate
from rtsep.cli import main
from rtsep.estimators import Onnx
from rtsep.evaluation import si_sdr
from rtsep.live.worker import WorkerDriver

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "peers"))
import engines

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

SR = 16_000
CONFIG = StreamConfig(SR, 512, 256)
NOW, BEFORE = 0.5, 0.25  # weights of this frame and the last one in the networks here


def save(path: Path, inputs: dict, outputs: dict, nodes: list[tuple], metadata: dict | None = None) -> str:
    """A network from shapes by name and nodes (operation, inputs, output)."""
    from onnx import TensorProto, helper, numpy_helper

    def tensors(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    constants = {"now": [NOW], "before": [BEFORE], "large": [1e30]}
    initializers = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    initializers += [numpy_helper.from_array(np.array([i]), name) for name, i in (("first", 0), ("last", 129))]
    made = [helper.make_node(operation, given, [result]) for operation, given, result in nodes]
    graph = helper.make_graph(made, "network", tensors(inputs), tensors(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in (metadata or {}).items()})
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def spectral(tmp_path) -> str:
    """Gives a half of this spectrum and a quarter of the last one, which is its state; takes it as GTCRN does."""
    shape = [1, 257, 1, 2]
    nodes = [
        ("Mul", ["frame", "now"], "a"),
        ("Mul", ["past", "before"], "b"),
        ("Add", ["a", "b"], "speech"),
        ("Identity", ["frame"], "past_out"),
    ]
    return save(
        tmp_path / "spectral.onnx", {"frame": shape, "past": shape}, {"speech": shape, "past_out": shape}, nodes
    )


def masking(path: Path, n_bins: int, metadata: dict | None = None) -> str:
    """A mask from magnitudes, as DTLN's: the share of a half of these in themselves and a quarter of the last ones."""
    shape = ["batch", 1, n_bins]
    nodes = [
        ("Mul", ["frame", "now"], "a"),
        ("Mul", ["past", "before"], "b"),
        ("Add", ["a", "b"], "c"),
        ("Div", ["a", "c"], "mask"),
        ("Identity", ["frame"], "h"),
    ]
    return save(path, {"frame": shape, "past": shape}, {"mask": shape, "h": shape}, nodes, metadata)


def magnitudes(settings: Onnx, x: np.ndarray, config: StreamConfig) -> np.ndarray:
    """What the estimator gives for all frames of a signal, (n_frames, 2, n_bins)."""
    spectra = naive.stft(x, config.analysis, config.hop, config.n_fft, x.size // config.hop)
    state, found = settings.prepare(config), []
    for z in spectra:
        out = np.zeros((2, config.n_bins), np.float32)
        mixture = np.stack([z.real, z.imag])[None].astype(np.float32)
        settings.step(state, mixture, (mixture**2).sum((0, 1)), out)
        found.append(out)
    return np.array(found)


def expected(x: np.ndarray, config: StreamConfig, window: np.ndarray, network) -> np.ndarray:
    """The same from the samples: network(frame, last frame) of spectra with its own window."""
    n = config.analysis
    frames = naive.frames_of(x, n, config.hop, x.size // config.hop)
    spectra = np.fft.rfft(frames * window)
    before = np.concatenate([np.zeros((1, n // 2 + 1)), spectra[:-1]])
    with np.errstate(invalid="ignore"):
        back = np.where(window > 0, naive.hann(n) / window, 0)
    speech = np.fft.rfft(np.fft.irfft(network(spectra, before), n) * back, config.n_fft)
    mixture = np.fft.rfft(frames * naive.hann(n), config.n_fft)
    return np.stack([np.abs(speech), np.abs(mixture - speech)], 1)


@pytest.mark.parametrize("window", ["hann_sqrt", "hann"])
def test_a_network_on_spectra_hears_the_frame_in_its_own_window_and_remembers(spectral, window):
    x = signals.voices(16_000).sum(0)
    shape = naive.hann(512) ** (0.5 if window == "hann_sqrt" else 1)
    found = magnitudes(Onnx(spectral, window=window), x, CONFIG)
    twin = expected(x, CONFIG, shape, lambda now, past: NOW * now + BEFORE * past)
    # Where the Hann window is small, single precision is all that is left of a sample.
    assert np.abs(found - twin).max() < 1e-4 * np.abs(twin).max()


@pytest.mark.parametrize(("n", "n_fft"), [(512, 512), (320, 512)])
def test_a_network_of_masks_works_on_the_frame_without_a_window(tmp_path, n, n_fft):
    config = StreamConfig(SR, n, n // 4, n_fft)
    x = signals.voices(16_000).sum(0)
    found = magnitudes(Onnx(masking(tmp_path / "mask.onnx", n // 2 + 1)), x, config)

    def network(now, past):
        a, b = NOW * np.abs(now), BEFORE * np.abs(past)
        return now * a / (a + b)

    twin = expected(x, config, np.ones(n), network)
    assert np.abs(found - twin).max() < 1e-3 * np.abs(twin).max()


def test_real_and_imaginary_parts_may_come_first_and_states_in_any_order(tmp_path):
    shape, small = [1, 2, 257], [1, 3]
    path = save(
        tmp_path / "turned.onnx",
        {"cache2": small, "cache": small, "frame": shape},
        {"cache_out": small, "cache2_out": small, "vad": [1], "speech": shape},
        [
            ("Add", ["cache", "now"], "cache_out"),
            ("Add", ["cache2", "before"], "cache2_out"),
            ("ReduceSum", ["cache"], "total"),
            ("Identity", ["now"], "vad"),
            ("Mul", ["frame", "total"], "speech"),
        ],
    )
    x = signals.voices(4_096).sum(0)
    found = magnitudes(Onnx(path), x, CONFIG)
    mixture = np.abs(naive.stft(x, 512, 256, 512, 16))
    for t in range(16):  # the sum of three that grow by NOW: crossed with the other state it would be BEFORE
        assert np.allclose(found[t, 0], 3 * NOW * t * mixture[t], rtol=1e-3, atol=1e-3 * mixture.max())


def test_any_block_size_the_offline_call_and_a_new_start_give_the_same_bits(spectral):
    x = signals.voices(8_000).sum(0)
    separator = Separator(CONFIG, Onnx(spectral))
    first = separator.process(x)
    for size in (1_000, 256, 77):
        separator.reset()
        blocks = [separator.process(x[i : i + size]) for i in range(0, x.size, size)]
        assert np.array_equal(np.concatenate(blocks, 1), first)
    assert not np.array_equal(separator.process(x), first)
    whole = separate(x, SR, Onnx(spectral), config=CONFIG)
    assert np.array_equal(whole[:, :-512], first[:, 512:])
    assert np.abs(whole.sum(0) - x).max() < 1e-6
    changed = x.copy()
    changed[5_000:] = 0.3
    separator.reset()
    assert np.array_equal(separator.process(changed)[:, :5_000], first[:, :5_000])


def test_live_it_runs_in_the_worker_and_gives_the_same_bits(spectral):
    x = signals.voices(8_000).sum(0)
    expected = Separator(CONFIG, Onnx(spectral)).process(x)[0]
    separator = Separator(CONFIG, Onnx(spectral))
    driver = WorkerDriver(separator, prefill_ms=32)
    device = Device(separator, driver)
    heard = device.play(x, (64,), between=driver.step)[0]
    device.close()
    assert driver.prefill == 512
    assert np.array_equal(heard[512:], expected[:-512])


@pytest.mark.parametrize("signal", signals.hostile())
def test_any_input_gives_finite_sources_that_add_up(spectral, signal):
    x = signals.hostile()[signal]
    heard = separate(x, SR, Onnx(spectral), config=CONFIG)
    assert np.isfinite(heard).all()
    clean = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    assert np.abs(clean).max() > 0.4 or np.abs(heard.sum(0) - clean).max() < 1e-6


def test_a_network_that_overflows_starts_anew_and_the_mixture_is_heard_meanwhile(tmp_path):
    shape = [1, 257, 2]
    nodes = [
        ("Mul", ["past", "large"], "grown"),
        ("Add", ["grown", "frame"], "past_out"),
        ("Identity", ["past_out"], "speech"),
    ]
    path = save(tmp_path / "m.onnx", {"frame": shape, "past": shape}, {"speech": shape, "past_out": shape}, nodes)
    found = magnitudes(Onnx(path), signals.voices(4_096).sum(0), CONFIG)
    assert np.isfinite(found).all()
    alone = np.flatnonzero(found[:, 1].max(1) < 1e-3 * found[:, 0].max(1))
    assert {0, 2, 3} <= set(alone.tolist())  # the first frame; the third, which is not finite; the first of a new start


def test_channels_are_heard_as_their_mean_and_share_the_magnitudes(spectral):
    x = signals.voices(8_000)
    stereo = StreamConfig(SR, 512, 256, n_channels=2)
    both = separate(np.stack([x[0], x[0]]), SR, Onnx(spectral), config=stereo)
    one = separate(x[0], SR, Onnx(spectral), config=CONFIG)
    assert np.abs(both - one[:, None]).max() < 1e-6
    opposite = separate(np.stack([x[0], -x[0]]), SR, Onnx(spectral), config=stereo)
    assert np.isfinite(opposite).all()


def test_what_the_file_says_of_its_framing_counts_and_settings_count_more(tmp_path, spectral):
    said = {"sample_rate": 8_000, "hop_length": 128, "window_type": "hann", "window_length": 512}
    path = masking(tmp_path / "said.onnx", 257, said)
    assert (Onnx(path).sr, Onnx(path).hop, Onnx(path).window) == (8_000, 128, "hann")
    assert (Onnx(path, sr=16_000, hop=64, window="none").hop, Onnx(spectral).hop) == (64, 256)
    assert (Onnx(spectral).sr, Onnx(spectral).window) == (16_000, "hann_sqrt")
    for key, value, message in (
        ("window_type", "vorbis", "window='vorbis' is not one of hann, hann_sqrt, none"),
        ("window_length", 400, "window_length 400 and its FFT of 512 differ"),
        ("hop_length", "many", "hop='many' is not an integer"),
        ("hop_length", 600, "hop=600 is not between 1 and 512 samples"),
    ):
        with pytest.raises(ConfigError, match=message):
            Onnx(masking(tmp_path / "wrong.onnx", 257, said | {key: value}))


def test_another_framing_is_refused_with_the_one_to_ask_for(spectral):
    needed = r"is for sr=16000 analysis=512 hop=256, which are --window-ms 32 --hop-ms 16 at 16000 Hz; the stream has"
    for config in (StreamConfig(SR), StreamConfig(SR, 512, 128), StreamConfig(48_000, 512, 256)):
        with pytest.raises(ConfigError, match=f"{needed} sr={config.sr} analysis={config.analysis}"):
            Separator(config, Onnx(spectral))


def test_files_that_cannot_be_understood_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    blocks = save(tmp_path / "samples.onnx", {"block": [1, 512]}, {"y": [1, 512]}, [("Identity", ["block"], "y")])
    half = [("Slice", ["frame", "first", "last"], "mask")]
    other = save(tmp_path / "other.onnx", {"frame": [257]}, {"mask": [129]}, half)
    lost = save(
        tmp_path / "lost.onnx",
        {"frame": [1, 257], "state": [1, 7]},
        {"mask": [1, 257]},
        [("ReduceSum", ["state"], "s"), ("Mul", ["frame", "s"], "mask")],
    )
    for path, message in (
        (tmp_path / "none.onnx", "is no file"),
        (tmp_path / "text.onnx", "onnxruntime cannot run it: .*INVALID_PROTOBUF"),
        (blocks, r"must be the spectrum of a frame.*inputs: block \(1, 512\); outputs: y \(1, 512\)"),
        (other, "must be the spectrum of a frame"),
        (lost, r"no output has the shape of the state state; inputs: frame \(1, 257\), state \(1, 7\)"),
        ("", "needs model=FILE"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            Onnx(path)
        assert "\n" not in str(caught.value)


def test_settings_can_go_to_another_process(spectral):
    settings = pickle.loads(pickle.dumps(Onnx(spectral)))
    assert settings == Onnx(spectral)


def test_the_command_line_takes_the_file_and_says_what_it_lacks(spectral, tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", signals.voices(8_000).sum(0), SR)
    command = ["separate", str(tmp_path / "x.wav"), "-o", str(tmp_path / "out"), "--estimator"]
    framing = ["--window-ms", "32", "--hop-ms", "16"]
    assert main([*command, "onnx", "--model", spectral, *framing]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.speech.wav", "x.residual.wav"}
    for wrong, message in (
        (["onnx"], "needs --model=FILE"),
        (["onnx", "--model", spectral], "--window-ms 32 --hop-ms 16"),
        (["denoise", "--model", spectral], "'denoise' does not take --model="),
    ):
        assert main([*command, *wrong, *(["--overwrite"] if "--model" in wrong else [])]) == 2
        assert message in capsys.readouterr().err


def test_without_onnxruntime_the_error_names_the_extra():
    code = """
import sys
sys.modules["onnxruntime"] = None
from rtsep.cli import main
sys.exit(main(["separate", "x.wav", "-o", "out", "--estimator", "onnx", "--model", "x.onnx"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "rtsep[onnx]"' in done.stderr


def given(*names: str) -> list[str]:
    """Real networks, in the folder that RTSEP_PEER_MODELS names."""
    folder = os.environ.get("RTSEP_PEER_MODELS")
    if not folder:
        pytest.skip(f"needs RTSEP_PEER_MODELS, a folder with {' and '.join(names)}")
    return [str(Path(folder, name)) for name in names]


def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Recorded speech with white noise at 5 dB, and without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "test" / "speech"
    recordings = sorted(folder.glob("*"))[:1]
    if not recordings:
        pytest.skip(f"needs recordings of speech in {folder}")
    x = soundfile.read(recordings[0], dtype="float32")[0][: 5 * SR]
    noise = np.random.default_rng(0).normal(0, np.sqrt((x**2).mean() / 10**0.5), x.size)
    return (x + noise).astype(np.float32), x


@pytest.mark.parametrize("name", ["gtcrn_simple.onnx", "gtcrn.onnx"])
def test_gtcrn_is_as_good_as_in_its_own_framing(name):
    (path,) = given(name)
    mixture, speech = noisy()
    own = engines.run(engines.GTCRN(path), np.pad(mixture, (0, 256)))[256:]
    ours = separate(mixture, SR, Onnx(path), config=CONFIG)[0]
    # All that is lost are the phases of the network.
    assert si_sdr(speech, ours) > si_sdr(speech, own) - 0.4
    assert si_sdr(own, ours) > 15


def test_the_first_network_of_dtln_lowers_noise():
    (path,) = given("dtln_model_1.onnx")
    mixture, speech = noisy()
    ours = separate(mixture, SR, Onnx(path), config=StreamConfig(SR, 512, 128))[0]
    assert si_sdr(speech, ours) > si_sdr(speech, mixture) + 4


def test_the_second_network_of_dtln_is_refused():
    (path,) = given("dtln_model_2.onnx")
    with pytest.raises(ConfigError, match=r"must be the spectrum of a frame.*inputs: input_4 \(1, 1, 512\)"):
        Onnx(path)
