"""Model files of dictionaries: the atoms of every source, in the container of `rtsep.models`.

A file holds `dictionary`, float32 (n_features, n_atoms), the atoms of the first source first, each summing to one. The
header says what they are of: names of the sources, atoms of each, divergence, rate, window, hop, FFT size, spans of
context, and how they were learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtsep.config import ConfigError, StreamConfig, check_choice, check_int, check_real
from rtsep.models import checked_arrays, one_line, read_container, refusal, write_container

FORMAT = "rtsep-nmf"
VERSION = 2  # of the format and the features; a change of any of their constants is a new version
BETAS = {"kl": 1.0, "is": 0.0, "euclidean": 2.0}
DIVERGENCES = (*BETAS, "levy")
LEAST_BETA, MOST_BETA = -2.0, 4.0
REST = "rest"  # the source of whatever is not known
CONTEXT_BANDS = 64
CONTEXT_WEIGHT = 0.25  # of a frame of context, beside 1 for the newest frame
MAX_ATOMS = 4096


@dataclass(frozen=True)
class Framing:
    """What features are made of.

    Parameters
    ----------
    sr, analysis, synthesis, hop, n_fft : int
        As in `StreamConfig`.
    divergence : str or float
        "kl" or "euclidean", of magnitudes; "is" or "levy", of powers; a number from -2 to 4: beta, of magnitudes.
    context_hops : tuple of int
        Also look at the spectra so many hops ago, in bands; up to 1024 hops.
    """

    sr: int
    analysis: int
    synthesis: int
    hop: int
    n_fft: int
    divergence: str | float = "kl"
    context_hops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.divergence, str):
            check_choice("divergence", self.divergence, DIVERGENCES)
        else:
            check_real("divergence", self.divergence, LEAST_BETA, MOST_BETA)
        object.__setattr__(self, "context_hops", tuple(self.context_hops))
        for hops in self.context_hops:
            check_int("context_hops", hops, 1, 1024)

    @property
    def config(self) -> StreamConfig:
        """The stream that they are for."""
        return StreamConfig(self.sr, self.analysis, self.hop, self.n_fft, synthesis=self.synthesis)

    @property
    def times_ms(self) -> dict[str, float]:
        """Of that stream, as `StreamConfig.from_ms` takes them; not rounded, so that it finds the same samples."""
        samples = {"window_ms": self.analysis, "latency_ms": self.synthesis, "hop_ms": self.hop}
        return {name: 1000 * n / self.sr for name, n in samples.items()}

    @property
    def n_bins(self) -> int:
        """Bins of a spectrum."""
        return self.n_fft // 2 + 1

    @property
    def n_features(self) -> int:
        """Values for each frame: the bins, then the bands of each frame of context."""
        return self.n_bins + CONTEXT_BANDS * len(self.context_hops)

    @property
    def beta(self) -> float | None:
        """Of the divergence; None for Levy NMF, which is none of them."""
        return BETAS.get(self.divergence) if isinstance(self.divergence, str) else float(self.divergence)

    @property
    def powers(self) -> bool:
        """Whether features are powers instead of magnitudes."""
        return self.divergence in ("is", "levy")

    @property
    def band_edges(self) -> np.ndarray:
        """First bin of each band, evenly spaced in mel, and the end of the last: int64 (CONTEXT_BANDS + 1,)."""
        mel = np.linspace(0, np.log1p(self.sr / 2 / 700), CONTEXT_BANDS + 1)
        edges = np.round(700 * np.expm1(mel) * self.n_fft / self.sr).astype(np.int64)
        # At least a bin for each band.
        for i in range(1, CONTEXT_BANDS + 1):
            edges[i] = max(edges[i], edges[i - 1] + 1)
        edges[-1] = self.n_bins
        return edges


class Lesson(NamedTuple):
    """What the atoms of a source were learned from, and how: for pictures."""

    frames: np.ndarray  # float32 (n_features, n_frames): in the order of time
    activations: np.ndarray  # float32 (n_atoms, n_frames)
    cost: np.ndarray  # float64 (n_iter + 1,)


@dataclass(frozen=True, eq=False)
class Dictionary:
    """What a model file holds.

    Attributes
    ----------
    framing : Framing
    sources : tuple of str
    n_atoms : tuple of int
        Of each source.
    atoms : ndarray, float32, (n_features, sum of n_atoms)
    manifest : dict
        How they were learned.
    spectra : ndarray, float32, (n_bins, sum of n_atoms), optional
        What an atom stands for in a mixture, in the spectrum of its source. Default: the atoms themselves.
    lessons : mapping of str to Lesson
        Of each source, right after it was learned; not in the file.
    """

    framing: Framing
    sources: tuple[str, ...]
    n_atoms: tuple[int, ...]
    atoms: np.ndarray
    manifest: dict[str, Any]
    spectra: np.ndarray = None  # type: ignore[assignment]
    lessons: Mapping[str, Lesson] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.spectra is None:
            object.__setattr__(self, "spectra", self.atoms[: self.framing.n_bins])


def separable(dictionary: Dictionary, with_rest: bool | None = None) -> tuple[str, ...]:
    """Its sources, and the rest if it is wanted; None: there is no rest. Raises `ConfigError` for a lone source."""
    known = dictionary.sources
    if len(known) < 2 and not with_rest:
        hint = "" if with_rest is None else "; use --with-rest"
        raise ConfigError(f"the model knows {known[0]!r} alone, nothing to tell it from{hint}")
    if with_rest and REST in known:
        raise ConfigError(f"with_rest=True: the model has a sound of its own that is called {REST!r}")
    return (*known, REST) if with_rest else known


def check_stream(dictionary: Dictionary, config: StreamConfig) -> None:
    """Raise `ConfigError` for another rate or framing than that of the dictionary."""
    for name in ("sr", "analysis", "synthesis", "hop", "n_fft"):
        here, there = getattr(config, name), getattr(dictionary.framing, name)
        if here != there:
            raise ConfigError(f"the model is for {name}={there}, the stream has {name}={here}; learn one for it")


def spectral_atoms(dictionary: Dictionary, powers: bool) -> list[np.ndarray]:
    """Magnitudes or powers of the atoms of each source, float64 (n_bins, n_atoms), without context.

    Those of another kind become it by square or root; with Levy NMF atoms are magnitudes.
    """
    here = dictionary.framing.divergence == "is"
    w = dictionary.atoms[: dictionary.framing.n_bins].astype(float)
    w = w**2 if powers and not here else np.sqrt(w) if here and not powers else w
    w = w + np.finfo(float).eps
    return np.split(w / w.sum(0), np.cumsum(dictionary.n_atoms)[:-1], axis=1)


def write_dictionary(path: Path, dictionary: Dictionary) -> None:
    """Write a model file at once. Raises `ConfigError` for what `read_dictionary` refuses."""
    header = {
        "framing": asdict(dictionary.framing),
        "sources": list(dictionary.sources),
        "n_atoms": list(dictionary.n_atoms),
        "manifest": dictionary.manifest,
    }
    content = {"dictionary": dictionary.atoms, "spectra": dictionary.spectra}
    write_container(path, FORMAT, VERSION, header, content, check=read_dictionary)


def read_dictionary(path: Path | str) -> Dictionary:
    """Read a model file and check all of it. Raises `ConfigError`, one line."""
    header, content, _ = read_container(path, FORMAT, VERSION)
    try:
        framing, sources, n_atoms = Framing(**header["framing"]), header["sources"], header["n_atoms"]
        manifest = header["manifest"]
        numbers = [check_int("n_atoms", n, 1, MAX_ATOMS) for n in n_atoms]
        if len(numbers) != len(sources) or not all(isinstance(name, str) for name in sources):
            raise ConfigError("sources and n_atoms do not fit")
        _ = framing.config
    except (ConfigError, KeyError, TypeError) as error:
        raise refusal(path, f"its header is wrong ({one_line(error)})") from None
    n = sum(numbers)
    shapes: dict[str, tuple[int, ...]] = {"dictionary": (framing.n_features, n), "spectra": (framing.n_bins, n)}
    arrays = checked_arrays(path, content, shapes)
    atoms, spectra = arrays["dictionary"], arrays["spectra"]
    if min(atoms.min(), spectra.min()) < 0 or not atoms.sum(0).all():
        raise refusal(path, "an atom is silent or negative somewhere")
    return Dictionary(framing, tuple(sources), tuple(numbers), atoms, manifest, spectra)
