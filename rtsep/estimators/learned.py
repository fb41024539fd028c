"""Learned estimators: a small recurrent network, one frame after the other, no look-ahead.

The network says for every source a mask for the phase of the mixture, from 0 to 1, and the ratio |S| / |X|, which may
exceed one and need not sum to one over the sources: masks that do leave phase recovery nothing to gain. A
confidence blends the two: magnitudes that are far off are worth less than the mask.

A network may remember frames that are 8 ms apart (`Shape.hop_ms`). Where the engine has one every 4 ms, memories for
even and for odd frames take turns, with the same weights; in an engine with a hop of 8 ms there is one memory. So there
is half as much to train on per second of sound, and a step of memory reaches twice as far.

`rtsep.training` makes the model files, `rtsep.estimators.model_file` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numba.extending import overload

from rtsep.config import ConfigError, StreamConfig, check_choice
from rtsep.engine.protocols import CompiledEstimator, PhaseRecovery
from rtsep.engine.registry import register_estimator
from rtsep.estimators.bands import Bands, expansion_bands
from rtsep.estimators.dual_path import DualPathState, prepare_dual_path, run_dual_path
from rtsep.estimators.enrolment import FORMAT as VOICES
from rtsep.estimators.enrolment import nobody
from rtsep.estimators.features import FeatureState, extract_features, prepare_features
from rtsep.estimators.model_file import LEAK, MAX_RATIO, RATIO_OFFSET, TOP_BANDS, Model, read_model
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros
from rtsep.kernels.network import (
    PANEL,
    Layers,
    affine,
    gru_step,
    leaky_relu,
    panels,
    scaled_sigmoid,
    stacked,
)
from rtsep.models import header_of
from rtsep.phase.omisi import OMISI

WINDOW_S = 0.016  # what the networks are trained for
SHIPPED_HOP_MS = 8  # between the frames of a memory of the shipped networks
SHORTEST_HOP_MS = 0.5
TOLERANCE = 0.05
ONLINE_ITERATIONS = 1  # of oMISI that a network is trained through (`rtsep.training.losses`)
SHIPPED = Path(__file__).resolve().parents[1] / "data"

ZERO, ONE = np.float32(0), np.float32(1)


class NetworkState(NamedTuple):
    """Weights in panels, and what the network remembers; float32."""

    dense: Layers
    into: Layers
    within: Layers
    heads: Layers
    hidden: np.ndarray  # (n_streams, n_layers, hidden)
    features: np.ndarray  # (n_features,) scratch
    first: np.ndarray  # scratch: output of the dense layer
    a: np.ndarray  # scratch of the GRUs
    b: np.ndarray  # scratch of the GRUs
    said: np.ndarray  # scratch: the heads, n_bands values each: n_src masks, n_src ratios, confidence


class LearnedState(NamedTuple):
    """State of a learned estimator."""

    features: FeatureState
    network: NetworkState | DualPathState
    bands: Bands  # of the heads
    gains: np.ndarray  # float32 (n_src, bands_out + 1) scratch: of the bands; the last is for all bins above
    masks_only: np.ndarray  # bool (1,)
    turn: np.ndarray  # int64 (1,): the stream whose frame comes next


def hops_ms(model_hop_ms: int) -> tuple[float, ...]:
    """The hops in ms that suit a network with `model_hop_ms` between the frames of a memory, from 0.5 on."""
    return tuple(model_hop_ms / n for n in (16, 8, 4, 2, 1) if model_hop_ms / n >= SHORTEST_HOP_MS)


def trained_for(window_s: float, hop_s: float, model_hop_ms: int = SHIPPED_HOP_MS) -> bool:
    """Whether analysis window and hop are near enough to those of the training; features depend on nothing else."""
    return abs(window_s / WINDOW_S - 1) < TOLERANCE and any(
        abs(1e3 * hop_s / ms - 1) < TOLERANCE for ms in hops_ms(model_hop_ms)
    )


def prepare_network(model: Model, n_streams: int = 1, weights_as: str = "float32") -> NetworkState | DualPathState:
    """Fresh state with the weights of a model. Not real-time safe."""
    if model.shape.channels:
        return prepare_dual_path(model, n_streams, weights_as)
    shape, weights = model.shape, model.weights

    def layer(name: str) -> np.ndarray:
        return panels(weights[f"{name}_weight"], weights[f"{name}_bias"])

    layers = range(shape.n_layers)
    dense, heads, into = layer("dense"), layer("heads"), [layer(f"gru{i}_input") for i in layers]
    return NetworkState(
        dense=stacked([dense], weights_as),
        into=stacked(into, weights_as),
        within=stacked([layer(f"gru{i}_hidden") for i in layers], weights_as),
        heads=stacked([heads], weights_as),
        hidden=zeros((n_streams, shape.n_layers, shape.hidden)),
        features=zeros(shape.n_features),
        first=zeros(dense.shape[0] * PANEL),
        a=zeros(into[0].shape[0] * PANEL),
        b=zeros(into[0].shape[0] * PANEL),
        said=zeros(heads.shape[0] * PANEL),
    )


@kernel
def run_recurrent(network, stream):
    """One step of the network from `network.features` to `network.said`, before the sigmoids.

    Parameters
    ----------
    network : NetworkState
        Updated in place.
    stream : int
        Whose frame it is.

    Notes
    -----
    Real-time safe.
    """
    first, hidden, said = network.first, network.hidden[stream], network.said
    n_layers, n = hidden.shape
    affine(network.dense, 0, network.features, 0, network.features.size, first)
    leaky_relu(first, n, np.float32(LEAK))
    gru_step(network.into, network.within, 0, first, 0, n, hidden, network.a, network.b)
    for layer in range(1, n_layers):
        gru_step(network.into, network.within, layer, hidden, (layer - 1) * n, n, hidden, network.a, network.b)
    for i in range(n):
        first[i] += hidden[n_layers - 1, i]
    affine(network.heads, 0, first, 0, n, said)


def run_raw(network, stream):
    """`run_dual_path` or `run_recurrent`: inside compiled code the type of the state chooses."""
    raise NotImplementedError("compiled code alone")


@overload(run_raw)
def _run_raw(network, stream):
    return (run_dual_path if network.instance_class is DualPathState else run_recurrent).py_func


@kernel
def run_network(network, stream, n_src, n_bands):
    """One step of the network from `network.features` to `network.said`.

    Parameters
    ----------
    network : NetworkState or DualPathState
        Updated in place.
    stream : int
        Whose frame it is.
    n_src, n_bands : int
        Sources, and bands of a head.

    Notes
    -----
    Real-time safe.
    """
    run_raw(network, stream)
    ratios, confidence = n_src * n_bands, 2 * n_src * n_bands
    scaled_sigmoid(network.said, 0, ratios, ZERO, ONE)
    scaled_sigmoid(network.said, ratios, confidence, np.float32(-RATIO_OFFSET), np.float32(MAX_RATIO))
    scaled_sigmoid(network.said, confidence, confidence + n_bands, ZERO, ONE)


@kernel
def estimate_learned(state, mixture, power, magnitudes):
    """Magnitudes of the sources in the newest frame.

    Parameters
    ----------
    state : LearnedState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    said, gains = state.network.said, state.gains
    n_src, n_bands = gains.shape[0], gains.shape[1] - 1
    stream = state.turn[0]
    state.turn[0] = (stream + 1) % state.network.hidden.shape[0]
    extract_features(state.features, stream, mixture, power, state.network.features)
    run_network(state.network, stream, n_src, n_bands)
    masks_only = state.masks_only[0]
    for j in range(n_src):
        above = ZERO
        for b in range(n_bands):
            gain = said[j * n_bands + b]
            if not masks_only:
                confidence = said[2 * n_src * n_bands + b]
                gain += confidence * (said[(n_src + j) * n_bands + b] - gain)
            gains[j, b] = gain
            if b >= n_bands - TOP_BANDS:
                above += gain
        gains[j, n_bands] = above / np.float32(TOP_BANDS)
    lower, share = state.bands.lower, state.bands.share
    for k in range(power.size):
        b, up = lower[k], share[k]
        size = np.float32(math.sqrt(power[k]))
        for j in range(n_src):
            magnitudes[j, k] = size * (gains[j, b] + up * (gains[j, b + 1] - gains[j, b]))


