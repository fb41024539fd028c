"""Binary NMF: a binary matrix with holes as probabilities W H that stay below one.

Y_ft is 1 with the probability (WH)_ft; rows of W are shares (they sum to one), H has a Beta(a, b) prior. With
A = Y / WH and B = (1 - Y) / (1 - WH), zero where Y is not observed, a majorisation-minimisation step is

    H <- u / (u + d),   u = H * W^T A + a - 1,   d = (1 - H) * W^T B + b - 1,
    W <- W * (A H^T + B (1 - H)^T) / N,   N the observed entries of each row.

Both keep their constraints. Masks of sources are such matrices: what is certain of an ideal binary mask, the rest left
open, becomes a soft mask of few atoms.

Source: P. Magron and C. Fevotte, "A majorization-minimization algorithm for nonnegative binary matrix factorization",
IEEE SPL 29, 2022. Corrected here: with missing entries the released code counts them as zeros in the step of H and
divides W by all columns, so that its loss rises; and the rounding of W is put right in every iteration, since a row
that sums to a little less than one does so more and more (0.82 after 200 iterations).
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.errors import ConfigError
from rtsep.factorise.factors import Factors, Progress, check_factor
from rtsep.factorise.nmf import MAX_ITERATIONS

SMALL = 1e-8  # probabilities keep this distance from 0 and 1


def binary_nmf(
    y: np.ndarray,
    atoms: int | np.ndarray,
    *,
    activations: np.ndarray | None = None,
    observed: np.ndarray | None = None,
    a: float = 1.2,
    b: float = 1.2,
    n_iter: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Factorise a binary matrix.

    Parameters
    ----------
    y : ndarray, 0 or 1, (n_rows, n_columns)
    atoms : int or ndarray (n_rows, n_atoms)
        How many, or what W starts from, its rows summing to one.
    activations : ndarray, real, (n_atoms, n_columns), optional
        What H starts from, between 0 and 1.
    observed : ndarray, bool, (n_rows, n_columns), optional
        Where `y` is known; every row has at least one such entry. Default: everywhere.
    a, b : float
        Of the prior, 1 to 100; 1 and 1 is none.
    n_iter, seed, progress
        As in `nmf`.

    Returns
    -------
    Factors
        The cost is the mean negative log posterior, which falls.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    y = np.asarray(y)
    if y.ndim != 2 or y.size == 0 or not np.isin(y, (0, 1)).all():
        raise ConfigError(f"binary matrix has shape {y.shape} or values other than 0 and 1")
    seen = np.ones(y.shape, bool) if observed is None else np.asarray(observed).astype(bool)
    if seen.shape != y.shape or not seen.any(1).all():
        raise ConfigError(f"observed has shape {seen.shape}, not {y.shape}, or a row in which nothing is observed")
    check_real("a", a, 1, 100)
    check_real("b", b, 1, 100)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    rng = np.random.default_rng(seed)
    if isinstance(atoms, np.ndarray):
        w = check_factor("atoms", atoms, (len(y), None))
    else:
        check_int("atoms", atoms, 1, 1_000_000)
        w = rng.uniform(0.1, 1, (len(y), atoms))
    w /= w.sum(1, keepdims=True)
    shape = (w.shape[1], y.shape[1])
    h = rng.uniform(0.1, 0.9, shape) if activations is None else check_factor("activations", activations, shape)
    ones, zeros, number = seen * y, seen * (1 - y), seen.sum(1, keepdims=True)

    def cost() -> float:
        p = w @ h
        likelihood = (ones * np.log(p + SMALL) + zeros * np.log(1 - p + SMALL)).sum()
        prior = ((a - 1) * np.log(h + SMALL) + (b - 1) * np.log(1 - h + SMALL)).sum()
        return float(-(likelihood + prior) / number.sum())

    costs = [cost()]
    for i in range(n_iter):
        p = w @ h
        up = h * (w.T @ (ones / (p + SMALL))) + a - 1
        down = (1 - h) * (w.T @ (zeros / (1 - p + SMALL))) + b - 1
        h = up / (up + down + SMALL)
        p = w @ h
        w = w * ((ones / (p + SMALL)) @ h.T + (zeros / (1 - p + SMALL)) @ (1 - h).T) / number
        w /= w.sum(1, keepdims=True)
        costs.append(cost())
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return Factors(w, h, np.array(costs))
