"""Atoms that nobody has learned: they become, while a stream runs, what the known ones leave over.

A free atom w is a row of features like the known ones, and takes part in every update of the activations. What its own
multiplicative update needs is summed over the frames, with forgetting (rho to the power of the hops is 1/e after
`MEMORY_S`); N and D are numerator and denominator of the divergence at the model of the frame, g its exponent, w0 the
shape that it began with, C how much it was used:

    A <- rho A + h N * w^(1/g) + (p / C) B * w0^(1/g),   B <- rho B + h D + (p / C) B,   C <- rho C + h + p,
    w <- (A / B)^g, scaled to sum to one.

The sums are taken in every hop, and one atom is renewed in every hop, in turn: all hops cost the same.

*Why p.* Without it atoms become narrow, and narrow atoms are a basis of anything: partials of the known sounds go to
them, and nothing brings them back, though no free atom is like a known one. With p, which is `PULL` of what an
activation is like, an atom that is little used becomes wide again, so that an hour is like its first minute
(docs/known_soak.md). Atoms of powers are so far from flat that more than a trace of the first shape does harm; with
that trace IS and Levy NMF do not drift in an hour, and move less from round to round than KL, which gains more.

Memory and pull were chosen on mixtures of training recordings, by a simulation that was not kept; on two others they
are not the best (docs/free_atoms.md). Restarts of atoms in turn or of those that are like a known one, a penalty where
the known ones are loud, one on the activations of the free ones, and other numbers of atoms gained nothing more there.

Source: A. Lefevre, F. Bach, C. Fevotte, "Online algorithms for nonnegative matrix factorization with the Itakura-Saito
divergence", WASPAA 2011; there for g = 1/2, p = 0 and batches of frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.powers import power
from rtsep.kernels.simd import LANES, clear, load, multiply_add, square_root, store

MEMORY_S = 0.7  # seconds after which a frame counts 1/e
PULL = 0.2  # to the first shape, in frames in which the atom is as loud as all are in the mean
PULL_POWERS = 1e-4  # the same of features that are powers
TINY = np.float32(1e-30)
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)


class FreeAtoms(NamedTuple):
    """Free atoms and the sums from which they are renewed; float32 unless said. None: no rows."""

    atoms: np.ndarray  # (n_free, n_padded): w, zero beyond the features
    first: np.ndarray  # constant (n_free, n_padded): w0^(1/g)
    shapes: np.ndarray  # (n_free, n_padded): w^(1/g)
    gained: np.ndarray  # (n_free, n_padded): A
    spent: np.ndarray  # (n_free, n_padded): B
    used: np.ndarray  # (n_free,): C
    numbers: np.ndarray  # constant (3,): rho, p, g
    turn: np.ndarray  # int64 (1,): the atom that is renewed next
    sums: np.ndarray  # (LANES,) scratch


def prepare_free(
    n_free: int, n_features: int, n_padded: int, exponent: float, hop_s: float, scale: float, powers: bool
) -> FreeAtoms:
    """Fresh atoms: bumps side by side over all features. `scale` is what an activation is like."""
    centres = (np.arange(n_free) + 0.5) / max(n_free, 1)
    places = (np.arange(n_features) + 0.5) / n_features
    atoms = np.zeros((n_free, n_padded))
    # Wider towards high frequencies, and everywhere something: what is zero stays zero.
    atoms[:, :n_features] = 0.2 + np.exp(-0.5 * (n_free * (np.sqrt(places) - centres[:, None])) ** 2)
    atoms /= atoms.sum(1, keepdims=True)
    shapes = atoms ** (1 / exponent)
    forget, pull = math.exp(-hop_s / MEMORY_S), (PULL_POWERS if powers else PULL) * scale
    settled = pull / (1 - forget)
    return FreeAtoms(
        atoms=aligned(atoms),
        first=constant(shapes),
        shapes=aligned(shapes),
        gained=aligned(settled * shapes),
        spent=aligned(np.full(atoms.shape, settled)),
        used=aligned(np.full(n_free, settled)),
        numbers=constant([forget, pull, exponent]),
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
    forget, pull, exponent = free.numbers[0], free.numbers[1], free.numbers[2]
    for r in range(n_free):
        h = activations[first + r]
        back = pull / free.used[r]
        free.used[r] = forget * free.used[r] + h + pull
        for i in range(0, n, LANES):
            at = r * n + i
            spent = load(free.spent, at)
            gained = multiply_add(load(numerator, i) * h, load(free.shapes, at), load(free.gained, at) * forget)
            store(free.gained, at, multiply_add(spent * back, load(free.first, at), gained))
            store(free.spent, at, multiply_add(h, load(denominator, i), spent * (forget + back)))
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
    free.used[r] *= total
    activations[first + r] *= total
