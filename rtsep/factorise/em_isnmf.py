"""Itakura-Saito NMF by expectation-maximisation: sources as latent variables, in parallel (EM) or in turn (SAGE).

Each source is Gaussian with the variance V_j = W_j H_j; V its sum. The posterior power of a source,

    P_j = G_j (G_j |x|^2 + V - V_j),   G_j = V_j / V,

takes the place of its own power in an NMF of it: exactly for sources of one atom,

    h <- mean_f P_j / w,   w <- mean_t P_j / h,

by one multiplicative step of IS-NMF for sources of several. In all forms the cost, d_IS(|x|^2 | V), falls.

Sources: C. Fevotte, N. Bertin, J.-L. Durrieu, "Nonnegative matrix factorization with the Itakura-Saito divergence",
Neural Computation 21(3), 2009 (one atom); P. Magron and T. Virtanen, "Expectation-maximization algorithms for
Itakura-Saito nonnegative matrix factorization", Interspeech 2018 (several). As published the step has the exponent 1
("heuristic"); here 1/2 is the default, for which the cost is known to fall.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.errors import ConfigError
from rtsep.factorise.factors import EPS, TINY, Factors, Progress, check_factor, check_spectrogram, random_factors
from rtsep.factorise.nmf import MAX_ITERATIONS, beta_divergence


def _step(p: np.ndarray, w: np.ndarray, h: np.ndarray, exponent: float) -> np.ndarray:
    if w.shape[1] == 1:
        return np.mean(p / (w + TINY), 0, keepdims=True)  # the exact minimum
    model = w @ h
    return h * (w.T @ (p / model**2) / (w.T @ (1 / model))) ** exponent


def em_isnmf(
    power: np.ndarray,
    atoms: int | np.ndarray,
    *,
    n_src: int | None = None,
    activations: np.ndarray | None = None,
    sage: bool = False,
    fixed: bool = False,
    exponent: float = 0.5,
    n_iter: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Factorise a power spectrogram by EM.

    Parameters
    ----------
    power : ndarray, real, (n_bins, n_frames)
    atoms : int or ndarray (n_bins, n_atoms)
        How many atoms, or what they start from; equally many for each source, source by source.
    n_src : int, optional
        Sources. Default: as many as atoms.
    activations : ndarray, real, (n_atoms, n_frames), optional
        What the activations start from.
    sage : bool
        Sources in turn, each with the newest of the others, instead of all at once: fewer, but longer iterations.
    fixed : bool
        Leave the atoms as they are.
    exponent : float
        Of the multiplicative step for sources of several atoms, 0.001 to 1.
    n_iter, seed, progress
        As in `nmf`.

    Returns
    -------
    Factors
        Atoms with a sum of squares of one, unless they are fixed.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    power = check_spectrogram(power)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    check_real("exponent", exponent, 1e-3, 1)
    if isinstance(atoms, np.ndarray):
        w = check_factor("atoms", atoms, (len(power), None))
        h = random_factors(power, w.shape[1], seed)[1]
    else:
        check_int("atoms", atoms, 1, 1_000_000)
        w, h = random_factors(power, atoms, seed)
    n_atoms = w.shape[1]
    n_src = n_atoms if n_src is None else check_int("n_src", n_src, 1, n_atoms)
    if n_atoms % n_src:
        raise ConfigError(f"{n_src=} sources cannot share {n_atoms} atoms equally")
    if activations is not None:
        h = check_factor("activations", activations, (n_atoms, power.shape[1]))
    blocks = [slice(j * n_atoms // n_src, (j + 1) * n_atoms // n_src) for j in range(n_src)]
    power = power + EPS * power.mean()

    def posterior(block: slice) -> np.ndarray:
        whole, own = w @ h, w[:, block] @ h[block]
        gain = own / whole
        return gain * (gain * power + whole - own)

    def update(block: slice, p: np.ndarray) -> None:
        # As published: the dictionary first, but for EM with one atom a source.
        activations_first = not sage and n_src == n_atoms
        if activations_first:
            h[block] = _step(p, w[:, block], h[block], exponent)
        if not fixed:
            w[:, block] = _step(p.T, h[block].T, w[:, block].T, exponent).T
        if not activations_first:
            h[block] = _step(p, w[:, block], h[block], exponent)
        if not fixed:
            size = np.sqrt((w[:, block] ** 2).sum(0)) + TINY
            w[:, block] /= size
            h[block] *= size[:, None]

    costs = [float(beta_divergence(power, w @ h, 0).sum())]
    for i in range(n_iter):
        if sage:
            for block in blocks:
                update(block, posterior(block))
        else:
            for block, p in [(block, posterior(block)) for block in blocks]:
                update(block, p)
        costs.append(float(beta_divergence(power, w @ h, 0).sum()))
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return Factors(w, h, np.array(costs))
