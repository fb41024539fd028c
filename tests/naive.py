"""Slow, obvious NumPy twins of the kernels, in float64, written from the papers' formulas.

Nothing here is imported from `rtsep.kernels`. Spectra are complex, (n_src, n_bins) or (n_frames, n_src,
n_bins). No difference form, no SIMD, no state: whole signals at once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def hann(n: int) -> np.ndarray:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def frames_of(x: np.ndarray, win_length: int, hop: int, n_frames: int) -> np.ndarray:
    """Frames of a stream: frame t ends with hop t; zeros before the first sample and after the last."""
    padded = np.concatenate([np.zeros(win_length - hop), x, np.zeros(n_frames * hop)])
    return np.stack([padded[t * hop : t * hop + win_length] for t in range(n_frames)])


def stft(x: np.ndarray, win_length: int, hop: int, n_fft: int, n_frames: int) -> np.ndarray:
    """Spectra of the stream's frames, (n_frames, n_bins)."""
    return np.fft.rfft(frames_of(x, win_length, hop, n_frames) * hann(win_length), n_fft)


def direction(z: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """z / |z|, and where z is (all but) zero that of the fallback."""
    z = z + 1e-9 * fallback
    size = np.abs(z)
    return np.divide(z, size, out=np.zeros_like(z), where=size > 1e-18)


def omisi(
    mixture: np.ndarray,
    magnitudes: np.ndarray,
    win_length: int,
    hop: int,
    n_fft: int,
    *,
    n_iter: int,
    lookahead: int = 0,
    init: str = "mixture",
    tail: float = 1.0,
    order: str = "paper",
    gate: bool = False,
) -> np.ndarray:
    """oMISI with all J sources, step by step as in section III of the paper; no mixture consistency after it.

    Parameters
    ----------
    mixture : (n_frames, n_bins) complex; magnitudes : (n_frames, n_src, n_bins).

    Returns
    -------
    (n_src, (n_frames - lookahead) * hop): what is emitted from the step on in which the window is full.
    """
    n_frames, n_src, _ = magnitudes.shape
    window = hann(win_length)
    n_ahead, length = lookahead, win_length + lookahead * hop

    def place(i: int, signal: np.ndarray) -> np.ndarray:
        placed = np.zeros((*signal.shape[:-1], length))
        placed[..., i * hop : i * hop + win_length] = signal
        return placed

    # Overlap of squared windows over the local signal: of all frames, and of those up to the newest.
    reach = win_length // hop + 2
    squares = {}
    for t in range(-reach, n_ahead + reach + 1):
        square = np.zeros(length + 2 * reach * hop + 2 * win_length)
        at = t * hop + reach * hop
        square[at : at + win_length] = window**2
        squares[t] = square[reach * hop : reach * hop + length]
    present = sum(square for t, square in squares.items() if t <= n_ahead)
    complete = sum(squares.values())
    overlap = present + tail * (complete - present)
    inverse = np.divide(1, overlap, out=np.zeros(length), where=overlap > 0)

    misfit, keep = np.zeros(2), np.exp(-hop / 16_000 / 0.08)
    past = np.zeros((n_src, length))  # weighted overlap-add of the committed frames, mixture's sum included
    phases: dict[int, np.ndarray] = {}  # frame -> (n_src, n_bins)
    emitted = []
    for newest in range(n_frames):
        t = newest - n_ahead
        own = np.angle(mixture[newest]) * np.ones((n_src, 1))
        if init == "sinusoidal" and newest >= n_ahead:
            previous = phases[newest - 1] if newest > 0 else own
            frequency = np.stack([frequencies(v, n_fft) for v in magnitudes[newest]])
            phases[newest] = previous + 2 * np.pi * hop * frequency
            if order == "paper":
                before = magnitudes[newest - 1] if newest > n_ahead else np.zeros_like(magnitudes[0])
                holds = model_holds(magnitudes[newest], before, win_length, n_fft)
                phases[newest] = np.where(holds, phases[newest], own)
        else:
            phases[newest] = own
        if t < 0:
            continue
        targets, x = magnitudes[t : newest + 1], mixture[t : newest + 1]
        imposed = targets * np.exp(1j * np.stack([phases[i] for i in range(t, newest + 1)]))
        masked = mix(targets * np.exp(1j * np.angle(x))[:, None], x)
        if order == "paper":
            imposed = mix(imposed, x)

        def local(imposed: np.ndarray, past: np.ndarray) -> np.ndarray:
            waves = np.fft.irfft(imposed, n_fft)[..., :win_length] * window
            return (past + sum(place(i, wave) for i, wave in enumerate(waves))) * inverse

        doubt = 0.0
        for iteration in range(n_iter):
            b = local(imposed, past)
            c = np.stack(
                [np.fft.rfft(b[:, i * hop : i * hop + win_length] * window, n_fft) for i in range(n_ahead + 1)]
            )
            last = iteration == n_iter - 1
            if gate and last:
                now = np.array([((np.abs(c[0]) - targets[0]) ** 2).sum(), (targets[0] ** 2).sum()])
                misfit = now + keep * (misfit - now)
                ratio = misfit[0] / (0.15 * misfit[1] + 1e-36)
                doubt = ratio**4 / (1 + ratio**4)
            if order == "published":
                c = mix(c, x)
            unit = direction(c, x[:, None])
            imposed = targets * unit
            if order == "paper":
                imposed = mix(imposed, x)
                imposed = imposed + last * doubt * (masked - imposed)
            for i in range(n_ahead + 1):
                phases[t + i] = np.angle(unit[i])
        emitted.append(local(imposed, past)[:, :hop])
        past = past + place(0, np.fft.irfft(imposed[0], n_fft)[..., :win_length] * window)
        past = np.concatenate([past[:, hop:], np.zeros((n_src, hop))], 1)
    return np.concatenate(emitted, 1)


def mix(estimates: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Distribute the mixing error evenly: (n_frames, n_src, n_bins) and (n_frames, n_bins)."""
    return estimates + (mixture - estimates.sum(1))[:, None] / estimates.shape[1]


def frequencies(v: np.ndarray, n_fft: int) -> np.ndarray:
    """Normalised frequency of each bin: that of the peak in whose region it lies (QIFFT on log magnitude)."""
    n_bins = len(v)
    peaks = [k for k in range(1, n_bins - 1) if v[k] > v[k - 1] and v[k] > v[k + 1] and v[k] >= 0.01 * v.max()]
    if not peaks:
        return np.arange(n_bins) / n_fft
    log = np.log(np.maximum(v, max(1e-6 * v.max(), 1e-30)))
    frequency = np.zeros(n_bins)
    low = 1
    for p, following in zip(peaks, [*peaks[1:], None], strict=True):
        high = n_bins if following is None else (p + following) // 2
        a, b, c = log[p - 1 : p + 2]
        offset = np.clip(0.5 * (a - c) / (a - 2 * b + c), -0.5, 0.5)
        frequency[low:high] = (p + offset) / n_fft
        low = high
    return frequency


def regions(v: np.ndarray) -> list[tuple[int, int, int]]:
    """Peak, first bin, and bin after the last one of every region of influence."""
    peaks = [k for k in range(1, len(v) - 1) if v[k] > v[k - 1] and v[k] > v[k + 1] and v[k] >= 0.01 * v.max()]
    ends = [1] + [(p + q) // 2 for p, q in pairwise(peaks)] + [len(v)]
    return [(p, low, high) for p, low, high in zip(peaks, ends, ends[1:], strict=False)]


def model_holds(v: np.ndarray, before: np.ndarray, win_length: int, n_fft: int) -> np.ndarray:
    """Where a source (n_src, n_bins) is a steady sinusoid and does not dominate: the guard of the sinusoidal model."""
    window = hann(win_length)

    def lobe(bins: float) -> float:
        return abs((window * np.exp(-2j * np.pi * bins * np.arange(win_length) / n_fft)).sum())

    wanted = np.mean([np.log(lobe(p - 1) * lobe(p + 1) / lobe(p) ** 2) for p in (0, 0.5)])
    holds = np.zeros(v.shape, bool)
    for j in range(len(v)):
        for peak, low, high in regions(v[j]):
            a, b, c = v[j, peak - 1 : peak + 2]
            curvature = np.log(max(a, 1e-6 * v[j].max()) * max(c, 1e-6 * v[j].max()) / b**2)
            now, then = (v[j, low:high] ** 2).sum(), (before[j, low:high] ** 2).sum()
            holds[j, low:high] = abs(curvature / wanted - 1) < 0.15 and now / 2 < then < 2 * now
    return holds & (v < 0.6 * v.sum(0))


def misi(mixture: np.ndarray, magnitudes: np.ndarray, x: np.ndarray, win_length: int, hop: int, n_iter: int):
    """MISI in the order of the paper on frames that start at t * hop; (n_src, len(x))."""
    n_fft = 2 * (mixture.shape[1] - 1)
    window = hann(win_length)
    padded = np.zeros((-(-win_length // hop)) * hop)
    padded[:win_length] = window**2
    overlap = np.resize(padded.reshape(-1, hop).sum(0), len(x))

    def synthesis(spectra: np.ndarray) -> np.ndarray:
        y = np.zeros((spectra.shape[1], len(x)))
        for t, frame in enumerate(np.fft.irfft(spectra, n_fft)[..., :win_length]):
            y[:, t * hop : t * hop + win_length] += frame * window
        y /= overlap
        return y + (x - y.sum(0)) / len(y)

    s = synthesis(magnitudes * np.exp(1j * np.angle(mixture))[:, None])
    for _ in range(n_iter):
        spectra = np.stack(
            [np.fft.rfft(s[:, t * hop : t * hop + win_length] * window, n_fft) for t in range(len(mixture))]
        )
        s = synthesis(magnitudes * direction(spectra, mixture[:, None]))
    return s


def limit(s: np.ndarray, ceiling: float, release: float) -> np.ndarray:
    """Limiter with one gain for all rows of (n_rows, n_samples): attack at once, exponential release."""
    gain, out = 1.0, s.copy()
    for i in range(s.shape[1]):
        gain += release * (1 - gain)
        gain = 1.0 if gain > 0.9999 else gain
        peak = np.abs(s[:, i]).max()
        if peak * gain > ceiling:
            gain = ceiling / peak
        out[:, i] = np.clip(s[:, i] * gain, -ceiling, ceiling) if gain < 1 else s[:, i]
    return out


def offset(x: np.ndarray, sr: int, cutoff_hz: float = 4.0) -> np.ndarray:
    """What is set aside of signals (..., n_samples): two one-pole low-passes in a row, from rest."""
    rate, slow, slower, found = 1 - np.exp(-2 * np.pi * cutoff_hz / sr), 0.0, 0.0, []
    for sample in np.moveaxis(np.asarray(x, float), -1, 0):
        slow = slow + rate * (sample - slow)
        slower = slower + rate * (slow - slower)
        found.append(slower)
    return np.stack(found, -1)
