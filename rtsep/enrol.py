"""A model that listens to one person, from a few seconds of that person: what the estimator `target` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rtsep.config import MAX_SR, MIN_SR, ConfigError, StreamConfig, check_axes, check_int
from rtsep.engine.registry import check_sources
from rtsep.errors import FileError
from rtsep.estimators.enrolment import SHIPPED, SOURCES, read_voices
from rtsep.estimators.features import extract_all_features, prepare_features
from rtsep.estimators.learned import prepare_network, run_network
from rtsep.estimators.model_file import Model, Shape, write_model
from rtsep.recordings import mono, read_mono
from rtsep.separator import check_audio

SR = 16_000
WINDOW_MS = 16
FRAME_S = 0.02
ACTIVE_DB = 35.0  # frames so far below the loudest are pauses,
PAUSE_S = 0.3  # of which this much stays
SHORTEST_S, LONGEST_S = 1.0, 120.0  # of speech; recordings share the longest, what is beyond tells no more
ENOUGH_S = 5.0
TINY = 1e-30


def enrol(
    recordings: Path | str | np.ndarray | Sequence[Path | str | np.ndarray],
    name: str = SOURCES[0],
    *,
    sr: int = SR,
    voices: Path | str | None = None,
) -> Model:
    """A model that separates `name` from the rest.

    Parameters
    ----------
    recordings : path or ndarray, or a sequence of them
        Audio files, or signals, real, (n_samples,) or (n_channels, n_samples): of this person alone, 5 to 30 s
        together, at any level.
    name : str
        Of the source; the other one is `rest`.
    sr : int
        Rate in Hz of arrays; files know their own.
    voices : path, optional
        A file of `rtsep train target`. Default: the shipped one.

    Returns
    -------
    Model
        For `rtsep.estimators.Target(model)` or `write_person`; `manifest["enrolled"]` says by what.

    Raises
    ------
    ConfigError
        For a name that cannot be one, a file that is none of voices, and less than a second of speech.
    FileError
        If a recording cannot be read, is silent, not finite or at a rate that no stream has.
    TypeError, ValueError
        For signals of other types and shapes.

    Notes
    -----
    Not real-time safe: seconds of work. Nothing else runs later than with `speech`: the voice is in the weights
    (`rtsep.estimators.enrolment`).
    """
    if isinstance(name, str) and name.casefold() == SOURCES[1]:
        raise ConfigError(f"name={name!r} is the other source, whatever else is there: another name, please")
    sources = check_sources("a person", (name, SOURCES[1]))
    given = [recordings] if isinstance(recordings, (str, Path, np.ndarray)) else list(recordings)
    if not given:
        raise ConfigError(f"recordings of {name!r}: there are none")
    known = read_voices(SHIPPED if voices is None else voices)
    clips = [_signal(recording, sr, f"recording {i}") for i, recording in enumerate(given)]
    spoken = [_speech_of(x) for x in clips]
    speech_s = sum(s for _, s in spoken)
    if speech_s < SHORTEST_S:
        raise ConfigError(
            f"recordings of {name!r} have {speech_s:.1f} s of speech: at least {SHORTEST_S:g} s are needed"
        )
    row = np.concatenate(_shared([x for x, _ in spoken], round(LONGEST_S * SR))).astype(np.float32)
    with np.errstate(all="ignore"):  # of weights that are too large, which are refused
        voice = known.hear(_features(known.shape, _spectra(known.shape, row)))
        # As they are in a file.
        weights = {key: value.astype(np.float16).astype(np.float32) for key, value in known.told(voice).items()}
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise ConfigError(f"{voices} cannot be used as a model: what it makes of this voice is not finite")
    enrolled = {
        "files": len(clips),
        "seconds": round(sum(x.size for x in clips) / SR, 3),
        "speech_s": round(speech_s, 3),
        "used_s": round(row.size / SR, 3),
        "voice": [round(float(value), 6) for value in voice],
        "voices": known.sha256,
    }
    golden = known.golden_spectra
    unproven = Model(known.shape, sources, known.manifest | {"enrolled": enrolled}, weights, golden, golden, "")
    return replace(unproven, golden_heads=_heads(unproven, _features(known.shape, golden)))


def write_person(path: Path | str, model: Model) -> None:
    """Write what `enrol` made, with weights of 16 bits, which they have.

    Raises `ConfigError` for another suffix than .npz, `FileError` for what cannot be written.
    """
    weights = {name: value.astype(np.float16) for name, value in model.weights.items()}
    write_model(
        Path(path), model.shape, model.sources, model.manifest, weights, model.golden_spectra, model.golden_heads
    )


def _signal(recording: Path | str | np.ndarray, sr: int, label: str) -> np.ndarray:
    """Mean of the channels at 16 kHz, without its own mean; float64 (n_samples,)."""
    if isinstance(recording, np.ndarray):
        check_axes(recording)
        if not recording.size:
            raise ConfigError(f"{label}: audio has shape {recording.shape}, no samples")
        x = check_audio(recording, len(recording) if recording.ndim == 2 else 1)
        x = mono(x, check_int("sr", sr, MIN_SR, MAX_SR, " Hz"), SR, label)
    else:
        x = read_mono(Path(recording), SR)[0]
        label = str(recording)
    x = x - x.mean()
    if np.abs(x).max() < TINY:
        raise FileError(f"{label}: it is silent")
    return x


def _speech_of(x: np.ndarray) -> tuple[np.ndarray, float]:
    """A signal (n_samples,) at 16 kHz with short pauses, as loud as 1 between them; and its seconds of speech."""
    size = round(FRAME_S * SR)
    frames = np.pad(x, (0, -x.size % size)).reshape(-1, size)
    power = np.square(frames / np.abs(x).max()).mean(1)
    active = power > power.max() * 10 ** (-ACTIVE_DB / 10)
    width = 1 + round(PAUSE_S / FRAME_S)
    near = np.convolve(active, np.ones(width))[(width - 1) // 2 :][: len(frames)] > 0
    return (frames[near] / np.sqrt(np.square(frames[active]).mean())).ravel(), FRAME_S * float(active.sum())


def _shared(clips: list[np.ndarray], longest: int) -> list[np.ndarray]:
    """The beginnings of clips, at most `longest` samples together: as much of each as of others that have as much."""
    left, most = longest, 0
    for i, size in enumerate(sorted(x.size for x in clips)):
        most = left // (len(clips) - i)
        if size > most:
            break
        left -= size
    else:
        return clips
    return [x[:most] for x in clips]


def _framing(shape: Shape) -> StreamConfig:
    return StreamConfig.from_ms(SR, WINDOW_MS, shape.hop_ms)


def _spectra(shape: Shape, x: np.ndarray) -> np.ndarray:
    """Frames of a stream from its start, float32 (n_frames, 2, n_bins), as far apart as the network remembers them."""
    config = _framing(shape)
    line = np.pad(x, (config.analysis - config.hop, config.hop))
    frames = np.lib.stride_tricks.sliding_window_view(line, config.analysis)[:: config.hop]
    spectra = np.fft.rfft(frames * config.windows.analysis, config.n_fft)
    return np.stack([spectra.real, spectra.imag], 1).astype(np.float32)


def _features(shape: Shape, spectra: np.ndarray) -> np.ndarray:
    """What a network hears, float32 (n_frames, n_features)."""
    features = np.empty((len(spectra), shape.n_features), np.float32)
    state = prepare_features(shape, _framing(shape))
    extract_all_features(state, spectra[:, None], np.square(spectra).sum(1), features)
    return features


def _heads(model: Model, features: np.ndarray) -> np.ndarray:
    """What a network says, float32 (n_frames, n_heads, bands_out)."""
    network, shape = prepare_network(model), model.shape
    heads = np.empty((len(features), shape.n_heads, shape.bands_out), np.float32)
    for frame, said in zip(features, heads, strict=True):
        network.features[:] = frame
        run_network(network, 0, shape.n_src, shape.bands_out)
        said[:] = network.said[: said.size].reshape(said.shape)
    return heads
