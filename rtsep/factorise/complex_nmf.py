"""Complex NMF: magnitudes and phases fit the mixture itself; phases go on as sinusoids and begin alike at every onset.

Model sum_j W_j H_j e^(i phi_j), cost, with a = e^(2 pi i hop nu),

    ||X - sum_j V_j e^(i phi_j)||^2 + sigma sum_j sum_t |X_t|^2 |e^(i phi_j,t) - a_j,t e^(i phi_j,t-1)|^2.

With G_j = V_j / sum V and B_j = V_j e^(i phi_j) + G_j (X - sum_l V_l e^(i phi_l)) an iteration is

    phi_t <- arg(V B_t / G + sigma (a_t |X_t|^2 e^(i phi_{t-1}) + conj(a_{t+1}) |X_{t+1}|^2 e^(i phi_{t+1}))),
    H <- max(H * W^T (b / G) / (W^T (V / G)), eps),   b = Re(B e^(-i phi)),   W likewise.

*Repetition.* At onsets a source does not go on, but begins as it always does, delayed: phi_t(k) is expected at psi(k)
+ lambda_t k in bin k. To the cost comes rho sum |X_t|^2 |e^(i phi_t) - e^(i (psi + lambda_t k))|^2 over the onset
frames, whose terms with the frame before leave, to the phases |X_t|^2 rho e^(i (psi + lambda_t k)), and

    psi <- arg sum_t |X_t|^2 e^(i (phi_t - lambda_t k)),
    lambda_t <- argmax Re sum_k |X_t|^2 e^(i (phi_t - psi - lambda_t k)),

the latter on a grid of eighths of samples.

Sources: P. Magron, R. Badeau, B. David, "Complex NMF under phase constraints based on signal modeling", ICASSP 2016, in
the form with several atoms for each source that TASLP 27(1), 2019, compares with. Frames are updated in turn; the first
and the last keep their phase. The step of W takes the new H, but the products W H of before, as the released code does.

*What published figures of "complex NMF" are.* The benchmark of 2019 called its function with arguments that had moved
by one: without the phase term (sigma = 0), from the phase of the mixture. Then B_j = G_j X, no phase ever leaves the
mixture's, and complex NMF is Euclidean NMF of |X|, exactly. So is "complex Euclidean NMF" of IWAENC 2018. The code of
2016 averages psi over all frames instead of onsets, by an index error; its article finds that repetition "does not
significantly improve" the separation.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int, check_real
from rtsep.errors import ConfigError
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
    onsets: np.ndarray | None = None,
    rho: float = 0.2,
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
    onsets : ndarray, bool, (n_src, n_frames), optional
        Frames in which each source begins. Default: none, and no repetition.
    rho : float
        Weight of the repetition, from 0 on.

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
    check_real("rho", rho, 0, 1e6)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    power, phasors, last = np.abs(x) ** 2, np.exp(1j * mu), x.shape[1] - 1
    begins = np.zeros((len(w), x.shape[1]), bool) if onsets is None else np.asarray(onsets)
    if begins.shape != (len(w), x.shape[1]) or begins.dtype != bool:
        raise ConfigError(f"onsets have shape {begins.shape}, not booleans of shape {(len(w), x.shape[1])}")
    goes_on = sigma * power * ~begins[:, None, :]  # weight of each frame's tie to the one before
    alike = rho * power * begins[:, None, :]
    profile = _Profiles(power, begins)

    def cost() -> float:
        rough = np.abs(phasors[:, :, 1:] - steps[:, :, 1:] * phasors[:, :, :-1]) ** 2
        unlike = np.abs(phasors - profile.expected) ** 2
        parts = np.abs(x - sources.sum(0)) ** 2, goes_on[:, :, 1:] * rough, alike * unlike
        return float(sum(part.sum() for part in parts))

    v = w @ h
    sources = v * phasors
    profile.update(phasors)
    costs = [cost()]
    for i in range(n_iter):
        share = (v + TINY) / (v.sum(0) + EPS)
        target = sources + share * (x - sources.sum(0))
        pull = v * target / share
        for t in range(1, last):
            z = (
                pull[:, :, t]
                + goes_on[:, :, t] * steps[:, :, t] * phasors[:, :, t - 1]
                + goes_on[:, :, t + 1] * steps[:, :, t + 1].conj() * phasors[:, :, t + 1]
                + alike[:, :, t] * profile.expected[:, :, t]
            )
            length = np.abs(z)
            phasors[:, :, t] = np.divide(z, length, out=phasors[:, :, t].copy(), where=length > 0)
        profile.update(phasors)
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


class _Profiles:
    """What the onsets of each source have in common: psi, lambda, and the phases that they let expect."""

    def __init__(self, power: np.ndarray, begins: np.ndarray) -> None:
        self.power = power
        self.frames = [np.flatnonzero(row) for row in begins]
        n_bins = len(power)
        self.n_grid = 16 * n_bins  # eighths of samples, for an even FFT size
        self.psi = np.ones((len(begins), n_bins), complex)
        self.turns = [np.zeros(len(frames), int) for frames in self.frames]
        self.expected = np.zeros((len(begins), n_bins, power.shape[1]), complex)

    def update(self, phasors: np.ndarray) -> None:
        bins = np.arange(len(self.power))
        for j, frames in enumerate(self.frames):
            if not len(frames):
                continue
            weighted = self.power[:, frames] * phasors[j][:, frames]
            delays = np.exp(2j * np.pi * np.outer(bins, self.turns[j]) / self.n_grid)
            self.psi[j] = np.exp(1j * np.angle((weighted * delays.conj()).sum(1)))
            # The sum over bins at every delay of the grid is a Fourier transform.
            self.turns[j] = np.fft.fft(weighted * self.psi[j].conj()[:, None], self.n_grid, axis=0).real.argmax(0)
            delays = np.exp(2j * np.pi * np.outer(bins, self.turns[j]) / self.n_grid)
            self.expected[j][:, frames] = self.psi[j][:, None] * delays
