"""What the network is taught by: spectra in the framing of the engine, and the losses on them."""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rtsep.phase.window import overlaps
from rtsep.training.network import CONFIG, Heads
from rtsep.training.recipe import Stage

QUIET = 1e-4  # magnitude against that of the mixture where compression ends: -80 dB
OVER_SUPPRESSION = 2.0  # weight of squared errors where speech is estimated too small
N_ITER = 3  # of phase recovery in the loss: each costs as much as everything without
TAIL = 0.1  # as in `rtsep.phase.misi.MISI`
BEST_DB = 30.0  # SI-SDR beyond which there is nothing to learn
AUDIBLE = 1e-4  # power of a source over that of the mixture below which it counts as silent: -40 dB
EVERY = 2  # bins: with a window of half the FFT length the others tell hardly more, and take as long
TINY = 1e-8  # power against that of the mixture: -80 dB

HOP, WIN, N_FFT = CONFIG.hop, CONFIG.win_length, CONFIG.n_fft
LEAD = WIN - HOP  # zeros before the stream
SCALE = float(np.sqrt(np.sum(CONFIG.window**2)))  # magnitude of white noise of power one


class Losses(NamedTuple):
    """Of each mixture, (batch,)."""

    total: Tensor
    magnitude: Tensor
    complex: Tensor
    si_sdr: Tensor  # dB, mean over the sources that are not silent
    misi: Tensor  # dB


@cache
def _window() -> Tensor:
    return torch.from_numpy(CONFIG.window.astype(np.float32))


@cache
def _inverse_overlap(n_frames: int) -> Tensor:
    """What `rtsep.phase.window` analyses with, over the window: 1 / overlap at each sample."""
    complete, present = overlaps(CONFIG, n_frames)
    overlap = present + TAIL * (complete - present)
    inverse = np.divide(1, overlap, out=np.zeros(overlap.size), where=overlap > 1e-6 * complete)
    return torch.from_numpy(inverse.astype(np.float32))


