"""Which estimate belongs to which source."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.evaluation.checks import ScoreError

UNMATCHED = -1


def match(scores: Any) -> np.ndarray:
    """The assignment of estimates to references with the largest sum of scores.

    Parameters
    ----------
    scores : array_like, real, (n_references, n_estimates)
        Score of each estimate for each reference, e.g. SI-SDR in dB; larger is better.

    Returns
    -------
    ndarray, int64, (n_references,)
        Index of the estimate of each reference; -1 for those that get none, if there are fewer estimates.

    Raises
    ------
    ScoreError
        If it is no matrix, or a score is not finite.

    Notes
    -----
    Permutation-invariant scores are those of the matched pairs. One assignment for the whole signal: matching frame
    by frame would hide sources that change places. By the Hungarian method, O(n^3), not by trying n! permutations.

    References
    ----------
    H. W. Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2, 1955.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.asarray(scores, np.float64)
    if table.ndim != 2:
        raise ScoreError(f"scores have shape {table.shape}, not (n_references, n_estimates)")
    if not np.isfinite(table).all():
        raise ScoreError("scores are not all finite")
    rows, columns = linear_sum_assignment(table, maximize=True)
    found = np.full(table.shape[0], UNMATCHED, np.int64)
    found[rows] = columns
    return found
