"""Missing samples by phase unwrapping: damaged frames get magnitudes from their neighbours, and phases as sinusoids.

Magnitudes of the frames that see a gap are interpolated, their logarithms linearly, between the frames before and
after; phases go on from the frame before, phi_t = phi_{t-1} + 2 pi hop nu_t, with a frequency nu for each peak.

Source: P. Magron, R. Badeau, B. David, "Phase reconstruction of spectrograms with linear unwrapping: application to
audio signal restoration", EUSIPCO 2015. Departures: only the missing samples are taken from the result, and it is made
twice, forwards and, of the reversed signal, backwards, and faded from one to the other.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import StreamConfig
from rtsep.phase.sinusoidal import advance_phasors, prepare_sinusoids
from rtsep.phase.unwrapping import overlapped

WINDOW_MS = 46.0  # as published, with 75 % overlap


def interpolated_magnitudes(v: np.ndarray, damaged: np.ndarray) -> np.ndarray:
    """Magnitudes (n_frames, n_bins), those of `damaged` frames (n_frames,) from the others, zeros if there are none."""
    n_frames = len(v)
    good = np.flatnonzero(~damaged)
    if not len(good):
        return np.zeros_like(v)
    floor = 1e-6 * v[good].max() + 1e-30
    logs = np.log(v[good] + floor)
    place = np.interp(np.arange(n_frames), good, np.arange(len(good)))
    low = np.floor(place).astype(int)
    high, part = np.minimum(low + 1, len(good) - 1), (place - low)[:, None]
    between = np.maximum(np.exp((1 - part) * logs[low] + part * logs[high]) - floor, 0)
    return np.where(damaged[:, None], between, v)


def unwrap_frames(spectra: np.ndarray, v: np.ndarray, damaged: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Spectra (n_frames, n_bins), complex, the `damaged` frames with the magnitudes `v` and phases that go on."""
    n_frames, n_bins = spectra.shape
    out = spectra.astype(complex)
    state, unused = prepare_sinusoids(config, 1, weighted=True), np.zeros((2, n_bins), np.float32)
    phasor = np.zeros((1, 2, n_bins), np.float32)
    for t in range(n_frames):
        if damaged[t]:
            advance_phasors(state, np.ascontiguousarray(v[t][None], np.float32), unused, 0, phasor, phasor)
            out[t] = v[t] * (phasor[0, 0] + 1j * phasor[0, 1])
        else:
            size = np.abs(out[t])
            unit = np.divide(out[t], size, out=np.ones(n_bins, complex), where=size > 0)
            phasor[0, 0], phasor[0, 1] = unit.real, unit.imag
    return out


def _forwards(x: np.ndarray, missing: np.ndarray, config: StreamConfig) -> np.ndarray:
    hop, length = config.hop, config.analysis
    lead = length - hop
    n_frames = -(-(len(x) + lead) // hop)
    line, gaps = np.zeros(lead + n_frames * hop), np.zeros(lead + n_frames * hop, bool)
    line[lead : lead + len(x)], gaps[lead : lead + len(x)] = x, missing
    frames = np.lib.stride_tricks.sliding_window_view(line, length)[::hop]
    damaged = np.asarray(np.lib.stride_tricks.sliding_window_view(gaps, length)[::hop].any(1))
    spectra = np.fft.rfft(frames * config.windows.analysis, config.n_fft)
    spectra = unwrap_frames(spectra, interpolated_magnitudes(np.abs(spectra), damaged), damaged, config)
    return overlapped(config, spectra[:, None], len(line))[0, lead : lead + len(x)]


def fill(x: np.ndarray, missing: np.ndarray, sr: int) -> np.ndarray:
    """Fill all gaps of a signal.

    Parameters
    ----------
    x : ndarray, float64, (n,)
    missing : ndarray, bool, (n,)
    sr : int
        Sample rate in Hz.

    Returns
    -------
    x : ndarray, float64, (n,)
    """
    config = StreamConfig.from_ms(sr, WINDOW_MS)
    x = np.where(missing, 0.0, x)
    before = _forwards(x, missing, config)
    after = _forwards(x[::-1], missing[::-1], config)[::-1]
    # 0 at the start of a gap, 1 at its end.
    known = np.flatnonzero(~missing)
    place = np.arange(len(x))
    last = known[np.clip(np.searchsorted(known, place, "right") - 1, 0, None)]
    following = known[np.clip(np.searchsorted(known, place), None, len(known) - 1)]
    fade = np.where(
        place < known[0], 1.0, np.where(place > known[-1], 0.0, (place - last) / np.maximum(following - last, 1))
    )
    return np.where(missing, (1 - fade) * before + fade * after, x)
