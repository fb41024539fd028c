"""The networks of the learned estimators in PyTorch: the twins of those in the hop that can be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rtsep.config import StreamConfig
from rtsep.estimators.features import extract_all_features, prepare_features
from rtsep.estimators.model_file import LEAK, MAX_RATIO, RATIO_OFFSET, Model, Shape, write_model
from rtsep.training.dual_path import DualPath, Told, as_it_is
from rtsep.training.expansion import CONFIG, to_bins
from rtsep.training.gru import GRU

GOLDEN_FRAMES = 50


class Heads(NamedTuple):
    """What the network says about every bin, (batch, n_src, n_frames, n_bins), and about the bands behind that."""

    masks: Tensor  # 0 to 1: gains for the phase of the mixture
    gains: Tensor  # 0 to 4: magnitudes for phase recovery over those of the mixture, confidence * ratio + rest * mask
    bands: Tensor  # (batch, n_frames, n_heads, bands_out): masks, ratios (0 to 4), confidence (0 to 1)


class Recurrent(nn.Module):
    """Dense layer, GRUs with a residual connection around them, heads: raw (batch, n_frames, n_heads, bands_out)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.dense = nn.Linear(shape.n_features, shape.hidden)
        self.gru = GRU(shape.hidden, shape.hidden, shape.n_layers)
        self.heads = nn.Linear(shape.hidden, shape.n_heads * shape.bands_out)
        # A memory that lasts from the start: rotations, and update gates that keep three quarters.
        with torch.no_grad():
            for layer in range(shape.n_layers):
                for gate in getattr(self.gru, f"weight_hh_l{layer}").split(shape.hidden):
                    nn.init.orthogonal_(gate)
                getattr(self.gru, f"bias_hh_l{layer}")[shape.hidden : 2 * shape.hidden] = 1.0

    def forward(self, features: Tensor, told: Told = as_it_is) -> Tensor:
        """Of features (batch, n_frames, n_features); `told` changes (batch, n_frames, hidden)."""
        first = x = nn.functional.leaky_relu(told(self.dense(features)), LEAK)
        for layer in range(self.shape.n_layers):
            x = self.gru.layer(told(x) if layer else x, layer)
        return self.heads(told(x + first)).unflatten(-1, (self.shape.n_heads, self.shape.bands_out))


