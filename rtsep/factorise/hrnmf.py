"""HR-NMF: components that ring on in every bin, told apart even where their partials share it.

In bin f component k is an autoregressive process over the frames, driven by noise whose variances are a product:

    c_k(f, t) = sum_p a_p(k, f) c_k(f, t - p) + b_k(f, t),   b_k(f, t) ~ N(0, w_k(f) h_k(t)),
    x(f, t) = sum_k c_k(f, t) + n(f, t),                      n ~ N(0, sigma^2).

Order P is P damped sinusoids for each component and bin, which h strikes; order 0 is IS-NMF with the Wiener filter.
Expectation-maximisation, each bin on its own but for h. E-step: a Kalman filter and a smoother for
(c(t), c(t-1), ..., c(t-P)) of all components. M-step, with R(t) the posterior second moment of that vector and
alpha = (1, -a_1, ..., -a_P):

    a <- argmin sum_t alpha^H R(t) alpha / (w h(t)),   e = alpha^H R alpha,
    w <- mean_t e / h,   h <- mean_f e / w,   sigma^2 <- mean |x - sum c|^2.

The likelihood of the mixture never falls, but ends in one of many maxima: it depends on the start, and what is told
apart may be mixed again. Synthetic struck strings with the noise of a hammer, each alone, then both, order 2, from a
KL-NMF of the mixture: a fifth apart 26 dB after 5 iterations (Wiener filter of the same NMF 14), an octave apart 17 dB
after 20 (12); published for two piano notes and that start: 17. From the NMF of each note alone, about an octave apart:
20 dB (10). Pure damped tones without noise, an octave apart: 14 dB before the iterations (8), which then lose it.

Sources: R. Badeau, "Gaussian modeling of mixtures of non-stationary signals in the time-frequency domain (HR-NMF)",
WASPAA 2011; R. Badeau and M. Plumbley, IEEE/ACM TASLP 22(11), 2014. No program was published; this one is from the
model. The smoother is that of Bryson and Frazier, which inverts nothing: the covariances are singular where nothing
sounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rtsep.config import check_int
from rtsep.errors import ConfigError
from rtsep.factorise.factors import Progress, check_factor, check_mixture
from rtsep.factorise.nmf import MAX_ITERATIONS, nmf

MAX_ORDER = 8
NOISE_FLOOR = 1e-9  # of the mean power of the mixture: least sigma^2, -90 dB
LEAST = 1e-12  # of the mean power: least variance of b


class HRFactors(NamedTuple):
    """Components, and the model that they were found with."""

    components: np.ndarray  # complex128 (n_components, n_bins, n_frames)
    dictionary: np.ndarray  # float64 (n_bins, n_components)
    activations: np.ndarray  # float64 (n_components, n_frames)
    coefficients: np.ndarray  # complex128 (n_components, n_bins, order)
    noise: float  # sigma^2
    cost: np.ndarray  # float64 (n_iter + 1,): negative log-likelihood of the mixture


class _Expected(NamedTuple):
    states: np.ndarray  # complex128 (n_frames, n_bins, K, P + 1): posterior means of c(t), ..., c(t - P)
    covariances: np.ndarray  # complex128 (n_frames, n_bins, K, P + 1, P + 1): of each component
    spread: np.ndarray  # float64 (n_frames, n_bins): posterior variance of the sum of the components
    cost: float


def _expect(x: np.ndarray, w: np.ndarray, h: np.ndarray, a: np.ndarray, noise: float) -> _Expected:
    """E-step in all bins at once; D = K (P + 1) places of a state, component by component."""
    n_bins, n_frames = x.shape
    n_parts, order = len(a), a.shape[2]
    size = order + 1
    n = n_parts * size
    step = np.zeros((n_bins, n, n), complex)
    for k in range(n_parts):
        step[:, k * size, k * size : k * size + order] = a[k]
        step[:, k * size + 1 : (k + 1) * size, k * size : k * size + order] = np.eye(order)
    back = step.conj().swapaxes(1, 2)
    newest = np.arange(n_parts) * size
    means, covariances = np.empty((n_frames, n_bins, n), complex), np.empty((n_frames, n_bins, n, n), complex)
    gains, surprises = np.empty((n_frames, n_bins, n), complex), np.empty((n_frames, n_bins), complex)
    variances = np.empty((n_frames, n_bins))
    mean, covariance = np.zeros((n_bins, n), complex), np.zeros((n_bins, n, n), complex)
    for t in range(n_frames):
        mean = (step @ mean[..., None])[..., 0]
        covariance = step @ covariance @ back
        covariance[:, newest, newest] += w * h[:, t]
        seen = covariance[:, :, newest].sum(2)  # covariance of the state with the sum of the components
        variances[t] = seen[:, newest].sum(1).real.clip(0) + noise  # rounding may make it negative
        surprises[t] = x[:, t] - mean[:, newest].sum(1)
        gains[t] = seen / variances[t, :, None]
        means[t], covariances[t] = mean, covariance
        mean = mean + gains[t] * surprises[t, :, None]
        covariance = covariance - gains[t][:, :, None] * seen.conj()[:, None, :]
    cost = float((np.log(variances) + np.abs(surprises) ** 2 / variances).sum())

    states = np.empty((n_frames, n_bins, n_parts, size), complex)
    smoothed = np.empty((n_frames, n_bins, n_parts, size, size), complex)
    spread = np.empty((n_frames, n_bins))
    pull, weight = np.zeros((n_bins, n), complex), np.zeros((n_bins, n, n), complex)
    row = np.zeros(n)
    row[newest] = 1
    for t in range(n_frames - 1, -1, -1):
        keep = np.eye(n) - gains[t][:, :, None] * row
        kept = keep.conj().swapaxes(1, 2)
        pull = (kept @ pull[..., None])[..., 0] - row * (surprises[t] / variances[t])[:, None]
        weight = kept @ weight @ keep + row[:, None] * row / variances[t, :, None, None]
        prior = covariances[t]
        posterior = prior - prior @ weight @ prior
        states[t] = (means[t] - (prior @ pull[..., None])[..., 0]).reshape(n_bins, n_parts, size)
        spread[t] = posterior[:, newest][:, :, newest].sum((1, 2)).real.clip(0)
        for k in range(n_parts):
            own = slice(k * size, (k + 1) * size)
            smoothed[t, :, k] = posterior[:, own, own]
        pull = (back @ pull[..., None])[..., 0]
        weight = back @ weight @ step
    return _Expected(states, smoothed, spread, cost)


def hrnmf(
    x: np.ndarray,
    n_components: int,
    *,
    order: int = 1,
    dictionary: np.ndarray | None = None,
    activations: np.ndarray | None = None,
    n_iter: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> HRFactors:
    """Split a mixture into components that ring on.

    Parameters
    ----------
    x : ndarray, complex, (n_bins, n_frames)
        Mixture.
    n_components : int
    order : int
        Damped sinusoids in each bin of a component, 0 to 8.
    dictionary, activations : ndarray, real, (n_bins, n_components), (n_components, n_frames), optional
        What the variances start from, powers. Default: the squares of 50 iterations of KL-NMF of the magnitudes. What
        comes out depends on it: see above.
    n_iter, seed, progress
        As in `nmf`.

    Returns
    -------
    HRFactors

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    x = check_mixture(x)
    check_int("n_components", n_components, 1, 100)
    check_int("order", order, 0, MAX_ORDER)
    check_int("n_iter", n_iter, 0, MAX_ITERATIONS)
    n_bins, n_frames = x.shape
    if n_frames <= 2 * order:
        raise ConfigError(f"{n_frames} frames are too few for order={order}")
    power = np.abs(x) ** 2
    level = float(power.mean())
    w, h, _ = nmf(np.abs(x), n_components, n_iter=50, seed=seed)
    w, h = w**2, h**2
    if dictionary is not None:
        w = check_factor("dictionary", dictionary, (n_bins, n_components))
    if activations is not None:
        h = check_factor("activations", activations, (n_components, n_frames))
    least = np.sqrt(LEAST * level)
    w, h = np.maximum(w * np.sqrt(h.sum()), least), np.maximum(h / np.sqrt(h.sum()), least)
    a = np.zeros((n_components, n_bins, order), complex)
    _first_guess(x, w, h, a, least)
    noise = max(1e-3 * level, NOISE_FLOOR * level)
    costs = []
    for i in range(n_iter + 1):
        expected = _expect(x, w, h, a, noise)
        costs.append(expected.cost)
        if progress is not None and i:
            progress(i, n_iter, costs[-1])
        if i == n_iter:
            break
        rest = np.abs(x.T - expected.states[..., 0].sum(2)) ** 2 + expected.spread
        noise = max(float(rest.mean()), NOISE_FLOOR * level)
        for k in range(n_components):
            moment = expected.covariances[:, :, k] + (
                expected.states[:, :, k, :, None] * expected.states[:, :, k, None, :].conj()
            )
            a[k] = _regression(np.einsum("tf,tfij->fij", 1 / (h[k][:, None] * w[:, k]), moment))
            alpha = np.concatenate([np.ones((n_bins, 1)), -a[k]], 1)
            drive = np.einsum("fi,tfij,fj->tf", alpha, moment, alpha.conj()).real
            w[:, k] = np.maximum((drive / h[k][:, None]).mean(0), least)
            h[k] = np.maximum((drive / w[:, k]).mean(1), least)
    return HRFactors(expected.states[..., 0].transpose(2, 1, 0), w, h, a, noise, np.array(costs))


