"""Enrolment: what a few seconds of a talker make of the network of `target`.

A file of `rtsep train target` has the weights of an ordinary network (`rtsep.estimators.learned`), and those of two
more steps that are needed once for each talker: an encoder, from features of recordings to a voice, a few numbers; and
scales and shifts of what the layers say, from the voice. Enrolled, they are in the weights, and the result is a model
file as any other: whatever runs or exports networks takes it.

Conditioning by scale and shift: Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018.
One talker of a mixture, told by recordings: Zmolikova et al., "SpeakerBeam", IEEE J. Sel. Top. Signal Process. 13(4),
2019.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtsep.config import ConfigError
from rtsep.estimators.model_file import LEAK, SUMMARY, Model, Shape
from rtsep.models import checked_arrays, one_line, read_container, refusal, write_container

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "target.npz"
FORMAT = "rtsep-voices"
VERSION = 1  # of the format, and of all that is below
SOURCES = ("target", "rest")  # until they get a name
CONTEXT, STRIDE = 5, 3  # frames that the encoder's second layer sees, and from one look to the next
LEAST_DEVIATION = 1e-4  # squared


@dataclass(frozen=True, eq=False)
class Voices:
    """What a file of `rtsep train target` holds.

    Attributes
    ----------
    shape : Shape
        Of the network.
    voice, channels : int
        Numbers that a voice becomes; channels of the encoder.
    manifest : dict
        How it was trained.
    weights : dict
        float32 arrays, shaped as `shape.weights` and `encoder_weights` say.
    golden_spectra : ndarray, float32, (n_frames, 2, 257)
        Spectra of consecutive frames at 16 kHz, as far apart as the network remembers them.
    golden_voice : ndarray, float32, (voice,)
        What PyTorch made of them.
    sha256 : str
        Of the content.
    """

    shape: Shape
    voice: int
    channels: int
    manifest: dict[str, Any]
    weights: dict[str, np.ndarray]
    golden_spectra: np.ndarray
    golden_voice: np.ndarray
    sha256: str = ""

    def hear(self, features: np.ndarray) -> np.ndarray:
        """The voice of a talker.

        Parameters
        ----------
        features : ndarray, float32, (n_frames, n_features)
            Of recordings of the talker alone, at least `CONTEXT` frames.

        Returns
        -------
        voice : ndarray, float32, (voice,)
            -1 to 1.
        """

        def layer(name: str, x: np.ndarray) -> np.ndarray:
            return x @ self.weights[f"encoder_{name}_weight"].T + self.weights[f"encoder_{name}_bias"]

        x = _leaky(layer("near", features))
        # (n_looks, channels, CONTEXT), channel by channel
        x = _leaky(
            layer(
                "over",
                np.lib.stride_tricks.sliding_window_view(x, CONTEXT, 0)[::STRIDE].reshape(-1, CONTEXT * self.channels),
            )
        )
        worth = layer("worth", x)
        share = np.exp(worth - worth.max())
        share /= share.sum()
        mean = (share * x).sum(0)
        deviation = np.sqrt(np.maximum((share * x**2).sum(0) - mean**2, 0) + LEAST_DEVIATION)
        return np.tanh(layer("voice", np.concatenate([mean, deviation])))

    def told(self, voice: np.ndarray) -> dict[str, np.ndarray]:
        """Weights of the ordinary network that listens to `voice` (voice,) alone."""
        said = self.weights["modulation_weight"] @ voice + self.weights["modulation_bias"]
        weights = {name: self.weights[name] for name in self.shape.weights}
        at = 0
        for weight, bias, hears, n in modulations(self.shape):
            scale, shift = 1 + said[at : at + n], said[at + n : at + 2 * n]
            at += 2 * n
            if hears:  # W (scale * x + shift) + b
                weights[bias] = weights[bias] + weights[weight] @ shift
                weights[weight] = weights[weight] * scale
            else:  # scale * (W x + b) + shift
                weights[weight] = weights[weight] * scale[:, None]
                weights[bias] = weights[bias] * scale + shift
        return {name: value.astype(np.float32) for name, value in weights.items()}


def nobody() -> Model:
    """A model of nobody, by the shipped file."""
    voices = read_voices(SHIPPED)
    golden = voices.golden_spectra
    told = voices.told(np.zeros(voices.voice, np.float32))
    return Model(voices.shape, SOURCES, {"enrolled": {}}, told, golden, golden, voices.sha256)


class Modulation(NamedTuple):
    """What is scaled and shifted: of all that a layer hears, or says."""

    weight: str  # names of the layer's weights
    bias: str
    hears: bool
    n: int


def modulations(shape: Shape) -> list[Modulation]:
    """In the order of the network.

    With GRUs alone: what the dense layer says, and what all GRUs but the first, and the heads, hear. In the dual-path
    network, block by block: what the convolution says, and what the two recurrences hear.
    """
    n = shape.hidden
    if not shape.channels:
        heard = [*(f"gru{i}_input" for i in range(1, shape.n_layers)), "heads"]
        return [
            Modulation("dense_weight", "dense_bias", False, n),
            *(Modulation(f"{name}_weight", f"{name}_bias", True, n) for name in heard),
        ]
    found = []
    for block in (f"blocks.{i}" for i in range(shape.n_layers)):
        found.append(Modulation(f"{block}.near.weight", f"{block}.near.bias", False, shape.channels))
        for name, n in (("wide", shape.bands_in // 2 * SUMMARY), ("each", shape.channels)):
            found.append(Modulation(f"{block}.{name}.weight_ih_l0", f"{block}.{name}.bias_ih_l0", True, n))
    return found


def encoder_weights(shape: Shape, voice: int, channels: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights beside those of the network, by name."""
    layers = {
        "encoder_near": (channels, shape.n_features),
        "encoder_over": (channels, CONTEXT * channels),
        "encoder_worth": (1, channels),
        "encoder_voice": (voice, 2 * channels),
        "modulation": (sum(2 * one.n for one in modulations(shape)), voice),
    }
    return {f"{name}_weight": size for name, size in layers.items()} | {
        f"{name}_bias": size[:1] for name, size in layers.items()
    }


def write_voices(path: Path, voices: Voices) -> None:
    """Write a file at once: it is complete or not there. Raises `ConfigError` for what `read_voices` refuses."""
    header = {
        "shape": asdict(voices.shape),
        "voice": voices.voice,
        "channels": voices.channels,
        "manifest": voices.manifest,
    }
    content = {**voices.weights, "golden_spectra": voices.golden_spectra, "golden_voice": voices.golden_voice}
    write_container(path, FORMAT, VERSION, header, content, check=read_voices)


def read_voices(path: Path | str) -> Voices:
    """Read a file and check all of it. Raises `ConfigError`: one line with the name of the file and what is wrong."""
    header, content, sha256 = read_container(path, FORMAT, VERSION)
    try:
        shape = Shape(**header["shape"])
        voice, channels, manifest = int(header["voice"]), int(header["channels"]), dict(header["manifest"])
        expected = shape.weights | encoder_weights(shape, voice, channels)
    except (ConfigError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise refusal(path, f"its header is wrong ({one_line(error)})") from None
    n_frames = content["golden_spectra"].size // (2 * 257) if "golden_spectra" in content else 0
    expected |= {"golden_spectra": (n_frames, 2, 257), "golden_voice": (voice,)}
    content = checked_arrays(path, content, expected)
    golden = content.pop("golden_spectra"), content.pop("golden_voice")
    return Voices(shape, voice, channels, manifest, content, *golden, sha256)


def _leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.float32(LEAK) * x)
