"""Slow twins of the streaming estimators that factorise or look for repetition: a frame at a time, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rtsep.factorise.kam import HARMONIC, LEAST, PERCUSSIVE, band_edges


def nmf_masks(features, w, spectra, n_atoms, divergence, n_iter, free=None, memory=0.0, pull=0.0):
    """Shares (n_src, n_bins, n_frames) of sources with `n_atoms` atoms each, of features (n_features, n_frames).

    `spectra` (n_bins, n_atoms in all) are what the atoms `w` (n_features, n_atoms in all) stand for in the masks.
    `free` are atoms (n_features, n_free) of one more source, which adapt: sums that decay by `memory` in every frame,
    to which the first shapes are added as if they had an activation of `pull`.
    """
    n_bins = len(spectra)
    floor, edges = 1e-7, np.cumsum([0, *n_atoms, *([] if free is None else [free.shape[1]])])
    free = np.zeros((len(w), 0)) if free is None else free.copy()
    exponent = {"is": 0.5, "levy": 0.5}.get(divergence, 1.0)
    if not isinstance(divergence, str):
        exponent = 1 / (2 - divergence) if divergence < 1 else 1 / (divergence - 1) if divergence > 2 else 1.0
    first, settled = free ** (1 / exponent), pull / (1 - memory)
    gained, spent, used = settled * first, np.full(free.shape, settled), np.full(free.shape[1], settled)

    def terms(v, m):
        if divergence == "kl":
            return v / m, np.ones_like(m)
        if divergence == "is":
            return v / m**2, 1 / m
        if divergence == "euclidean":
            return v, m
        if divergence == "levy":
            return 1 / m, m / (v + floor)
        return v * m ** (divergence - 2), m ** (divergence - 1)

    n_all, turn = w.shape[1] + free.shape[1], 0
    flat = len(w) / n_all
    h, masks = np.zeros(n_all), []
    for v in features.T:
        if not v.any():
            h[:] = flat
            masks.append(np.full((len(edges) - 1, n_bins), 1 / (len(edges) - 1)))
            continue
        v, h = v / v.mean() + floor, 0.5 * h + 0.5 * flat
        every = np.hstack([w, free])
        for _ in range(n_iter):
            up, down = terms(v, np.maximum(every @ h, 0) + floor)
            h = h * ((every.T @ up) / np.maximum(every.T @ down, floor)) ** exponent
        if free.size:
            up, down = terms(v, every @ h + floor)
            own = h[w.shape[1] :]
            back = pull / used * spent
            gained = memory * gained + np.outer(up, own) * free ** (1 / exponent) + back * first
            spent, used = memory * spent + np.outer(down, own) + back, memory * used + own + pull
            new = (gained[:, turn] / spent[:, turn]) ** exponent
            size = new.sum()
            free[:, turn] = new / size
            gained[:, turn] *= size ** (1 - 1 / exponent)
            spent[:, turn] *= size
            used[turn] *= size
            h[w.shape[1] + turn] *= size
            turn = (turn + 1) % free.shape[1]
            every = np.hstack([w, free])
        heard = np.hstack([spectra, free[:n_bins]])
        parts = np.stack([heard[:, a:b] @ h[a:b] + floor for a, b in pairwise(edges)])
        parts = parts if divergence in ("is", "levy") else parts**2
        masks.append(parts / parts.sum(0))
    return np.stack(masks, 2)


def kam_share(power, bin_hz, hop_s, n_iter, most=31):
    """Harmonic share (n_bins, n_frames) of powers of the same shape."""
    edges, shares = band_edges(len(power), bin_hz), []
    filtered = np.zeros((2, *power.shape))
    for t in range(power.shape[1]):
        powers = np.stack([power[:, t] / 2] * 2)
        eps = LEAST * power[:, t].mean() + 1e-30
        for _ in range(n_iter):
            filtered[:, :, t] = (powers / (powers.sum(0) + eps)) ** 2 * power[:, t]
            for j, kernels in enumerate((HARMONIC, PERCUSSIVE)):
                for (width, time), low, high in zip(kernels, edges[:-1], edges[1:], strict=True):
                    n_bins, n_frames = max(1, round(width / bin_hz)), max(1, round(time / hop_s))
                    stride = -(-n_frames * n_bins // most)
                    n_times = max(1, min(n_frames // stride, most // n_bins))
                    frames = [t - i * stride for i in range(n_times) if t >= i * stride]
                    below = (n_bins - 1) // 2
                    for k in range(low, high):
                        bins = k + np.arange(-below, n_bins - below)
                        bins = np.where(bins < low, 2 * low - 1 - bins, bins)
                        bins = np.where(bins >= high, 2 * high - 1 - bins, bins).clip(low, high - 1)
                        values = np.sort(filtered[j][np.ix_(bins, frames)].ravel())
                        powers[j, k] = values[(len(values) + 1) // 2 - 1]
        whole = powers.sum(0)
        shares.append(np.divide(powers[0], whole, out=np.full(len(power), 0.5), where=whole > 0))
    return np.stack(shares, 1)
