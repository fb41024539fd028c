"""Model files of networks: the weights of a learned estimator, in the container of `rtsep.models`.

A file holds the arrays of `Model.weights` (float16 or float32, named and oriented as PyTorch has them, (n_out,
n_in)), a golden vector (`golden_spectra`, `golden_heads`) and, in its header, shape, names of the sources and training
manifest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.config import ConfigError, check_choice, check_int
from rtsep.estimators.bands import MAX_BANDS
from rtsep.kernels.simd import LANES
from rtsep.models import checked_arrays, one_line, read_container, refusal, write_container

FORMAT = "rtsep-gru"
VERSION = 2  # of the format, the features and the network; a change of any of their constants is a new version

LEAK = 0.2  # slope of the dense layer for negative values
MAX_RATIO = 4.0  # |S| / |X|: at 2 a quarter of what phase recovery can gain is lost, at 1 all but a third
N_ADVANCES = 48  # phase advances that a network may hear: up to 3 kHz, where the voices of speech have harmonics
HOPS_MS = (4, 8)  # with windows of 16 ms
RATIO_OFFSET = 1.1  # an untrained network says a ratio of one
CUES = 4  # what a dual-path network hears of a band: level, level over the floor, cosine and sine of the advance
ENCODER, NEIGHBOURS = 5, 3  # bands, and places of two bands, that its convolutions see
SUMMARY = 4  # values of a place that its recurrence over all of them hears and says
TOP_BANDS = 4  # bins above the uppermost band get the mean of that many


@dataclass(frozen=True)
class Shape:
    """Sizes of the network.

    Parameters
    ----------
    bands_in : int
        Bands that the network hears, 8 to 128.
    hidden : int
        Units of the dense layer and of every GRU, a multiple of 8 up to 1024.
    n_layers : int
        GRUs, 1 to 4.
    bands_out : int
        Bands of each head, a multiple of 8 up to 128.
    n_src : int
        Sources, 1 to 8.
    floor_cue : bool
        Also hear each band relative to its floor (`rtsep.estimators.features`).
    advance_cue : bool
        Also hear how phases advance from one remembered frame to the next, which tells pitch.
    hop_ms : int
        Between the frames that the network remembers, 4 or 8 ms: with a shorter hop of the engine, two memories take
        turns.
    channels : int
        Of every place of the dual-path network (`rtsep.estimators.dual_path`), a multiple of 16 up to 128, with
        `hidden` units in the recurrence over all places and `n_layers` blocks; 0 for GRUs alone.
    """

    bands_in: int = 64
    hidden: int = 128
    n_layers: int = 2
    bands_out: int = 96
    n_src: int = 2
    floor_cue: bool = True
    advance_cue: bool = False
    hop_ms: int = 4
    channels: int = 0

    def __post_init__(self) -> None:
        check_int("bands_in", self.bands_in, 8, MAX_BANDS)
        check_int("hidden", self.hidden, LANES, 1024)
        check_int("n_layers", self.n_layers, 1, 4)
        check_int("bands_out", self.bands_out, LANES, MAX_BANDS)
        check_int("n_src", self.n_src, 1, 8)
        for name in ("hidden", "bands_out"):
            if getattr(self, name) % LANES:
                raise ConfigError(f"{name}={getattr(self, name)} is not a multiple of {LANES}")
        check_choice("hop_ms", self.hop_ms, HOPS_MS)
        for name in ("floor_cue", "advance_cue"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r} is neither True nor False")
        check_int("channels", self.channels, 0, 128)
        if self.channels % (2 * LANES):
            raise ConfigError(f"channels={self.channels} is not a multiple of {2 * LANES}")
        if self.channels and not (self.bands_in == self.bands_out and self.floor_cue and self.advance_cue):
            raise ConfigError("a network with channels hears and speaks in the same bands, with both cues")

    def hears_and_says_as(self, other: Shape) -> bool:
        """Whether inputs and outputs are the same, whatever is between."""
        ends = ("bands_in", "bands_out", "n_src", "floor_cue", "advance_cue", "hop_ms")
        return all(getattr(self, name) == getattr(other, name) for name in ends)

    @property
    def n_features(self) -> int:
        """Inputs of the dense layer."""
        return self.bands_in * (1 + self.floor_cue) + 2 * N_ADVANCES * self.advance_cue

    @property
    def n_heads(self) -> int:
        """Rows of `bands_out` values: masks, ratios, confidence."""
        return 2 * self.n_src + 1

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights by name."""
        if self.channels:
            return self._dual_path_weights()
        n, n_out = self.hidden, self.n_heads * self.bands_out
        shapes: dict[str, tuple[int, ...]] = {"dense_weight": (n, self.n_features), "dense_bias": (n,)}
        for layer in range(self.n_layers):
            for part in ("input", "hidden"):
                # Gates in PyTorch's order: reset, update, new.
                shapes |= {f"gru{layer}_{part}_weight": (3 * n, n), f"gru{layer}_{part}_bias": (3 * n,)}
        return shapes | {"heads_weight": (n_out, n), "heads_bias": (n_out,)}

    def _dual_path_weights(self) -> dict[str, tuple[int, ...]]:
        n, hidden, n_places = self.channels, self.hidden, self.bands_in // 2

        def dense(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
            return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}

        def gru(name: str, n_in: int, n: int) -> dict[str, tuple[int, ...]]:
            matrices = {f"{name}.weight_ih_l0": (3 * n, n_in), f"{name}.weight_hh_l0": (3 * n, n)}
            return matrices | {f"{name}.bias_{part}_l0": (3 * n,) for part in ("ih", "hh")}

        shapes = dense("encoder", ENCODER * CUES, n) | {"encoder_place": (n_places * n,)}
        for block in (f"blocks.{i}" for i in range(self.n_layers)):
            shapes |= dense(f"{block}.near", NEIGHBOURS * n, n) | dense(f"{block}.summary", n, SUMMARY)
            shapes |= gru(f"{block}.wide", n_places * SUMMARY, hidden) | dense(
                f"{block}.back", hidden, n_places * SUMMARY
            )
            shapes |= dense(f"{block}.lift", SUMMARY, n) | gru(f"{block}.each", n, n)
        shapes |= dense("decoder", NEIGHBOURS * n, n) | dense("heads", n, 2 * self.n_heads)
        return shapes | {"heads_place": (self.bands_in * self.n_heads,)}

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(shape)) for shape in self.weights.values())


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """What a model file holds.

    Attributes
    ----------
    shape : Shape
    sources : tuple of str
        Names, in the order of the heads.
    manifest : dict
        How it was trained.
    weights : dict
        float32 arrays, shaped as `shape.weights` says.
    golden_spectra : ndarray, float32, (n_frames, 2, 257)
        Spectra of consecutive frames at 16 kHz from the start of a stream.
    golden_heads : ndarray, float32, (n_frames, n_heads, bands_out)
        What PyTorch made of them.
    sha256 : str
        Of the content.

    Raises
    ------
    ConfigError
        If sources or weights are not those of the shape: kernels do not look.
    """

    shape: Shape
    sources: tuple[str, ...]
    manifest: dict[str, Any]
    weights: dict[str, np.ndarray]
    golden_spectra: np.ndarray
    golden_heads: np.ndarray
    sha256: str

    def __post_init__(self) -> None:
        if len(self.sources) != self.shape.n_src:
            raise ConfigError(f"sources={self.sources} of a model with heads for {self.shape.n_src}")
        for name, shape in self.shape.weights.items():
            if name not in self.weights or self.weights[name].shape != shape:
                found = self.weights[name].shape if name in self.weights else "missing"
                raise ConfigError(f"weights of a model: {name} is {found}, not {shape}")

    def __repr__(self) -> str:
        return f"Model({', '.join(self.sources)})"


