"""Known sounds by nonnegative matrix factorisation: a dictionary learned from each, activations found in every hop.

The features v of a frame, magnitudes or powers, are about W h, with the atoms W of all sources; a few multiplicative
updates find h (see `rtsep.factorise.nmf` and `rtsep.factorise.levy_nmf` for each divergence):

    KL         h <- h * W^T (v / Wh)                           IS    h <- h * (W^T (v / (Wh)^2) / W^T (1 / Wh))^(1/2)
    Euclidean  h <- h * (W^T v) / (W^T Wh)                     Levy  h <- h * (W^T (1 / Wh) / W^T (Wh / v))^(1/2)
    beta       h <- h * (W^T (v (Wh)^(b-2)) / W^T (Wh)^(b-1))^g

They start half from the activations of the frame before, half from a flat spectrum of activations, so that they follow
onsets. A source has the share V_j^a / sum V^a of a bin, V_j = W_j h_j, a = 2 for magnitudes, 1 for powers.

*Context.* Features may also hold the spectra 16 and 32 ms ago, in 64 bands: an atom is then a short stretch of sound.

*The rest.* With `with_rest` there are free atoms beside the known ones, which become what these leave over
(`rtsep.estimators.free_atoms`): one more source, for whatever else is there.

*Levels.* Features are divided by their mean, so that a quiet stream gives the same masks as a loud one.

Phase recovery gains nothing with such magnitudes (it was measured), so the mixture's phase is the default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import ConfigError, StreamConfig, check_int
from rtsep.engine.protocols import CompiledEstimator
from rtsep.engine.registry import register_estimator
from rtsep.estimators.dictionary_file import (
    CONTEXT_BANDS,
    CONTEXT_WEIGHT,
    DIVERGENCES,
    REST,
    Dictionary,
    Framing,
    check_stream,
    read_dictionary,
)
from rtsep.estimators.free_atoms import FreeAtoms, add_free, prepare_free, project_free, renew_free
from rtsep.factorise.nmf import monotone_exponent
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.network import PANEL, affine, panels
from rtsep.kernels.simd import LANES, load, store

KL, IS, EUCLIDEAN, LEVY = (DIVERGENCES.index(name) for name in ("kl", "is", "euclidean", "levy"))
BETA = len(DIVERGENCES)  # any other
N_FREE = 10  # atoms of the rest
FLOOR = np.float32(1e-7)  # of the mean feature: least value of a feature and of a model of it
SILENCE = np.float32(1e-24)  # mean power below which a frame is silent: -240 dBFS and less
WEIGHT = np.float32(CONTEXT_WEIGHT)
ZERO, ONE, TWO, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)


class NMFState(NamedTuple):
    """Dictionary, history and what the updates work on; float32 unless said."""

    forward: np.ndarray  # constant (1, n_panels, 1 + n_atoms, PANEL): W
    backward: np.ndarray  # constant (1, n_panels, 1 + n_features, PANEL): transposed W
    sums: np.ndarray  # constant (n_atoms,): of each atom
    first: np.ndarray  # int64, constant (n_src + 1,): first atom of each source
    edges: np.ndarray  # int64, constant (CONTEXT_BANDS + 1,): of the bands of context
    context: np.ndarray  # int64, constant (n_context,): hops ago
    choice: np.ndarray  # int64, constant (2,): divergence, iterations
    powers: np.ndarray  # constant (2,): beta, g
    free: FreeAtoms  # of the rest
    history: np.ndarray  # (n_history, CONTEXT_BANDS): ring of the bands of past frames
    newest: np.ndarray  # int64 (1,): the place in it of the newest frame
    activations: np.ndarray  # (n_atoms + n_free,)
    features: np.ndarray  # (n_padded,) scratch
    model: np.ndarray  # (n_padded,) scratch: W h
    numerator: np.ndarray  # (n_padded,) scratch: N, of an update
    denominator: np.ndarray  # (n_padded,) scratch: D, ones for KL
    up: np.ndarray  # (n_atoms padded + n_free,) scratch: W^T N
    down: np.ndarray  # (n_atoms padded + n_free,) scratch: W^T D
    part: np.ndarray  # (n_atoms,) scratch: activations of one source
    parts: np.ndarray  # (n_src, n_padded) scratch: W_j h_j


@kernel
def take_features(state, power):
    """Features of the newest frame, of mean one; whether there is anything in it.

    Parameters
    ----------
    state : NMFState
        `features` is overwritten, `history` moves on.
    power : ndarray, float32, (n_bins,)
        Read only.

    Notes
    -----
    Real-time safe.
    """
    features, history, edges = state.features, state.history, state.edges
    n_bins, n_history = power.size, history.shape[0]
    powers = state.choice[0] == IS or state.choice[0] == LEVY
    for k in range(n_bins):
        features[k] = power[k] if powers else math.sqrt(power[k])
    newest = (state.newest[0] + 1) % n_history
    state.newest[0] = newest
    for b in range(CONTEXT_BANDS):
        total = np.float32(0)
        for k in range(edges[b], edges[b + 1]):
            total += features[k]
        history[newest, b] = WEIGHT * total
    at = n_bins
    for hops in state.context:
        past = (newest + n_history - hops) % n_history
        for b in range(CONTEXT_BANDS):
            features[at + b] = history[past, b]
        at += CONTEXT_BANDS
    loud = np.float32(0)
    for k in range(n_bins):
        loud += power[k]
    total = np.float32(0)
    for i in range(at):
        total += features[i]
    mean = total / np.float32(at)
    if loud < SILENCE * np.float32(n_bins) or mean <= 0:
        return False
    for i in range(at):
        features[i] = features[i] / mean + FLOOR
    return True


@inlined
def _model(state):
    """W h of all atoms, and what its divergence from the features multiplies the transposed atoms by: N and D."""
    activations, model, divergence = state.activations, state.model, state.choice[0]
    features, numerator, denominator = state.features, state.numerator, state.denominator
    n_atoms = state.sums.size
    affine(state.forward, 0, activations, 0, n_atoms, model)
    add_free(state.free, activations, n_atoms, model)
    if divergence == BETA:
        exponent = state.powers[0] - TWO
        for i in range(model.size):
            m = model[i] + FLOOR
            slope = m**exponent
            numerator[i] = features[i] * slope
            denominator[i] = m * slope
        return
    for i in range(0, model.size, LANES):
        v, m = load(features, i), load(model, i) + FLOOR
        if divergence == KL:
            store(numerator, i, v / m)
        elif divergence == IS:
            inverse = ONE / m
            store(numerator, i, v * inverse * inverse)
            store(denominator, i, inverse)
        elif divergence == EUCLIDEAN:
            store(numerator, i, v)
            store(denominator, i, m)
        else:
            store(numerator, i, ONE / m)
            store(denominator, i, m / (v + FLOOR))


@kernel
def update_activations(state):
    """A multiplicative update of all activations.

    Parameters
    ----------
    state : NMFState
        `activations` is updated in place, from `features`.

    Notes
    -----
    Real-time safe.
    """
    activations, up, down, divergence = state.activations, state.up, state.down, state.choice[0]
    n_atoms, n_all, n_features = state.sums.size, activations.size, state.backward.shape[2] - 1
    exponent, padding = state.powers[1], up.size - activations.size  # between known and free atoms
    _model(state)
    affine(state.backward, 0, state.numerator, 0, n_features, up)
    project_free(state.free, state.numerator, up, n_atoms + padding)
    if divergence == KL:
        for a in range(n_atoms):
            activations[a] = activations[a] * up[a] / state.sums[a]
        for a in range(n_atoms, n_all):  # each sums to one
            activations[a] = activations[a] * up[a + padding]
        return
    affine(state.backward, 0, state.denominator, 0, n_features, down)
    project_free(state.free, state.denominator, down, n_atoms + padding)
    for a in range(n_all):
        at = a if a < n_atoms else a + padding
        quotient = up[at] / max(down[at], FLOOR)
        if exponent == HALF:
            quotient = math.sqrt(quotient)
        elif exponent != ONE:
            quotient = quotient**exponent
        activations[a] = activations[a] * quotient


@kernel
def estimate_nmf(state, mixture, power, magnitudes):
    """Magnitudes of the known sources in the newest frame.

    Parameters
    ----------
    state : NMFState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Read only, not used.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Overwritten; they add up to the magnitude of the mixture.

    Notes
    -----
    Real-time safe. Every hop takes the same time.
    """
    n_src, n_bins = magnitudes.shape
    activations, part, parts, first = state.activations, state.part, state.parts, state.first
    n_atoms, n_all, n_known = state.sums.size, activations.size, first.size - 1
    n_features = state.backward.shape[2] - 1
    # An atom as large as the frame would have this activation; each has its part of it.
    flat = np.float32(n_features) / np.float32(n_all)
    if not take_features(state, power):
        for a in range(n_all):
            activations[a] = flat
        for j in range(n_src):
            for k in range(n_bins):
                magnitudes[j, k] = math.sqrt(power[k]) / np.float32(n_src)
        return
    for a in range(n_all):
        activations[a] = HALF * activations[a] + HALF * flat
    for _ in range(state.choice[1]):
        update_activations(state)
    if n_src > n_known:
        _model(state)
        renew_free(state.free, activations, n_atoms, state.numerator, state.denominator)
    powers = state.choice[0] == IS or state.choice[0] == LEVY
    for j in range(n_src):
        for a in range(n_atoms):
            part[a] = activations[a] if j < n_known and first[j] <= a < first[j + 1] else ZERO
        affine(state.forward, 0, part, 0, n_atoms, state.model)
        if j == n_known:
            add_free(state.free, activations, n_atoms, state.model)
        for k in range(n_bins):
            value = state.model[k] + FLOOR
            parts[j, k] = value if powers else value * value
    for k in range(n_bins):
        total = np.float32(0)
        for j in range(n_src):
            total += parts[j, k]
        size = math.sqrt(power[k])
        for j in range(n_src):
            magnitudes[j, k] = size * parts[j, k] / total


def padded(n: int) -> int:
    """The next multiple of a panel."""
    return -(-n // PANEL) * PANEL


@register_estimator("nmf")
@dataclass(frozen=True)
class NMF(CompiledEstimator):
    """Known sounds, from a dictionary that `rtsep learn` makes of recordings of each.

    Parameters
    ----------
    model : path or Dictionary
        A file of `rtsep learn`, or what it holds.
    n_iter : int
        Updates of the activations in every hop, 1 to 100.
    with_rest : bool
        One more source, `rest`: whatever is not known, by ten atoms that adapt while the stream runs.
    """

    model: str | Path | Dictionary | None = None
    n_iter: int = 10
    with_rest: bool = False

    phase = "mixture"
    blind: ClassVar[str] = "blind_nmf"  # by that name, without a model
    State: ClassVar[type] = NMFState
    step = estimate_nmf
    dictionary: Dictionary = field(init=False, repr=False, compare=False)
    sources: tuple[str, ...] = field(init=False, repr=False, compare=False)
    times_ms: Mapping[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_int("n_iter", self.n_iter, 1, 100)
        if self.model is None:
            raise ConfigError(
                f"estimator={self.name!r} needs a model: rtsep learn makes one, of recordings of each sound "
                "(or, for whole signals, --components)"
            )
        dictionary = self.model if isinstance(self.model, Dictionary) else read_dictionary(self.model)
        known = dictionary.sources
        if len(known) < 2 and not self.with_rest:
            raise ConfigError(f"the model knows {known[0]!r} alone, nothing to tell it from; use --with-rest")
        if self.with_rest and REST in known:
            raise ConfigError(f"with_rest: the model has a sound of its own that is called {REST!r}")
        object.__setattr__(self, "dictionary", dictionary)
        object.__setattr__(self, "times_ms", dictionary.framing.config.times_ms)
        object.__setattr__(self, "sources", (*known, REST) if self.with_rest else known)

    @classmethod
    def example(cls, references: np.ndarray) -> NMF:
        """Settings for the contract tests."""
        return cls(_example("kl"), 3, with_rest=True)

    def prepare(self, config: StreamConfig) -> NMFState:
        """Fresh state. Not real-time safe. Raises `ConfigError` for another rate or framing than that of the model."""
        framing = self.dictionary.framing
        check_stream(self.dictionary, config)
        w = self.dictionary.atoms
        n_features, n_atoms = w.shape
        n_padded, n_free = padded(n_features), N_FREE if self.with_rest else 0
        named, beta = isinstance(framing.divergence, str), framing.beta
        exponent = 0.5 if beta is None else monotone_exponent(beta)  # of Levy NMF
        return NMFState(
            forward=panels(w, np.zeros(n_features))[None],
            backward=panels(w.T, np.zeros(n_atoms))[None],
            sums=constant(w.sum(0)),
            first=constant(np.cumsum([0, *self.dictionary.n_atoms]), np.int64),
            edges=constant(framing.band_edges, np.int64),
            context=constant(framing.context_hops, np.int64),
            choice=constant([DIVERGENCES.index(framing.divergence) if named else BETA, self.n_iter], np.int64),
            powers=constant([0.0 if beta is None else beta, exponent]),
            free=prepare_free(n_free, n_features, n_padded, exponent, config.hop_s, n_features / (n_atoms + n_free)),
            history=zeros((max(framing.context_hops, default=0) + 1, CONTEXT_BANDS)),
            newest=zeros(1, np.int64),
            activations=zeros(n_atoms + n_free),
            features=zeros(n_padded),
            model=zeros(n_padded),
            numerator=zeros(n_padded),
            denominator=aligned(np.ones(n_padded)),
            up=zeros(padded(n_atoms) + n_free),
            down=zeros(padded(n_atoms) + n_free),
            part=zeros(n_atoms),
            parts=zeros((len(self.sources), n_padded)),
        )


@register_estimator("levy_nmf")
@dataclass(frozen=True)
class LevyNMF(NMF):
    """Known sounds, from a dictionary of `rtsep learn --divergence levy`: clicks and crackles do not pull it along.

    Parameters
    ----------
    model, n_iter, with_rest
        As for `NMF`.
    """

    blind: ClassVar[str] = "blind_levy_nmf"

    def __post_init__(self) -> None:
        super().__post_init__()
        divergence = self.dictionary.framing.divergence
        if divergence != "levy":
            raise ConfigError(
                f"estimator={self.name!r}: the model was learned with --divergence {divergence}, not levy; "
                "learn another, or use estimator='nmf', which takes it"
            )

    @classmethod
    def example(cls, references: np.ndarray) -> LevyNMF:
        """Settings for the contract tests."""
        return cls(_example("levy"), 3)


def _example(divergence: str) -> Dictionary:
    rng = np.random.default_rng(0)
    framing = Framing(16_000, 256, 256, 64, 512, divergence, (4,))
    atoms = rng.random((framing.n_features, 6)) ** 4 + 1e-3
    return Dictionary(framing, ("one", "two"), (3, 3), (atoms / atoms.sum(0)).astype(np.float32), {})
