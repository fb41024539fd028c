"""Recordings for training: decoded into memory, and split so that no speaker and no noise is on both sides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.audio_files import FileError, read_audio
from rtsep.config import ConfigError
from rtsep.evaluation import exact
from rtsep.recordings import Recording, find_recordings
from rtsep.training.recipe import Corpus

SR = 16_000
ENOUGH = 20 * SR  # samples beyond which a group is not drawn more often
SHORTEST = SR // 10

Skipped = Callable[[Path, str], None]


@dataclass(frozen=True, eq=False)
class Clip:
    """A recording in memory.

    Attributes
    ----------
    name : str
        Corpus and file.
    group : str
        Speaker, or what else must not be on both sides; with the corpus.
    digest : str
        Of the samples of the whole recording.
    samples : ndarray, int16, (n_samples,)
        At 16 kHz.
    known : bool
        Whether a model is adapted to its speaker.
    """

    name: str
    group: str
    digest: str
    samples: np.ndarray
    known: bool = False


class Pool:
    """Clips to draw from: first a corpus by its weight, then a group, then a clip of it.

    Parameters
    ----------
    corpora : list of (float, list of Clip)
        Weights and clips. Groups are drawn by their length, up to 20 s of it.

    Attributes
    ----------
    groups : list of list of Clip
    """

    def __init__(self, corpora: Sequence[tuple[float, Sequence[Clip]]]) -> None:
        self.groups: list[list[Clip]] = []
        shares: list[np.ndarray] = []
        self._range_of: dict[str, tuple[float, float]] = {}
        total = sum(weight for weight, clips in corpora if clips)
        below = 0.0
        for weight, clips in corpora:
            groups: dict[str, list[Clip]] = {}
            for clip in clips:
                groups.setdefault(clip.group, []).append(clip)
            if groups and weight:
                lengths = [sum(clip.samples.size for clip in group) for group in groups.values()]
                share = np.minimum(lengths, ENOUGH).astype(float)
                shares.append(weight * share / share.sum())
                self.groups += groups.values()
                above = below + weight / total
                self._range_of |= dict.fromkeys(groups, (below, above))
                below = above
        self._until = np.cumsum(np.concatenate(shares)) if shares else np.zeros(0)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def clips(self) -> Iterable[Clip]:
        """All of them."""
        return chain.from_iterable(self.groups)

    @property
    def seconds(self) -> float:
        """Duration of all clips."""
        return sum(clip.samples.size for clip in self.clips) / SR

    def draw(self, rng: np.random.Generator, but: Sequence[str] = (), beside: str = "") -> list[Clip]:
        """All clips of a group; not of those named in `but`, unless there is no other; rather of `beside`'s corpus."""
        low, high = self._range_of.get(beside, (0.0, 1.0))
        for _ in range(20):
            at = int(np.searchsorted(self._until, (low + rng.random() * (high - low)) * self._until[-1], "right"))
            group = self.groups[min(at, len(self.groups) - 1)]
            if group[0].group not in but:
                return group
        others = [group for group in self.groups if group[0].group not in but]  # so short that they are seldom drawn
        return others[int(rng.integers(len(others)))] if others else group


@dataclass(frozen=True)
class Split:
    """The same kind of recordings on both sides."""

    training: Pool
    validation: Pool

    def as_dict(self) -> dict[str, Any]:
        """What there is, for the manifest of the model."""
        contents = sorted(clip.digest for clip in self.training.clips)
        return {
            "hours": round(self.training.seconds / 3600, 3),
            "recordings": len(contents),
            "sha256": hashlib.sha256("".join(contents).encode()).hexdigest(),
            "validation": sorted({clip.group for clip in self.validation.clips}),
        }


def check_folder(corpus: Corpus, below: Path) -> None:
    """Raise `ConfigError` unless the folder of a corpus is there."""
    if not below.is_dir():
        raise ConfigError(f"{below}: there is no such folder; {corpus.name!r} is from {corpus.source}")


