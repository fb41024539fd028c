"""Nonnegative matrix factorisation by multiplicative updates: Euclidean, Kullback-Leibler, Itakura-Saito, any beta.

A spectrogram V (n_bins, n_frames) becomes W H, with the beta-divergence summed over its entries as the cost:

    d(x | y) = (x^b + (b - 1) y^b - b x y^(b-1)) / (b (b - 1)),   b = 2: half the squared error,
    b = 1: x log(x / y) - x + y (KL, for magnitudes),   b = 0: x / y - log(x / y) - 1 (IS, for powers).

Sources: D. D. Lee and H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 2000; C. Fevotte and
J. Idier, "Algorithms for nonnegative matrix factorization with the beta-divergence", Neural Computation 23(9), 2011,
whose exponent g (below) makes the cost fall with every update, for any beta.

*Departures from released code.* The code released with complex ISNMF (2019) uses the exponent 1 for every beta: faster,
without a proof below 1 and above 2; `exponent=1` does that. Its sparse NMF penalises the sum of H and then rescales W
and H, which changes the penalty, so that its total cost may rise. Here the penalty of an atom is the sum of its
activations times the sum of the atom, which no rescaling changes: the total cost falls.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.errors import ConfigError
from rtsep.factorise.factors import EPS, Factors, Progress, check_factor, check_spectrogram, random_factors

MAX_ITERATIONS = 100_000


def beta_divergence(x: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    """d(x | y) of each entry; `x` and `y` positive."""
    if beta == 0:
        return x / y - np.log(x / y) - 1
    if beta == 1:
        return x * np.log(x / y) - x + y
    return (x**beta + (beta - 1) * y**beta - beta * x * y ** (beta - 1)) / (beta * (beta - 1))


def monotone_exponent(beta: float) -> float:
    """The largest exponent of the multiplicative update for which the cost is known to fall."""
    return 1 / (2 - beta) if beta < 1 else 1 / (beta - 1) if beta > 2 else 1.0


def multiplicative_step(
    v: np.ndarray,
    w: np.ndarray,
    h: np.ndarray,
    beta: float,
    exponent: float,
    penalty: np.ndarray | float = 0.0,
    weights: np.ndarray | float = 1.0,
) -> np.ndarray:
    """New activations: H * (W^T (M * V (WH)^(b-2)) / (W^T (M * (WH)^(b-1)) + penalty))^g, M the weights.

    The same for the dictionary, transposed: `multiplicative_step(v.T, h.T, w.T, ...).T`.
    """
    model = w @ h + EPS
    up, down = w.T @ (weights * v * model ** (beta - 2)), w.T @ (weights * model ** (beta - 1))
    return h * (up / (down + penalty + EPS)) ** exponent


def nmf(
    v: np.ndarray,
    atoms: int | np.ndarray = 0,
    *,
    dictionary: np.ndarray | None = None,
    activations: np.ndarray | None = None,
    beta: float = 1.0,
    n_iter: int = 100,
    sparsity: float = 0.0,
    weights: np.ndarray | None = None,
    exponent: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Factorise a spectrogram: blind, with a known dictionary, or with some atoms known and some free.

    Parameters
    ----------
    v : ndarray, real, (n_bins, n_frames)
        Magnitudes (beta = 1) or powers (beta = 0) as a rule; not negative, not all zero.
    atoms : int or ndarray (n_bins, n_free)
        Atoms to learn: how many, or what they start from.
    dictionary : ndarray, real, (n_bins, n_known), optional
        Atoms that stay as they are; in the result they come first.
    activations : ndarray, real, (n_known + n_free, n_frames), optional
        What the activations start from.
    beta : float
        -2 to 4; 2, 1 and 0 are Euclidean, KL and IS.
    n_iter : int
        Iterations, 0 to 100000: activations, then free atoms, which then are scaled to sum to one.
    sparsity : float
        Weight, from 0 on, of the sum of the activations in the cost (times the sum of their atoms). With KL it only
        makes all of them smaller.
    weights : ndarray, real, (n_bins, n_frames), optional
        Weight of each entry in the cost; 0 leaves it out.
    exponent : float, optional
        Of the updates, more than 0. Default: that of Fevotte and Idier, by which the cost falls.
    seed : int
        Of the start.
    progress : callable, optional
        Called with iterations done, iterations in all and the cost.

    Returns
    -------
    Factors

    Raises
    ------
    ConfigError
        For values that cannot work.

    Notes
    -----
    Float64 inside. Not real-time safe.
    """
    v = check_spectrogram(v)
    check_real("beta", beta, -2, 4)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    check_real("sparsity", sparsity, 0, 1e12)
    g = monotone_exponent(beta) if exponent is None else exponent
    check_real("exponent", g, 1e-3, 10)
    m = np.ones((1, 1)) if weights is None else check_factor("weights", weights, v.shape)
    n_bins, n_frames = v.shape
    known = np.empty((n_bins, 0)) if dictionary is None else check_factor("dictionary", dictionary, (n_bins, None))
    if isinstance(atoms, np.ndarray):
        free = check_factor("atoms", atoms, (n_bins, None))
        h = random_factors(v, known.shape[1] + free.shape[1], seed)[1]
    else:
        check_int("atoms", atoms, 0, 1_000_000)
        start, h = random_factors(v, known.shape[1] + atoms, seed)
        free = start[:, known.shape[1] :]
    n_known = known.shape[1]
    w = np.hstack([known, free])
    if w.shape[1] == 0:
        raise ConfigError("atoms=0 without a dictionary leaves nothing to factorise into")
    if activations is not None:
        h = check_factor("activations", activations, (w.shape[1], n_frames))
    v = v + EPS

    def total() -> float:
        penalty = sparsity * float(w.sum(0) @ h.sum(1)) if sparsity else 0.0
        return float((m * beta_divergence(v, w @ h + EPS, beta)).sum()) + penalty

    cost = [total()]
    for i in range(n_iter):
        h = multiplicative_step(v, w, h, beta, g, sparsity * w.sum(0)[:, None], m)
        if n_known < w.shape[1]:
            loud = sparsity * h.sum(1)[:, None]
            w[:, n_known:] = multiplicative_step(v.T, h.T, w.T, beta, g, loud, m.T).T[:, n_known:]
            size = w[:, n_known:].sum(0) + EPS
            w[:, n_known:] /= size
            h[n_known:] *= size[:, None]
        cost.append(total())
        if progress is not None:
            progress(i + 1, n_iter, cost[-1])
    return Factors(w, h, np.array(cost))


def separated(x: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Sources (n_src, n_bins, n_frames) of a mixture: it in proportion to `parts` of the same shape, not negative."""
    whole = parts.sum(0)
    share = np.divide(parts, whole, out=np.full(parts.shape, 1 / len(parts)), where=whole > 0)
    return share * x
