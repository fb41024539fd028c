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

from rtsep.estimators.enrolment import CONTEXT, LEAST_DEVIATION, STRIDE, Voices, modulations, write_voices
from rtsep.estimators.model_file import LEAK, Model, Shape
from rtsep.training.network import Network, complex_frames, golden_spectra, set_weights, weights_for, weights_of
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


class ToldNetwork(Network):
    """A `Network` that is told whom to listen to.

    Parameters
    ----------
    shape : Shape
    enrolment : Enrolment
    start : Voices or Model, optional
        Weights to begin with: all of them, or those of a network of the same layers, which is told nothing yet.

    Attributes
    ----------
    encoder : Encoder
    modulation : nn.Linear
        From a voice to scales and shifts.
    """

    def __init__(self, shape: Shape, enrolment: Enrolment, start: Voices | Model | None = None) -> None:
        super().__init__(shape)
        self.encoder = Encoder(shape.n_features, enrolment)
        self.sizes = [one.n for one in modulations(shape) for _ in ("scale", "shift")]
        self.modulation = nn.Linear(enrolment.voice, sum(self.sizes))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        if start:
            set_weights(self, start.weights if isinstance(start, Voices) else weights_for(start, shape.n_src))
        if isinstance(start, Voices):
            others = {name: start.weights[_stored(name)] for name in self.state_dict() if not name.startswith("core.")}
            self.load_state_dict({name: torch.from_numpy(value) for name, value in others.items()}, strict=False)

    def run_core(self, features: Tensor, n_streams: int, enrolment: Tensor | None) -> Tensor:
        """Raw heads; `enrolment` are features (batch, n_frames, n_features) of the talker."""
        if enrolment is None:
            raise ValueError("whom shall it listen to?")
        said = self.modulation(self.encoder(enrolment)).repeat_interleave(n_streams, 0)
        parts = iter(said.split(self.sizes, -1))
        before = 1 if self.shape.channels else 0  # axes before that of the batch

        def told(x: Tensor) -> Tensor:
            between = (1,) * (x.ndim - 2 - before)
            scale, shift = (next(parts).view(len(said), *between, -1) for _ in ("scale", "shift"))
            return x * (1 + scale) + shift

        return self.core(features, told)


def export_told(network: ToldNetwork, path: Path, manifest: dict[str, Any], dtype: Any = np.float16) -> None:
    """Write a file that enrols talkers. Raises `ConfigError` for weights that are not finite."""
    stored = deepcopy(network).cpu().eval()
    with torch.no_grad():
        for parameter in stored.parameters():  # the golden vector is that of the weights as they are stored
            parameter.copy_(torch.from_numpy(parameter.numpy().astype(dtype).astype(np.float32)))
        spectra = golden_spectra()
        voice = stored.encoder(stored.features(complex_frames(spectra)[None]))[0].numpy()
    state = {_stored(name): value.numpy().astype(dtype) for name, value in stored.state_dict().items()}
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


def _stored(name: str) -> str:
    """A name of PyTorch in the file."""
    return name.replace(".", "_")