def _first_guess(x: np.ndarray, w: np.ndarray, h: np.ndarray, a: np.ndarray, least: float) -> None:
    """Coefficients and variances, in place, as if the mixture were each component where `w` and `h` say so.

    Frames count by the fourth power of the component's share, so that its coefficients come from where it is alone:
    those of Wiener estimates are the mixture's, the same for all. From a = 0 the likelihood rises slowly.
    """
    n_parts, order = len(a), a.shape[2]
    if order == 0:
        return
    v = w.T[:, :, None] * h[:, None, :]
    share = v / v.sum(0)
    for k in range(n_parts):
        lags = _lagged(x, order)
        a[k] = _stable(_regression(np.einsum("ft,ift,jft->fij", share[k] ** 4 / v[k], lags, lags.conj())))
        lags = _lagged(share[k] * x, order)
        drive = np.abs(lags[0] - np.einsum("fp,pft->ft", a[k], lags[1:])) ** 2
        for _ in range(10):
            w[:, k] = np.maximum((drive / h[k]).mean(1), least)
            h[k] = np.maximum((drive / w[:, k, None]).mean(0), least)


def _lagged(x: np.ndarray, order: int) -> np.ndarray:
    """The frames, those one before, ..., `order` before: (order + 1, n_bins, n_frames)."""
    return np.stack([np.pad(x, ((0, 0), (p, 0)))[:, : x.shape[1]] for p in range(order + 1)])


