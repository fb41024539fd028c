"""Frames of a stream as a phase recovery gets them, hop by hop."""

from __future__ import annotations

import numpy as np

from rtsep import StreamConfig
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.line import prepare_line, take_in


class Frames:
    """Turns a hop (n_channels, hop) into newest spectra, power and line."""

    def __init__(self, config: StreamConfig, lookahead: int = 0) -> None:
        self.line = prepare_line(config.n_channels, config.analysis + lookahead * config.hop)
        self.analysis = prepare_analysis(config)

    def __call__(self, hop_in: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        take_in(self.line, hop_in)
        analyse(self.analysis, self.line.samples)
        return self.analysis.mixture, self.analysis.power, self.line.samples
