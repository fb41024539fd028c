"""Slow, obvious NumPy twins of the algorithms that take each source, or each frame, on its own.

float64; magnitudes are (n_frames, n_bins) of one source unless said. Phases that a window of even length has
in its middle become those at its start by `from_middle`.
"""

from __future__ import annotations

import heapq

import naive
import numpy as np


def from_middle(phase: np.ndarray, win_length: int, n_fft: int) -> np.ndarray:
    """Phases (..., n_bins) referred to the start of the window."""
    return phase - 2 * np.pi * np.arange(phase.shape[-1]) * (win_length / 2) / n_fft


def gamma(win_length: int) -> float:
    """Of the Gaussian exp(-pi t^2 / gamma) whose square spreads as much as the squared Hann window."""
    t, square = np.arange(win_length) - win_length / 2, naive.hann(win_length) ** 2
    return 4 * np.pi * (t**2 * square).sum() / square.sum()


def rtpghi(
    v: np.ndarray, win_length: int, hop: int, n_fft: int, random: np.ndarray, tolerance: float, lookahead: int
) -> np.ndarray:
    """Phases in the middle of the window; `random` (n_frames, n_bins) are those below the tolerance."""
    n_frames, n_bins = v.shape
    # Two frames of silence before the first; with look-ahead one after the last.
    s = np.log(np.concatenate([np.zeros((2, n_bins)), v, np.zeros((1, n_bins))]).clip(1e-36))
    ratio = hop * n_fft / gamma(win_length)
    across = np.zeros_like(s)
    across[:, 1:-1] = (s[:, 2:] - s[:, :-2]) / 2
    per_hop = ratio * across + 2 * np.pi * hop * np.arange(n_bins) / n_fft
    phase = np.zeros((n_frames + 2, n_bins))
    for n in range(2, n_frames + 2):
        along = (s[n + 1] - s[n - 1]) / 2 if lookahead else (3 * s[n] - 4 * s[n - 1] + s[n - 2]) / 2
        per_bin = -along / ratio
        known = s[n] <= max(s[n].max(), s[n - 1].max()) + np.log(tolerance)
        phase[n] = random[n - 2]
        heap = [(-s[n - 1, k], k, False) for k in range(n_bins) if not known[k]]
        heapq.heapify(heap)
        while not known.all():
            _, k, here = heapq.heappop(heap)
            reached = []
            if here:
                for i in (k - 1, k + 1):
                    if 0 <= i < n_bins and not known[i]:
                        phase[n, i] = phase[n, k] + (i - k) * (per_bin[k] + per_bin[i]) / 2
                        reached.append(i)
            elif not known[k]:
                phase[n, k] = phase[n - 1, k] + (per_hop[n - 1, k] + per_hop[n, k]) / 2
                reached.append(k)
            for i in reached:
                known[i] = True
                heapq.heappush(heap, (-s[n, i], i, True))
    return phase[2:]


def spsi(v: np.ndarray, hop: int, n_fft: int) -> np.ndarray:
    """Phases in the middle of the window."""
    n_frames, n_bins = v.shape
    phase = np.zeros((n_frames + 1, n_bins))
    for t in range(n_frames):
        phase[t + 1] = phase[t]
        log = np.log(v[t].clip(1e-30))
        for k in range(1, n_bins - 1):
            if not v[t, k - 1] < v[t, k] > v[t, k + 1]:
                continue
            a, b, c = log[k - 1 : k + 2]
            low, high = k, k
            while low > 0 and v[t, low - 1] < v[t, low]:
                low -= 1
            while high < n_bins - 1 and v[t, high + 1] < v[t, high]:
                high += 1
            offset = np.clip(0.5 * (a - c) / (a - 2 * b + c), -0.5, 0.5)
            phase[t + 1, low : high + 1] = phase[t, k] + 2 * np.pi * hop * (k + offset) / n_fft
    return phase[1:]


