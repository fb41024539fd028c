"""Linear unwrapping: sinusoids between the onsets, impulses at them; offline, each source on its own.

Source: P. Magron, R. Badeau, B. David, "Phase reconstruction of spectrograms with linear unwrapping: application to
audio signal restoration", EUSIPCO 2015. Between onsets phi(k, t) = phi(k, t - 1) + 2 pi hop nu(k, t), as in
`rtsep.phase.sinusoidal` with weighted regions. An onset is an impulse at sample n0, whose spectrum is
A w(n0 - hop t) exp(-2 pi i k (n0 - hop t) / n_fft), so that there

    phi(k, t) = phi(k - 1, t) - 2 pi (n0(k) - hop t) / n_fft,

with n0 of each bin from the magnitudes of the frames that begin with the onset: the place at which the window, seen
by these frames, fits them best in the least-squares sense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.engine.protocols import OfflinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.memory import aligned
from rtsep.phase.sinusoidal import advance_phasors, prepare_sinusoids


def impulse_places(magnitudes: np.ndarray, config: StreamConfig) -> np.ndarray:
    """Where in the first of some frames an impulse lies that gives their magnitudes.

    Parameters
    ----------
    magnitudes : ndarray, real, (n_frames, n_bins)
        Of successive frames, the first of which sees it in its newest hop.
    config : StreamConfig

    Returns
    -------
    places : ndarray, float64, (n_bins,)
        Samples from the start of the first frame, in its newest hop.
    """
    hop, length = config.hop, config.analysis
    candidates = np.arange(length - hop, length)
    # (n_candidates, n_frames): the window at each candidate place, as seen by each frame.
    places = candidates[:, None] - hop * np.arange(len(magnitudes))
    seen = np.where(places >= 0, config.windows.analysis[places.clip(0)], 0)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True).clip(1e-12)
    # A least-squares amplitude leaves the least error where the projection is largest.
    return candidates[(seen @ magnitudes).argmax(0)].astype(float)


def onset_frames(magnitudes: np.ndarray, rise: float) -> np.ndarray:
    """Frames (n_frames, n_bins) in which a source begins: more than a share `rise` of the magnitude has come up."""
    risen = np.diff(magnitudes, axis=0, prepend=0).clip(0).sum(1) > rise * magnitudes.sum(1)
    return np.flatnonzero(risen & ~np.concatenate([[False], risen[:-1]]))


def overlapped(config: StreamConfig, spectra: np.ndarray, n_samples: int) -> np.ndarray:
    """Signals (n_src, n_samples), float32, of the spectra (n_frames, n_src, n_bins) of all their frames."""
    hop, length = config.hop, config.analysis
    sources = np.zeros((spectra.shape[1], n_samples))
    for t, frame in enumerate(spectra):
        sources[:, t * hop : t * hop + length] += (
            np.fft.irfft(frame, config.n_fft)[:, :length] * config.windows.analysis
        )
    return aligned(sources / np.resize(config.windows.envelope, n_samples))


@register_phase("unwrapping")
@dataclass(frozen=True)
class Unwrapping(OfflinePhase):
    """Linear unwrapping: sinusoids between the onsets, impulses at them; offline only (`separate`).

    Parameters
    ----------
    onset : float
        As in `PUIter`.

    References
    ----------
    Magron, Badeau and David, EUSIPCO 2015.
    """

    onset: float = 0.5

    lookahead = None
    window_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_real("onset", self.onset, 0, 1)

    def phases(self, config: StreamConfig, magnitudes: np.ndarray) -> np.ndarray:
        """exp(i phase), referred to the start of the window, of one source; complex64, shaped like the magnitudes.

        `magnitudes` are real, (n_frames, n_bins).
        """
        n_frames, n_bins = magnitudes.shape
        span = -(-config.analysis // config.hop)
        state, unused = prepare_sinusoids(config, 1, weighted=True), np.zeros((2, n_bins), np.float32)
        values = np.ascontiguousarray(magnitudes[:, None], np.float32)
        phasors = np.zeros((n_frames, 1, 2, n_bins), np.float32)
        phasors[:, :, 0] = 1
        impulses = np.zeros((n_frames, n_bins))
        struck = np.zeros(n_frames, bool)
        for t in onset_frames(magnitudes, self.onset):
            places = impulse_places(magnitudes[t : t + span], config)
            for later in range(t, min(t + span, n_frames)):
                turns = np.cumsum(places - (later - t) * config.hop) - (places[0] - (later - t) * config.hop)
                impulses[later], struck[later] = -2 * np.pi * turns / config.n_fft, True
        for t in range(n_frames):
            if struck[t]:
                phasors[t, 0] = np.cos(impulses[t]), np.sin(impulses[t])
            elif t:
                advance_phasors(state, values[t], unused, 0, phasors[t - 1], phasors[t])
        return phasors[:, 0, 0] + 1j * phasors[:, 0, 1]

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources of one channel.

        Parameters
        ----------
        config : StreamConfig
        line : ndarray, float32, (n_samples,)
            Mixture; only its length counts. Frame t starts at sample `t * hop`.
        magnitudes : ndarray, float32, (n_frames, n_src, n_bins)
            Targets, not negative.

        Returns
        -------
        sources : ndarray, float32, (n_src, n_samples)
            Without the mixing error that the output stage shares.
        """
        phases = [self.phases(config, magnitudes[:, j]) for j in range(magnitudes.shape[1])]
        return overlapped(config, magnitudes * np.stack(phases, 1), line.size)
