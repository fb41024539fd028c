"""What atoms stand for in mixtures: the second half of learning a dictionary.

Atoms of sounds alone find activations, but in a mixture other sounds have a part in these. So mixtures of the very
recordings are made, at random levels and places, and separated as a stream would; then, with these activations fixed,

    V_j ~ B_j H_j,   B_j <- B_j * ((V_j / B_j H_j) H_j^T) / (1 H_j^T)    (KL; others as in `rtsep.factorise.nmf`)

is fitted to the spectra V_j of each source, which are known here. A stream goes on to find activations by the atoms,
and makes its masks of B, which costs nothing in a hop.

Source: F. Weninger, J. Le Roux, J. R. Hershey, S. Watanabe, "Discriminative NMF and its application to single-channel
source separation", Interspeech 2014; there the bases of the second half are fitted to the masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from rtsep.config import StreamConfig
from rtsep.estimators.dictionary_file import Dictionary
from rtsep.estimators.nmf import NMF, estimate_nmf
from rtsep.factorise.factors import EPS
from rtsep.factorise.nmf import monotone_exponent, multiplicative_step

SECONDS = 30.0  # of each mixture, at most
N_MIXTURES = 2
LEVEL_DB = 6.0  # sources are up to so much louder or softer than all alike
STRIDE_S = 0.016  # frames that are fitted
FIRST_S = 0.1  # of a mixture, which are not
N_ITER = 25


def powers_of(x: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Of the frames of a stream of the signal, (n_samples,), from the first hop on: float32 (n_hops, n_bins)."""
    line = np.concatenate([np.zeros(config.analysis - config.hop), x])
    frames = np.lib.stride_tricks.sliding_window_view(line, config.analysis)[:: config.hop]
    found = np.empty((len(frames), config.n_bins), np.float32)
    for i in range(0, len(frames), 1000):  # a bounded part of the memory
        found[i : i + 1000] = np.abs(np.fft.rfft(frames[i : i + 1000] * config.windows.analysis, config.n_fft)) ** 2
    return found


def learn_from_mixtures(
    dictionary: Dictionary,
    clips: Sequence[Sequence[np.ndarray]],
    seed: int = 0,
    told: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """What each atom stands for in the spectrum of its source.

    Parameters
    ----------
    dictionary : Dictionary
        Of at least two sources.
    clips : sequence of sequence of ndarray, real, (n_samples,)
        Recordings of every source alone, at the rate of the dictionary.
    seed : int
        Of levels and places.
    told : callable, optional
        Called with steps done and steps in all.

    Returns
    -------
    ndarray, float32, (n_bins, sum of n_atoms)
        In the unit of the atoms; of an atom that no mixture needed, the atom itself.
    """
    framing = dictionary.framing
    config, rng = framing.config, np.random.default_rng(seed)
    stride, first = max(1, round(STRIDE_S / config.hop_s)), round(FIRST_S / config.hop_s)
    edges = np.cumsum([0, *dictionary.n_atoms])
    whole = [np.concatenate(list(group)) for group in clips]
    n = min(round(SECONDS * framing.sr), max(x.size for x in whole))
    activations, spectra = [], []
    for i in range(N_MIXTURES):
        sources = np.stack([_cut(x, n, rng) for x in whole])
        power = powers_of(sources.sum(0), config)
        h, heard = _activations(dictionary, power), slice(first, None, stride)
        each = np.stack([powers_of(x, config)[heard] for x in sources])
        level = power[heard] if framing.powers else np.sqrt(power[heard])
        mean = level.mean(1, keepdims=True) + EPS  # the unit of the activations
        each = (each if framing.powers else np.sqrt(each)) / mean
        activations.append(h[heard])
        spectra.append(np.sqrt(each) if framing.beta is None else each)  # Levy NMF models the root of the powers
        if told:
            told(i + 1, N_MIXTURES + len(whole))
    h, v = np.concatenate(activations).T.astype(float), np.concatenate(spectra, 1).astype(float)
    sounding = v.any((0, 2))
    h, v = h[:, sounding], v[:, sounding]
    beta = 1.0 if framing.beta is None else framing.beta
    found = dictionary.atoms[: framing.n_bins].astype(float)
    for j, (start, stop) in enumerate(pairwise(edges)):
        mine = found[:, start:stop] + EPS
        for _ in range(N_ITER if h.size else 0):
            # Spectra are (n_frames, n_bins) here: the dictionary of the transposed problem is the activations.
            mine = multiplicative_step(v[j], h[start:stop].T, mine.T, beta, monotone_exponent(beta)).T
        found[:, start:stop] = mine
        if told:
            told(N_MIXTURES + j + 1, N_MIXTURES + len(whole))
    return found.astype(np.float32)


def _cut(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` samples of a recording from anywhere on, as a loop, at a random level."""
    start = int(rng.integers(x.size))
    some = np.resize(np.roll(x, -start), n)
    size = np.sqrt(np.mean(some**2))
    return some * (10 ** (rng.uniform(-LEVEL_DB, LEVEL_DB) / 20) / size if size > 0 else 0.0)


def _activations(dictionary: Dictionary, power: np.ndarray) -> np.ndarray:
    """Those that a stream finds in a mixture: float32 (n_hops, n_atoms)."""
    state = NMF(dictionary).prepare(dictionary.framing.config)
    n_atoms, n_bins = sum(dictionary.n_atoms), power.shape[1]
    nothing, magnitudes = np.zeros((1, 2, n_bins), np.float32), np.zeros((len(dictionary.n_atoms), n_bins), np.float32)
    found = np.empty((len(power), n_atoms), np.float32)
    for t, frame in enumerate(power):
        estimate_nmf(state, nothing, frame, magnitudes)
        found[t] = state.activations[:n_atoms]
    return found
