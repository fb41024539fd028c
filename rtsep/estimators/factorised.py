"""What estimators that factorise a whole signal share: a model, or a number of components; and three of them.

Components have no names of their own: component1, component2, ... Each is one atom; its part of the mixture is a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.protocols import WholeEstimator
from rtsep.engine.registry import register_estimator
from rtsep.errors import ConfigError
from rtsep.estimators.dictionary_file import (
    LEAST_BETA,
    MOST_BETA,
    Dictionary,
    check_stream,
    read_dictionary,
    separable,
    spectral_atoms,
)
from rtsep.estimators.nmf import N_FREE
from rtsep.factorise.em_isnmf import em_isnmf
from rtsep.factorise.factors import listener
from rtsep.factorise.levy_nmf import levy_nmf
from rtsep.factorise.nmf import nmf, separated

MOST_COMPONENTS = 64
MOST_ITERATIONS = 10_000


def component_names(components: int) -> tuple[str, ...]:
    """Names for that many sources. Raises `ConfigError` for a number that cannot be."""
    check_int("components", components, 1, MOST_COMPONENTS)
    return tuple(f"component{i + 1}" for i in range(components))


@dataclass(frozen=True)
class Supervised(WholeEstimator):
    """Settings of estimators of the whole signal that need a dictionary.

    Parameters
    ----------
    model : path or Dictionary
        A file of `rtsep learn`, or what it holds; of any divergence, its context is not used.
    n_iter : int
        Iterations, 1 to 10000.
    """

    model: str | Path | Dictionary | None = None
    n_iter: int = 100

    phase = "mixture"
    dictionary: Dictionary = field(init=False, repr=False, compare=False)
    sources: tuple[str, ...] = field(init=False, repr=False, compare=False)
    times_ms: Mapping[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_int("n_iter", self.n_iter, 1, MOST_ITERATIONS)
        if self.model is None:
            raise ConfigError(
                f"estimator={self.name!r} needs a model: rtsep learn makes one, of recordings of each sound"
            )
        dictionary = self.model if isinstance(self.model, Dictionary) else read_dictionary(self.model)
        object.__setattr__(self, "dictionary", dictionary)
        object.__setattr__(self, "sources", separable(dictionary, getattr(self, "with_rest", None)))
        object.__setattr__(self, "times_ms", dictionary.framing.times_ms)

    def atoms(self, config: StreamConfig, powers: bool) -> list[np.ndarray]:
        """Atoms of each source, float64 (n_bins, n_atoms). Raises `ConfigError` for a stream of another framing."""
        check_stream(self.dictionary, config)
        return spectral_atoms(self.dictionary, powers)


def _shares(x: np.ndarray, w: list[np.ndarray], h: np.ndarray, power: float) -> np.ndarray:
    """Magnitudes (n_frames, n_src, n_bins) of sources with the atoms `w` each, by masks of (W_j h_j)^power."""
    edges = np.cumsum([atoms.shape[1] for atoms in w])[:-1]
    parts = np.stack([atoms @ rows for atoms, rows in zip(w, np.split(h, edges), strict=True)])
    return separated(x, parts**power).transpose(2, 0, 1)


@register_estimator("whole_nmf")
@dataclass(frozen=True)
class WholeNMF(Supervised):
    """Known sounds, as `nmf` and `levy_nmf` find them in streams, by more iterations; whole signal.

    Parameters
    ----------
    model, n_iter
        As for `Supervised`; of any divergence, which is that of the factorisation.
    with_rest : bool
        One more source, `rest`: whatever is not known, by ten atoms that are learned from the signal.
    """

    with_rest: bool = False

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of the sources, (n_frames, n_src, n_bins)."""
        dictionary, framing = self.dictionary, self.dictionary.framing
        check_stream(dictionary, config)
        x = np.sqrt(power.T)
        if not x.any():
            return np.zeros((len(power), len(self.sources), config.n_bins))
        w = dictionary.atoms[: framing.n_bins].astype(float) + np.finfo(float).eps
        v = (x / x.mean()) ** (2 if framing.powers else 1)
        settings: dict[str, Any] = {
            "atoms": N_FREE if self.with_rest else 0,
            "dictionary": w,
            "n_iter": self.n_iter,
            "progress": listener(),
        }
        found = levy_nmf(v, **settings) if framing.beta is None else nmf(v, beta=framing.beta, **settings)
        heard = np.split(dictionary.spectra.astype(float), np.cumsum(dictionary.n_atoms)[:-1], axis=1)
        if self.with_rest:
            heard.append(found.dictionary[:, w.shape[1] :])
        return _shares(x, heard, found.activations, 1.0 if framing.powers else 2.0)


