"""The network in PyTorch and its export; skipped without PyTorch.

    python tests/test_training_network.py

makes tests/data/learned_reference.npz anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from rtsep import ConfigError
from rtsep.estimators import Speech
from rtsep.estimators.model_file import Shape, read_model

torch = pytest.importorskip("torch", reason="needs PyTorch, the extra `train`")
training = pytest.importorskip("rtsep.training.network")
gru = pytest.importorskip("rtsep.training.gru")
CONFIG, Network, export = training.CONFIG, training.Network, training.export

SMALL = Shape(16, 24, 2, 32, 2, advance_cue=True)
DUAL_PATH = Shape(32, 40, 2, 32, 2, advance_cue=True, hop_ms=8, channels=16)
GOLDEN = training.golden_spectra().astype(np.float32)
FRAMES = training.complex_frames(GOLDEN)


def untrained(shape: Shape, seed: int = 0):
    """A network whose units are driven a little further than its first weights do, all of which count."""
    torch.manual_seed(seed)
    network = Network(shape)
    with torch.no_grad():
        for parameter in network.parameters():
            if shape.channels:
                parameter += 0.05 * torch.randn_like(parameter)
            else:
                parameter *= 2
    return network.eval()


def make_reference(path: Path) -> None:
    export(untrained(SMALL), path, {"weights": "untrained, seed 0"}, sources=Speech.sources, dtype=np.float32)


def magnitudes(estimator: Speech, spectra: np.ndarray) -> np.ndarray:
    state, out = estimator.prepare(CONFIG), np.zeros((len(spectra), 2, 257), np.float32)
    for frame, found in zip(spectra, out, strict=True):
        Speech.step(state, frame[None], (frame**2).sum(0), found)
    return out


@pytest.mark.parametrize("n_batch", [1, 5])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_gru_and_its_gradients_are_those_of_pytorch(n_batch, n_layers):
    torch.manual_seed(3)
    slow = torch.nn.GRU(12, 16, n_layers, batch_first=True)
    fast = gru.GRU(12, 16, n_layers)
    fast.load_state_dict(slow.state_dict())
    x = torch.randn(n_batch, 40, 12, requires_grad=True)
    results = []
    for network, y in ((slow, slow(x)[0]), (fast, fast(x))):
        loss = (y * torch.arange(16)).square().mean() + y[:, -1].sum()
        results.append([y, *torch.autograd.grad(loss, [x, *network.parameters()])])
    for expected, actual in zip(*results, strict=True):
        scale = max(1.0, expected.abs().max().item())
        assert (expected - actual).abs().max().item() < 2e-6 * scale


@pytest.mark.parametrize(
    "shape",
    [
        SMALL,
        Shape(64, 128, 2, 96, 2, hop_ms=8),
        Shape(64, 128, 2, 96, 2, hop_ms=8, advance_cue=True),
        Shape(32, 40, 1, 48, 2, floor_cue=False),
        Shape(32, 40, 1, 48, 2, floor_cue=False, advance_cue=True),
        DUAL_PATH,
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_compiled_estimator_does_what_the_exported_network_does(shape, dtype, tmp_path):
    network, path = untrained(shape), tmp_path / "model.npz"
    export(network, path, {}, sources=Speech.sources, dtype=dtype)
    assert read_model(path).shape.n_parameters == sum(p.numel() for p in network.parameters())
    size = np.hypot(*GOLDEN.transpose(1, 0, 2))[:, None]
    with torch.no_grad():
        heads = network(FRAMES[None], shape.hop_ms // 4)
    # Rounding the weights to float16 changes a gain by less than a tenth of a dB of full scale.
    tolerance = 1e-5 if dtype == np.float32 else 1e-2
    for target, expected in (("mask", heads.masks), ("magnitudes", heads.gains)):
        actual = magnitudes(Speech(path, target), GOLDEN)
        assert np.abs(actual - size * expected[0].numpy().transpose(1, 0, 2)).max() < tolerance * size.max()


def test_heads_have_the_shapes_and_ranges_that_they_promise():
    with torch.no_grad():
        heads = untrained(SMALL)(torch.stack([FRAMES] * 3))
    assert heads.masks.shape == heads.gains.shape == (3, 2, 50, 257)
    assert heads.bands.shape == (3, 50, 5, 32)
    masks, ratios, confidence = heads.bands.split([2, 2, 1], 2)
    for head, most in ((heads.masks, 1), (heads.gains, 4), (masks, 1), (ratios, 4), (confidence, 1)):
        assert 0 <= head.min() < 0.4 * most < head.max() <= most


@pytest.mark.parametrize("shape", [SMALL, DUAL_PATH], ids=str)
def test_sequences_do_not_mix(shape):
    network = untrained(shape)
    spectra = torch.stack([FRAMES, 7 * FRAMES.flip(0)])
    with torch.no_grad():
        whole, alone = network(spectra), network(spectra[1:])
    assert torch.allclose(alone.gains[0], whole.gains[1], atol=1e-6)


def test_streams_that_take_turns_are_networks_that_hear_every_other_frame():
    network = untrained(SMALL)
    spectra = torch.stack([FRAMES[:49], 7 * FRAMES[1:].flip(0)])
    with torch.no_grad():
        both = network(spectra, 2)
        even, odd = network(spectra[:, ::2]), network(spectra[:, 1::2])
    torch.testing.assert_close(both.gains[:, :, ::2], even.gains)
    torch.testing.assert_close(both.gains[:, :, 1::2], odd.gains)


@pytest.mark.parametrize("shape", [SMALL, DUAL_PATH], ids=str)
def test_every_weight_gets_a_gradient(shape):
    network = untrained(shape).train()
    heads = network(FRAMES[None])
    (heads.gains**2).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_network_that_is_not_finite_is_not_exported(tmp_path):
    network = untrained(SMALL)
    with torch.no_grad():
        network.core.dense.bias[3] = torch.nan
    with pytest.raises(ConfigError, match="dense_bias is not finite"):
        export(network, tmp_path / "model.npz", {}, sources=Speech.sources)
    assert not list(tmp_path.iterdir())


def test_the_stored_reference_is_what_this_file_makes(tmp_path):
    make_reference(tmp_path / "reference.npz")
    stored = read_model(Path(__file__).parent / "data" / "learned_reference.npz")
    made = read_model(tmp_path / "reference.npz")
    assert np.array_equal(made.golden_spectra, stored.golden_spectra)
    assert np.abs(made.golden_heads - stored.golden_heads).max() < 1e-5


def test_without_pytorch_training_is_refused_in_one_line(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rtsep.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"training needs PyTorch: pip install 'rtsep\[train\]'"):
        import rtsep.training  # noqa: F401


def test_a_pytorch_without_muon_is_refused_in_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "rtsep.training.optimizer", raising=False)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"training needs PyTorch 2.9 or later, not \d"):
        import rtsep.training.optimizer  # noqa: F401


if __name__ == "__main__":
    make_reference(Path(__file__).parent / "data" / "learned_reference.npz")