def griffin_lim(
    v: np.ndarray, phase: np.ndarray, win_length: int, hop: int, n_fft: int, n_iter: int, alpha: float
) -> np.ndarray:
    """Signal of (n_frames - 1) * hop + win_length samples; frame t starts at t * hop."""
    window = naive.hann(win_length)
    padded = np.zeros(-(-win_length // hop) * hop)
    padded[:win_length] = window**2
    n_samples = (len(v) - 1) * hop + win_length
    overlap = np.resize(padded.reshape(-1, hop).sum(0), n_samples)

    def inverse(spectra: np.ndarray) -> np.ndarray:
        y = np.zeros(n_samples)
        for t, frame in enumerate(np.fft.irfft(spectra, n_fft)[:, :win_length]):
            y[t * hop : t * hop + win_length] += frame * window
        return y / overlap

    c, before = np.exp(1j * phase), 0
    for _ in range(n_iter):
        y = inverse(v * np.exp(1j * np.angle(c)))
        t = np.fft.rfft(np.stack([y[i * hop : i * hop + win_length] for i in range(len(v))]) * window, n_fft)
        c = t + alpha * (t - before)
        before = t
    return inverse(v * np.exp(1j * np.angle(c)))


def weighted_frequencies(v: np.ndarray, n_fft: int) -> np.ndarray:
    """As `naive.frequencies`, but regions of influence that end nearer to the weaker peak."""
    n_bins = len(v)
    peaks = [k for k in range(1, n_bins - 1) if v[k - 1] < v[k] > v[k + 1] and v[k] >= 0.01 * v.max()]
    frequency = naive.frequencies(v, n_fft)
    of_peak = frequency[peaks]
    for low, high, below, above in zip(peaks, peaks[1:], of_peak, of_peak[1:], strict=False):
        boundary = (v[high] * low + v[low] * high) / (v[low] + v[high])
        for k in range(low, high):
            frequency[k] = below if k <= boundary else above
    return frequency


def pu_iter(mixture: np.ndarray, v: np.ndarray, hop: int, n_fft: int, n_iter: int, onset: float) -> np.ndarray:
    """Spectra (n_frames, n_src, n_bins) of magnitudes of that shape and of the mixture (n_frames, n_bins)."""
    spectra = []
    for t, x in enumerate(mixture):
        frame = []
        for j in range(v.shape[1]):
            rise = np.maximum(v[t, j] - v[t - 1, j], 0).sum() / v[t, j].sum()
            if t == 0 or rise > onset:
                phase = np.angle(x)
            else:
                phase = np.angle(spectra[-1][j]) + 2 * np.pi * hop * weighted_frequencies(v[t, j], n_fft)
            frame.append(v[t, j] * np.exp(1j * phase))
        s = np.array(frame)
        share = v[t] ** 2 / (v[t] ** 2).sum(0)
        for _ in range(n_iter):
            s = s + share * (x - s.sum(0))
            s = v[t] * np.exp(1j * np.angle(s))
        spectra.append(s)
    return np.array(spectra)


def synthesis(spectra: np.ndarray, win_length: int, hop: int) -> np.ndarray:
    """Stream (n_src, n_frames * hop) of frames (n_frames, n_src, n_bins)."""
    n_frames, n_src, n_bins = spectra.shape
    window = naive.hann(win_length)
    padded = np.zeros(-(-win_length // hop) * hop)
    padded[:win_length] = window**2
    overlap = np.resize(padded.reshape(-1, hop).sum(0), n_frames * hop + win_length)
    y = np.zeros((n_src, n_frames * hop + win_length))
    for t, frame in enumerate(np.fft.irfft(spectra, 2 * (n_bins - 1))[..., :win_length]):
        y[:, t * hop : t * hop + win_length] += frame * window
    return (y / overlap)[:, : n_frames * hop]


def repeated_events(
    mixture: np.ndarray,
    v: np.ndarray,
    hop: int,
    n_fft: int,
    onset: float,
    *,
    n_iter: int,
    sigma: float | None,
    span: int,
) -> np.ndarray:
    """exp(i phase) (n_frames, n_src, n_bins) of magnitudes of that shape and the mixture (n_frames, n_bins)."""
    n_frames, n_src, n_bins = v.shape
    k, delays = np.arange(n_bins), np.arange(-4 * hop, 4 * hop + 1) / 4
    every_shift = np.exp(-2j * np.pi * k * delays[:, None] / n_fft)

    def direction(z: np.ndarray, fallback: np.ndarray) -> np.ndarray:
        return np.array([a / abs(a) if a else b for a, b in zip(z, fallback, strict=True)])

    phase = np.array([[direction(x, np.ones(n_bins))] * n_src for x in mixture])
    events, fixed = [], []  # of each source: the frames of each event; all these frames
    for j in range(n_src):
        rose = [
            np.maximum(v[t, j] - (v[t - 1, j] if t else 0), 0).sum() > onset * v[t, j].sum() for t in range(n_frames)
        ]
        starts = [t for t in range(n_frames) if rose[t] and not (t and rose[t - 1])]
        ends = [*starts[1:], n_frames]
        events.append([range(a, min(a + span, b)) for a, b in zip(starts, ends, strict=False)])
        fixed.append({0}.union(*events[j]))

    def go_on(j: int) -> None:
        for t in range(n_frames):
            if t not in fixed[j]:
                phase[t, j] = phase[t - 1, j] * np.exp(2j * np.pi * hop * weighted_frequencies(v[t, j], n_fft))

    profiles = []
    for j in range(n_src):
        loudest = max(events[j], key=lambda event: sum((v[t, j] ** 2).sum() for t in event))
        frames = [min(loudest[0] + i, n_frames - 1) for i in range(span)]
        profiles.append(np.array([direction(mixture[t], np.ones(n_bins)) for t in frames]))
    shifts = [np.ones((len(events[j]), n_bins), complex) for j in range(n_src)]
    for _ in range(n_iter):
        for j in range(n_src):
            go_on(j)
        spectra = v * phase
        for j in range(n_src):
            rest = mixture - spectra.sum(1) + spectra[:, j]

            def nearest(t: int, model: np.ndarray, j: int = j, rest: np.ndarray = rest) -> np.ndarray:
                return direction(rest[t] + sigma * v[t, j] * model, model)

            y = {}
            for event, shift in zip(events[j], shifts[j], strict=True):
                for i, t in enumerate(event):
                    y[t] = rest[t] if sigma is None else v[t, j] * nearest(t, profiles[j][i] * shift)
            for m, event in enumerate(events[j]):
                z = sum(v[t, j] * y[t] * profiles[j][i].conj() for i, t in enumerate(event))
                shifts[j][m] = every_shift[np.argmax((z * every_shift.conj()).real.sum(1))]
            for i in range(span):
                z = np.zeros(n_bins, complex)
                for event, shift in zip(events[j], shifts[j], strict=True):
                    if i < len(event):
                        z += v[event[i], j] * y[event[i]] * shift.conj()
                profiles[j][i] = direction(z, profiles[j][i])
            for event, shift in zip(events[j], shifts[j], strict=True):
                for i, t in enumerate(event):
                    model = profiles[j][i] * shift
                    phase[t, j] = model if sigma is None else nearest(t, model)
    for j in range(n_src):
        go_on(j)
    return phase
