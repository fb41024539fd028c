"""Speech by a network that somebody else trained: any ONNX file that takes one frame of a spectrum at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.config import MAX_SR, MIN_SR, ConfigError, StreamConfig, check_choice, check_int, fft_size_ok
from rtsep.engine.protocols import PythonEstimator
from rtsep.engine.registry import register_estimator

WINDOWS = ("hann", "hann_sqrt", "none")
SPEECH_SR = 16_000
# Channels that nearly cancel in their mean, which the network hears, are not blown up beyond this.
MAX_SCALE = 10.0


class Network:
    """An ONNX file in onnxruntime, and which of its tensors are what.

    The first input that has the shape of a spectrum takes the frame, and the first such output is the result. Every
    other input is a state: it starts at zero and gets, frame after frame, an output of the same shape, the one that
    has its name in it or else the first. Open dimensions (batch, time) are 1.

    Attributes
    ----------
    n_fft : int
        FFT length in samples, from the number of bins.
    takes_complex : bool
        Whether the frame has real and imaginary parts; else it is magnitudes.
    metadata : dict of str
        What the file says about itself.

    Raises
    ------
    ConfigError
        If the file cannot be loaded, or its tensors cannot be told apart.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import onnxruntime
        except ImportError as problem:
            raise ConfigError(f'estimator=onnx needs onnxruntime ({problem}): pip install "rtsep[onnx]"') from None
        if not Path(path).is_file():
            raise ConfigError(f"model={path} is no file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # its errors come as exceptions
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
            shapes = {
                tensor.name: tuple(size if isinstance(size, int) else 1 for size in tensor.shape)
                for tensor in self._session.get_inputs()
            }
            # The shapes of outputs need not be stated, so they are looked at.
            found = self._session.run(None, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        except Exception as problem:  # its exceptions have no other class in common
            raise ConfigError(f"{path}: onnxruntime cannot run it: {str(problem).splitlines()[0]}") from None
        outputs = {tensor.name: np.shape(x) for tensor, x in zip(self._session.get_outputs(), found, strict=True)}
        frames = [name for name, shape in shapes.items() if is_spectrum(shape)]
        results = [
            name
            for name, shape in outputs.items()
            if is_spectrum(shape) and frames and max(shape) == max(shapes[frames[0]])
        ]
        listing = f"inputs: {_list(shapes)}; outputs: {_list(outputs)}"
        if not frames or not results:
            raise ConfigError(
                f"{path}: an input and an output must be the spectrum of a frame, (n_fft / 2 + 1,) or with real and "
                f"imaginary part, besides dimensions of 1; {listing}"
            )
        self._frame, self._shape = frames[0], shapes.pop(frames[0])
        position = {name: i for i, name in enumerate(outputs)}
        self._result = position[results[0]]
        del outputs[results[0]]
        self._fed: dict[str, int] = {}  # state -> its output
        for name, shape in shapes.items():
            fitting = [output for output in outputs if outputs[output] == shape]
            if not fitting:
                raise ConfigError(f"{path}: no output has the shape of the state {name}; {listing}")
            output = min((other for other in fitting if name in other), key=len, default=fitting[0])
            self._fed[name] = position[output]
            del outputs[output]
        self._zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._states = self._zeros
        self.n_fft = 2 * (max(self._shape) - 1)
        self.takes_complex = 2 in self._shape

    def run(self, spectrum: np.ndarray) -> np.ndarray | None:
        """The result for the next frame; None, and states of zero, if it is not finite.

        Parameters
        ----------
        spectrum : ndarray, complex, (n_bins,)

        Returns
        -------
        ndarray, float64 or complex128, (n_bins,)
            Real for one value per bin, complex for two.

        Notes
        -----
        Not real-time safe.
        """
        frame = np.abs(spectrum)
        if self.takes_complex:
            frame = np.stack([spectrum.real, spectrum.imag], 0 if _parts_first(self._shape) else 1)
        found = self._session.run(None, {self._frame: frame.astype(np.float32).reshape(self._shape)} | self._states)
        self._states = {name: found[i] for name, i in self._fed.items()}
        result = np.squeeze(found[self._result]).astype(float)
        if not all(np.isfinite(x).all() for x in (result, *self._states.values())):
            self._states = self._zeros
            return None
        if result.ndim == 2:
            real, imaginary = result if _parts_first(result.shape) else result.T
            return real + 1j * imaginary
        return result


def is_spectrum(shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be one frame: bins of an FFT of usual length, alone or with two parts each."""
    sizes = [size for size in shape if size != 1]
    return len(sizes) in (1, 2) and fft_size_ok(2 * (max(sizes) - 1)) and (len(sizes) == 1 or min(sizes) == 2)


def _parts_first(shape: tuple[int, ...]) -> bool:
    return next(size for size in shape if size != 1) == 2


def _list(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


@dataclass
class OnnxState:
    """What goes on from frame to frame."""

    network: Network
    samples: np.ndarray  # float64 (analysis,): of the last frame, without window
    oldest: int  # where the last frame has the first sample of this one, which the Hann window makes zero
    unwindow: np.ndarray  # float64 (analysis,): takes the Hann window of the stream off
    window: np.ndarray  # float64 (analysis,): of the network
    rewindow: np.ndarray  # float64 (analysis,): from that of the network to that of the stream


def estimate_onnx(state: OnnxState, mixture: np.ndarray, power: np.ndarray, magnitudes: np.ndarray) -> None:
    """Magnitudes of speech, and of what is left of the mixture.

    Parameters
    ----------
    state : OnnxState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only. The network hears the mean of the channels.
    power : ndarray, float32, (n_bins,)
        Read only.
    magnitudes : ndarray, float32, (2, n_bins)
        Overwritten.

    Notes
    -----
    Not real-time safe. The frame goes from the Hann window of the stream to that of the network and back, as samples.
    """
    real, imaginary = mixture.mean(0, dtype=float)
    heard = real + 1j * imaginary
    n, n_fft = state.window.size, 2 * (power.size - 1)
    oldest = state.samples[state.oldest]
    state.samples = np.fft.irfft(heard, n_fft)[:n] * state.unwindow
    state.samples[0] = oldest
    spectrum = np.fft.rfft(state.samples * state.window)
    given = state.network.run(spectrum)
    if given is None:
        speech = heard
    else:
        frame = np.fft.irfft(given if np.iscomplexobj(given) else given * spectrum, n)
        speech = np.fft.rfft(frame * state.rewindow, n_fft)
    size = np.sqrt(power)
    scale = _ratio(size, np.maximum(abs(heard), size / MAX_SCALE))
    magnitudes[0] = scale * abs(speech)
    magnitudes[1] = scale * abs(heard - speech)


@register_estimator("onnx")
@dataclass(frozen=True)
class Onnx(PythonEstimator):
    """Speech and residual by your own streaming network, an ONNX file; needs onnxruntime (extra onnx).

    The file takes one frame of the spectrum and its states and gives a result and the new states (see `Network`).
    Complex frames have real and imaginary parts, others are magnitudes; a result with one value per bin is a mask
    for the frame, one with two is the spectrum of the speech. So streaming GTCRN and the first network of DTLN work
    as they are.

    Parameters
    ----------
    model : str or Path
        The file.
    sr : int, optional
        Sample rate in Hz. Default: what the file says as ``sample_rate``, else 16000.
    hop : int, optional
        Hop in samples. Default: what the file says as ``hop_length``, else half a window for complex frames, as
        GTCRN has it, and a quarter for magnitudes, as DTLN.
    window : {"hann_sqrt", "hann", "none"}, optional
        Analysis window. Default: what the file says as ``window_type``, else the square root of a Hann window for
        complex frames, none for magnitudes.

    Raises
    ------
    ConfigError
        Without onnxruntime, for files that cannot be run or understood, and for other settings of the stream than the
        network is made for.

    Notes
    -----
    Runs on one thread, in ordinary Python: live in the worker driver, not in the audio callback. Its window is as long
    as the FFT of the network.

    The second network of DTLN turns blocks of samples into blocks that are speech only once they overlap, 24 ms later:
    it gives no magnitudes for the newest frame, so it is not used. `bench/peers` has the whole.

    Only magnitudes are taken from a spectrum; its phases are left to the phase recovery.
    """

    model: str | Path = ""
    sr: int = None  # type: ignore[assignment]
    hop: int = None  # type: ignore[assignment]
    window: str = None  # type: ignore[assignment]

    sources = ("speech", "residual")
    # `rtsep evaluate --compare onnx+mixture onnx+omisi` with GTCRN and DTLN: iterations lose 0.1 to 0.2 dB.
    phase = "mixture"
    step = staticmethod(estimate_onnx)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("estimator=onnx needs model=FILE, a network in ONNX")
        object.__setattr__(self, "model", str(self.model))
        network = Network(self.model)
        self._settle("sr", network, "sample_rate", SPEECH_SR)
        self._settle("hop", network, "hop_length", network.n_fft // (2 if network.takes_complex else 4))
        self._settle("window", network, "window_type", "hann_sqrt" if network.takes_complex else "none")
        check_int("sr", self.sr, MIN_SR, MAX_SR, " Hz")
        check_int("hop", self.hop, 1, network.n_fft, " samples")
        check_choice("window", self.window, WINDOWS)
        length = network.metadata.get("window_length", network.n_fft)
        if str(length) != str(network.n_fft):
            raise ConfigError(f"{self.model}: window_length {length} and its FFT of {network.n_fft} differ")

    def _settle(self, name: str, network: Network, key: str, usual: Any) -> None:
        if getattr(self, name) is None:
            said = network.metadata.get(key, usual)
            object.__setattr__(self, name, int(said) if str(said).isdecimal() else said)

    def prepare(self, config: StreamConfig) -> OnnxState:
        """Fresh state. Not real-time safe: loads the file."""
        if config.windows.is_pair:
            raise ConfigError(
                f"estimator=onnx needs windows of one length, not {config.analysis} and {config.synthesis}"
            )
        network = Network(self.model)
        needed, given = (self.sr, network.n_fft, self.hop), (config.sr, config.analysis, config.hop)
        if given != needed:
            window_ms, hop_ms = (1000 * samples / self.sr for samples in needed[1:])
            raise ConfigError(
                f"{self.model} is for sr={needed[0]} analysis={needed[1]} hop={needed[2]}, which are "
                f"--window-ms {window_ms:g} --hop-ms {hop_ms:g} at {self.sr} Hz; "
                f"the stream has sr={given[0]} analysis={given[1]} hop={given[2]}"
            )
        window = {
            "hann": config.windows.analysis,
            "hann_sqrt": np.sqrt(config.windows.analysis),
            "none": np.ones(config.analysis),
        }
        return OnnxState(
            network=network,
            samples=np.zeros(config.analysis),
            oldest=config.hop,
            unwindow=_ratio(np.ones(config.analysis), config.windows.analysis),
            window=window[self.window],
            rewindow=_ratio(config.windows.analysis, window[self.window]),
        )


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a / b`, and 0 where `b` is."""
    return np.divide(a, b, where=b > 0, out=np.zeros(a.shape))
