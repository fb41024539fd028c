"""Notes: the names of pitches, and which of them sound when."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

NAMES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
_PITCH = re.compile(r"(?:([a-g])(#|s|b|)(-?\d)|(\d{1,3}))(?![0-9a-z#])", re.IGNORECASE)
LEAST = 0.2  # of the largest activation: -14 dB
SHORTEST = 5  # frames of a note: four, as long as a window, is the edge of another


class Note(NamedTuple):
    """A source that sounds for a while."""

    onset: float  # s
    offset: float  # s
    source: str
    level: float  # largest activation in it; 1 for the largest of all


def pitch_of(name: str) -> int | None:
    """MIDI number, 0 to 127, that a name begins with: "c4" and "60_soft" are 60, "eb3" and "d#3" are 51; else None."""
    found = _PITCH.match(name)
    if not found:
        return None
    letter, sign, octave, number = found.groups()
    if number:
        midi = int(number)
    else:
        midi = 12 * (int(octave) + 1) + NAMES.index(letter.lower()) + {"#": 1, "s": 1, "b": -1, "": 0}[sign.lower()]
    return midi if 0 <= midi <= 127 else None


def pitch_name(midi: int) -> str:
    """60 is "c4"."""
    return f"{NAMES[midi % 12]}{midi // 12 - 1}"


def find_notes(
    activations: np.ndarray, times: np.ndarray, sources: tuple[str, ...], least: float = LEAST
) -> list[Note]:
    """Which sources sound when, by onset.

    Parameters
    ----------
    activations : ndarray, real, >= 0, (n_src, n_frames)
    times : ndarray, float, (n_frames,)
        Middle of each frame in seconds, evenly spaced.
    sources : tuple of str
    least : float
        A source sounds in frames where it has at least so much of the largest activation of all. Fewer than
        five frames are no note: a window that sees the edge of a sound.
    """
    top = activations.max()
    if top == 0:
        return []
    half = (times[1] - times[0]) / 2 if times.size > 1 else 0.0
    notes = []
    for name, row in zip(sources, activations / top, strict=True):
        edges = np.flatnonzero(np.diff(row >= least, prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2):
            if stop - start >= SHORTEST:
                onset, offset = max(times[start] - half, 0.0), times[stop - 1] + half
                notes.append(Note(round(float(onset), 4), round(float(offset), 4), name, float(row[start:stop].max())))
    return sorted(notes)