@register_estimator("blind_nmf")
@dataclass(frozen=True)
class BlindNMF(WholeEstimator):
    """Components that nothing is known of, by NMF: `--estimator nmf --components N`; whole signal.

    Parameters
    ----------
    components : int
        Sources to look for, 1 to 64.
    beta : float
        Of the divergence between magnitudes, -2 to 4.
    sparsity : float
        As in `rtsep.factorise.nmf`.
    n_iter : int
        Iterations, 1 to 10000.
    """

    components: int = 2
    beta: float = 1.0
    sparsity: float = 0.0
    n_iter: int = 200

    phase = "mixture"
    sources: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_real("beta", self.beta, LEAST_BETA, MOST_BETA)
        check_real("sparsity", self.sparsity, 0, 1e6)
        check_int("n_iter", self.n_iter, 1, MOST_ITERATIONS)
        object.__setattr__(self, "sources", component_names(self.components))

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of the components, (n_frames, n_src, n_bins)."""
        x = np.sqrt(power.T)
        if not x.any():
            return np.zeros((len(power), self.components, config.n_bins))
        w, h, _ = nmf(
            x, self.components, beta=self.beta, sparsity=self.sparsity, n_iter=self.n_iter, progress=listener()
        )
        return _shares(x, np.split(w, self.components, 1), h, 2.0)


@register_estimator("blind_levy_nmf")
@dataclass(frozen=True)
class BlindLevyNMF(WholeEstimator):
    """Components that clicks do not pull along: `--estimator levy_nmf --components N`; whole signal.

    Parameters
    ----------
    components, n_iter : int
        As for `BlindNMF`.
    """

    components: int = 2
    n_iter: int = 200

    phase = "mixture"
    sources: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_int("n_iter", self.n_iter, 1, MOST_ITERATIONS)
        object.__setattr__(self, "sources", component_names(self.components))

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of the components, (n_frames, n_src, n_bins)."""
        if not power.any():
            return np.zeros((len(power), self.components, config.n_bins))
        level = power.mean()  # beside which what is added to zeros is small
        w, h, _ = levy_nmf(power.T / level, self.components, n_iter=self.n_iter, progress=listener())
        return _shares(np.sqrt(power.T), np.split(w, self.components, 1), h, 1.0)


@register_estimator("em_isnmf")
@dataclass(frozen=True)
class EMISNMF(Supervised):
    """Itakura-Saito NMF by expectation-maximisation, of a model or of components; whole signal.

    Parameters
    ----------
    model, n_iter
        As for `Supervised`.
    components : int, optional
        Instead of a model: sources of one atom each, 1 to 64.
    sage : bool
        Sources in turn instead of all at once.
    """

    components: int | None = None
    sage: bool = False

    def __post_init__(self) -> None:
        if (self.model is None) == (self.components is None):
            raise ConfigError(f"estimator={self.name!r} takes either a model (rtsep learn) or a number of components")
        if self.components is None:
            super().__post_init__()
            return
        check_int("n_iter", self.n_iter, 1, MOST_ITERATIONS)
        object.__setattr__(self, "sources", component_names(self.components))
        object.__setattr__(self, "times_ms", {})

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of the sources, (n_frames, n_src, n_bins)."""
        known = None if self.components else self.atoms(config, powers=True)
        if not power.any():
            return np.zeros((len(power), len(self.sources), config.n_bins))
        parts = [] if known is None else padded_alike(known)
        w, h, _ = em_isnmf(
            power.T,
            np.hstack(parts) if parts else len(self.sources),
            n_src=len(self.sources),
            sage=self.sage,
            fixed=known is not None,
            n_iter=self.n_iter,
            progress=listener(),
        )
        parts = parts or np.split(w, len(self.sources), 1)
        return _shares(np.sqrt(power.T), parts, h, 1.0)


def padded_alike(atoms: list[np.ndarray]) -> list[np.ndarray]:
    """Equally many atoms for each source: the last one of the shorter is repeated."""
    most = max(w.shape[1] for w in atoms)
    return [np.pad(w, ((0, 0), (0, most - w.shape[1])), mode="edge") for w in atoms]