def _stable(a: np.ndarray) -> np.ndarray:
    """Coefficients (n_bins, P) without poles outside the unit circle: those are put on it."""
    n_bins, order = a.shape
    companion = np.zeros((n_bins, order, order), complex)
    companion[:, 0] = a
    companion[:, 1:, :-1] += np.eye(order - 1)
    poles = np.linalg.eigvals(companion)
    poles /= np.maximum(np.abs(poles), 1)
    polynomial = np.ones((n_bins, 1), complex)
    for p in range(order):
        polynomial = np.pad(polynomial, ((0, 0), (0, 1)))
        polynomial[:, 1:] -= poles[:, p, None] * polynomial[:, :-1].copy()
    return -polynomial[:, 1:]


def _regression(moment: np.ndarray) -> np.ndarray:
    """Coefficients (n_bins, P) that predict the first place from the others, of moments (n_bins, P + 1, P + 1)."""
    past = moment[:, 1:, 1:]
    order = past.shape[1]
    if order == 0:
        return np.zeros((len(moment), 0), complex)
    ridge = 1e-12 * np.trace(past, axis1=1, axis2=2).real + np.finfo(float).tiny
    # moment[i, j] = E c_i conj(c_j): sum_p a_p E c_p conj(c_q) = E c_0 conj(c_q).
    return np.linalg.solve((past + ridge[:, None, None] * np.eye(order)).swapaxes(1, 2), moment[:, 0, 1:, None])[..., 0]
