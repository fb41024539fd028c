"""Mixtures of recordings that anyone can make again, bit by bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rtsep.audio_files import (
    FORMATS,
    FileError,
    StagedFiles,
    open_audio,
    read_blocks,
    write_sources,
)
from rtsep.config import MAX_SR, MIN_SR, check_choice, check_int, check_real
from rtsep.errors import ConfigError
from rtsep.evaluation import exact
from rtsep.recordings import Recording

MANIFEST = "manifest.jsonl"
BITS = {"flac": 24, "wav24": 24, "wav16": 16}
QUIET_DB = -60.0  # RMS of a piece in dBFS below which it is taken for silence, and another is drawn
TALKERS_DB = (-5.0, 0.0)  # level of further talkers against the first
PEAK = 0.98  # of full scale, that a mixture may have at most
MAX_TRIES = 50
ROUGH = 1 << 16  # steps per RMS of the first source in which level and peak of a mixture are measured


@dataclass(frozen=True)
class Mixtures:
    """What the mixtures are to be.

    Parameters
    ----------
    count : int
        Mixtures.
    duration_s : float
        Of each, in seconds.
    sr : int
        Rate in Hz; recordings of other rates are brought to it.
    talkers : int
        Pieces of speech in a mixture. Their sources are "speech", or "speech1", "speech2" and so on; further ones are
        0 to 5 dB below the first.
    snr_db : (float, float)
        Range of speech (of all talkers) to noise in dB, and to music.
    level_db : (float, float)
        Range of the RMS of the mixture in dBFS.
    seed : int
        0 or more.
    format : {"flac", "wav24", "wav16"}
        Of the files: 24-bit FLAC, 24-bit or 16-bit WAV.

    Raises
    ------
    ConfigError
        For values that cannot be.
    """

    count: int = 100
    duration_s: float = 5.0
    sr: int = 16_000
    talkers: int = 1
    snr_db: tuple[float, float] = (-5.0, 15.0)
    level_db: tuple[float, float] = (-30.0, -20.0)
    seed: int = 0
    format: str = "flac"

    def __post_init__(self) -> None:
        check_int("count", self.count, 1, 1_000_000)
        check_real("duration_s", self.duration_s, 0.1, 600, " s")
        check_int("sr", self.sr, MIN_SR, MAX_SR, " Hz")
        check_int("talkers", self.talkers, 1, 8)
        for name, (low, high), least, most in (
            ("snr_db", self.snr_db, -60, 60),
            ("level_db", self.level_db, -60, 0),
        ):
            if not least <= low <= high <= most:
                raise ConfigError(f"{name}={low:g} to {high:g} is no range between {least} and {most} dB")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} is below 0")
        check_choice("format", self.format, tuple(BITS))

    @property
    def n_samples(self) -> int:
        """Length of each mixture."""
        return round(self.duration_s * self.sr)


@dataclass(frozen=True)
class Piece:
    """A piece of a recording in a mixture: where it is from, and where it went."""

    recording: Recording
    start: int
    n_samples: int
    at: int
    x: np.ndarray


class Mixer:
    """Makes mixtures.

    Parameters
    ----------
    mixtures : Mixtures
        What they are to be.
    speech, noise, music : list of Recording
        To take pieces from; without any, there is no such source.
    rooms : list of Recording
        Room responses, all with the same number of channels, of which every mixture then has as many: for each
        source another one is drawn. Sources are as the room made them.
    skipped : callable
        Called with file and reason for each file that is named and left out, once.

    Raises
    ------
    ConfigError
        If there are fewer than two sources.

    Notes
    -----
    The same recordings (names and samples) and settings give the same samples on any machine, for recordings in a
    lossless format: all sums are of integers (see `rtsep.evaluation.exact`), and each mixture has its own stream of
    random numbers, so that the first ten of a hundred are the same as ten. In the files the sources add up to the
    mixture exactly.
    """

    def __init__(
        self,
        mixtures: Mixtures,
        speech: Sequence[Recording] = (),
        noise: Sequence[Recording] = (),
        music: Sequence[Recording] = (),
        rooms: Sequence[Recording] = (),
        skipped: Callable[[Path, str], None] = lambda path, reason: None,
    ) -> None:
        self.mixtures, self.rooms = mixtures, rooms
        talkers = ["speech"] if mixtures.talkers == 1 else [f"speech{j + 1}" for j in range(mixtures.talkers)]
        self.pools: dict[str, Sequence[Recording]] = dict.fromkeys(talkers, speech) if speech else {}
        self.pools |= {name: pool for name, pool in (("noise", noise), ("music", music)) if pool}
        if len(self.pools) < 2:
            raise ConfigError(f"{len(self.pools)} source is no mixture: two of speech, noise and music, or two talkers")
        self._skipped = skipped
        self._said: set[Path] = set()

    def make(self, index: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """One mixture.

        Parameters
        ----------
        index : int
            Which of them, from 0.

        Returns
        -------
        entry : dict
            What it was made of, for the manifest; without the files.
        sources : dict of str to ndarray, int32, (n_channels, n_samples)
            Of 16 or 24 bits, as the format has; their sum is the mixture.

        Raises
        ------
        FileError
            If no piece can be found that is not silent and can be read.
        """
        mixtures = self.mixtures
        draws = exact.Draws(mixtures.seed, index)
        # Everything is drawn before anything is read, but for pieces that turn out silent or damaged.
        snr_db = {name: draws.hundredths(*mixtures.snr_db) for name in ("noise", "music") if name in self.pools}
        level_db = draws.hundredths(*mixtures.level_db)
        pieces: dict[str, Piece] = {}
        gains: dict[str, float] = {}
        heard: dict[str, np.ndarray] = {}
        rooms: dict[str, Recording] = {}
        talkers: list[str] = []
        for name, pool in self.pools.items():
            taken = {piece.recording.name for piece in pieces.values()}
            pieces[name] = self._draw_piece(draws, pool, taken, name)
            heard[name] = pieces[name].x[None, :]
            if self.rooms:
                rooms[name], heard[name] = self._in_room(draws, pieces[name].x)
            if name in snr_db and talkers:
                total = sum(gains[talker] ** 2 * _power(heard[talker], pieces[talker]) for talker in talkers)
                wanted = total / exact.from_db(snr_db[name]) ** 2
            elif name in snr_db or not talkers:
                wanted = 1.0  # the first: the level of the mixture is set at the end
            else:
                first = talkers[0]
                spread = exact.from_db(draws.hundredths(*TALKERS_DB))
                wanted = gains[first] ** 2 * _power(heard[first], pieces[first]) * spread**2
            gains[name] = float(np.sqrt(wanted / _power(heard[name], pieces[name])))
            if name not in snr_db:
                talkers.append(name)
        sources = self._at_level(heard, gains, level_db)
        entry: dict[str, Any] = {
            "id": f"{index:06d}",
            "sr": mixtures.sr,
            "n_samples": mixtures.n_samples,
            "seed": mixtures.seed,
            "level_db": level_db,
        }
        if talkers:
            entry |= {f"{'snr' if name == 'noise' else 'music_snr'}_db": value for name, value in snr_db.items()}
        entry["class"] = pieces["noise" if "noise" in pieces else next(reversed(pieces))].recording.label
        entry["sources"] = {
            name: {
                "recording": piece.recording.name,
                "start": piece.start,
                "n_samples": piece.n_samples,
                "at": piece.at,
                **({"room": rooms[name].name} if rooms else {}),
            }
            for name, piece in pieces.items()
        }
        digest = hashlib.sha256()
        for source in sources.values():
            digest.update(source.astype("<i4").tobytes())
        entry["sha256"] = digest.hexdigest()
        return entry, sources

    def _draw_piece(self, draws: exact.Draws, pool: Sequence[Recording], taken: set[str], name: str) -> Piece:
        """A piece that can be read and is not silent, of a recording that is not yet in the mixture if possible."""
        problem = "is silent"
        for _ in range(MAX_TRIES):
            recording = pool[draws.integer(len(pool))]
            where = draws.integer(1 << 30)
            if recording.name in taken and len(pool) > len(taken):
                continue
            try:
                piece = self._read(recording, where, repeat=not name.startswith("speech"))
            except FileError as reason:
                self._say_skipped(recording.path, str(reason))
                problem = str(reason)
                continue
            if _power(piece.x[None], piece) > (exact.FULL_SCALE * exact.from_db(QUIET_DB)) ** 2:
                return piece
        raise FileError(f"no piece for {name!r} in {MAX_TRIES} tries: {recording.path} {problem}")

    def _read(self, recording: Recording, where: int, repeat: bool) -> Piece:
        """A piece at `where` of 2^30 of what is possible.

        Recordings that are too short are repeated, or stand anywhere in silence.
        """
        n, rate = self.mixtures.n_samples, self.mixtures.sr
        wanted = -(-n * recording.sr // rate)
        start = (recording.n_samples - wanted) * where >> 30 if recording.n_samples > wanted else 0
        with open_audio(recording.path) as file:
            try:
                file.seek(start)
            except sf.LibsndfileError as problem:
                raise FileError(f"is damaged before sample {start}: {problem.error_string}") from None
            read = list(read_blocks(file, min(wanted, recording.n_samples)))
        x = exact.from_float(np.concatenate(read, 1))
        mono = x[0] if len(x) == 1 else np.rint(x.sum(0) / len(x)).astype(np.int64)
        mono = exact.resample(mono, recording.sr, rate)[:n]
        if mono.size < n and repeat:
            mono = np.resize(mono, n)
        at = (n - mono.size) * where >> 30
        return Piece(recording, start, mono.size, at, np.pad(mono, (at, n - mono.size - at)))

    def _in_room(self, draws: exact.Draws, x: np.ndarray) -> tuple[Recording, np.ndarray]:
        for _ in range(MAX_TRIES):
            room = self.rooms[draws.integer(len(self.rooms))]
            try:
                with open_audio(room.path) as file:
                    response = np.concatenate(list(read_blocks(file, file.frames)), 1)
                integers = [
                    exact.resample(exact.from_float(channel), room.sr, self.mixtures.sr) for channel in response
                ]
                peak = max(int(np.abs(channel).max()) for channel in integers)
                # One scale for all ears.
                heard = [exact.convolve(x, channel, peak) for channel in integers]
                return room, np.stack(heard)
            except (FileError, ValueError) as problem:
                self._say_skipped(room.path, str(problem))
        raise FileError(f"no room response in {MAX_TRIES} tries: {room.path}")

    def _at_level(
        self, heard: dict[str, np.ndarray], gains: dict[str, float], level_db: float
    ) -> dict[str, np.ndarray]:
        """The sources at the level of the mixture that was drawn, or below it where that would be clipped."""
        # Products and roundings of single samples are the same everywhere.
        rough = {name: np.rint(x * (gains[name] * ROUGH)).astype(np.int64) for name, x in heard.items()}
        mixture = np.sum(list(rough.values()), 0)
        peak = max(int(np.abs(x).max()) for x in (mixture, *rough.values()))
        rms = float(np.sqrt(exact.energy(mixture) / mixture.size))
        gain = ROUGH * min(exact.from_db(level_db) / rms, PEAK / peak) * (1 << BITS[self.mixtures.format] - 1)
        return {name: np.rint(x * (gains[name] * gain)).astype(np.int32) for name, x in heard.items()}

    def _say_skipped(self, path: Path, reason: str) -> None:
        if path not in self._said:
            self._said.add(path)
            self._skipped(path, reason)


def write_mixtures(
    mixer: Mixer, folder: Path, overwrite: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Make all mixtures of a mixer and write them.

    Parameters
    ----------
    mixer : Mixer
        With settings and recordings.
    folder : Path
        Gets `manifest.jsonl`, and a folder for the mixtures and for each source.
    overwrite : bool
        Whether files that are there may be replaced.
    progress : callable, optional
        Called with the mixtures done and those in all.

    Returns
    -------
    Path
        The manifest: a line of JSON for each mixture. It is written last, so that what it names is there.

    Raises
    ------
    FileError
        If something cannot be written, or no pieces can be found.
    """
    mixtures, format = mixer.mixtures, FORMATS[mixer.mixtures.format]
    manifest = folder / MANIFEST
    with StagedFiles([manifest], overwrite) as whole:
        with open(whole.part(manifest), "w", encoding="utf-8", newline="\n") as lines:
            for index in range(mixtures.count):
                entry, sources = mixer.make(index)
                signals = {"mixture": np.sum(list(sources.values()), 0, dtype=np.int32)} | sources
                names = {name: f"{name}/{entry['id']}{format.suffix}" for name in signals}
                with StagedFiles([folder / name for name in names.values()], overwrite) as staged:
                    # Whole numbers of 32 bits, as libsndfile takes them: what it makes of floats is not exact.
                    pieces = np.stack(list(signals.values())) << (32 - BITS[mixtures.format])
                    outputs = {name: folder / path for name, path in names.items()}
                    n_channels = pieces.shape[1]
                    write_sources(staged, outputs, iter([pieces]), mixtures.sr, n_channels, mixtures.n_samples, format)
                    staged.commit()
                line: dict[str, Any] = {"mixture": names["mixture"]} | entry
                for name in sources:
                    line["sources"][name] = {"file": names[name]} | line["sources"][name]
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                if progress:
                    progress(index + 1, mixtures.count)
        whole.commit()
    return manifest


def _power(x: np.ndarray, piece: Piece) -> float:
    """Mean power over channels and over the samples that the piece has, not the silence around it."""
    return exact.energy(x) / (len(x) * piece.n_samples)
