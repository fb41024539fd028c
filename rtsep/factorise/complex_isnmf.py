"""Complex ISNMF: variances by NMF and phases that go on as sinusoids, estimated together.

Sources as in `anisotropic`, V_j = W_j H_j, with a Markov chain on the phases: mu_t is expected at
mu_{t-1} + 2 pi hop nu.
Generalised EM. The E-step gives the posterior m', gamma', c'; with Delta = (1 - lambda^2)^2 - rho^2

    p = ((1 - lambda^2) (gamma' + |m'|^2) - rho Re(e^(-2 i mu) (c' + m'^2))) / Delta,
    q = min(2 lambda (rho - (1 - lambda^2)) Re(m' e^(-i mu)) / Delta, 0),
    H <- H * sqrt(W^T (p v^-2) / (W^T (v^-1 - q v^(-3/2)))),   W likewise,
    mu_t <- arg(2 lambda (1 - lambda^2 - rho) m'_t / (Delta sqrt(v_t))
                + tau (e^(i mu_{t-1}) a_t + e^(i mu_{t+1}) conj(a_{t+1}))),   a = e^(2 pi i hop nu), t in turn.

kappa = 0 is IS-NMF with the Wiener filter.

Source: P. Magron and T. Virtanen, IEEE/ACM TASLP 27(1), 2019. The first and the last frame keep their phase. The
released code adds 2e-16 to the determinant, so that its sources add up to the mixture only to 5e-9; here they do to
rounding.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.factorise.anisotropic import MAX_KAPPA, Moments, anisotropy, posterior
from rtsep.factorise.factors import EPS, ComplexFactors, Progress, check_complex, normalise
from rtsep.factorise.nmf import MAX_ITERATIONS


def complex_isnmf(
    x: np.ndarray,
    dictionary: np.ndarray,
    activations: np.ndarray,
    advance: np.ndarray,
    *,
    phases: np.ndarray | None = None,
    kappa: float = 0.5,
    tau: float = 1.0,
    adapt: bool = False,
    n_iter: int = 100,
    progress: Progress | None = None,
) -> ComplexFactors:
    """Separate a mixture by complex ISNMF.

    Parameters
    ----------
    x : ndarray, complex, (n_bins, n_frames)
        Mixture.
    dictionary : ndarray, real, (n_src, n_bins, n_atoms)
        Power spectra, as IS-NMF learns them.
    activations : ndarray, real, (n_src, n_atoms, n_frames)
        What the activations start from.
    advance : ndarray, complex, (n_src, n_bins) or (n_src, n_bins, n_frames)
        exp(2 pi i hop nu): how the phases go on from the frame before; see `sinusoidal_advance`.
    phases : ndarray, real, (n_src, n_bins, n_frames), optional
        What the phases start from, in radians. Default: those of the mixture.
    kappa : float
        How sure the phases are, 0 to 20.
    tau : float
        How strictly they go on, from 0 on.
    adapt : bool
        Learn the dictionary, too.
    n_iter, progress
        As in `nmf`.

    Returns
    -------
    ComplexFactors
        Its sources add up to `x`; its cost is the negative log-likelihood of the mixture, which the chain on the
        phases may raise.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    x, w, h, mu, steps = check_complex(x, dictionary, activations, advance, phases)
    check_real("kappa", kappa, 0, MAX_KAPPA)
    check_real("tau", tau, 0, 1e6)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    size, turn = anisotropy(kappa)
    rest = 1 - size**2
    delta = rest**2 - turn**2
    last = x.shape[1] - 1

    def prior(v: np.ndarray) -> Moments:
        return Moments(size * np.sqrt(v) * np.exp(1j * mu), rest * v, turn * v * np.exp(2j * mu))

    v = w @ h + EPS
    costs = [likelihood_cost(x, prior(v))]
    for i in range(n_iter):
        mean, variance, relation = posterior(x, prior(v))
        towards = np.exp(-1j * mu)
        p = (rest * (variance + np.abs(mean) ** 2) - turn * (towards**2 * (relation + mean**2)).real) / delta
        q = np.minimum(2 * size * (turn - rest) * (mean * towards).real / delta, 0)
        transposed = w.swapaxes(1, 2)
        h *= np.sqrt(transposed @ (p / v**2) / (transposed @ (1 / v - q / v**1.5) + EPS))
        v = w @ h + EPS
        if adapt:
            transposed = h.swapaxes(1, 2)
            w *= np.sqrt((p / v**2) @ transposed / ((1 / v - q / v**1.5) @ transposed + EPS))
            normalise(w, h)
            v = w @ h + EPS
        pull = 2 * size * (rest - turn) / delta * mean / np.sqrt(v)
        phasors = np.exp(1j * mu)
        for t in range(1, last):
            mu[:, :, t] = np.angle(
                pull[:, :, t]
                + tau * (phasors[:, :, t - 1] * steps[:, :, t] + phasors[:, :, t + 1] * steps[:, :, t + 1].conj())
            )
            phasors[:, :, t] = np.exp(1j * mu[:, :, t])
        costs.append(likelihood_cost(x, prior(v)))
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return ComplexFactors(posterior(x, prior(v)).mean, w, h, mu, np.array(costs))


def likelihood_cost(x: np.ndarray, prior: Moments) -> float:
    """Negative log-likelihood of the mixture, sum of log det / 2 + (gamma |r|^2 - Re(conj(c) r^2)) / det."""
    rest, whole, turned = x - prior.mean.sum(0), prior.variance.sum(0), prior.relation.sum(0)
    determinant = whole**2 - np.abs(turned) ** 2
    distance = (whole * np.abs(rest) ** 2 - (turned.conj() * rest**2).real) / determinant
    return float((0.5 * np.log(determinant) + distance).sum())
