"""Recordings as arrays, for scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rtsep.files import FileError, open_audio, read_blocks


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """A whole recording: float32, (n_channels, n_samples), and its rate in Hz. Raises `FileError` with the path."""
    try:
        with open_audio(path) as file:
            return np.concatenate(list(read_blocks(file, file.frames)), 1), file.samplerate
    except FileError as problem:
        raise FileError(f"{path}: {problem}") from None


def read_alike(paths: list[Path]) -> tuple[np.ndarray, int]:
    """Recordings of the same rate, channels and length.

    Parameters
    ----------
    paths : list of Path
        At least one.

    Returns
    -------
    signals : ndarray, float32, (n_files, n_channels, n_samples)
    sr : int
        Rate in Hz.

    Raises
    ------
    FileError
        If one cannot be read, or differs from the first.
    """
    first, sr = read_audio(paths[0])
    signals = [first]
    for path in paths[1:]:
        x, rate = read_audio(path)
        for unit, here, there in (
            ("Hz", rate, sr),
            ("channels", len(x), len(first)),
            ("samples", x.shape[1], first.shape[1]),
        ):
            if here != there:
                raise FileError(f"{path} has {here} {unit}, {paths[0]} has {there}")
        signals.append(x)
    return np.stack(signals), sr
