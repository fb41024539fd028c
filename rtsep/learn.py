"""A dictionary from recordings of each sound: what the estimator `nmf` separates by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.config import USUAL_MS, ConfigError, StreamConfig, check_int, check_real
from rtsep.engine.registry import check_sources
from rtsep.estimators.dictionary_file import CONTEXT_BANDS, CONTEXT_WEIGHT, MAX_ATOMS, Dictionary, Framing, Lesson
from rtsep.factorise.factors import EPS, Progress
from rtsep.factorise.levy_nmf import levy_nmf
from rtsep.factorise.nmf import nmf
from rtsep.mixed_lessons import learn_from_mixtures
from rtsep.recordings import read_mono

N_ITER = 80
EXEMPLAR_ITER = 20  # of the activations alone, for pictures
WINDOW_MS = 64.0  # of analysis; 16 costs 1.6 dB (docs/known_sounds.md)
MOST_FRAMES = 4000  # of each sound; they are taken evenly from all of it
NORMALISED = 1.0
QUIET_DB = 50.0  # frames so far below the loudest teach nothing


def features_of(x: np.ndarray, framing: Framing, places: np.ndarray) -> np.ndarray:
    """Features of some frames of a signal, as the estimator sees them.

    Parameters
    ----------
    x : ndarray, real, (n_samples,)
        At the rate of the framing.
    framing : Framing
    places : ndarray, int, (n,)
        Numbers of hops, from 0 on; frame t ends with hop t.

    Returns
    -------
    features : ndarray, float64, (n_features, n)
    """
    config = framing.config
    lead = np.zeros(config.analysis)
    line = np.concatenate([lead, x, lead])

    def spectra(frames: np.ndarray) -> np.ndarray:
        # The frame that ends with hop t begins at sample (t + 1) * hop - analysis; before the first hop is nothing.
        starts = np.maximum((frames + 1) * config.hop, 0)
        cut = line[starts[:, None] + np.arange(config.analysis)]
        size = np.abs(np.fft.rfft(cut * config.windows.analysis, config.n_fft))
        return (size**2 if framing.powers else size).T

    parts = [spectra(places)]
    for hops in framing.context_hops:
        past = spectra(np.maximum(places - hops, -1))
        parts.append(CONTEXT_WEIGHT * np.add.reduceat(past, framing.band_edges[:CONTEXT_BANDS], axis=0))
    return np.concatenate(parts)


def learn(
    recordings: Mapping[str, Sequence[Path]],
    *,
    sr: int | None = None,
    window_ms: float | None = None,
    hop_ms: float | None = None,
    latency_ms: float | None = None,
    n_atoms: int = 50,
    divergence: str | float = "kl",
    context_ms: Sequence[float] = (64.0,),
    exemplars: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dictionary:
    """Learn what sounds are made of.

    Parameters
    ----------
    recordings : mapping of str to sequence of Path
        Names of the sounds, and audio files of each alone. One alone can be told from the rest.
    sr : int, optional
        Rate in Hz of the streams that it is for. Default: that of the recordings, which then all have the same.
    window_ms, hop_ms, latency_ms : float, optional
        Of these streams, as in `StreamConfig.from_ms`, but that the window is 64 ms, and latency 16, where they are
        not given: partials of tones that are near each other need a longer look than speech.
    n_atoms : int
        For each sound, 1 to 4096.
    divergence : str or float
        "kl", "is", "euclidean" or "levy", or beta, -2 to 4.
    context_ms : sequence of float
        How long ago the frames are that an atom also knows of; none for atoms of one frame.
    exemplars : bool
        Take frames as they are for atoms, evenly from all of them, instead of a factorisation.
    seed : int
        Of what the factorisation starts from.
    progress : callable, optional
        Called with iterations done, iterations in all, and the cost.

    Returns
    -------
    Dictionary

    Raises
    ------
    ConfigError
        For settings that cannot work and recordings that nothing can be learned from.
    FileError
        If a file cannot be read.
    """
    names = check_sources("a dictionary", tuple(recordings))
    check_int("n_atoms", n_atoms, 1, MAX_ATOMS)
    for ms in context_ms:
        check_real("context_ms", ms, 1, 1000, " ms")
    clips = {name: [(*read_mono(path, sr), path) for path in paths] for name, paths in recordings.items()}
    rates = {rate: path for group in clips.values() for _, rate, path in group}
    if len(rates) > 1:
        one, other = list(rates.items())[:2]
        raise ConfigError(f"{one[1]} has {one[0]} Hz, {other[1]} has {other[0]} Hz; say sr={one[0]} or sr={other[0]}")
    if window_ms is None:
        window_ms = max(WINDOW_MS, latency_ms or 0)
        latency_ms = latency_ms or USUAL_MS
    config = StreamConfig.from_ms(next(iter(rates)), window_ms, hop_ms, latency_ms=latency_ms)
    context = tuple(max(1, round(ms / 1e3 / config.hop_s)) for ms in context_ms)
    framing = Framing(config.sr, config.analysis, config.synthesis, config.hop, config.n_fft, divergence, context)
    atoms, lessons, mixed, last = [], {}, len(clips) > 1, 0.0
    manifest: dict[str, Any] = {}
    for i, (name, group) in enumerate(clips.items()):
        frames = _frames([x for x, _, _ in group], framing, name, n_atoms)
        if n_atoms > frames.shape[1]:
            raise ConfigError(f"{n_atoms} atoms of {name!r} need as many frames that are not quiet: {frames.shape[1]}")

        def told(done: int, total: int, cost: float, i: int = i) -> None:
            nonlocal last
            last = cost
            if progress:
                progress(i * total + done, (len(clips) + mixed) * total, cost)

        given: dict[str, Any] = {"atoms": n_atoms}
        if exemplars:
            chosen = frames[:, np.linspace(0, frames.shape[1] - 1, n_atoms).round().astype(int)]
            given = {"dictionary": (chosen + EPS) / (chosen + EPS).sum(0)}
        given |= {"n_iter": EXEMPLAR_ITER if exemplars else N_ITER, "seed": seed, "progress": told}
        factors = levy_nmf(frames, **given) if framing.beta is None else nmf(frames, beta=framing.beta, **given)
        w = factors.dictionary + EPS
        atoms.append(w / w.sum(0))
        lessons[name] = Lesson(frames.astype(np.float32), factors.activations.astype(np.float32), factors.cost)
        seconds = sum(x.size for x, _, _ in group) / config.sr
        manifest[name] = {"files": len(group), "seconds": round(seconds, 3), "frames": frames.shape[1]}
    w = np.concatenate(atoms, 1).astype(np.float32)
    manifest |= {"exemplars": exemplars, "seed": seed}
    found = Dictionary(framing, names, (n_atoms,) * len(names), w, manifest, lessons=lessons)
    if not mixed:
        return found
    n_iter = given["n_iter"]

    def mixing(done: int, total: int) -> None:
        if progress:
            progress(round((len(clips) + done / total) * n_iter), (len(clips) + 1) * n_iter, last)

    spectra = learn_from_mixtures(found, [[x for x, _, _ in group] for group in clips.values()], seed, mixing)
    return replace(found, spectra=spectra)


def _frames(clips: list[np.ndarray], framing: Framing, name: str, n_atoms: int) -> np.ndarray:
    """Features of frames that are not quiet, (n_features, at most 4000), evenly from all clips."""
    hop, overlap = framing.hop, framing.analysis // framing.hop
    n_hops = [x.size // hop for x in clips]
    # Frames that overlap by more than half tell little more; but a short recording has few others.
    stride = max(min(overlap // 2, sum(n_hops) // (4 * n_atoms)), 1, -(-sum(n_hops) // MOST_FRAMES))
    parts = [features_of(x, framing, np.arange(overlap - 1, n, stride)) for x, n in zip(clips, n_hops, strict=True)]
    frames = np.concatenate(parts, 1)
    level = frames[: framing.n_bins].sum(0)
    if not level.size or not level.any():
        raise ConfigError(f"nothing can be heard of {name!r}: its recordings are silent or shorter than a window")
    loudest = QUIET_DB / 10 if framing.powers else QUIET_DB / 20
    heard = frames[:, level > level.max() * 10**-loudest]
    return heard / heard.mean(0) ** NORMALISED
