"""Slow, obvious NumPy twins of the Wiener family, in float64, from the papers' formulas.

Covariances are 2 x 2 matrices of real and imaginary part and are inverted as such; no difference form, no state.
Spectra are complex, (n_bins,), (n_src, n_bins) or (n_frames, n_src, n_bins). Phases are given as u = exp(i mu),
and u = 0 says that nothing is known. Nothing here is imported from `rtsep.kernels`.
"""

from __future__ import annotations

import itertools

import naive
import naive_single
import numpy as np
from scipy import optimize, special


def moments(kappa: float, rayleigh: bool = False) -> tuple[float, float, float]:
    """Mean, variance and relation of V exp(i phi), phi around 0 by von Mises, for V = 1 (Rayleigh: mean V^2 = 1)."""
    mean = special.ive(1, kappa) / special.ive(0, kappa)
    relation = special.ive(2, kappa) / special.ive(0, kappa)
    if rayleigh:
        mean *= np.sqrt(np.pi) / 2
    return mean, 1 - mean**2, relation - mean**2


def prior(v: np.ndarray, u: np.ndarray, shapes: list) -> tuple[np.ndarray, np.ndarray]:
    """Means, and covariances (n_src, n_bins, 2, 2) in the scale in which that of a free phase is V^2."""
    mean, gamma, relation = (np.array(m)[:, None] for m in zip(*shapes, strict=True))
    gamma = v**2 * np.where(u == 0, 1, gamma)
    c = relation * v**2 * u**2
    rows = np.stack([gamma + c.real, c.imag], -1), np.stack([c.imag, gamma - c.real], -1)
    return mean * v * u, np.stack(rows, -2)


def real(z: np.ndarray) -> np.ndarray:
    return np.stack([z.real, z.imag], -1)


def posterior(x, v, u, shapes, delta=0.0, z=0.0):
    """argmin over S that sum to x of sum_j (S_j - m_j)' A_j^-1 (S_j - m_j) + delta |S_j - Z_j|^2, for one frame."""
    m, a = prior(v, u, shapes)
    identity = np.eye(2)
    # (A^-1 + delta)^-1 = (1 + delta A)^-1 A, also where A is zero.
    w = np.linalg.solve(identity + delta * a, a)
    pull = delta * real(z - m)
    wanted = real(x - m.sum(0)) - np.einsum("jkab,jkb->ka", w, pull)
    nu = np.einsum("kab,kb->ka", np.linalg.pinv(w.sum(0), hermitian=True), wanted)
    s = real(m) + np.einsum("jkab,jkb->jka", w, pull + nu)
    return s[..., 0] + 1j * s[..., 1]


def advanced(before, v, hop, n_fft):
    """Phases of the frame before, advanced by the sinusoidal model."""
    u = np.divide(before, np.abs(before), out=np.zeros(before.shape, complex), where=before != 0)
    return u * np.exp(2j * np.pi * hop * np.stack([naive_single.weighted_frequencies(row, n_fft) for row in v]))


def predicted(before, v, v_before, hop, n_fft):
    """`advanced`, and unknown for a source whose magnitude rose by more than half of it."""
    onset = np.maximum(v - v_before, 0).sum(1) > 0.5 * v.sum(1)
    return np.where(onset[:, None], 0, advanced(before, v, hop, n_fft))


def consistent(mixture, magnitudes, sizes, *, kappa, n_iter=0, lookahead=0, tail=1.0, consistency=0.0):
    """The online form; with no iterations the anisotropic Wiener filter.

    mixture (n_frames, n_bins), magnitudes (n_frames, n_src, n_bins), kappa of each source. Returns the samples
    emitted from the step on in which the window is full, (n_src, (n_frames - lookahead) * hop).
    """
    win_length, hop, n_fft = sizes
    n_frames, n_src, _ = magnitudes.shape
    window, length = naive.hann(win_length), win_length + lookahead * hop
    shapes = [moments(k) for k in kappa]

    def place(i, wave):
        placed = np.zeros((*wave.shape[:-1], length))
        first, last = max(0, i * hop), min(length, i * hop + win_length)
        if first < last:
            placed[..., first:last] = wave[..., first - i * hop : last - i * hop]
        return placed

    reach = win_length // hop + 2
    present = sum(place(i, window**2) for i in range(-reach, lookahead + 1))
    complete = sum(place(i, window**2) for i in range(-reach, lookahead + reach))
    overlap = present + tail * (complete - present)
    inverse = np.divide(1, overlap, out=np.zeros(length), where=overlap > 1e-6 * complete)

    spectra, phases = {-1: np.zeros(magnitudes.shape[1:], complex)}, {}
    past, emitted = np.zeros((n_src, length)), []
    for newest in range(n_frames):
        v_before = magnitudes[newest - 1] if newest else np.zeros(magnitudes.shape[1:])
        phases[newest] = predicted(spectra[newest - 1], magnitudes[newest], v_before, hop, n_fft)
        spectra[newest] = posterior(mixture[newest], magnitudes[newest], phases[newest], shapes)
        t = newest - lookahead
        if t < 0:
            continue
        frames = range(t, newest + 1)
        delta = consistency / (n_src * (magnitudes[t : newest + 1] ** 2).mean())

        def waves(frame):
            return np.fft.irfft(spectra[frame], n_fft)[:, :win_length] * window

        for _ in range(n_iter):
            b = past + sum(place(i, waves(frame)) for i, frame in enumerate(frames))
            for i, frame in enumerate(frames):
                z = np.fft.rfft((b * inverse)[:, i * hop : i * hop + win_length] * window, n_fft)
                spectra[frame] = posterior(mixture[frame], magnitudes[frame], phases[frame], shapes, delta, z)
        b = past + sum(place(i, waves(frame)) for i, frame in enumerate(frames))
        emitted.append(b[:, :hop] / complete[:hop])
        past = np.pad((past + place(0, waves(t)))[:, hop:], ((0, 0), (0, hop)))
    return np.concatenate(emitted, 1)