def n_frames_of(n_samples: int) -> int:
    """Frames of a stream of so many samples, as `rtsep.separate` has them."""
    return -(-(n_samples + LEAD) // HOP)


def stft(x: Tensor, n_fft: int = N_FFT) -> Tensor:
    """Spectra of signals from the start of a stream: complex64 (..., n_frames, n_bins) for (..., n_samples)."""
    n_frames = n_frames_of(x.shape[-1])
    return _analyse(torch.nn.functional.pad(x, (LEAD, n_frames * HOP - x.shape[-1])), n_fft)


def istft(spectra: Tensor, n_samples: int) -> Tensor:
    """Signals of spectra: the inverse of `stft`, float32 (..., n_samples)."""
    envelope = torch.from_numpy((1 / CONFIG.envelope).astype(np.float32))
    x = _overlap_add(spectra)
    return (x.unflatten(-1, (-1, HOP)) * envelope).flatten(-2)[..., LEAD : LEAD + n_samples]


def _analyse(line: Tensor, n_fft: int = N_FFT) -> Tensor:
    return torch.fft.rfft(line.unfold(-1, WIN, HOP) * _window(), n_fft)


def _overlap_add(spectra: Tensor) -> Tensor:
    """Sum of windowed frames, (..., LEAD + n_frames * HOP)."""
    frames = torch.fft.irfft(spectra, N_FFT)[..., :WIN] * _window()
    parts = frames.unflatten(-1, (WIN // HOP, HOP))
    late = WIN // HOP - 1
    shifted = [torch.nn.functional.pad(parts[..., i, :], (0, 0, i, late - i)) for i in range(late + 1)]
    return torch.stack(shifted).sum(0).flatten(-2)


def misi(mixture: Tensor, magnitudes: Tensor, n_iter: int) -> Tensor:
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
    inverse = _inverse_overlap(mixture.shape[1])
    estimate = magnitudes * _unit(x)
    for _ in range(n_iter):
        estimate = estimate + (x - estimate.sum(1, keepdim=True)) / magnitudes.shape[1]
        estimate = magnitudes * _unit(_analyse(_overlap_add(estimate) * inverse))
    return estimate + (x - estimate.sum(1, keepdim=True)) / magnitudes.shape[1]


def magnitude_of(z: Tensor) -> Tensor:
    """|z|, in a fifth of the time of `z.abs()`, and without its care for overflow."""
    return (z.real.square() + z.imag.square()).sqrt()


def _unit(z: Tensor) -> Tensor:
    """exp(i phase), with a gradient that stays finite where a spectrum vanishes."""
    size = (z.real.square() + z.imag.square() + 1e-12).sqrt()
    return torch.complex(z.real / size, z.imag / size)


def share_error(gains: Tensor) -> Tensor:
    """Gains (batch, n_src, ...) as the output stage makes them: what is missing to one is shared."""
    return gains + (1 - gains.sum(1, keepdim=True)) / gains.shape[1]


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB over the last axis, finite for any input, at most 30 dB."""
    energy = target.square().sum(-1)
    projection = (estimate * target).sum(-1, keepdim=True) / (energy[..., None] + TINY) * target
    wanted, error = projection.square().sum(-1), (estimate - projection).square().sum(-1)
    floor = TINY * target.shape[-1]
    return 10 * torch.log10((wanted + floor) / (error + 10 ** (-BEST_DB / 10) * wanted + floor))


def losses(heads: Heads, spectrum: Tensor, sources: Tensor, stage: Stage) -> Losses:
    """Losses of a batch.

    Parameters
    ----------
    heads : Heads
        For the mixture of `sources`.
    spectrum : Tensor, complex64, (batch, n_frames, n_bins)
        Of the mixture.
    sources : Tensor, float32, (batch, n_src, n_samples)
        Talkers, and last the residual.
    stage : Stage
        Weights of the losses.

    Notes
    -----
    All is relative to the power of each mixture. Talkers are assigned to the heads by the least magnitude loss of the
    masks over the whole mixture; the residual is always last. SI-SDR counts sources that are not silent alone.

    Magnitudes are compressed to their fourth root: two square roots take a tenth of the time of the usual power of
    0.3, which would take longer than the network.
    """
    with torch.no_grad():
        gain = (sources.sum(1).square().mean(-1) + 1e-12).rsqrt()[:, None, None]
        sources, spectrum = sources * gain, spectrum * gain
        some = spectrum[:, None, :, ::EVERY]
        size = magnitude_of(some)
        mixture = size / SCALE
        targets = stft(sources, N_FFT // EVERY)
        sizes = magnitude_of(targets)
        wanted = _compress(sizes / SCALE)
        order = best_order(_compress(heads.masks[..., ::EVERY] * mixture), wanted)
        if order.shape[1] > 2:
            rows = torch.arange(len(order))[:, None]
            sources, targets = sources[rows, order], targets[rows, order]
            sizes, wanted = sizes[rows, order], wanted[rows, order]
        # Twice the wanted magnitudes times the cosine of the angle between mixture and source.
        towards = 2 * wanted * (some * targets.conj()).real / (size * sizes + TINY)
        audible = sources.square().mean(-1) > AUDIBLE

    masks, gains = heads.masks[..., ::EVERY], heads.gains[..., ::EVERY]
    magnitude = _lopsided(_compress(masks * mixture) - wanted) + _lopsided(_compress(gains * mixture) - wanted)
    # What is heard: the mask after the output stage, at the phase of the mixture.
    output = _compress(share_error(masks).clamp(min=0) * mixture)
    complex_loss = (output * (output - towards) + wanted.square()).mean((1, 2, 3))

    def ratio(spectra: Tensor) -> Tensor:
        talkers = istft(spectra[:, :-1], sources.shape[-1])
        # The spectra sum to the mixture.
        scores = si_sdr(torch.cat([talkers, sources.sum(1, True) - talkers.sum(1, True)], 1), sources)
        return (scores * audible).sum(1) / audible.sum(1).clamp(min=1)

    zero = torch.zeros(len(sources))
    mask_db = ratio(share_error(heads.masks) * spectrum[:, None]) if stage.si_sdr else zero
    misi_db = ratio(misi(spectrum, heads.gains * magnitude_of(spectrum)[:, None], N_ITER)) if stage.misi else zero
    total = stage.magnitude * magnitude + stage.complex * complex_loss - stage.si_sdr * mask_db - stage.misi * misi_db
    return Losses(total, magnitude, complex_loss, mask_db, misi_db)


def best_order(estimate: Tensor, wanted: Tensor) -> Tensor:
    """Which source each head is meant for, int64 (batch, n_src): the talkers with the least loss, the residual last.

    Both are compressed magnitudes, (batch, n_src, n_frames, n_bins).
    """
    n_src = estimate.shape[1]
    orders = torch.tensor([(*order, n_src - 1) for order in permutations(range(n_src - 1))])
    if len(orders) == 1:
        return orders.expand(len(estimate), -1)
    with torch.no_grad():
        costs = [(estimate - wanted[:, order]).square().mean((1, 2, 3)) for order in orders]
    return orders[torch.stack(costs).argmin(0)]


def _compress(size: Tensor) -> Tensor:
    """Fourth root of magnitudes, with a finite slope at zero."""
    return (size + QUIET).sqrt().sqrt()


def _lopsided(error: Tensor) -> Tensor:
    """Mean squared error of each mixture, twice as much where a talker is estimated too small; (batch,)."""
    too_small = error[:, :-1].clamp(max=0)
    return (error.square().sum((1, 2, 3)) + (OVER_SUPPRESSION - 1) * too_small.square().sum((1, 2, 3))) / error[
        0
    ].numel()