def write_model(
    path: Path,
    shape: Shape,
    sources: tuple[str, ...],
    manifest: dict[str, Any],
    weights: dict[str, np.ndarray],
    golden_spectra: np.ndarray,
    golden_heads: np.ndarray,
) -> None:
    """Write a model file at once: it is complete or not there. Raises `ConfigError` for what `read_model` refuses."""
    header = {"shape": asdict(shape), "sources": list(sources), "manifest": manifest}
    content: dict[str, np.ndarray] = {**weights, "golden_spectra": golden_spectra, "golden_heads": golden_heads}
    write_container(path, FORMAT, VERSION, header, content, check=read_model)


def read_model(path: Path | str) -> Model:
    """Read a model file and check all of it.

    Raises
    ------
    ConfigError
        One line with the name of the file and what is wrong with it.
    """
    header, content, sha256 = read_container(path, FORMAT, VERSION)
    try:
        shape = Shape(**header["shape"])
        sources, manifest = header["sources"], header["manifest"]
    except (ConfigError, KeyError, TypeError) as error:
        raise refusal(path, f"its header is wrong ({one_line(error)})") from None
    if not (
        isinstance(sources, list) and all(isinstance(name, str) for name in sources) and isinstance(manifest, dict)
    ):
        raise refusal(path, "its header is wrong (sources are a list of names, the manifest is a table)")
    n_frames = content["golden_spectra"].size // (2 * 257) if "golden_spectra" in content else 0
    expected = shape.weights | {
        "golden_spectra": (n_frames, 2, 257),
        "golden_heads": (n_frames, shape.n_heads, shape.bands_out),
    }
    if len(sources) != shape.n_src:
        raise refusal(path, f"it names {len(sources)} sources and has heads for {shape.n_src}")
    content = checked_arrays(path, content, expected)
    golden = content.pop("golden_spectra"), content.pop("golden_heads")
    return Model(shape, tuple(sources), manifest, content, *golden, sha256)
