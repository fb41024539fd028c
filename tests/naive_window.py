"""Slow, obvious NumPy twin of the engine of `rtsep.phase.window` and of its updates, in float64.

Spectra are complex, (n_frames, n_src, n_bins); Z are the consistent ones, V the magnitudes, X the mixture, (n_frames,
n_bins). Nothing here is imported from rtsep.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from naive import direction, hann, mix

Update = Callable[..., np.ndarray]  # (S, Z, V, X, level) -> S


def mask(V, X):
    return V * direction(X, X)[:, None]


def mixed_mask(V, X):
    return mix(mask(V, X), X)


def nothing(V, X):
    return np.zeros(V.shape, complex)


def misi(S, Z, V, X, level):
    return mix(V * direction(Z, X[:, None]), X)


def misi_published(S, Z, V, X, level):
    return V * direction(mix(Z, X), X[:, None])


def griffin_lim(S, Z, V, X, level):
    return V * direction(Z, X[:, None])


def mix_incons(consistency, power, hard=False):
    def update(S, Z, V, X, level):
        weights = (V + 1e-30) ** power
        weights = weights / weights.sum(1, keepdims=True)
        S = S + weights * ((X - S.sum(1))[:, None] + consistency * Z)
        return V * direction(S, X[:, None]) if hard else S / (1 + consistency * weights)

    return update


def mag_incons_hardmix(consistency):
    def update(S, Z, V, X, level):
        return mix((V * direction(S, X[:, None]) + consistency * Z) / (1 + consistency), X)

    return update


def descend(beta, d, step, side, ridge, slack):
    """A gradient step on the divergence between magnitudes, bin by bin."""

    def derivative(z):
        return np.log(z) if beta == 1 else z ** (beta - 1) / (beta - 1)

    def update(Z, V, X, level):
        z, v = Z / level, V / level
        square = np.abs(z) ** 2 + ridge
        P, R = square ** (d / 2), (v**2 + ridge) ** (d / 2)
        with np.errstate(over="ignore", invalid="ignore"):
            G = P ** (beta - 2) * (P - R) if side == "right" else derivative(P) - derivative(R)
            factor = 1 - step * d * square ** (d / 2 - 1) * G
            overshoots = ~(np.abs(factor * np.abs(z) - v) <= np.abs(np.abs(z) - v) + slack)
            return np.where(overshoots, V * direction(Z, X[:, None]), Z * factor)

    return update


def bregman(beta, d, step, side, ridge, slack=0.3):
    step = descend(beta, d, step, side, ridge, slack)

    def update(S, Z, V, X, level):
        return mix(step(Z, V, X, level), X)

    return update


def window_of(win_length, hop, n_frames, tail):
    """Frames from and to a local signal: (spread, gather), and the inverse overlap."""
    length = win_length + (n_frames - 1) * hop
    before, after = win_length // hop + 2, win_length // hop + 2
    squares = np.zeros((2, length + (before + after) * hop + win_length))
    for t in range(-before, n_frames + after):
        at = (t + before) * hop
        squares[0, at : at + win_length] += hann(win_length) ** 2
        squares[1, at : at + win_length] += hann(win_length) ** 2 * (t < n_frames)
    complete, present = squares[:, before * hop : before * hop + length]
    overlap = present + tail * (complete - present)
    return np.divide(1, overlap, out=np.zeros(length), where=overlap > 1e-6 * complete)


def synthesis(S, win_length, hop, n_fft):
    """Weighted overlap-add, not normalised."""
    y = np.zeros((S.shape[1], win_length + (len(S) - 1) * hop))
    for t, wave in enumerate(np.fft.irfft(S, n_fft)[..., :win_length] * hann(win_length)):
        y[:, t * hop : t * hop + win_length] += wave
    return y


def iterate(S, V, X, sizes, update, n_iter, tail, past=0.0, sequential=False, newest=None, first=None):
    """Iterations on the frames of a window."""
    win_length, hop, n_fft = sizes
    inverse = window_of(win_length, hop, len(S), tail)
    level = np.sqrt((V**2).mean()) + 1e-36
    S = S.copy()
    for iteration in range(n_iter):
        for frames in [[t] for t in reversed(range(len(S)))] if sequential else [range(len(S))]:
            b = synthesis(S, *sizes) + past
            Z = np.zeros_like(S)
            for t in frames:
                window = hann(win_length) * inverse[t * hop : t * hop + win_length]
                if t == len(S) - 1 and newest is not None:
                    window = newest
                if t == len(S) - 1 and first is not None and iteration == 0:
                    window = first
                Z[t] = np.fft.rfft(b[:, t * hop : t * hop + win_length] * window, n_fft)
            chosen = list(frames)
            S[chosen] = update(S[chosen], Z[chosen], V[chosen], X[chosen], level)
    return S


def offline(V, X, sizes, update, enter, n_iter, tail=1.0):
    """The whole signal at once: (n_src, n_samples) of the frames."""
    S = iterate(enter(V, X), V, X, sizes, update, n_iter, tail)
    y = synthesis(S, *sizes)
    return y / np.resize(1 / window_of(*sizes[:2], 40, 1.0)[: sizes[1]], y.shape[1])


def online(V, X, sizes, update, enter, n_iter, lookahead, tail=1.0, **sweeps):
    """A stream, frame by frame: what is emitted from the step on in which the window is full."""
    win_length, hop, _ = sizes
    n_src = V.shape[1]
    past = np.zeros((n_src, win_length + lookahead * hop))
    S = np.zeros((0, *V.shape[1:]), complex)
    scale = window_of(win_length, hop, 1, 1.0)[:hop]
    emitted = []
    for t in range(len(V)):
        S = np.concatenate([S, enter(V[t : t + 1], X[t : t + 1])])
        if t < lookahead:
            continue
        span = slice(t - lookahead, t + 1)
        S = iterate(S, V[span], X[span], sizes, update, n_iter, tail, past, **sweeps)
        emitted.append((synthesis(S, *sizes) + past)[:, :hop] * scale)
        past[:, :win_length] += synthesis(S[:1], *sizes)
        past = np.concatenate([past[:, hop:], np.zeros((n_src, hop))], 1)
        S = S[1:]
    return np.concatenate(emitted, 1)


def gradient(beta, d, step, side, ridge, momentum):
    """Accelerated gradient steps; remembers the last one."""
    step = descend(beta, d, step, side, ridge, 0)
    before = []

    def update(S, Z, V, X, level):
        before.append(step(Z, V, X, level))
        return before[-1] + momentum * (before[-1] - (before.pop(0) if len(before) > 1 else mask(V, X)))

    return update


def admm(loss, rho):
    def prox(y, v):
        if loss == "quadratic":
            return (rho * y + 2 * v) / (rho + 2)
        if loss == "kullback_leibler":
            return (rho * y - 1 + np.sqrt((rho * y - 1) ** 2 + 4 * rho * v)) / (2 * rho)
        b = 1 / v - rho * y
        return (-b + np.sqrt(b**2 + 4 * rho)) / (2 * rho)

    def update(S, Z, V, X, level):
        M = Z - S
        H = Z + M
        return prox(np.abs(H) / level, V / level) * level * direction(H, X[:, None]) - M

    return update
