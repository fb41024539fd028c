"""A model that listens to one person, from a few seconds of that person: what the estimator `target` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rtsep.config import ConfigError, StreamConfig
from rtsep.engine.registry import check_sources
from rtsep.estimators.enrolment import SHIPPED, SOURCES, read_voices
from rtsep.estimators.features import extract_all_features, prepare_features
from rtsep.estimators.learned import prepare_network, run_network
from rtsep.estimators.model_file import Model, Shape, write_model
from rtsep.recordings import mono, read_mono

SR = 16_000
WINDOW_MS = 16
GAP_S = 0.3  # between recordings
FRAME_S = 0.02
ACTIVE_DB = 35.0  # frames so far below the loudest are pauses
SHORTEST_S, LONGEST_S = 1.0, 120.0  # of speech; what is beyond tells no more
ENOUGH_S = 5.0


def enrol(
    recordings: Sequence[Path | str | np.ndarray],
    name: str = SOURCES[0],
    *,
    sr: int = SR,
    voices: Path | str | None = None,
) -> Model:
    """A model that separates `name` from the rest.

    Parameters
    ----------
    recordings : sequence of path or ndarray, real, (n_samples,) or (n_channels, n_samples)
        Of this person alone, 5 to 30 s together, in any room and at any level.
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
        If a recording cannot be read, is silent or not finite.

    Notes
    -----
    Not real-time safe: seconds of work. Nothing else runs later than with `speech`: the voice is in the weights
    (`rtsep.estimators.enrolment`).
    """
    sources = check_sources("a person", (name, SOURCES[1]))
    if not recordings:
        raise ConfigError(f"recordings of {name!r}: there are none")
    known = read_voices(SHIPPED if voices is None else voices)
    clips = [
        mono(recording, sr, SR, f"recording {i}")
        if isinstance(recording, np.ndarray)
        else read_mono(Path(recording), SR)[0]
        for i, recording in enumerate(recordings)
    ]
    spoken = sum(active_s(x) for x in clips)
    if spoken < SHORTEST_S:
        raise ConfigError(f"recordings of {name!r} have {spoken:.1f} s of speech: at least {SHORTEST_S:g} s are needed")
    voice = known.hear(_features(known.shape, _spectra(known.shape, _in_a_row(clips))))
    # As they are in a file.
    weights = {name: value.astype(np.float16).astype(np.float32) for name, value in known.told(voice).items()}
    enrolled = {
        "files": len(clips),
        "seconds": round(sum(x.size for x in clips) / SR, 3),
        "speech_s": round(spoken, 3),
        "voice": [round(float(value), 6) for value in voice],
        "voices": known.sha256,
    }
    golden = known.golden_spectra
    unproven = Model(known.shape, sources, known.manifest | {"enrolled": enrolled}, weights, golden, golden, "")
    return replace(unproven, golden_heads=_heads(unproven, _features(known.shape, golden)))


def write_person(path: Path, model: Model) -> None:
    """Write what `enrol` made, with weights of 16 bits, which they have. Raises `ConfigError` for another suffix."""
    weights = {name: value.astype(np.float16) for name, value in model.weights.items()}
    write_model(path, model.shape, model.sources, model.manifest, weights, model.golden_spectra, model.golden_heads)


def active_s(x: np.ndarray) -> float:
    """Seconds of a signal (n_samples,) at 16 kHz that are not pauses."""
    size = round(FRAME_S * SR)
    power = np.square(x[: x.size // size * size].reshape(-1, size)).mean(1)
    return FRAME_S * float(np.count_nonzero(power > power.max(initial=0) * 10 ** (-ACTIVE_DB / 10)))


def _in_a_row(clips: list[np.ndarray]) -> np.ndarray:
    """Recordings one after the other, all as loud, with pauses between them; at most `LONGEST_S`."""
    pause = np.zeros(round(GAP_S * SR))
    row = [part for x in clips for part in (x / np.sqrt(np.mean(x**2)), pause)]
    return np.concatenate(row)[: round(LONGEST_S * SR)].astype(np.float32)


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