def load_corpora(
    corpora: Sequence[tuple[Corpus, Path]],
    kind: str,
    skipped: Skipped,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Corpus, list[Clip]]]:
    """Decode all recordings of a kind.

    Parameters
    ----------
    corpora : list of (Corpus, Path)
        With the folder that each is in; `Corpus.folder` is not used.
    kind : {"speech", "noise", "music"}
    skipped : callable
        Called with file and reason for each that cannot be used: unreadable, short, silent, noisy, or there already.
    progress : callable, optional
        Called with the recordings done and those in all.

    Returns
    -------
    list of (Corpus, list of Clip)

    Raises
    ------
    ConfigError
        If a folder is missing or has no recordings.
    """
    found: list[tuple[Corpus, list[Recording]]] = []
    contents: dict[str, Path] = {}
    for corpus, below in corpora:
        check_folder(corpus, below)
        recordings = [r for r in find_recordings(below, skipped) if not _excluded(corpus, r)]
        if not recordings:
            raise ConfigError(f"{below}: all recordings are excluded")
        told_apart = corpus.group or corpus.known or not corpus.validation
        if kind == "speech" and not told_apart and not any("/" in r.name for r in recordings):
            raise ConfigError(f"{below} has no subfolders: it needs one for each speaker, to hold some of them out")
        found.append((corpus, recordings))
    total, done = sum(len(recordings) for _, recordings in found), 0
    loaded: list[tuple[Corpus, list[Clip]]] = []
    for corpus, recordings in found:
        clips = []
        for recording in recordings:
            try:
                clip = _decode(corpus, recording, kind)
                if clip.samples.size < SHORTEST:
                    skipped(recording.path, "lasts less than 0.1 s")
                elif not clip.samples.any():
                    skipped(recording.path, "is silent")
                elif corpus.range_db and not dynamic_range_db(clip.samples) >= corpus.range_db:
                    skipped(recording.path, f"has less than {corpus.range_db:g} dB between loud and quiet frames")
                elif contents.setdefault(clip.digest, recording.path) != recording.path:
                    skipped(recording.path, f"has the samples of {contents[clip.digest]}")
                else:
                    clips.append(clip)
            except FileError as problem:
                skipped(recording.path, _reason(recording, problem))
            done += 1
            if progress:
                progress(done, total)
        if not clips:
            raise ConfigError(
                f"{kind} of {corpus.name!r}: no recordings that can be read, last 0.1 s and are not silent"
            )
        loaded.append((corpus, clips))
    return loaded


def split_corpora(loaded: Sequence[tuple[Corpus, list[Clip]]], least: int = 1) -> Split:
    """Split the recordings of a kind; `least` is the number of groups that are held out, if any are.

    Groups are held out by the digest of their names: the same ones every time. Raises `ConfigError` if something is on
    both sides.
    """
    training: list[tuple[float, list[Clip]]] = []
    validation: list[tuple[float, list[Clip]]] = []
    for corpus, clips in loaded:
        for side, part in zip((training, validation), _split(corpus, clips, least), strict=True):
            side.append((corpus.weight, part))
    split = Split(Pool(training), Pool(validation))
    known = tuple(f"{corpus.name}/" for corpus, _ in loaded if corpus.known)
    check_disjoint(split.training.clips, (clip for clip in split.validation.clips if not clip.name.startswith(known)))
    return split


def check_disjoint(training: Iterable[Clip], validation: Iterable[Clip]) -> None:
    """Raise `ConfigError` if a group, or the content of a recording, is on both sides."""
    groups: dict[str, str] = {}
    contents: dict[str, str] = {}
    for clip in training:
        groups[clip.group] = contents[clip.digest] = clip.name
    for clip in validation:
        if clip.group in groups:
            raise ConfigError(f"{clip.group!r} is in training ({groups[clip.group]}) and in validation ({clip.name})")
        if clip.digest in contents:
            raise ConfigError(f"{clip.name} is in validation, and in training as {contents[clip.digest]}")


