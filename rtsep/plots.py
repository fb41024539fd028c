"""Spectrograms of the mixture and its sources on one page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rtsep.estimators.dictionary_file import Dictionary
from rtsep.notes import Note
from rtsep.reading import AudioReader, read_from

MAX_COLUMNS = 1600  # frames in a picture; more would be narrower than its pixels
MAX_ROWS = 512  # of frequencies; the loudest of neighbouring bins counts
FRAMES_PER_COLUMN = 4  # averaged where a column stands for more audio than a frame
FRAME_S = 0.032
RANGE_DB = 70.0


def spectrogram(path: Path, n_samples: int) -> tuple[np.ndarray, int]:
    """Spectrogram of an audio file of any length, from at most 1600 places in it.

    Parameters
    ----------
    path : Path
        Any file that libsndfile reads.
    n_samples : int
        Its samples per channel.

    Returns
    -------
    level : ndarray, float32, (at most 512, at most 1600)
        Mean power over the channels in dB; a sine of full scale has 0 dB.
    sr : int
        Sample rate in Hz.
    """
    with read_from(path) as reader:
        sr = reader.sr
        n = 2 * round(FRAME_S * sr / 2)
        window = np.hanning(n + 1)[:-1]
        scale = 2 / window.sum()
        stride = max(n // 8, -(-n_samples // MAX_COLUMNS))
        step = n // 2
        frames = FRAMES_PER_COLUMN if stride >= n + (FRAMES_PER_COLUMN - 1) * step else 1
        length = n + (frames - 1) * step
        columns = []
        starts = [centre - length // 2 for centre in range(min(stride, n_samples) // 2, n_samples, stride)]
        for x in _parts(reader, starts, length):
            spectra = np.stack([np.fft.rfft(x[:, t * step : t * step + n] * window) * scale for t in range(frames)])
            power = (np.abs(spectra) ** 2).mean((0, 1))
            pooled = -(-power.size // MAX_ROWS)
            columns.append(power[: power.size // pooled * pooled].reshape(-1, pooled).max(1).astype(np.float32))
    power = np.array(columns).T
    return 10 * np.log10(np.maximum(power, 1e-20)), sr


def _parts(reader: AudioReader, starts: list[int], length: int) -> Iterator[np.ndarray]:
    """Parts (n_channels, length) of a recording that begin at `starts`, in ascending order; silence around it.

    Not by seeking, which not every format can.
    """
    blocks, at = reader.blocks(), 0
    heard = np.zeros((reader.n_channels, 0), np.float32)
    for start in starts:
        while at + heard.shape[1] < start + length:
            block = next(blocks, None)
            if block is None:
                break
            passed = max(0, min(start - at, heard.shape[1]))
            heard, at = np.concatenate((heard[:, passed:], block), 1), at + passed
        first = max(start, 0)
        found = np.nan_to_num(heard[:, first - at :][:, : start + length - first], nan=0, posinf=0, neginf=0)
        part = np.zeros((reader.n_channels, length), np.float32)
        part[:, first - start :][:, : found.shape[1]] = found
        yield part


def plot_dictionary(path: Path, dictionary: Dictionary) -> None:
    """Draw what was learned as one PNG, a column for each sound: atoms, frames, activations, cost.

    Atoms and activations stand in the order of the frequencies of the atoms, the lowest first. Frames, activations and
    cost are those of `Dictionary.lessons`; of a dictionary from a file, which has none, the atoms alone are drawn.
    """
    framing, start = dictionary.framing, 0
    hz = np.arange(framing.n_bins)[:, None] * framing.sr / framing.n_fft
    decibels = 10 if framing.powers else 20
    n_rows = 4 if dictionary.lessons else 1
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(1 + 4.5 * len(dictionary.sources), 0.5 + 2.3 * n_rows), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(n_rows, len(dictionary.sources), squeeze=False)
        for column, (name, n) in enumerate(zip(dictionary.sources, dictionary.n_atoms, strict=True)):
            w = dictionary.atoms[: framing.n_bins, start : start + n]
            start += n
            order = np.argsort((hz * w).sum(0) / w.sum(0))
            rows = axes[:, column]
            rows[0].set_title(f"{name}: {n} atoms", loc="left")
            _draw(rows[0], w[:, order] / w.max(0)[order], decibels, framing.sr / 2000)
            rows[0].set(xlabel="atom", ylabel="kHz")
            if not dictionary.lessons:
                continue
            frames, activations, cost = dictionary.lessons[name]
            _draw(rows[1], frames[: framing.n_bins] / frames.max(), decibels, framing.sr / 2000)
            rows[1].set(title="frames that were learned from, of equal level", ylabel="kHz")
            _draw(rows[2], activations[order] / activations.max(), decibels, n)
            rows[2].set(title="activations", xlabel="frame", ylabel="atom")
            rows[3].plot(cost / frames.size)
            rows[3].set(title="cost, of a value", xlabel="iteration", yscale="log")
            rows[3].grid(alpha=0.3)
        figure.savefig(path, format="png")


def _draw(axis: Axes, values: np.ndarray, decibels: int, top: float) -> None:
    """Values of at most one in dB, as an image of that height."""
    level = decibels * np.log10(np.maximum(values, 1e-10))
    extent = (0, values.shape[1], 0, top)
    axis.imshow(level, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-60, vmax=0)


def plot_roll(
    path: Path, activations: np.ndarray, times: np.ndarray, sources: tuple[str, ...], notes: list[Note]
) -> None:
    """Draw the activations of sources as a piano roll, the first source lowest, and frame the notes that were found.

    Parameters
    ----------
    path : Path
        Picture, overwritten; a PNG whatever its suffix.
    activations : ndarray, real, >= 0, (n_src, n_frames)
    times : ndarray, float, (n_frames,)
        Middle of each frame in seconds, evenly spaced.
    sources : tuple of str
    notes : list of Note
    """
    half = (times[1] - times[0]) / 2 if times.size > 1 else 0.01
    level = 20 * np.log10((activations / max(activations.max(), 1e-30)).clip(1e-3))
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(10, max(3.0, 0.8 + 0.22 * len(sources))), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        image = axis.imshow(
            level,
            origin="lower",
            aspect="auto",
            extent=(times[0] - half, times[-1] + half, -0.5, len(sources) - 0.5),
            cmap="magma",
            vmin=-60,
            vmax=0,
            interpolation="nearest",
        )
        for note in notes:
            corner = (note.onset, sources.index(note.source) - 0.5)
            axis.add_patch(Rectangle(corner, note.offset - note.onset, 1, fill=False, edgecolor="cyan", linewidth=1))
        axis.set_yticks(range(len(sources)), sources)
        axis.set_xlabel("time in s")
        figure.colorbar(image, ax=axis, label="activation in dB below the largest", fraction=0.03, pad=0.01)
        figure.savefig(path, format="png")


def plot_files(path: Path, signals: dict[str, Path], n_samples: int) -> None:
    """Draw the spectrograms of audio files of the same length and rate as one PNG.

    Parameters
    ----------
    path : Path
        Picture, overwritten; a PNG whatever its suffix.
    signals : dict of str to Path
        Titles and files, the mixture first. Its loudest point is the top of the colour scale of all.
    n_samples : int
        Samples per channel of each of them.
    """
    spectrograms = {title: spectrogram(file, n_samples) for title, file in signals.items()}
    level, sr = next(iter(spectrograms.values()))
    top = 5 * np.ceil(max(float(level.max()), RANGE_DB - 200) / 5)
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(10, 0.8 + 2.1 * len(signals)), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(signals), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, (title, (level, _)) in zip(axes, spectrograms.items(), strict=True):
            image = axis.imshow(
                level,
                origin="lower",
                aspect="auto",
                extent=(0, n_samples / sr, 0, sr / 2000),
                cmap="magma",
                vmin=top - RANGE_DB,
                vmax=top,
                interpolation="antialiased",
            )
            axis.set_title(title, loc="left")
            axis.set_ylabel("frequency in kHz")
        axes[-1].set_xlabel("time in s")
        figure.colorbar(image, ax=axes, label="level in dBFS", fraction=0.03, pad=0.01, aspect=40)
        figure.savefig(path, format="png")
