"""The network of `target` in PyTorch: told by recordings of a talker whom to listen to.

What is heard of the recordings becomes a few numbers, the voice; these scale and shift what the layers of an ordinary
network say (Perez et al., FiLM: visual reasoning with a general conditioning layer, AAAI 2018). For a voice that is
known all of it is in the weights of that network (`rtsep.estimators.enrolment.Voices.told`): nothing else runs later.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rtsep.estimators.enrolment import CONTEXT, LEAST_DEVIATION, STRIDE, Voices, n_modulations, write_voices
from rtsep.estimators.model_file import LEAK, Model, Shape
from rtsep.training.network import Network, Recurrent, complex_frames, golden_spectra, weights_of, with_weights
from rtsep.training.recipe import Enrolment


class Encoder(nn.Module):
    """A voice (batch, n_voice) of features (batch, n_frames, n_features): mean and deviation of what is heard."""

    def __init__(self, n_features: int, enrolment: Enrolment) -> None:
        super().__init__()
        n = enrolment.channels
        self.near = nn.Linear(n_features, n)
        self.over = nn.Linear(CONTEXT * n, n)
        self.worth = nn.Linear(n, 1)
        self.voice = nn.Linear(2 * n, enrolment.voice)

    def forward(self, features: Tensor) -> Tensor:
        """As the class says."""
        x = nn.functional.leaky_relu(self.near(features), LEAK)
        x = nn.functional.leaky_relu(self.over(x.unfold(1, CONTEXT, STRIDE).flatten(2)), LEAK)
        share = self.worth(x).softmax(1)
        mean = (share * x).sum(1)
        deviation = ((share * x.square()).sum(1) - mean.square()).clamp(min=0).add(LEAST_DEVIATION).sqrt()
        return self.voice(torch.cat([mean, deviation], 1)).tanh()


class Told(Recurrent):
    """The recurrent network, with scales and shifts (batch, n_modulations) of what its layers say."""

    def forward(self, features: Tensor, modulations: Tensor) -> Tensor:  # type: ignore[override]
        """As `Recurrent`."""
        n = self.shape.hidden
        parts = iter(modulations[:, None].split(n, -1))

        def modulated(x: Tensor) -> Tensor:
            return x * (1 + next(parts)) + next(parts)

        first = x = nn.functional.leaky_relu(modulated(self.dense(features)), LEAK)
        for layer in range(self.shape.n_layers):
            x = self.gru.layer(x if not layer else modulated(x), layer)
        return self.heads(modulated(x + first)).unflatten(-1, (self.shape.n_heads, self.shape.bands_out))


class ToldNetwork(Network):
    """A `Network` that is told whom to listen to.

    Attributes
    ----------
    core : Told
    encoder : Encoder
    modulation : nn.Linear
        From a voice to scales and shifts.
    """

    core: Told

    def __init__(self, shape: Shape, enrolment: Enrolment, start: Model | None = None) -> None:
        super().__init__(shape)
        self.core = Told(shape)
        self.encoder = Encoder(shape.n_features, enrolment)
        self.modulation = nn.Linear(enrolment.voice, n_modulations(shape))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        if start:
            self._begin_with(start)

    def run_core(self, features: Tensor, n_streams: int, enrolment: Tensor | None) -> Tensor:
        """Raw heads; `enrolment` are features (batch, n_frames, n_features) of the talker."""
        if enrolment is None:
            raise ValueError("whom shall it listen to?")
        return self.core(features, self.modulation(self.encoder(enrolment)).repeat_interleave(n_streams, 0))

    def _begin_with(self, model: Model) -> None:
        """The weights of a network of the same layers; what is said of its talkers, on average, is said of one."""
        weights, n_src, n_bands = dict(model.weights), model.shape.n_src, model.shape.bands_out
        for part in ("weight", "bias"):
            heads = weights[f"heads_{part}"].reshape(model.shape.n_heads, n_bands, -1)
            masks, ratios, confidence = np.split(heads, (n_src, 2 * n_src))
            rows = [[of[:-1].mean(0), of[-1]] for of in (masks, ratios)]
            merged = np.stack([*rows[0], *rows[1], confidence[0]]).reshape(self.shape.n_heads * n_bands, -1)
            weights[f"heads_{part}"] = merged if part == "weight" else merged[:, 0]
        self.core.load_state_dict(with_weights(self.shape, weights).core.state_dict())


def export_told(network: ToldNetwork, path: Path, manifest: dict[str, Any], dtype: Any = np.float16) -> None:
    """Write a file that enrols talkers. Raises `ConfigError` for weights that are not finite."""
    stored = deepcopy(network).cpu().eval()
    with torch.no_grad():
        for parameter in stored.parameters():  # the golden vector is that of the weights as they are stored
            parameter.copy_(torch.from_numpy(parameter.numpy().astype(dtype).astype(np.float32)))
        spectra = golden_spectra()
        voice = stored.encoder(stored.features(complex_frames(spectra)[None]))[0].numpy()
    state = {name.replace(".", "_"): value.numpy().astype(dtype) for name, value in stored.state_dict().items()}
    others = {name: value for name, value in state.items() if name.startswith(("encoder", "modulation"))}
    encoder = stored.encoder
    write_voices(
        path,
        Voices(
            stored.shape,
            encoder.voice.out_features,
            encoder.near.out_features,
            manifest,
            weights_of(stored, dtype) | others,
            spectra,
            voice,
        ),
    )
