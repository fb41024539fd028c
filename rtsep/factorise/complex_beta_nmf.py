"""Complex beta-NMF: anisotropic sources without a mean, any beta-divergence between posterior powers and W H.

As `complex_isnmf` with lambda as there but m = 0: the E-step gives m', gamma', c', then

    p = ((1 - lambda^2) (gamma' + |m'|^2) - rho Re(e^(-2 i mu) (c' + m'^2))) / Delta,
    H <- H * W^T (p v^(b-2)) / (W^T v^(b-1)),   W likewise,   2 mu = arg(c' + m'^2) - pi,

the latter for rho < 0, that is kappa below 4.4979; above, rho > 0 and 2 mu = arg(c' + m'^2).

Source: P. Magron and T. Virtanen, "Towards complex nonnegative matrix factorization with the beta-divergence",
IWAENC 2018; a heuristic, without a proof that a cost falls. Departures: the sign of rho (the released code subtracts
pi always), and the cost, which that code returns n_src times too large. Rounding grows: after 50 iterations two correct
programs differ by 3e-4.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.factorise.anisotropic import MAX_KAPPA, Moments, anisotropy, posterior
from rtsep.factorise.factors import TINY, ComplexFactors, Progress, check_complex, normalise
from rtsep.factorise.nmf import MAX_ITERATIONS, beta_divergence


def complex_beta_nmf(
    x: np.ndarray,
    dictionary: np.ndarray,
    activations: np.ndarray,
    *,
    phases: np.ndarray | None = None,
    kappa: float = 1.0,
    beta: float = 0.5,
    adapt: bool = False,
    n_iter: int = 100,
    progress: Progress | None = None,
) -> ComplexFactors:
    """Separate a mixture by complex beta-NMF.

    Parameters
    ----------
    x, dictionary, activations, phases, adapt, n_iter, progress
        As in `complex_isnmf`.
    kappa : float
        How sure the phases are, 0 to 20.
    beta : float
        Of the divergence, -2 to 4.

    Returns
    -------
    ComplexFactors
        Its sources add up to `x`; its cost is the divergence of the posterior powers from W H.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    x, w, h, mu, _ = check_complex(x, dictionary, activations, None, phases)
    check_real("kappa", kappa, 0, MAX_KAPPA)
    check_real("beta", beta, -2, 4)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    size, turn = anisotropy(kappa)
    rest = 1 - size**2
    delta = rest**2 - turn**2

    def expected(v: np.ndarray) -> Moments:
        return posterior(x, Moments(np.zeros(v.shape, complex), rest * v, turn * v * np.exp(2j * mu)))

    v = w @ h + TINY
    costs = []
    for i in range(n_iter):
        mean, variance, relation = expected(v)
        squared = relation + mean**2
        p = (rest * (variance + np.abs(mean) ** 2) - turn * (np.exp(-2j * mu) * squared).real) / delta
        costs.append(float(beta_divergence(p, v, beta).sum()))
        transposed = w.swapaxes(1, 2)
        h *= transposed @ (p * v ** (beta - 2)) / (transposed @ v ** (beta - 1) + TINY)
        v = w @ h + TINY
        if adapt:
            transposed = h.swapaxes(1, 2)
            w *= (p * v ** (beta - 2)) @ transposed / (v ** (beta - 1) @ transposed + TINY)
            normalise(w, h)
            v = w @ h + TINY
        mu = (np.angle(squared) - (np.pi if turn < 0 else 0)) / 2
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return ComplexFactors(expected(v).mean, w, h, mu, np.array(costs))
