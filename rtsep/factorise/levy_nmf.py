"""Levy NMF: a factorisation that clicks and crackles do not pull along.

Powers X are sums of Levy variables with the scales sigma_k, sqrt(sigma_k) = w_k h_k. Maximum likelihood is

    min sum d_IS((WH)^2 | X),   d_IS(x | y) = x / y - log(x / y) - 1,

the model first. Updates by majorisation-minimisation, the exponent 1/2 makes the cost fall (1 does not: it rises
by orders of magnitude):

    W <- W * ((1 / WH) H^T / ((WH / X) H^T))^(1/2),   H <- H * (W^T (1 / WH) / (W^T (WH / X)))^(1/2).

With one atom of ones, h is the root of a harmonic mean: of nine ones and a 1e8 it makes 1.05, where IS-NMF makes 1e7.

Source: P. Magron, R. Badeau, A. Liutkus, "Levy NMF for robust nonnegative source separation", WASPAA 2017.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int
from rtsep.factorise.factors import (
    EPS,
    TINY,
    Factors,
    Progress,
    check_factor,
    check_spectrogram,
    normalise,
    random_factors,
)
from rtsep.factorise.nmf import MAX_ITERATIONS


def _equalised(ratio: np.ndarray) -> np.ndarray:
    """ratio^eta, eta = 1/2 + (a log a - a + 1) / (a - 1)^2 above 1: the step at which the majoriser is met again."""
    a = np.maximum(ratio, 1 + 1e-9)
    eta = np.where(ratio > 1, 0.5 + (a * np.log(a) - a + 1) / (a - 1) ** 2, 0.5)
    return ratio**eta


def _minimised(ratio: np.ndarray) -> np.ndarray:
    return np.sqrt(ratio)


def levy_step(x: np.ndarray, w: np.ndarray, h: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Ratio by whose root the activations are multiplied: W^T (M / WH) / (W^T (M WH / X)), M the weights."""
    model = w @ h + EPS
    return (w.T @ (weights / model)) / (w.T @ (weights * model / x) + TINY)


def levy_nmf(
    x: np.ndarray,
    atoms: int | np.ndarray = 0,
    *,
    dictionary: np.ndarray | None = None,
    activations: np.ndarray | None = None,
    n_iter: int = 100,
    weights: np.ndarray | None = None,
    equalise: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Factorise the root of a power spectrogram, robust to entries that are far too large.

    Parameters
    ----------
    x : ndarray, real, (n_bins, n_frames)
        Powers. A source has the share w_k h_k / WH of the mixture, as for magnitudes.
    atoms, dictionary, activations, n_iter, weights, seed, progress
        As in `nmf`; either atoms to learn or a dictionary that stays.
    equalise : bool
        Longer steps, to where the majoriser has the cost of before: faster, the cost still does not rise.

    Returns
    -------
    Factors

    Raises
    ------
    ConfigError
        For values that cannot work.

    Notes
    -----
    Exact zeros in `x` would silence whole atoms: to every entry 2e-16 is added. Not real-time safe.
    """
    x = check_spectrogram(x)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    m = np.ones((1, 1)) if weights is None else check_factor("weights", weights, x.shape)
    w, h = start(np.sqrt(x), atoms, dictionary, activations, seed)
    x = x + EPS
    power = _equalised if equalise else _minimised

    def cost() -> float:
        ratio = (w @ h + EPS) ** 2 / x
        return float((m * (ratio - np.log(ratio) - 1)).sum())

    costs = [cost()]
    for i in range(n_iter):
        if dictionary is None:
            w = w * power(levy_step(x.T, h.T, w.T, m.T)).T
        h = h * power(levy_step(x, w, h, m))
        if dictionary is None:
            normalise(w, h)
        costs.append(cost())
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return Factors(w, h, np.array(costs))


def start(
    v: np.ndarray, atoms: int | np.ndarray, dictionary: np.ndarray | None, activations: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """What W and H start from: a dictionary, given or random atoms, and given or random activations."""
    n_bins, n_frames = v.shape
    given = dictionary if dictionary is not None else atoms if isinstance(atoms, np.ndarray) else None
    if given is None:
        check_int("atoms", atoms, 1, 1_000_000)
        w, h = random_factors(v, int(atoms), seed)
    else:
        w = check_factor("dictionary", given, (n_bins, None))
        h = random_factors(v, w.shape[1], seed)[1]
    return w, h if activations is None else check_factor("activations", activations, (w.shape[1], n_frames))
