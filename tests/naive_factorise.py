"""Slow twins of the streaming estimators that factorise or look for repetition: a frame at a time, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rtsep.factorise.kam import HARMONIC, LEAST, PERCUSSIVE, band_edges


def nmf_masks(features, w, n_atoms, n_bins, divergence, n_iter):
    """Shares (n_src, n_bins, n_frames) of sources with `n_atoms` atoms each, of features (n_features, n_frames)."""
    floor, first = 1e-7, np.cumsum([0, *n_atoms])
    flat = len(w) / w.shape[1]
    h, masks = np.zeros(w.shape[1]), []
    for v in features.T:
        if not v.any():
            h[:] = flat
            masks.append(np.full((len(n_atoms), n_bins), 1 / len(n_atoms)))
            continue
        v, h = v / v.mean() + floor, 0.5 * h + 0.5 * flat
        for _ in range(n_iter):
            m = np.maximum(w @ h, 0) + floor
            if divergence == "kl":
                h = h * (w.T @ (v / m)) / w.sum(0)
            elif divergence == "is":
                h = h * np.sqrt((w.T @ (v / m**2)) / (w.T @ (1 / m)))
            elif divergence == "euclidean":
                h = h * (w.T @ v) / (w.T @ m)
            else:
                h = h * np.sqrt((w.T @ (1 / m)) / (w.T @ (m / (v + floor))))
        parts = np.stack([w[:n_bins, a:b] @ h[a:b] + floor for a, b in pairwise(first)])
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
