"""Atoms that nobody has learned: they become, while a stream runs, what the known ones leave over.

A free atom w is a row of features like the known ones, and takes part in every update of the activations. What its own
multiplicative update needs is summed over the frames, with forgetting (rho to the power of the hops is 1/e after
`MEMORY_S`); N and D are numerator and denominator of the divergence at the model of the frame, g its exponent:

    A <- rho A + h N * w^(1/g),   B <- rho B + h D,   w <- (A / B)^g, scaled to sum to one.

The sums are taken in every hop, and one atom is renewed in every hop, in turn: all hops cost the same. What is not used
keeps its shape, since a little of it is added to both sums.

Number of atoms, memory and first weight were chosen on ten mixtures of training recordings, one sound known and the
other not: a gain of 3.7 dB; with 4 atoms 2.4, with 20 3.0, with 1 s for the first weight 1.1; memory hardly matters.

Source: A. Lefevre, F. Bach, C. Fevotte, "Online algorithms for nonnegative matrix factorization with the Itakura-Saito
divergence", WASPAA 2011; there for g = 1/2 and batches of frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.powers import power
from rtsep.kernels.simd import LANES, clear, load, multiply_add, square_root, store

MEMORY_S = 2.0  # seconds after which a frame counts 1/e
FIRST_S = 0.02  # what an atom starts from counts as so many seconds of frames
LEAK = 1e-3  # part of a frame that every atom is taken to have at least
TINY = np.float32(1e-30)
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)


class FreeAtoms(NamedTuple):
    """Free atoms and the sums from which they are renewed; float32 unless said. None: no rows."""

    atoms: np.ndarray  # (n_free, n_padded): w, zero beyond the features
    shapes: np.ndarray  # (n_free, n_padded): w^(1/g)
    gained: np.ndarray  # (n_free, n_padded): A
    spent: np.ndarray  # (n_free, n_padded): B
    numbers: np.ndarray  # constant (3,): rho, what is added in each hop, g
    turn: np.ndarray  # int64 (1,): the atom that is renewed next
    sums: np.ndarray  # (LANES,) scratch


def prepare_free(n_free: int, n_features: int, n_padded: int, exponent: float, hop_s: float, scale: float) -> FreeAtoms:
    """Fresh atoms: bumps side by side over all features. `scale` is what an activation is like."""
    centres = (np.arange(n_free) + 0.5) / max(n_free, 1)
    places = (np.arange(n_features) + 0.5) / n_features
    atoms = np.zeros((n_free, n_padded))
    # Wider towards high frequencies, and everywhere something: what is zero stays zero.
    atoms[:, :n_features] = 0.2 + np.exp(-0.5 * (n_free * (np.sqrt(places) - centres[:, None])) ** 2)
    atoms /= atoms.sum(1, keepdims=True)
    shapes = atoms ** (1 / exponent)
    first = scale * FIRST_S / hop_s
    forget = math.exp(-hop_s / MEMORY_S)
    return FreeAtoms(
        atoms=aligned(atoms),
        shapes=aligned(shapes),
        gained=aligned(first * shapes),
        spent=aligned(np.full(atoms.shape, first)),
        numbers=constant([forget, LEAK * scale, exponent]),
        turn=zeros(1, np.int64),
        sums=zeros(LANES),
    )


@kernel
def renew_free(free, activations, first, numerator, denominator):
    """Take a frame into the sums, and renew the atom whose turn it is.

    Parameters
    ----------
    free : FreeAtoms
        Updated in place.
    activations : ndarray, float32
        Those of the free atoms from `first` on; that of the renewed one is scaled with it.
    first : int
    numerator, denominator : ndarray, float32, (n_padded,)
        N and D of the frame. Read only.

    Notes
    -----
    Real-time safe. Every call takes the same time.
    """
    n_free, n = free.atoms.shape
    forget, least, exponent = free.numbers[0], free.numbers[1], free.numbers[2]
    for r in range(n_free):
        h = activations[first + r]
        for i in range(0, n, LANES):
            at = r * n + i
            shape = load(free.shapes, at)
            gained = multiply_add(load(numerator, i) * h + least, shape, load(free.gained, at) * forget)
            store(free.gained, at, gained)
            store(free.spent, at, multiply_add(h, load(denominator, i), load(free.spent, at) * forget) + least)
    r = free.turn[0]
    free.turn[0] = (r + 1) % n_free
    clear(free.sums, 0, LANES)
    sums = load(free.sums, 0)
    for i in range(0, n, LANES):
        at = r * n + i
        shape = load(free.gained, at) / load(free.spent, at)
        store(free.shapes, at, shape)
        w = shape
        if exponent == HALF:
            w = square_root(shape)
        elif exponent != ONE:
            w = power(shape + TINY, exponent)
        store(free.atoms, at, w)
        sums = sums + w
    store(free.sums, 0, sums)
    total = ZERO
    for i in range(LANES):
        total += free.sums[i]
    total = max(total, TINY)
    shrink = ONE / total
    shrink_shape = shrink if exponent == ONE else shrink ** (ONE / exponent)
    for i in range(n):
        free.atoms[r, i] *= shrink
        free.shapes[r, i] *= shrink_shape
        free.spent[r, i] *= total
        free.gained[r, i] *= total * shrink_shape
    activations[first + r] *= total
