"""Isolated notes and random chords of sampled pianos: a stand-in for MAPS, by fluidsynth and Debian's soundfonts.

    apt-get install fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont-small csound-soundfont
    python bench/piano_corpus.py -o FOLDER                        # notes and chords as files, to listen to

The notes are of some pianos, the chords of another one, `TEST`, so that a dictionary has not heard their timbre.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

from rtsep.notes import pitch_name

FONTS = (Path("/usr/share/sounds/sf2"), Path("/usr/share/sounds/sf3"))
PIANOS = {  # soundfont, General MIDI program: acoustic grands, bright and honky-tonk pianos
    "fluid-grand": ("FluidR3_GM.sf2", 0),
    "fluid-bright": ("FluidR3_GM.sf2", 1),
    "musescore-grand": ("MuseScore_General.sf3", 0),
    "musescore-bright": ("MuseScore_General.sf3", 1),
    "csound-grand": ("sf_GMbank.sf2", 0),
    "csound-bright": ("sf_GMbank.sf2", 1),
}
TEST = {"timgm-grand": ("TimGM6mb.sf2", 0)}
RENDERED = 44_100  # Hz; then resampled, because fluidsynth does not limit the band of its samples
TICKS = 1000  # in a second


@dataclass(frozen=True)
class Note:
    """A key that is held."""

    onset: float  # s
    offset: float  # s
    pitch: int  # MIDI
    velocity: int  # 1 to 127


def render(piano: tuple[str, int], notes: list[Note], seconds: float, sr: int) -> np.ndarray:
    """What a piano plays: float64 (n_samples,), full scale 1, neither reverberation nor chorus."""
    font = next((folder / piano[0] for folder in FONTS if (folder / piano[0]).exists()), None)
    if font is None or shutil.which("fluidsynth") is None:
        raise SystemExit(f"{piano[0] if font is None else 'fluidsynth'} is missing: see the first lines of {__file__}")
    with TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        midi.write_bytes(_midi(piano[1], notes, seconds))
        command = ["fluidsynth", "-n", "-i", "-q", "-R", "0", "-C", "0", "-g", "0.4", "-r", str(RENDERED)]
        subprocess.run([*command, "-O", "float", "-F", wav, font, midi], check=True, stdout=subprocess.DEVNULL)
        x, rate = sf.read(wav, always_2d=True)
    if rate != RENDERED or not x.any():
        raise SystemExit(f"fluidsynth rendered {'nothing' if rate == RENDERED else f'{rate} Hz'} from {font}")
    y = resample_poly(x.mean(1), sr, RENDERED)[: round(seconds * sr)]
    return np.pad(y, (0, round(seconds * sr) - y.size))


def isolated(
    pianos: dict[str, tuple[str, int]], pitches: range, velocities: tuple[int, ...], seconds: float, sr: int
) -> dict[int, list[np.ndarray]]:
    """Notes one by one, of each pitch from every piano at every velocity."""
    found: dict[int, list[np.ndarray]] = {pitch: [] for pitch in pitches}
    slot = seconds + 0.5  # let it die away before the next
    for piano in pianos.values():
        keys = [(pitch, velocity) for pitch in pitches for velocity in velocities]
        notes = [Note(i * slot, i * slot + seconds, *key) for i, key in enumerate(keys)]
        x = render(piano, notes, len(keys) * slot, sr)
        for note in notes:
            found[note.pitch].append(x[round(note.onset * sr) : round(note.offset * sr)])
    return found


def chords(polyphony: int, pitches: range, count: int, seed: int, seconds: float = 0.6) -> tuple[list[Note], float]:
    """Random chords one after another, and how long they take; keys are held for most of the time of each."""
    rng = np.random.default_rng((seed, polyphony))
    notes = [
        Note(i * seconds, (i + 0.85) * seconds, int(pitch), int(rng.integers(50, 110)))
        for i in range(count)
        for pitch in rng.choice(pitches, polyphony, replace=False)
    ]
    return notes, count * seconds


def _midi(program: int, notes: list[Note], seconds: float) -> bytes:
    """A Standard MIDI File of one track with TICKS in a second."""
    events = [(round(n.onset * TICKS), bytes([0x90, n.pitch, n.velocity])) for n in notes]
    events += [(round(n.offset * TICKS), bytes([0x80, n.pitch, 0])) for n in notes]
    events.sort(key=lambda event: (event[0], event[1][0]))  # releases first
    track, now = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big") + bytes([0, 0xC0, program]), 0
    for tick, message in [*events, (round(seconds * TICKS), b"\xff\x2f\x00")]:
        track += _length(tick - now) + message
        now = tick
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def _length(value: int) -> bytes:
    """A number in groups of seven bits, as MIDI files have it."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups))


def main() -> None:
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-o", "--output", type=Path, required=True, help="folder for notes and chords")
    options.add_argument("--pitches", type=int, nargs=2, default=(60, 71), metavar="MIDI", help="first and last")
    options.add_argument("--rate", type=int, default=16_000, metavar="HZ")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    pitches = range(args.pitches[0], args.pitches[1] + 1)
    for pitch, clips in isolated(PIANOS, pitches, (45, 75, 105), 1.2, args.rate).items():
        folder = args.output / "notes" / pitch_name(pitch)
        folder.mkdir(parents=True, exist_ok=True)
        for i, clip in enumerate(clips):
            sf.write(folder / f"{i:02}.wav", clip, args.rate, "FLOAT")
    (args.output / "chords").mkdir(exist_ok=True)
    for polyphony in range(2, 8):
        notes, seconds = chords(polyphony, pitches, 4, args.seed)
        path = args.output / "chords" / f"polyphony-{polyphony}.wav"
        sf.write(path, render(TEST["timgm-grand"], notes, seconds, args.rate), args.rate, "FLOAT")
        print(path, " ".join(f"{note.onset:.2f}:{pitch_name(note.pitch)}" for note in notes))


if __name__ == "__main__":
    main()
