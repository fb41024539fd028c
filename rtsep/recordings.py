"""Recordings that mixtures for tests and for training are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from rtsep.audio_files import FileError, find_audio, open_audio, read_audio
from rtsep.config import MAX_SR, MIN_SR
from rtsep.errors import ConfigError


@dataclass(frozen=True)
class Recording:
    """A file that pieces are taken from.

    Parameters
    ----------
    path : Path
        Where it is.
    name : str
        Where it is below its folder, with slashes.
    sr, n_samples : int
        Rate in Hz, samples per channel.
    """

    path: Path
    name: str
    sr: int
    n_samples: int

    @property
    def label(self) -> str:
        """Class: the folder it is in, below that which was given; else the words its name begins with."""
        if "/" in self.name:
            return self.name.split("/", 1)[0]
        words = re.match(r"[A-Za-z]+(?:[_ -][A-Za-z]+)*(?![A-Za-z])", self.name.rsplit(".", 1)[0])
        return words.group() if words else "other"


def find_recordings(folder: Path, skipped: Callable[[Path, str], None]) -> list[Recording]:
    """All recordings in a folder and below it, by name.

    Parameters
    ----------
    folder : Path
        Where to look; hidden files are left out.
    skipped : callable
        Called with file and reason for each that cannot be read.

    Raises
    ------
    ConfigError
        If there are none.
    """
    found = []
    for name in find_audio(folder):
        path = folder / name
        try:
            with open_audio(path) as file:
                found.append(Recording(path, name, file.samplerate, file.frames))
        except FileError as problem:
            skipped(path, str(problem))
    if not found:
        raise ConfigError(f"{folder}: no recordings that can be read")
    return found


def read_mono(path: Path, sr: int | None) -> tuple[np.ndarray, int]:
    """Mean of the channels of a recording, float64 (n_samples,), and its rate in Hz, which is `sr` if that is given.

    Raises `FileError` if it cannot be read, is silent, or not finite.
    """
    x, rate = read_audio(path)
    return mono(x, rate, sr or rate, path), sr or rate


def mono(x: np.ndarray, rate: int, sr: int, label: Path | str) -> np.ndarray:
    """Mean of the channels of a signal at `rate`, float64 (n_samples,) at `sr`.

    `x` is (n_channels, n_samples) or (n_samples,). Raises `FileError`, about `label`, if the mean
    is silent or a sample is not finite.
    """
    if not MIN_SR <= rate <= MAX_SR:
        raise FileError(f"{label}: its rate is {rate} Hz, not {MIN_SR} to {MAX_SR} Hz")
    x = np.atleast_2d(x)
    if not np.isfinite(x).all():
        raise FileError(f"{label}: {np.count_nonzero(~np.isfinite(x))} of its samples are not finite")
    mean = x.mean(0, dtype=float)
    if not mean.any():
        raise FileError(f"{label}: {'its channels cancel each other' if x.any() else 'it is silent'}")
    return resample_poly(mean, sr, rate) if rate != sr else mean
