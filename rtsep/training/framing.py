"""Spectra of signals in the framing of the engine, with gradients; and MISI on them, offline and online."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from rtsep.config import StreamConfig
from rtsep.training.expansion import CONFIG

TAIL = 0.1  # as in `rtsep.phase.misi.MISI`
ONLINE_TAIL = 0.03  # as in `rtsep.phase.omisi.OMISI`
FALLBACK = 1e-6  # of the mixture, which says the phase where the estimates cancel
WIN, N_FFT = CONFIG.analysis, CONFIG.n_fft
SCALE = float(np.sqrt(np.sum(CONFIG.windows.analysis**2)))  # magnitude of white noise of power one


class Framing:
    """Frames of 16 ms at 16 kHz, as a stream has them; by `framing(hop_ms)`.

    Attributes
    ----------
    config : StreamConfig
    """

    def __init__(self, hop_ms: int) -> None:
        self.config = StreamConfig.from_ms(CONFIG.sr, 1e3 * WIN / CONFIG.sr, hop_ms)
        self._hop, self._lead = self.config.hop, WIN - self.config.hop
        self._window = torch.from_numpy(self.config.windows.analysis.astype(np.float32))
        self._envelope = torch.from_numpy((1 / self.config.windows.envelope).astype(np.float32))

    def n_frames(self, n_samples: int) -> int:
        """Frames of a stream of so many samples, as `rtsep.separate` has them."""
        return -(-(n_samples + self._lead) // self._hop)

    def stft(self, x: Tensor, n_fft: int = N_FFT) -> Tensor:
        """Spectra of signals from the start of a stream: complex64 (..., n_frames, n_bins) for (..., n_samples)."""
        rest = self.n_frames(x.shape[-1]) * self._hop - x.shape[-1]
        return self._analyse(torch.nn.functional.pad(x, (self._lead, rest)), n_fft)

    def istft(self, spectra: Tensor, n_samples: int) -> Tensor:
        """Signals of spectra: the inverse of `stft`, float32 (..., n_samples)."""
        hops = self._overlap_add(spectra).unflatten(-1, (-1, self._hop))
        return (hops * self._envelope.to(hops.device)).flatten(-2)[..., self._lead : self._lead + n_samples]

    def misi(self, mixture: Tensor, magnitudes: Tensor, n_iter: int) -> Tensor:
        """MISI on the whole signal: the offline `misi` of the package, with gradients.

        Parameters
        ----------
        mixture : Tensor, complex64, (batch, n_frames, n_bins)
        magnitudes : Tensor, float32, (batch, n_src, n_frames, n_bins)
        n_iter : int
            0 is the amplitude mask with the mixing error distributed.

        Returns
        -------
        spectra : Tensor, complex64, (batch, n_src, n_frames, n_bins)
            They sum to the mixture.

        References
        ----------
        Gunawan and Sen, IEEE Signal Process. Lett. 17(5), 2010; trained through: Wang et al., "End-to-end speech
        separation with unfolded iterative phase reconstruction", Interspeech 2018.
        """
        x = mixture[:, None]
        inverse, _ = (part.to(mixture.device) for part in self._inverse_overlap(mixture.shape[1], TAIL))
        estimate = magnitudes * _unit(x)
        for _ in range(n_iter):
            estimate = estimate + (x - estimate.sum(1, keepdim=True)) / magnitudes.shape[1]
            estimate = magnitudes * _unit(self._analyse(self._overlap_add(estimate) * inverse))
        return estimate + (x - estimate.sum(1, keepdim=True)) / magnitudes.shape[1]

    def omisi(self, mixture: Tensor, magnitudes: Tensor, n_iter: int) -> Tensor:
        """Online MISI without look-ahead or gate: the `omisi` of the engine, with gradients through all frames.

        Parameters and result are those of `misi`.

        References
        ----------
        Magron and Virtanen, IEEE Signal Process. Lett. 27, 2020, section III, in the difference form
        (`rtsep.phase.difference`): to the last source, which is what the others leave of the mixture.
        """
        inverse, present = (part.to(mixture.device) for part in self._inverse_overlap(1, ONLINE_TAIL))
        window = self._window.to(mixture.device)
        analysis = window * inverse
        n_src = magnitudes.shape[1]
        target = torch.fft.rfft(torch.fft.irfft(mixture, N_FFT)[..., :WIN] * (present * inverse), N_FFT)
        masked = magnitudes * _unit(mixture[:, None])
        first = masked[:, :-1] - masked[:, -1:]
        past = torch.zeros(len(mixture), n_src - 1, WIN, device=mixture.device)
        frames = []
        parts = magnitudes.unbind(2), first.unbind(2), target.unbind(1), mixture.unbind(1)
        for size, estimate, t, x in zip(*parts, strict=True):
            for _ in range(n_iter):
                local = past + window * torch.fft.irfft(estimate, N_FFT)[..., :WIN]
                analysed = torch.fft.rfft(local * analysis, N_FFT)
                last = ((t - analysed.sum(1)) / n_src + FALLBACK * x)[:, None]
                estimate = size[:, :-1] * _unit(last + analysed) - size[:, -1:] * _unit(last)
            local = past + window * torch.fft.irfft(estimate, N_FFT)[..., :WIN]
            past = torch.nn.functional.pad(local[..., self._hop :], (0, self._hop))
            frames.append(estimate)
        differences = torch.stack(frames, 2)
        last = (mixture[:, None] - differences.sum(1, keepdim=True)) / n_src
        return torch.cat([last + differences, last], 1)

    def _inverse_overlap(self, n_frames: int, tail: float) -> tuple[Tensor, Tensor]:
        """What the local signal of `n_frames` is analysed with, over the window; and the overlap that is there."""
        complete, present = self.config.windows.overlaps(n_frames)
        overlap = present + tail * (complete - present)
        inverse = np.divide(1, overlap, out=np.zeros(overlap.size), where=overlap > 1e-6 * complete)
        return torch.from_numpy(inverse.astype(np.float32)), torch.from_numpy(present.astype(np.float32))

    def _analyse(self, line: Tensor, n_fft: int = N_FFT) -> Tensor:
        return torch.fft.rfft(line.unfold(-1, WIN, self._hop) * self._window.to(line.device), n_fft)

    def _overlap_add(self, spectra: Tensor) -> Tensor:
        """Sum of windowed frames, (..., lead + n_frames * hop)."""
        frames = torch.fft.irfft(spectra, N_FFT)[..., :WIN] * self._window.to(spectra.device)
        parts = frames.unflatten(-1, (WIN // self._hop, self._hop))
        late = WIN // self._hop - 1
        shifted = [torch.nn.functional.pad(parts[..., i, :], (0, 0, i, late - i)) for i in range(late + 1)]
        return torch.stack(shifted).sum(0).flatten(-2)


@cache
def framing(hop_ms: int) -> Framing:
    """The framing with a hop of 4 or 8 ms."""
    return Framing(hop_ms)


def power_of(spectrum: Tensor) -> Tensor:
    """Squared magnitudes."""
    return spectrum.real.square() + spectrum.imag.square()


def magnitude_of(z: Tensor) -> Tensor:
    """|z|, in a fifth of the time of `z.abs()`, and without its care for overflow."""
    return power_of(z).sqrt()


def _unit(z: Tensor) -> Tensor:
    """exp(i phase), with a gradient that stays finite where a spectrum vanishes."""
    size = (power_of(z) + 1e-12).sqrt()
    return torch.complex(z.real / size, z.imag / size)
