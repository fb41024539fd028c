"""Recordings that mixtures for tests and for training are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rtsep.audio_files import FileError, find_audio, open_audio
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