class Network(nn.Module):
    """A network from spectra to heads.

    Parameters
    ----------
    shape : Shape
        Sizes.

    Attributes
    ----------
    core : Recurrent or DualPath
        From features to raw heads.

    Notes
    -----
    16 kHz, windows of 16 ms, 257 bins. The features are those of the compiled kernel that runs in the hop; no gradient
    goes through them.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.core: nn.Module = DualPath(shape) if shape.channels else Recurrent(shape)

    def forward(self, spectra: Tensor, n_streams: int = 1, enrolment: Tensor | None = None) -> Heads:
        """Heads for consecutive frames from the start of a stream.

        Parameters
        ----------
        spectra : Tensor, complex64, (batch, n_frames, n_bins)
            Of the mixture.
        n_streams : int
            Memories that take turns: frames are `shape.hop_ms / n_streams` apart.
        enrolment : Tensor, float32, (batch, n_frames, n_features), optional
            What was heard of the talker on another occasion, for networks that are told (`ToldNetwork`).
        """
        return self.expand(self.run_bands(spectra, n_streams, enrolment))

    def run_bands(self, spectra: Tensor, n_streams: int = 1, enrolment: Tensor | None = None) -> Tensor:
        """The heads before their expansion to bins: (batch, n_frames, n_heads, bands_out)."""
        return self.say(self.hear(spectra, n_streams), n_streams, enrolment)[:, : spectra.shape[1]]

    def hear(self, spectra: Tensor, n_streams: int = 1) -> Tensor:
        """Features (batch * n_streams, n_turns, n_features): every stream becomes a sequence of its own."""
        n_batch, n_frames, n_bins = spectra.shape
        # Silence completes the last turn.
        silence = spectra.new_zeros(n_batch, -n_frames % n_streams, n_bins)
        turns = torch.cat([spectra, silence], 1).view(n_batch, -1, n_streams, n_bins)
        return self.features(turns.transpose(1, 2).flatten(0, 1))

    def say(self, features: Tensor, n_streams: int = 1, enrolment: Tensor | None = None) -> Tensor:
        """Heads (batch, n_turns * n_streams, n_heads, bands_out) of features that were heard."""
        raw = self.run_core(features, n_streams, enrolment).unflatten(0, (-1, n_streams)).transpose(1, 2).flatten(1, 2)
        n_src = self.shape.n_src
        masks, ratios, confidence = raw.split([n_src, n_src, 1], -2)
        ratios = MAX_RATIO * torch.sigmoid(ratios - RATIO_OFFSET)
        return torch.cat([masks.sigmoid(), ratios, confidence.sigmoid()], -2)

    def run_core(self, features: Tensor, n_streams: int, enrolment: Tensor | None) -> Tensor:
        """Raw heads (batch * n_streams, n_turns, n_heads, bands_out); nobody is told of an enrolment here."""
        return self.core(features)

    def expand(self, bands: Tensor) -> Heads:
        """Heads for every bin from those of the bands."""
        n_src = self.shape.n_src
        masks, ratios, confidence = bands.transpose(1, 2).split([n_src, n_src, 1], 1)
        gains = masks + confidence * (ratios - masks)
        return Heads(to_bins(masks), to_bins(gains), bands)

    def features(self, spectra: Tensor) -> Tensor:
        """Features (batch, n_frames, n_features) by the compiled kernel."""
        config = StreamConfig.from_ms(CONFIG.sr, 16, self.shape.hop_ms)
        parts = torch.stack([spectra.real, spectra.imag], 2).detach().cpu()  # as the engine has them
        powers = parts.square().sum(2)
        features = torch.empty(*powers.shape[:2], self.shape.n_features)
        for arrays in zip(parts[:, :, None].numpy(), powers.numpy(), features.numpy(), strict=True):
            extract_all_features(prepare_features(self.shape, config), *arrays)
        return features.to(spectra.device)


def weights_of(network: Network, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """All weights by their names in the model file, each as PyTorch has it, (n_out, n_in)."""
    state = network.core.state_dict()
    return {ours: state[torchs].cpu().numpy().astype(dtype) for ours, torchs in names_of(network.shape).items()}


def with_weights(shape: Shape, weights: dict[str, np.ndarray]) -> Network:
    """A network with weights named as in the model file."""
    network = Network(shape)
    set_weights(network, weights)
    return network


def set_weights(network: Network, weights: dict[str, np.ndarray]) -> None:
    """Give a network all of its weights, named as in the model file; others are not looked at."""
    names = names_of(network.shape)
    state = {names[name]: torch.from_numpy(weights[name].astype(np.float32)) for name in names}
    network.core.load_state_dict(state)


def weights_for(model: Model, n_src: int) -> dict[str, np.ndarray]:
    """Weights of a network of `n_src` sources, whose heads say of each talker what `model` says of its on average."""
    shape, weights = model.shape, dict(model.weights)
    if n_src == shape.n_src:
        return weights
    # Where the heads of a band, or the bands of a head, lie together.
    axis = 1 if shape.channels else 0
    for name in ("heads.weight", "heads.bias", "heads_place") if shape.channels else ("heads_weight", "heads_bias"):
        weight = weights[name]
        of_heads = (-1, shape.n_heads) if shape.channels else (shape.n_heads, -1)
        masks, ratios, confidence = np.split(
            np.moveaxis(weight.reshape(*of_heads, *weight.shape[1:]), axis, 0), (shape.n_src, 2 * shape.n_src)
        )
        said = [x for of in (masks, ratios) for x in (*(n_src - 1) * [of[:-1].mean(0)], of[-1])]
        weights[name] = np.moveaxis(np.stack([*said, *confidence]), 0, axis).reshape(-1, *weight.shape[1:])
    return weights


def names_of(shape: Shape) -> dict[str, str]:
    """What PyTorch calls a weight, by its name in the model file."""
    names = {}
    for name in shape.weights:
        module, _, rest = name.partition("_")
        if shape.channels:
            names[name] = name
        elif module.startswith("gru"):
            part, kind = rest.split("_")
            names[name] = f"gru.{kind}_{'ih' if part == 'input' else 'hh'}_l{module.removeprefix('gru')}"
        else:
            names[name] = f"{module}.{rest}"
    return names


def export(
    network: Network,
    path: Path | str,
    manifest: dict[str, Any],
    *,
    sources: tuple[str, ...],
    dtype: Any = np.float16,
) -> None:
    """Write a model file.

    Parameters
    ----------
    network : Network
    path : path
        Replaced if it exists; ends in .npz.
    manifest : dict
        How the network was trained: whatever JSON can hold.
    sources : tuple of str
        Names of the sources in the order of the heads, which the estimator must have too.
    dtype : dtype
        How the weights are stored: float16 or float32.

    Raises
    ------
    ConfigError
        For weights that are not finite.
    """
    weights = weights_of(network, dtype)
    # The golden vector is that of the weights as they are stored.
    stored = with_weights(network.shape, weights).eval()
    spectra = golden_spectra()
    with torch.no_grad():
        heads = stored.run_bands(complex_frames(spectra)[None])[0].numpy()
    write_model(Path(path), network.shape, sources, manifest, weights, spectra, heads)


def complex_frames(spectra: np.ndarray) -> Tensor:
    """Spectra (n_frames, 2, n_bins) of the engine as complex64 (n_frames, n_bins)."""
    parts = torch.from_numpy(spectra.astype(np.float32))
    return torch.complex(parts[:, 0], parts[:, 1])


def golden_spectra() -> np.ndarray:
    """Frames like those of speech in noise, float16 (GOLDEN_FRAMES, 2, n_bins): bursts of a sloping spectrum.

    Phases advance as those of tones do, and stray from that.
    """
    rng, t, k = np.random.default_rng(0), np.arange(GOLDEN_FRAMES)[:, None], np.arange(CONFIG.n_bins)
    burst = np.where(t % 20 < 12, 1.0, 1e-3)
    slope = 10.0 ** (-3 * k / CONFIG.n_bins)
    size = np.sqrt(rng.exponential(size=(GOLDEN_FRAMES, CONFIG.n_bins)) * (burst * slope + 1e-5))
    size[0] = 0
    turns = t * (k * CONFIG.hop / CONFIG.n_fft + 0.1 * np.sin(k)) + rng.normal(0, 0.1, size.shape)
    phase = 2 * np.pi * turns
    return np.stack([size * np.cos(phase), size * np.sin(phase)], 1).astype(np.float16)
