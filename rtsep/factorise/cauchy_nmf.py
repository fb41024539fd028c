"""Cauchy NMF: magnitudes as Cauchy variables; the robust factorisation that Levy NMF is compared with.

    min sum 3/2 log((WH)^2 + V^2) - log(WH), by
    W <- W * b / (a + sqrt(a^2 + 2 a b)),   a = 3/4 (WH / ((WH)^2 + V^2)) H^T,   b = (1 / WH) H^T,   and H likewise.

Source: A. Liutkus, D. Fitzgerald, R. Badeau, "Cauchy nonnegative matrix factorization", WASPAA 2015.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int
from rtsep.factorise.factors import EPS, Factors, Progress, check_spectrogram, normalise
from rtsep.factorise.levy_nmf import start
from rtsep.factorise.nmf import MAX_ITERATIONS


def _step(v: np.ndarray, w: np.ndarray, h: np.ndarray) -> np.ndarray:
    model = w @ h + EPS
    a, b = 0.75 * w.T @ (model / (model**2 + v**2)), w.T @ (1 / model)
    return h * b / (a + np.sqrt(a**2 + 2 * a * b))


def cauchy_nmf(
    v: np.ndarray,
    atoms: int | np.ndarray = 0,
    *,
    dictionary: np.ndarray | None = None,
    activations: np.ndarray | None = None,
    n_iter: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Factorise a magnitude spectrogram of Cauchy variables; parameters and result as in `levy_nmf`."""
    v = check_spectrogram(v)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    w, h = start(v, atoms, dictionary, activations, seed)
    v = v + EPS

    def cost() -> float:
        model = w @ h + EPS
        return float((1.5 * np.log(model**2 + v**2) - np.log(model)).sum())

    costs = [cost()]
    for i in range(n_iter):
        if dictionary is None:
            w = _step(v.T, h.T, w.T).T
        h = _step(v, w, h)
        if dictionary is None:
            normalise(w, h)
        costs.append(cost())
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return Factors(w, h, np.array(costs))
