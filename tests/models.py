"""Model files with random weights, made without PyTorch."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import naive_network
import numpy as np

from rtsep import StreamConfig
from rtsep.estimators.enrolment import Voices, encoder_weights, write_voices
from rtsep.estimators.model_file import Model, Shape, write_model

FOLDER = tempfile.TemporaryDirectory(prefix="rtsep_models_")  # removed when Python ends


def random_model(path: Path, shape: Shape, sources: tuple[str, ...], seed: int = 0, scale: float = 2) -> Path:
    """A model file whose weights are `scale` times as large as those of PyTorch's untrained layers."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, size in shape.weights.items():
        bound = scale / np.sqrt(shape.n_features if "dense" in name else shape.hidden)
        weights[name] = rng.uniform(-bound, bound, size).astype(np.float32)
    frames = (rng.normal(size=(20, 2, 257)) * 10 ** rng.uniform(-1.5, 0, (20, 1, 1))).astype(np.float32)
    unproven = Model(shape, sources, {}, weights, frames, frames, "")
    heads = naive_network.heads(frames, unproven, StreamConfig(16_000, 256, 16 * shape.hop_ms)).astype(np.float32)
    write_model(path, shape, sources, {"weights": "random", "seed": seed}, weights, frames, heads)
    return path


def random_voices(path: Path, channels: int = 0) -> Path:
    """A small file of random weights that enrols; with `channels`, of a dual-path network."""
    shape = Shape(16, 24, 2, 16 if channels else 32, 2, advance_cue=True, hop_ms=8, channels=channels)
    rng, voice, channels = np.random.default_rng(0), 5, 6
    sizes = shape.weights | encoder_weights(shape, voice, channels)
    weights = {name: rng.normal(0, size[-1] ** -0.5, size).astype(np.float32) for name, size in sizes.items()}
    spectra = rng.normal(size=(20, 2, 257)).astype(np.float32)
    write_voices(path, Voices(shape, voice, channels, {}, weights, spectra, np.zeros(voice, np.float32)))
    return path


@cache
def tiny(settings: type) -> Path:
    """A small random model for `Speech` or `Talkers`."""
    shape = Shape(16, 24, 2, 32, len(settings.sources), advance_cue=True, hop_ms=8)
    return random_model(Path(FOLDER.name) / f"{settings.name}.npz", shape, settings.sources, seed=1)


@cache
def tiny_dual_path(settings: type) -> Path:
    """The same by a dual-path network."""
    shape = Shape(16, 24, 2, 16, len(settings.sources), advance_cue=True, hop_ms=8, channels=16)
    return random_model(Path(FOLDER.name) / f"{settings.name}_dual_path.npz", shape, settings.sources, seed=1)