@dataclass(frozen=True)
class _Learned(CompiledEstimator):
    """What the learned estimators have in common."""

    model: str | Path | Model | None = None
    target: str | None = None
    weights: str = field(default="float32", kw_only=True)
    masks: bool = field(default=True, repr=False, kw_only=True)  # what `for_phase` made of the target

    shipped: ClassVar[str]  # file in rtsep/data
    State: ClassVar[type] = LearnedState
    step = estimate_learned
    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {"target": (), "masks": ("masks_only",)}

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, (str, Path, Model)):
            raise ConfigError(f"model={self.model!r} is neither the path of a model file nor a Model")
        if self.target is not None:
            check_choice("target", self.target, ("mask", "magnitudes"))
        check_choice("weights", self.weights, ("float32", "int8"))

    @property
    def phase(self) -> Any:  # type: ignore[override]
        """The phase recovery that suits the model: online MISI where its training found that better than masks."""
        scores = self.load().manifest.get("validation")
        found = [scores.get(name) for name in ("mask", "omisi")] if isinstance(scores, dict) else []
        compared = [score for score in found if isinstance(score, float) and math.isfinite(score)]
        better = len(compared) == 2 and compared[1] > compared[0]
        return OMISI(ONLINE_ITERATIONS) if better and self.target != "mask" else "mixture"

    def for_phase(self, phase: PhaseRecovery) -> _Learned:
        """Masks for a phase recovery that keeps the phase of the mixture, else magnitudes; or what is set."""
        masks = phase.keeps_mixture_phase if self.target is None else self.target == "mask"
        return self if masks == self.masks else replace(self, masks=masks)

    def load(self) -> Model:
        """The model: that of the settings or the shipped one. Raises `ConfigError`."""
        if isinstance(self.model, Model):
            model = self.model
        else:
            path = SHIPPED / self.shipped if self.model is None else Path(self.model)
            if self.model is None and not path.exists():
                raise ConfigError(
                    f"estimator={self.name!r} has no model: give model=PATH, a file made by `rtsep train`"
                )
            model = read_model(path)
        self.check(model)
        return model

    def check(self, model: Model) -> None:
        """Raise `ConfigError` unless the model separates these sources."""
        if model.sources != self.sources:
            raise ConfigError(
                f"{SHIPPED / self.shipped if self.model is None else self.model} separates {', '.join(model.sources)}; "
                f"estimator={self.name!r} is for {', '.join(self.sources)}"
            )

    def prepare(self, config: StreamConfig) -> LearnedState:
        """Fresh state. Not real-time safe. Raises `ConfigError` for a framing it is not trained for."""
        model = self.load()
        shape, window_s = model.shape, config.window_s
        if not trained_for(window_s, config.hop_s, shape.hop_ms):
            raise ConfigError(
                f"analysis window {1e3 * window_s:.4g} ms, hop {1e3 * config.hop_s:.4g} ms: this network needs "
                f"{1e3 * WINDOW_S:g} ms and {', '.join(f'{ms:g}' for ms in hops_ms(shape.hop_ms))} ms "
                "(estimator='denoise' takes any)"
            )
        n_streams = round(shape.hop_ms / (1e3 * config.hop_s))
        return LearnedState(
            features=prepare_features(shape, config, n_streams),
            network=prepare_network(model, n_streams, self.weights),
            bands=expansion_bands(shape.bands_out, config),
            gains=zeros((shape.n_src, shape.bands_out + 1)),
            masks_only=np.array([self.masks if self.target is None else self.target == "mask"]),
            turn=zeros(1, np.int64),
        )