def check_unseen(clips: Iterable[Clip], folders: Sequence[Path], skipped: Skipped) -> None:
    """Raise `ConfigError` if a recording in one of the folders, which are for testing, has the samples of a clip."""
    contents = {clip.digest: clip.name for clip in clips}
    for folder in folders:
        for recording in find_recordings(folder, skipped):
            try:
                digest = _digest(_read(recording))
            except FileError as problem:
                skipped(recording.path, _reason(recording, problem))
                continue
            if digest in contents:
                raise ConfigError(f"{recording.path} is for testing, and in training as {contents[digest]}")


def _reason(recording: Recording, problem: FileError) -> str:
    return str(problem).removeprefix(f"{recording.path}: ")


def _excluded(corpus: Corpus, recording: Recording) -> bool:
    return bool(corpus.exclude and re.search(corpus.exclude, recording.name))


def _read(recording: Recording) -> np.ndarray:
    """Mono at 16 kHz, int16."""
    x, sr = read_audio(recording.path)
    if not np.isfinite(x).all():
        raise FileError(f"{recording.path}: has samples that are not finite")
    mono = exact.resample(exact.from_float(x.mean(0)), sr, SR)
    return np.clip((mono + 128) >> 8, -(1 << 15), (1 << 15) - 1).astype(np.int16)


def dynamic_range_db(samples: np.ndarray) -> float:
    """Level of loud frames of 20 ms over that of quiet ones, their 95th and 5th percentiles, in dB."""
    size = SR // 50
    frames = samples[: samples.size // size * size].reshape(-1, size).astype(np.float32)
    low, high = np.percentile(10 * np.log10(np.mean(frames**2, 1) + 0.1), (5, 95))
    return float(high - low)


def _digest(samples: np.ndarray) -> str:
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def _decode(corpus: Corpus, recording: Recording, kind: str) -> Clip:
    samples = _read(recording)
    return Clip(
        f"{corpus.name}/{recording.name}",
        f"{corpus.name}/{_group(corpus, recording, kind)}",
        _digest(samples),
        samples,
        corpus.known,
    )


def _group(corpus: Corpus, recording: Recording, kind: str) -> str:
    if corpus.group:
        return _matched(corpus, recording.name, recording.path)
    if "/" in recording.name:
        return recording.name.split("/", 1)[0]  # what is below it is of the same speaker or kind
    return "" if kind == "speech" else recording.name


def regrouped(corpus: Corpus, clip: Clip) -> Clip:
    """A clip that was packed with another recipe, in the group that this one's corpus says."""
    if not corpus.group:
        return clip
    name = clip.name.removeprefix(f"{corpus.name}/")
    return replace(clip, group=f"{corpus.name}/{_matched(corpus, name, clip.name)}")


def _matched(corpus: Corpus, name: str, where: Path | str) -> str:
    match = re.search(corpus.group, name)
    if not match:
        raise ConfigError(f"{where}: group={corpus.group!r} finds nothing in its name")
    return next((part for part in match.groups() if part is not None), match.group())


def _split(corpus: Corpus, clips: list[Clip], least: int) -> tuple[list[Clip], list[Clip]]:
    if corpus.known:
        return _split_in_time(clips, corpus.validation)
    groups = sorted({clip.group for clip in clips}, key=_digest_of_name)
    n = round(corpus.validation * len(groups))
    if 0 < corpus.validation < 1:  # both sides have some, or training has all
        n = min(max(least, n), len(groups) - 1) if len(groups) > least else 0
    held_out = set(groups[:n])
    return [c for c in clips if c.group not in held_out], [c for c in clips if c.group in held_out]


def _digest_of_name(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()  # file names need not be text


def _split_in_time(clips: list[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    parts: tuple[list[Clip], list[Clip]] = ([], [])
    for clip in clips:
        at = clip.samples.size - round(share * clip.samples.size)
        for side, samples in zip(parts, (clip.samples[:at], clip.samples[at:]), strict=True):
            if samples.size >= SHORTEST:
                side.append(replace(clip, samples=samples))
    return parts
