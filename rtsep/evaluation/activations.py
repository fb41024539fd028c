"""How well activations tell which source sounds when."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.evaluation.checks import ScoreError


def psa(activations: Any, active: Any) -> float:
    """Precision of source attribution: the share of the activation that lies where its source is active.

    Parameters
    ----------
    activations : array_like, real, >= 0, (n_src, n_frames)
        Of each source, after their norms were made comparable.
    active : array_like, bool or 0 and 1, (n_src, n_frames)
        Which sources sound in truth.

    Returns
    -------
    float
        ``sum(A * Y) / sum(A)``, 0 to 1.

    Raises
    ------
    ScoreError
        For unequal shapes, activations that are all zero, negative or not finite, and `active` not 0 and 1.

    Notes
    -----
    A precision without its recall: one right peak and nothing else has 1. Activations that know nothing have
    ``mean(Y)``, so values of pieces with other numbers of sources are not to be compared.

    References
    ----------
    L. S. Marták, R. Kelz, G. Widmer, "Differentiable dictionary search: integrating linear mixing with deep non-linear
    modelling for audio source separation", 2022; "PSA" there.
    """
    a = _as_activations(activations)
    y = np.asarray(active, np.float64)
    if a.shape != y.shape:
        raise ScoreError(f"activations have shape {a.shape}, active has shape {y.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ScoreError("active has values other than 0 and 1")
    if a.sum() == 0:
        raise ScoreError("all activations are zero")
    return float((a * y).sum() / a.sum())


def sparsity(activations: Any, epsilon: float) -> float:
    """Share of the activations that are not larger than `epsilon`.

    Parameters
    ----------
    activations : array_like, real, >= 0, (n_src, n_frames)
        Of each source.
    epsilon : float
        Threshold, >= 0, in the unit of the activations; a hundredth of their maximum is a fair start.

    Returns
    -------
    float
        0 to 1; silence has 1.

    Raises
    ------
    ScoreError
        If activations are negative or not finite, or the threshold is.

    Notes
    -----
    Depends on the threshold and on the scale of the activations: to be compared for the same of both only.

    References
    ----------
    L. S. Marták, R. Kelz, G. Widmer, "Differentiable dictionary search: integrating linear mixing with deep non-linear
    modelling for audio source separation", 2022.
    """
    if not 0 <= epsilon < np.inf:
        raise ScoreError(f"{epsilon=} is not a finite number >= 0")
    return float((_as_activations(activations) <= epsilon).mean())


def _as_activations(activations: Any) -> np.ndarray:
    a = np.asarray(activations, np.float64)
    if a.ndim != 2 or a.size == 0:
        raise ScoreError(f"activations have shape {a.shape}, not (n_src, n_frames)")
    if not (np.isfinite(a).all() and (a >= 0).all()):
        raise ScoreError("activations are not all finite and >= 0")
    return a
