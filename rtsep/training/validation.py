"""What a network is worth on mixtures that it has not learned from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rtsep.estimators.learned import ONLINE_ITERATIONS
from rtsep.evaluation.checks import ScoreError
from rtsep.evaluation.perceptual import estoi, pesq
from rtsep.training.corpus import SR
from rtsep.training.framing import framing, magnitude_of
from rtsep.training.losses import N_ITER, best_order, share_error, si_sdr
from rtsep.training.network import Network

HOP_MS = 4  # of the engine
PESQ_DB, ESTOI_DB = 10.0, 60.0  # of SI-SDR, for 1 of each: about what separates good estimators from each other
SILENCE_DB = 0.2  # of SI-SDR, for 1 dB less of others where a talker is silent
LEAST_DB = -40.0  # less of others is not heard


class Scores(NamedTuple):
    """Means over the validation mixtures: improvement of the talkers, SI-SDR in dB but for the last three.

    Those are of the masks, and None where they were not asked for or, for the last, nobody is enrolled and silent.
    """

    mask: float  # masks, phase of the mixture
    magnitudes: float  # magnitudes, phase of the mixture
    misi: float  # magnitudes, after offline MISI
    omisi: float  # magnitudes, after online MISI as the engine runs it, but for its gate
    pesq: float | None = None
    estoi: float | None = None
    silence: float | None = None  # dB: what is left of the mixture where whom it listens to is silent

    @property
    def heard(self) -> float:
        """By default (`rtsep.estimators.learned`)."""
        return max(self.mask, self.omisi)

    @property
    def all(self) -> float:
        """The masks by all three measures, in dB."""
        return self.mask + PESQ_DB * (self.pesq or 0) + ESTOI_DB * (self.estoi or 0)

    @property
    def told(self) -> float:
        """The masks where the talker speaks and where not, in dB."""
        return self.mask - SILENCE_DB * (self.silence or 0)

    @property
    def measured(self) -> dict[str, float]:
        """Those that are there, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def validate(
    network: Network,
    sources: Tensor,
    pool: ThreadPoolExecutor,
    listening: bool = False,
    enrolled: Tensor | None = None,
) -> Scores:
    """Improvements on mixtures, each in its best order of the talkers.

    Parameters
    ----------
    network : Network
    sources : Tensor, float32, (n_mixtures, n_src, n_samples)
        Talkers, and last the residual. Silent talkers, and talkers alone, do not count; there must be others.
    pool : ThreadPoolExecutor
    listening : bool
        Whether PESQ and ESTOI are measured, too, which takes a second for three mixtures (extra ``eval``).
    enrolled : Tensor, float32, (n_mixtures, n_frames, n_features), optional
        What the talkers are known by.
    """
    voices = [None] * len(sources.split(4)) if enrolled is None else enrolled.split(4)
    parts = list(pool.map(lambda part, voice: _improvements(network, part, voice), sources.split(4), voices))
    scores = Scores(*(float(value) for value in torch.cat([part[0] for part in parts], 1).mean(1)))
    left = torch.cat([part[3] for part in parts])
    if enrolled is not None and len(left):
        scores = scores._replace(silence=float(left.mean()))
    if listening:
        heard, signals = (torch.cat([part[i] for part in parts]).cpu().numpy() for i in (1, 2))
        scores = scores._replace(pesq=_gain(pesq, heard, signals), estoi=_gain(estoi, heard, signals))
    return scores


def _gain(score: Callable[..., float], heard: np.ndarray, signals: np.ndarray) -> float:
    """Mean improvement of talkers `heard` (n, n_samples); `signals` (n, 2, n_samples) are they and their mixtures."""
    gains = []
    for estimate, (talker, mixture) in zip(heard, signals, strict=True):
        try:
            gains.append(score(talker, estimate, SR) - score(talker, mixture, SR))
        except ScoreError:  # too little of it is speech
            continue
    return float(np.mean(gains)) if gains else 0.0


def _improvements(network: Network, sources: Tensor, enrolled: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In dB (4, n) of the talkers that count; what is heard of them by masks, and them with their mixtures.

    Last what is heard of silent ones by masks, in dB against their mixtures: (n_silent,).
    """
    torch.set_num_threads(1)
    with torch.no_grad():
        mixture, talkers = sources.sum(1), sources[:, :-1]
        n = mixture.shape[-1]
        frames = framing(HOP_MS)
        spectrum = frames.stft(mixture)
        heads = network(spectrum, network.shape.hop_ms // HOP_MS, enrolled)
        size = magnitude_of(spectrum)[:, None]
        order = best_order((heads.masks * size).sqrt(), magnitude_of(frames.stft(sources)).sqrt())[:, :-1]
        talkers = talkers[torch.arange(len(order), device=order.device)[:, None], order]
        heard = (
            frames.istft(share_error(heads.masks) * spectrum[:, None], n),
            frames.istft(share_error(heads.gains) * spectrum[:, None], n),
            frames.istft(frames.misi(spectrum, heads.gains * size, N_ITER), n),
            frames.istft(frames.omisi(spectrum, heads.gains * size, ONLINE_ITERATIONS), n),
        )
        scale = mixture.square().mean(-1).clamp(min=1e-12).rsqrt()[:, None, None]
        after = torch.stack([si_sdr(x[:, :-1] * scale, talkers * scale) for x in heard])
        first, counts = of_mixtures(mixture, talkers)
        signals = torch.stack([talkers, mixture[:, None].expand_as(talkers)], 2)
        masked, silent = heard[0][:, :-1], ~talkers.any(-1)
        left = (masked * scale).square().mean(-1)[silent].log10().mul(10).clamp(min=LEAST_DB)
        return (after - first)[:, counts], masked[counts], signals[counts], left


def of_mixtures(mixture: Tensor, talkers: Tensor) -> tuple[Tensor, Tensor]:
    """SI-SDR of the mixture, (n_mixtures, n_talkers), and which talkers count: not silent ones, nor those alone."""
    scale = mixture.square().mean(-1).clamp(min=1e-12).rsqrt()[:, None, None]
    first = si_sdr((mixture[:, None] * scale).expand_as(talkers), talkers * scale)
    power = (talkers * scale).square().mean(-1)
    return first, (power > 1e-4) & (first < 25)
