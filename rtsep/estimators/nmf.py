"""Known sounds by nonnegative matrix factorisation: a dictionary learned from each, activations found in every hop.

The features v of a frame, magnitudes or powers, are about W h, with the atoms W of all sources; a few multiplicative
updates find h (see `rtsep.factorise.nmf` and `rtsep.factorise.levy_nmf` for each divergence):

    KL         h <- h * W^T (v / Wh)                           IS    h <- h * (W^T (v / (Wh)^2) / W^T (1 / Wh))^(1/2)
    Euclidean  h <- h * (W^T v) / (W^T Wh)                     Levy  h <- h * (W^T (1 / Wh) / W^T (Wh / v))^(1/2)
    beta       h <- h * (W^T (v (Wh)^(b-2)) / W^T (Wh)^(b-1))^g

They start half from the activations of the frame before, half from a flat spectrum of activations, so that they follow
onsets. A source has the share V_j^a / sum V^a of a bin, V_j = B_j h_j, a = 2 for magnitudes, 1 for powers. B is what
the atoms stand for in mixtures (`rtsep.mixed_lessons`), W where a dictionary has learned from no mixtures.

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
    Dictionary,
    Framing,
    check_stream,
    read_dictionary,
    separable,
)
from rtsep.estimators.free_atoms import FreeAtoms, prepare_free, renew_free
from rtsep.factorise.nmf import monotone_exponent
from rtsep.kernels.jit import inlined, kernel
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.powers import power as lanes_power
from rtsep.kernels.simd import LANES, clear, get, limit, load, multiply_add, square_root, store, store_transposed

KL, IS, EUCLIDEAN, LEVY = (DIVERGENCES.index(name) for name in ("kl", "is", "euclidean", "levy"))
PANEL = 7 * LANES  # features: spectra and bands of context fill panels of seven better than of eight
BETA = len(DIVERGENCES)  # any other
N_FREE = 10  # atoms of the rest
FLOOR = np.float32(1e-7)  # of the mean feature: least value of a feature and of a model of it
SILENCE = np.float32(1e-24)  # mean power below which a frame is silent: -240 dBFS and less
TINY, LARGEST = np.float32(1e-30), np.float32(3e38)
WEIGHT = np.float32(CONTEXT_WEIGHT)
ZERO, ONE, TWO, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)


class NMFState(NamedTuple):
    """Dictionary, history and what the updates work on; float32 unless said. (n_all,): known and free atoms, padded."""

    atoms: np.ndarray  # constant (n_panels, 1 + n_atoms, PANEL): W by panels of features
    spectra: np.ndarray  # constant (n_panels of bins, 1 + n_atoms, PANEL): what each stands for in its source
    inverse: np.ndarray  # constant (n_all,): 1 / sum of each atom
    first: np.ndarray  # int64, constant (n_src + 1,): first atom of each source
    edges: np.ndarray  # int64, constant (CONTEXT_BANDS + 1,): of the bands of context
    context: np.ndarray  # int64, constant (n_context,): hops ago
    choice: np.ndarray  # int64, constant (2,): divergence, iterations
    powers: np.ndarray  # constant (2,): beta, g
    size: np.ndarray  # int64, constant (1,): features that are not padding
    free: FreeAtoms  # of the rest
    history: np.ndarray  # (n_history, CONTEXT_BANDS): ring of the bands of past frames
    newest: np.ndarray  # int64 (1,): the place in it of the newest frame
    activations: np.ndarray  # (n_all,)
    features: np.ndarray  # (n_padded,) scratch
    model: np.ndarray  # (n_padded,) scratch: W h
    numerator: np.ndarray  # (n_padded,) scratch: N, of an update
    denominator: np.ndarray  # (n_padded,) scratch: D, ones for KL
    up: np.ndarray  # (n_all, LANES) scratch: W^T N, eight sums of each
    down: np.ndarray  # (n_all, LANES) scratch: W^T D, eight sums of each
    block: np.ndarray  # (2, LANES * LANES) scratch: the sums of eight atoms, transposed
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
    for start in range(0, n_bins, LANES):
        i = min(start, n_bins - LANES)
        store(features, i, load(power, i) if powers else square_root(load(power, i)))
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
def _add_rows(rows, at, step, activations, first, last, s):
    """`s` (a panel) and, from `at` on, one row for each activation from `first` to `last`, times it."""
    s0, s1, s2, s3, s4, s5, s6 = s
    for a in range(first, last):
        h = get(activations, a)
        s0 = multiply_add(h, load(rows, at), s0)
        s1 = multiply_add(h, load(rows, at + 8), s1)
        s2 = multiply_add(h, load(rows, at + 16), s2)
        s3 = multiply_add(h, load(rows, at + 24), s3)
        s4 = multiply_add(h, load(rows, at + 32), s4)
        s5 = multiply_add(h, load(rows, at + 40), s5)
        s6 = multiply_add(h, load(rows, at + 48), s6)
        at += step
    return s0, s1, s2, s3, s4, s5, s6


@inlined
def _load_panel(x, i):
    return (
        load(x, i),
        load(x, i + 8),
        load(x, i + 16),
        load(x, i + 24),
        load(x, i + 32),
        load(x, i + 40),
        load(x, i + 48),
    )


@inlined
def _store_panel(x, i, s):
    store(x, i, s[0])
    store(x, i + 8, s[1])
    store(x, i + 16, s[2])
    store(x, i + 24, s[3])
    store(x, i + 32, s[4])
    store(x, i + 40, s[5])
    store(x, i + 48, s[6])


@inlined
def _product(row, s, total):
    """`total` and the products of two panels."""
    total = multiply_add(row[0], s[0], total)
    total = multiply_add(row[1], s[1], total)
    total = multiply_add(row[2], s[2], total)
    total = multiply_add(row[3], s[3], total)
    total = multiply_add(row[4], s[4], total)
    total = multiply_add(row[5], s[5], total)
    return multiply_add(row[6], s[6], total)


@inlined
def _project(rows, at, step, first, last, n, d, both, up, down):
    """Add to the sums of the atoms `first` to `last` what a panel of N, and of D if both are wanted, adds to them."""
    if both:
        for a in range(first, last):
            row = _load_panel(rows, at)
            gained, spent = _product(row, n, load(up, LANES * a)), _product(row, d, load(down, LANES * a))
            store(up, LANES * a, gained)
            store(down, LANES * a, spent)
            at += step
    else:
        for a in range(first, last):
            store(up, LANES * a, _product(_load_panel(rows, at), n, load(up, LANES * a)))
            at += step


@inlined
def _compose(state, atoms, panel, first, last, with_free, out, start):
    """A panel of W h, of known atoms from `first` to `last` and of the free ones, to `out` from `start` on."""
    n_atoms, n_padded, activations = state.first[-1], state.model.size, state.activations
    at = (panel * (1 + n_atoms) + 1) * PANEL
    s = _load_panel(atoms, at - PANEL)  # zeros
    s = _add_rows(atoms, at + first * PANEL, PANEL, activations, first, last, s)
    if with_free:
        n_free = state.free.atoms.shape[0]
        s = _add_rows(state.free.atoms, panel * PANEL, n_padded, activations, n_atoms, n_atoms + n_free, s)
    _store_panel(out, start + panel * PANEL, s)


@inlined
def _compare(state, start):
    """N and D of a panel of features, from its W h."""
    model, divergence = state.model, state.choice[0]
    features, numerator, denominator = state.features, state.numerator, state.denominator
    exponent = state.powers[0] - TWO
    for i in range(start, start + PANEL, LANES):
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
        elif divergence == LEVY:
            store(numerator, i, ONE / m)
            store(denominator, i, m / (v + FLOOR))
        else:
            slope = lanes_power(m, exponent)
            store(numerator, i, v * slope)
            store(denominator, i, m * slope)


@kernel
def compare_model(state):
    """W h of all atoms, and N and D, that its divergence from the features multiplies the transposed atoms by.

    Parameters
    ----------
    state : NMFState
        `model`, `numerator` and `denominator` are overwritten.

    Notes
    -----
    Real-time safe.
    """
    for panel in range(state.atoms.shape[0]):
        _compose(state, state.atoms, panel, 0, state.first[-1], True, state.model, 0)
        _compare(state, panel * PANEL)


@inlined
def _eight_sums(sums, a, block, row):
    """The sums of eight atoms from `a` on, each of eight lanes."""
    at, i = row * LANES * LANES, LANES * a
    s0, s1, s2, s3, s4, s5, s6 = _load_panel(sums, i)
    store_transposed(block, at, s0, s1, s2, s3, s4, s5, s6, load(sums, i + 56))
    s0, s1, s2, s3, s4, s5, s6 = _load_panel(block, at)
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + load(block, at + 56)))


@kernel
def update_activations(state):
    """A multiplicative update of all activations.

    Parameters
    ----------
    state : NMFState
        `activations` is updated in place, from `features`.

    Notes
    -----
    Real-time safe. The atoms are read once from memory: what is needed of a panel of features is done while its part
    of them is in the cache.
    """
    activations, up, down, divergence = state.activations, state.up, state.down, state.choice[0]
    n_panels, n_rows, _ = state.atoms.shape
    n_atoms, n_free, n_padded = n_rows - 1, state.free.atoms.shape[0], state.model.size
    exponent, both = state.powers[1], divergence != KL
    clear(up, 0, up.size)
    clear(down, 0, down.size)
    for panel in range(n_panels):
        start = panel * PANEL
        _compose(state, state.atoms, panel, 0, n_atoms, True, state.model, 0)
        _compare(state, start)
        n, d = _load_panel(state.numerator, start), _load_panel(state.denominator, start)
        _project(state.atoms, (panel * n_rows + 1) * PANEL, PANEL, 0, n_atoms, n, d, both, up, down)
        _project(state.free.atoms, start, n_padded, n_atoms, n_atoms + n_free, n, d, both, up, down)
    for a in range(0, activations.size, LANES):
        gain = _eight_sums(up, a, state.block, 0)
        if both:
            gain = gain / limit(_eight_sums(down, a, state.block, 1), FLOOR, LARGEST)
            if exponent == HALF:
                gain = square_root(gain)
            elif exponent != ONE:
                gain = lanes_power(gain + TINY, exponent)
        else:
            gain = gain * load(state.inverse, a)
        store(activations, a, load(activations, a) * gain)


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
    activations, parts, first, n_padded = state.activations, state.parts, state.first, state.model.size
    n_known, n_panels, n_rows = first.size - 1, state.spectra.shape[0], state.atoms.shape[1]
    n_all = n_rows - 1 + state.free.atoms.shape[0]
    # An atom as large as the frame would have this activation; each has its part of it.
    flat = np.float32(state.size[0]) / np.float32(n_all)
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
        compare_model(state)
        renew_free(state.free, activations, n_rows - 1, state.numerator, state.denominator)
    powers = state.choice[0] == IS or state.choice[0] == LEVY
    for panel in range(n_panels):
        for j in range(n_known):
            _compose(state, state.spectra, panel, first[j], first[j + 1], False, parts, j * n_padded)
        if n_src > n_known:
            _compose(state, state.spectra, panel, 0, 0, True, parts, n_known * n_padded)
    for i in range(0, n_bins, LANES):  # parts are padded
        total = load(parts, i) * ZERO
        for j in range(n_src):
            value = load(parts, j * n_padded + i) + FLOOR
            value = value if powers else value * value
            store(parts, j * n_padded + i, value)
            total = total + value
        store(state.model, i, ONE / total)
    for start in range(0, n_bins, LANES):
        i = min(start, n_bins - LANES)
        size = square_root(load(power, i)) * load(state.model, i)
        for j in range(n_src):
            store(magnitudes, j * n_bins + i, size * load(parts, j * n_padded + i))


def padded(n: int) -> int:
    """The next multiple of a panel."""
    return -(-n // PANEL) * PANEL


def panels(w: np.ndarray) -> np.ndarray:
    """Atoms (n_features, n_atoms) by panels, a row of zeros and one for each atom: (n_panels, 1 + n_atoms, PANEL)."""
    n_features, n_atoms = w.shape
    rows = np.zeros((padded(n_features), 1 + n_atoms))
    rows[:n_features, 1:] = w
    return constant(rows.reshape(-1, PANEL, 1 + n_atoms).transpose(0, 2, 1))


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
        sources = separable(dictionary, self.with_rest)
        object.__setattr__(self, "dictionary", dictionary)
        object.__setattr__(self, "times_ms", dictionary.framing.times_ms)
        object.__setattr__(self, "sources", sources)

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
        n_all = -(-(n_atoms + n_free) // LANES) * LANES
        scale = n_features / (n_atoms + n_free)
        return NMFState(
            atoms=panels(w),
            spectra=panels(self.dictionary.spectra),
            inverse=constant(1 / np.pad(w.sum(0), (0, n_all - n_atoms), constant_values=1)),
            first=constant(np.cumsum([0, *self.dictionary.n_atoms]), np.int64),
            edges=constant(framing.band_edges, np.int64),
            context=constant(framing.context_hops, np.int64),
            choice=constant([DIVERGENCES.index(framing.divergence) if named else BETA, self.n_iter], np.int64),
            powers=constant([0.0 if beta is None else beta, exponent]),
            size=constant([n_features], np.int64),
            free=prepare_free(n_free, n_features, n_padded, exponent, config.hop_s, scale, framing.powers),
            history=zeros((max(framing.context_hops, default=0) + 1, CONTEXT_BANDS)),
            newest=zeros(1, np.int64),
            activations=zeros(n_all),
            features=zeros(n_padded),
            model=zeros(n_padded),
            numerator=zeros(n_padded),
            denominator=aligned(np.ones(n_padded)),
            up=zeros((n_all, LANES)),
            down=zeros((n_all, LANES)),
            block=zeros((2, LANES * LANES)),
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
