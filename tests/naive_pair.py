"""Slow, obvious twin of oMISI with a synthesis window shorter than the analysis window; float64, all sources."""

from __future__ import annotations

import naive
import numpy as np


def windows(analysis: int, synthesis: int) -> tuple[np.ndarray, np.ndarray]:
    """Analysis window, and synthesis window of the same length with zeros before its part."""
    fall = synthesis / 2
    rise = analysis - fall
    a, s = np.zeros(analysis), np.zeros(analysis)
    for n in range(analysis):
        at = n + 0.5
        a[n] = np.sin(np.pi * at / (2 * rise)) ** 2 if n < rise else np.cos(np.pi * (at - rise) / (2 * fall)) ** 2
        m = n - (analysis - synthesis) + 0.5
        if m > 0:
            s[n] = np.sin(np.pi * m / synthesis) ** 4 / a[n]
    return a, s


def omisi(
    sources: np.ndarray, analysis: int, synthesis: int, hop: int, n_fft: int, n_iter: int, lookahead: int, tail: float
) -> np.ndarray:
    """Sources (n_src, n_samples) from their true magnitudes, aligned with the input, mixing error shared."""
    n_src, n_samples = sources.shape
    a, s = windows(analysis, synthesis)
    start, length = analysis - synthesis, analysis + lookahead * hop
    reach = analysis // hop + lookahead + 2
    n_frames = -(-(n_samples + synthesis + lookahead * hop) // hop)
    padded = np.zeros((n_src, analysis - hop + n_frames * hop + analysis))
    padded[:, analysis - hop : analysis - hop + n_samples] = sources
    x = padded.sum(0)

    def overlap(window: np.ndarray, last: int) -> np.ndarray:
        """Sum over the frames up to `last` of a window's last part, over the samples of frame 0 and what follows."""
        total = np.zeros(length + 2 * reach * hop + analysis)
        for t in range(-reach, last + 1):
            at = (t + reach) * hop
            total[at + start : at + analysis] += window[start:]
        return total[reach * hop : reach * hop + length]

    complete, present = overlap(a * a, reach), overlap(a * a, lookahead)
    envelope = overlap(a * s, reach)
    below = present + tail * (complete - present)
    past, leaving = np.zeros((n_src, length)), np.zeros((n_src, length))
    emitted = np.zeros((n_src, start))
    phases: dict[int, np.ndarray] = {}
    out = np.zeros((n_src, padded.shape[1]))
    for newest in range(n_frames):
        t = newest - lookahead
        phases[newest] = np.tile(
            np.angle(np.fft.rfft(a * x[newest * hop : newest * hop + analysis], n_fft)), (n_src, 1)
        )
        if t < 0:
            continue
        frames = [padded[:, i * hop : i * hop + analysis] for i in range(t, newest + 1)]
        spectra = np.fft.rfft(a * np.stack(frames), n_fft)
        mixture, targets = spectra.sum(1), np.abs(spectra)
        estimate = naive.mix(targets * np.exp(1j * np.stack([phases[i] for i in range(t, newest + 1)])), mixture)
        for _ in range(n_iter):
            local = past.copy()
            for i, frame in enumerate(np.fft.irfft(estimate, n_fft)[..., :analysis]):
                local[:, i * hop + start : i * hop + analysis] += (a * frame)[:, start:]
            local[:, start:] /= below[start:]
            local[:, :start] = emitted
            analysed = np.stack(
                [np.fft.rfft(a * local[:, i * hop : i * hop + analysis], n_fft) for i in range(lookahead + 1)]
            )
            unit = naive.direction(analysed, mixture[:, None])
            estimate = naive.mix(targets * unit, mixture)
            for i in range(lookahead + 1):
                phases[t + i] = np.angle(unit[i])
        frame = np.fft.irfft(estimate[0], n_fft)[:, :analysis]
        past[:, start:analysis] += (a * frame)[:, start:]
        leaving[:, start:analysis] += (s * frame)[:, start:]
        hop_out = leaving[:, start : start + hop] / envelope[start : start + hop]
        at = slice(t * hop + start, t * hop + start + hop)
        hop_out = hop_out + (x[at] - hop_out.sum(0)) / n_src
        out[:, at] = hop_out
        emitted = np.concatenate([emitted, hop_out], 1)[:, hop:] if start else emitted
        past = np.concatenate([past[:, hop:], np.zeros((n_src, hop))], 1)
        leaving = np.concatenate([leaving[:, hop:], np.zeros((n_src, hop))], 1)
    return out[:, analysis - hop : analysis - hop + n_samples]
