"""Complex NMF with phases that go on as sinusoids: magnitudes and phases fit the mixture itself, not its magnitudes.

Model sum_j W_j H_j e^(i phi_j), cost, with a = e^(2 pi i hop nu),

    ||X - sum_j V_j e^(i phi_j)||^2 + sigma sum_j sum_t |X_t|^2 |e^(i phi_j,t) - a_j,t e^(i phi_j,t-1)|^2.

With G_j = V_j / sum V and B_j = V_j e^(i phi_j) + G_j (X - sum_l V_l e^(i phi_l)) an iteration is

    phi_t <- arg(V B_t / G + sigma (a_t |X_t|^2 e^(i phi_{t-1}) + conj(a_{t+1}) |X_{t+1}|^2 e^(i phi_{t+1}))),
    H <- max(H * W^T (b / G) / (W^T (V / G)), eps),   b = Re(B e^(-i phi)),   W likewise.

Sources: P. Magron, R. Badeau, B. David, "Complex NMF under phase constraints based on signal modeling", ICASSP 2016, in
the form with several atoms for each source that TASLP 27(1), 2019, compares with. Frames are updated in turn; the first
and the last keep their phase. The step of W takes the new H, but the products W H of before, as the released code does.

*What published figures of "complex NMF" are.* The benchmark of 2019 called its function with arguments that had moved
by one: without the phase term (sigma = 0), from the phase of the mixture. Then B_j = G_j X, no phase ever leaves the
mixture's, and complex NMF is Euclidean NMF of |X|, exactly. So is "complex Euclidean NMF" of IWAENC 2018.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.factorise.factors import EPS, TINY, ComplexFactors, Progress, check_complex, normalise
from rtsep.factorise.nmf import MAX_ITERATIONS


def complex_nmf(
    x: np.ndarray,
    dictionary: np.ndarray,
    activations: np.ndarray,
    advance: np.ndarray,
    *,
    phases: np.ndarray | None = None,
    sigma: float = 0.01,
    adapt: bool = False,
    n_iter: int = 10,
    progress: Progress | None = None,
) -> ComplexFactors:
    """Separate a mixture by complex NMF.

    Parameters
    ----------
    x, advance, phases, adapt, n_iter, progress
        As in `complex_isnmf`.
    dictionary, activations : ndarray, real, (n_src, n_bins, n_atoms), (n_src, n_atoms, n_frames)
        Of magnitudes, as Euclidean NMF learns them.
    sigma : float
        Weight of the sinusoids, from 0 on.

    Returns
    -------
    ComplexFactors
        Its sources are W H e^(i phi) and need not add up to `x`.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    x, w, h, mu, steps = check_complex(x, dictionary, activations, advance, phases)
    check_real("sigma", sigma, 0, 1e6)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    power, phasors, last = np.abs(x) ** 2, np.exp(1j * mu), x.shape[1] - 1

    def cost() -> float:
        rough = np.abs(phasors[:, :, 1:] - steps[:, :, 1:] * phasors[:, :, :-1]) ** 2
        return float((np.abs(x - sources.sum(0)) ** 2).sum() + sigma * (power[:, 1:] * rough).sum())

    v = w @ h
    sources = v * phasors
    costs = [cost()]
    for i in range(n_iter):
        share = (v + TINY) / (v.sum(0) + EPS)
        target = sources + share * (x - sources.sum(0))
        pull = v * target / share
        for t in range(1, last):
            z = pull[:, :, t] + sigma * (
                steps[:, :, t] * power[:, t] * phasors[:, :, t - 1]
                + steps[:, :, t + 1].conj() * power[:, t + 1] * phasors[:, :, t + 1]
            )
            length = np.abs(z)
            phasors[:, :, t] = np.divide(z, length, out=phasors[:, :, t].copy(), where=length > 0)
        up, down = (target * phasors.conj()).real / share, v / share
        transposed = w.swapaxes(1, 2)
        h = np.maximum(h * (transposed @ up) / (transposed @ down + TINY), EPS)
        if adapt:
            transposed = h.swapaxes(1, 2)
            w = np.maximum(w * (up @ transposed) / (down @ transposed + TINY), EPS)
            normalise(w, h)
        v = w @ h
        sources = v * phasors
        costs.append(cost())
        if progress is not None:
            progress(i + 1, n_iter, costs[-1])
    return ComplexFactors(sources, w, h, np.angle(phasors), np.array(costs))