def bayesian(mixture, magnitudes, sizes, *, kappa, tau, n_iter):
    """The Bayesian anisotropic model without its backward term; samples as in `consistent`."""
    _, hop, n_fft = sizes
    shapes = [moments(k, rayleigh=True) for k in kappa]
    mean, gamma, relation = (np.array(m)[:, None] for m in zip(*shapes, strict=True))
    trust = 2 * mean * (gamma - relation) / (gamma**2 - relation**2)
    u, spectra = np.zeros(magnitudes.shape[1:], complex), []
    for x, v in zip(mixture, magnitudes, strict=True):
        u = chain = advanced(u, v, hop, n_fft)
        for _ in range(n_iter):
            u = trust / v * posterior(x, v, u, shapes) + tau * chain
            u = np.divide(u, np.abs(u), out=np.zeros(u.shape, complex), where=u != 0)
        spectra.append(posterior(x, v, u, shapes))
    return emit(np.stack(spectra), sizes)


def emit(spectra, sizes):
    """What a stream emits of given frames."""
    win_length, hop, n_fft = sizes
    window, n_frames = naive.hann(win_length), len(spectra)
    out, overlap = np.zeros((spectra.shape[1], n_frames * hop + win_length)), np.zeros(3 * win_length)
    for t, wave in enumerate(np.fft.irfft(spectra, n_fft)[..., :win_length] * window):
        out[:, t * hop : t * hop + win_length] += wave
    for t in range(2 * win_length // hop):
        overlap[t * hop : t * hop + win_length] += window**2
    complete = np.resize(overlap[win_length // hop * hop :][:hop], n_frames * hop)
    return out[:, : n_frames * hop] / complete


class Offline:
    """The cost of the consistent filters as a function of the signals, for frames that start at t * hop."""

    def __init__(self, mixture, magnitudes, phases, sizes, *, kappa, consistency):
        self.x, self.v, self.u, self.sizes = mixture, magnitudes, phases, sizes
        self.shapes = [moments(k) for k in kappa]
        self.delta = consistency / (magnitudes**2).sum(1).mean(1)
        self.window = naive.hann(sizes[0])

    def analyse(self, signals):
        win_length, hop, n_fft = self.sizes
        frames = [signals[:, t * hop : t * hop + win_length] for t in range(len(self.x))]
        return np.fft.rfft(np.stack(frames) * self.window, n_fft)

    def likely(self, z):
        """The best spectra for the signals that have the spectra `z`."""
        return np.stack(
            [
                posterior(x, v, u, self.shapes, d, z_)
                for x, v, u, d, z_ in zip(self.x, self.v, self.u, self.delta, z, strict=True)
            ]
        )

    def cost(self, signals):
        z = self.analyse(signals)
        total = 0.0
        bins = np.full(z.shape[2], 2.0)
        bins[[0, -1]] = 1
        for s, z_, v, u, d in zip(self.likely(z), z, self.v, self.u, self.delta, strict=True):
            m, a = prior(v, u, self.shapes)
            off = real(s - m)
            unlikely = np.einsum("jka,jkab,jkb->k", off, np.linalg.inv(a), off)
            total += bins @ (unlikely + d * (np.abs(s - z_) ** 2).sum(0))
        return total

    def step(self, signals):
        """One step of the auxiliary function: the best spectra, then the best signals for these."""
        win_length, hop, n_fft = self.sizes
        out, overlap = np.zeros(signals.shape), np.zeros(signals.shape[1])
        waves = np.fft.irfft(self.likely(self.analyse(signals)), n_fft)[..., :win_length]
        for t, (wave, d) in enumerate(zip(waves, self.delta, strict=True)):
            out[:, t * hop : t * hop + win_length] += d * wave * self.window
            overlap[t * hop : t * hop + win_length] += d * self.window**2
        return np.divide(out, overlap, out=signals.copy(), where=overlap > 1e-6 * overlap.max())


def concentration(source, win_length, hop, n_fft):
    """Maximum-likelihood concentration of the phases at the peaks of one source and beside them."""
    starts = range(0, len(source) - win_length + 1, hop)
    spectra = np.stack([np.fft.rfft(source[i : i + win_length] * naive.hann(win_length), n_fft) for i in starts])
    cosines = []
    for before, now in itertools.pairwise(spectra):
        v = np.abs(now)
        peaks = {k for k in range(1, len(v) - 1) if v[k] > max(v[k - 1], v[k + 1]) and v[k] >= 0.01 * v.max()}
        error = np.angle(now) - np.angle(before) - 2 * np.pi * hop * naive_single.weighted_frequencies(v, n_fft)
        cosines += [np.cos(error[k]) for k in sorted(peaks | {k - 1 for k in peaks} | {k + 1 for k in peaks})]
    return optimize.brentq(lambda k: special.ive(1, k) / special.ive(0, k) - np.mean(cosines), 1e-9, 500)