@register_estimator("speech")
@dataclass(frozen=True)
class Speech(_Learned):
    """Speech and residual by a recurrent network; the default for windows of 16 ms.

    Parameters
    ----------
    model : path, optional
        Model file made by `rtsep train`. Default: the shipped one.
    target : {"mask", "magnitudes"}, optional
        What the network is asked for: masks suit the phase of the mixture, magnitudes a phase recovery. Default:
        what suits the phase recovery that follows.
    weights : {"float32", "int8"}
        How the weights stand in memory: of eight bits, with a scale for each output, they take a quarter of it.
        Default: "float32".
    """

    sources = ("speech", "residual")
    shipped: ClassVar[str] = "speech.npz"


@register_estimator("speech_small")
@dataclass(frozen=True)
class SpeechSmall(Speech):
    """Speech and residual by a network of two fifths of the weights of `speech`, for processors that have little time.

    Parameters
    ----------
    model, target, weights
        As for `Speech`.
    """

    shipped: ClassVar[str] = "speech_small.npz"


@register_estimator("talkers")
@dataclass(frozen=True)
class Talkers(_Learned):
    """Two talkers and residual by a recurrent network: talker1 is the lower voice, if one is clearly lower.

    Parameters
    ----------
    model : path, optional
        Model file made by `rtsep train`. Default: the shipped one.
    target : {"mask", "magnitudes"}, optional
        As for `Speech`.
    weights : {"float32", "int8"}
        As for `Speech`. Default: "int8": so many are read faster with eight bits.
    """

    weights: str = field(default="int8", kw_only=True)

    sources = ("talker1", "talker2", "residual")
    shipped: ClassVar[str] = "talkers.npz"


@register_estimator("target")
@dataclass(frozen=True)
class Target(_Learned):
    """One person and the rest, by a recurrent network: a model that `rtsep enrol` makes of a few seconds of them.

    Parameters
    ----------
    model : path or Model
        File of `rtsep enrol`, or what it holds (`rtsep.enrol.enrol`). It names the sources: the person, and `rest`.
    target : {"mask", "magnitudes"}, optional
        As for `Speech`.
    weights : {"float32", "int8"}
        As for `Talkers`.
    """

    weights: str = field(default="int8", kw_only=True)

    sources: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.model is None:
            raise ConfigError(
                f"estimator={self.name!r} needs a model: rtsep enrol makes one, of a few seconds of a person"
            )
        super().__post_init__()
        if not isinstance(self.model, Model) and header_of(self.model)["format"] == VOICES:
            raise ConfigError(
                f"{self.model} can enrol people, and knows nobody yet: rtsep enrol PERSON.wav -o PERSON.npz"
            )
        object.__setattr__(self, "sources", self.load().sources)

    def check(self, model: Model) -> None:
        """Raise `ConfigError` unless it was enrolled."""
        if "enrolled" not in model.manifest:
            raise ConfigError(f"{self.model} listens to nobody in particular: rtsep enrol makes models that do")

    @classmethod
    def example(cls, references: np.ndarray) -> Target:
        """Settings for the contract tests."""
        return cls(nobody())
