"""Phases that an estimator has found itself: its spectra become sound, nothing is recovered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.protocols import OfflinePhase


@dataclass(frozen=True)
class OwnPhases(OfflinePhase):
    """What estimators of complex spectra are heard with (`SpectraEstimator`). Has no name: nothing else fits it."""

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources (n_src, n_samples) of one channel, of spectra, complex (n_frames, n_src, n_bins)."""
        n_frames, n_src, _ = magnitudes.shape
        kept = slice(config.analysis - config.synthesis, config.analysis)
        out = np.zeros((n_src, max(line.size, n_frames * config.hop + config.analysis)))
        for t, frame in enumerate(magnitudes):
            waves = np.fft.irfft(frame, config.n_fft)[:, kept] * config.windows.synthesis
            start = t * config.hop + kept.start
            out[:, start : start + config.synthesis] += waves
        # Counted from the first sample of a synthesis window, the envelope repeats with every hop.
        envelope = np.resize(np.roll(config.windows.envelope, kept.start % config.hop), out.shape[1])
        return (out / envelope)[:, : line.size]
