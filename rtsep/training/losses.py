"""What the network is taught by."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from rtsep.estimators.learned import ONLINE_ITERATIONS
from rtsep.training.framing import N_FFT, SCALE, framing, magnitude_of
from rtsep.training.intelligibility import intelligibility
from rtsep.training.loudness import disturbance
from rtsep.training.network import Heads
from rtsep.training.recipe import Stage
from rtsep.training.spectral_loss import EVERY, compress, spectral_losses

N_ITER = 3  # of offline MISI in the loss: each costs as much as everything without
BEST_DB = 30.0  # SI-SDR beyond which there is nothing to learn
AUDIBLE = 1e-4  # power of a source over that of the mixture below which it counts as silent: -40 dB
TINY = 1e-8  # power against that of the mixture: -80 dB
UNHEARD = 0.02  # disturbance below which there is little to learn


class Losses(NamedTuple):
    """Of each mixture, (batch,)."""

    total: Tensor
    magnitude: Tensor
    complex: Tensor
    si_sdr: Tensor  # dB, mean over the sources that are not silent
    misi: Tensor  # dB
    omisi: Tensor  # dB
    perceptual: Tensor  # logarithm of the disturbance, mean over the talkers that are not silent
    estoi: Tensor  # mean over the same; 0 for those that speak for less than 0.4 s


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


def losses(heads: Heads, spectrum: Tensor, sources: Tensor, stage: Stage, distinct: Tensor | None = None) -> Losses:
    """Losses of a batch.

    Parameters
    ----------
    heads : Heads
        For the mixture of `sources`.
    spectrum : Tensor, complex64, (batch, n_frames, n_bins)
        Of the mixture, in the framing of the stage.
    sources : Tensor, float32, (batch, n_src, n_samples)
        Talkers, and last the residual.
    stage : Stage
        Framing, and weights of the losses.
    distinct : Tensor, bool, (batch,), optional
        Mixtures whose talkers belong to the heads in their order; none by default.

    Notes
    -----
    All is relative to the power of each mixture. Where talkers are not distinct, they are assigned to the heads by the
    least magnitude loss of the masks over the whole mixture; the residual is always last. SI-SDR counts sources that
    are not silent alone.

    The free choice alone (Kolbaek et al., IEEE/ACM Trans. Audio Speech Lang. Process. 25(10), 2017) leaves an untrained
    network for long where both heads say the same; an order that can be heard does not.

    Magnitudes are compressed to their fourth root: two square roots take a tenth of the time of the usual power of
    0.3, which would take longer than the network.
    """
    frames = framing(stage.hop_ms)
    with torch.no_grad():
        gain = (sources.sum(1).square().mean(-1) + 1e-12).rsqrt()[:, None, None]
        sources, spectrum = sources * gain, spectrum * gain
        some = spectrum[:, None, :, ::EVERY]
        size = magnitude_of(some)
        mixture = size / SCALE
        targets = frames.stft(sources, N_FFT // EVERY)
        sizes = magnitude_of(targets)
        wanted = compress(sizes / SCALE)
        if wanted.shape[1] > 2:
            order = best_order(compress(heads.masks[..., ::EVERY] * mixture), wanted, distinct)
            rows = torch.arange(len(order), device=order.device)[:, None]
            sources, targets = sources[rows, order], targets[rows, order]
            sizes, wanted = sizes[rows, order], wanted[rows, order]
        cosine = (some.real * targets.real + some.imag * targets.imag) / (size * sizes + TINY)
        towards = 2 * wanted * cosine
        audible = sources.square().mean(-1) > AUDIBLE

    total, magnitude, complex_loss = spectral_losses(
        heads.masks, heads.gains, mixture[:, 0], wanted, towards, (stage.magnitude, stage.complex)
    )

    def ratio(talkers: Tensor) -> Tensor:
        """SI-SDR of all sources, of which the last is what the talkers leave of the mixture."""
        scores = si_sdr(torch.cat([talkers, sources.sum(1, True) - talkers.sum(1, True)], 1), sources)
        return _mean(scores, audible)

    def signals(spectra: Tensor) -> Tensor:
        return frames.istft(spectra[:, :-1], sources.shape[-1])

    zero = sources.new_zeros(len(sources))
    mask_db = misi_db = omisi_db = perceptual = estoi = zero
    if stage.si_sdr or stage.perceptual or stage.estoi:
        heard = signals(share_error(heads.masks) * spectrum[:, None])
        mask_db = ratio(heard) if stage.si_sdr else zero
        if stage.perceptual:
            perceptual = _mean((disturbance(heard, sources[:, :-1]) + UNHEARD).log(), audible[:, :-1])
        if stage.estoi:
            estoi = _mean(intelligibility(heard, sources[:, :-1]), audible[:, :-1])
    if stage.misi or stage.omisi:
        magnitudes = heads.gains * magnitude_of(spectrum)[:, None]
    if stage.misi:
        misi_db = ratio(signals(frames.misi(spectrum, magnitudes, N_ITER)))
    if stage.omisi:
        omisi_db = ratio(signals(frames.omisi(spectrum, magnitudes, ONLINE_ITERATIONS)))
    total = total - stage.si_sdr * mask_db - stage.misi * misi_db - stage.omisi * omisi_db
    total = total + stage.perceptual * perceptual - stage.estoi * estoi
    return Losses(total, magnitude, complex_loss, mask_db, misi_db, omisi_db, perceptual, estoi)


def _mean(scores: Tensor, counts: Tensor) -> Tensor:
    """Over the sources that count, (batch,)."""
    return (scores * counts).sum(1) / counts.sum(1).clamp(min=1)


def best_order(estimate: Tensor, wanted: Tensor, distinct: Tensor | None = None) -> Tensor:
    """Which source each head is meant for, int64 (batch, n_src): the talkers with the least loss, the residual last.

    Both are compressed magnitudes, (batch, n_src, n_frames, n_bins). The order of mixtures that are `distinct`, bool
    (batch,), is left as it is.
    """
    n_src = estimate.shape[1]
    orders = torch.tensor([(*order, n_src - 1) for order in permutations(range(n_src - 1))], device=wanted.device)
    if len(orders) == 1:
        return orders.expand(len(estimate), -1)
    with torch.no_grad():
        costs = torch.stack([(estimate - wanted[:, order]).square().mean((1, 2, 3)) for order in orders])
    best = costs.argmin(0)
    return orders[best if distinct is None else best.masked_fill(distinct, 0)]
