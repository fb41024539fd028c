"""The search: which atoms, within what the flows know, and how much of each, add up to a mixture.

With V the levels of the mixture, D(Z) the atoms that the flows make of the codes Z, and A >= 0 the activations,

    || V - D(Z) A ||_F - weight * sum_k w_k log N(z_k; 0, 1) / dim,

w_k the part of the activations that is of atom k, is made small by a step along the gradient for A, of the first term
alone, then one for Z, and so on. Constants of the likelihood are left out. The norm is not squared, as in the code that
was released with the paper; `squared` does what its text says. DDS-1 has an atom for each source in every frame, DDS-2
and DDS-3 some of each source for all frames, and NMF, which searches for A alone, all frames that were learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rtsep.config import ConfigError, StreamConfig, check_int, check_real, check_type
from rtsep.dds.model import SourceModel, check_method
from rtsep.dds.spectra import compress, expand
from rtsep.engine.protocols import WholeEstimator
from rtsep.notes import find_notes

N_ATOMS = 10  # for each source; the paper has 20
N_ITER = 300
LEARNING_RATE = 0.005  # the paper has 1e-3, and five times as many iterations
PRIOR = 100.0  # the released code has 1e-4: docs/decompose.md has both
SLOWER, WAIT = 0.5, 30  # learning rate after so many iterations without a better loss
STOP = 100  # iterations without a better loss
BETTER = 1e-4  # relative: less is no better
EPS = 1e-3
MAX_MEMORY = 4_000_000_000  # bytes

Told = Callable[[int, int, float], None]  # iterations done, iterations in all, loss
Steps = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What a search has found.

    Attributes
    ----------
    method : str
    sources : tuple of str
    times : ndarray, float64, (n_frames,)
        Middle of each frame in seconds.
    activations : ndarray, float64, (n_src, n_frames)
        Of every source, in the unit of the mixture: each atom's times its norm, summed.
    dictionary : ndarray, float32
        Atoms, levels: (n_bins, n_atoms), those of the first source first; of DDS-1 (n_bins, n_src, n_frames).
    atoms : tuple of int
        How many of them each source has.
    atom_activations : ndarray, float32
        (n_atoms, n_frames), of DDS-1 (n_src, n_frames), as the mixture is composed of the atoms.
    losses : ndarray, float64
        Before each iteration.
    unexplained : float
        Norm of what is left of the mixture, 1 for all of it.
    n_bins : int
        Of the frames of the mixture, whole.
    """

    method: str
    sources: tuple[str, ...]
    times: np.ndarray
    activations: np.ndarray
    dictionary: np.ndarray
    atoms: tuple[int, ...]
    atom_activations: np.ndarray
    losses: np.ndarray
    unexplained: float

    @property
    def active(self) -> tuple[str, ...]:
        """Sources that have notes, as `rtsep.notes.find_notes` finds them; if none has, the loudest."""
        found = {note.source for note in find_notes(self.activations, self.times, self.sources)}
        found = found or {self.sources[int(self.activations.max(1).argmax())]}
        return tuple(name for name in self.sources if name in found)

    def parts(self) -> np.ndarray:
        """Levels that each source is found to have: float32 (n_src, n_bins, n_frames)."""
        if self.dictionary.ndim == 3:
            return (self.dictionary * self.atom_activations).transpose(1, 0, 2)
        edges = pairwise(np.cumsum([0, *self.atoms]))
        return np.stack([self.dictionary[:, a:b] @ self.atom_activations[a:b] for a, b in edges])

    def estimator(self, sources: tuple[str, ...] | None = None) -> WholeEstimator:
        """Shares of some sources, by default the active ones, in every bin of the mixture: for `rtsep.separate`.

        With the configuration of the model, `SourceModel.spectra.config`. Above the band of the model, every source has
        its share of the frame.
        """
        return _Shares(self, self.active if sources is None else sources)


class _Shares(WholeEstimator):
    """The mixture in proportion to what was found of each source."""

    phase = "mixture"
    name = "decomposition"

    def __init__(self, found: Decomposition, sources: tuple[str, ...]) -> None:
        self.sources = sources
        rows = [found.sources.index(name) for name in sources]
        parts = expand(found.parts()[rows])
        whole = parts.sum(0)
        frame = parts.sum(1) / np.maximum(whole.sum(0), 1e-30)  # (n_src, n_frames)
        frame[:, whole.sum(0) == 0] = 1 / len(rows)
        known = np.where(whole > 0, parts / np.maximum(whole, 1e-30), frame[:, None])
        self.shares, self.above = known.transpose(2, 0, 1), frame.T

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        n_frames, n_known = len(power), self.shares.shape[2]
        if n_frames != len(self.shares):
            raise ConfigError(f"the mixture has {n_frames} frames, what was decomposed {len(self.shares)}")
        shares = np.repeat(self.above[:, :, None], power.shape[1], 2)
        shares[:, :, 1 : 1 + n_known] = self.shares
        shares[:, :, 0] = shares[:, :, 1]
        return shares * np.sqrt(power)[:, None]


def dictionary_search(
    x: np.ndarray,
    sr: int,
    model: SourceModel,
    method: str | None = None,
    *,
    n_atoms: int = N_ATOMS,
    n_iter: int = N_ITER,
    learning_rate: float = LEARNING_RATE,
    prior: float = PRIOR,
    squared: bool = False,
    seed: int = 0,
    progress: Told | None = None,
) -> Decomposition:
    """Decompose a mixture into the sources of a model.

    Parameters
    ----------
    x : ndarray, real, (n_samples,) or (n_channels, n_samples)
        Mixture, of any level; the channels are heard together.
    sr : int
        Rate in Hz: that of the model.
    model : SourceModel
        From `rtsep.dds.learn_signals` or `rtsep.dds.read_model`.
    method : str, optional
        "nmf", "dds1", "dds2" or "dds3". Default: what the model was learned for.
    n_atoms : int
        For each source, of DDS-2 and DDS-3, 1 to 200.
    n_iter : int
        Iterations at most, 1 to 100000; fewer if the loss has long been no better.
    learning_rate : float
        Of Adam, at the start; halved where the loss stays.
    prior : float
        Weight of the likelihood of the codes.
    squared : bool
        Square the norm.
    seed : int
        Of the first activations.
    progress : callable, optional
        Called with iterations done, iterations in all and the loss.

    Returns
    -------
    Decomposition
        The best that was found.

    Raises
    ------
    ConfigError
        For another rate, audio that is silent or not finite, and settings that cannot work.

    Notes
    -----
    Not real-time safe: minutes for a chord with flows of the size of the paper.
    """
    check_type("model", model, SourceModel)
    method = check_method(model, method)
    if sr != model.spectra.sr:
        raise ConfigError(f"the model is for {model.spectra.sr} Hz; {sr=}")
    check_int("n_atoms", n_atoms, 1, 200)
    check_int("n_iter", n_iter, 1, 100_000)
    check_int("seed", seed, 0, 2**31 - 1)
    check_real("learning_rate", learning_rate, 1e-6, 1)
    check_real("prior", prior, 0, 1e6)
    _check_memory(model, method, n_atoms, np.shape(x)[-1] if np.ndim(x) else 0)
    magnitudes = model.spectra.magnitudes(x)
    if not magnitudes.any():
        raise ConfigError(f"nothing can be heard up to {model.spectra.band_hz:g} Hz")
    v = torch.from_numpy(compress(magnitudes / magnitudes.max()))
    n_src, n_frames = len(model.sources), v.shape[1]
    random = torch.Generator().manual_seed(seed)
    codes, decode = None, None
    if method == "nmf":
        atoms = torch.from_numpy(np.concatenate(model.frames, 1))
        counts = tuple(frames.shape[1] for frames in model.frames)
        h = torch.ones(atoms.shape[1], n_frames)
    else:
        counts = (1 if method == "dds1" else n_atoms,) * n_src
        n = n_frames if method == "dds1" else n_atoms
        codes, decode = torch.zeros(n_src, n, model.n_free), model.decode
        h = torch.rand(n_src if method == "dds1" else n_src * n_atoms, n_frames, generator=random)
        with torch.no_grad():
            # Atoms that start equal would stay so.
            codes += 0.01 * torch.randn(codes.shape, generator=random)
            atoms = _arranged(decode(codes), method)
    found = alternate(
        v,
        atoms,
        h * v.mean() / compose(atoms, h).mean(),
        codes,
        (lambda z: _arranged(decode(z), method)) if decode else None,
        n_iter=n_iter,
        prior=prior,
        squared=squared,
        steps=lambda values: torch.optim.Adam(values, learning_rate),
        progress=progress,
    )
    atoms, h, losses = found
    size = (atoms.norm(dim=0) * h) if method == "dds1" else atoms.norm(dim=0)[:, None] * h
    activations = torch.stack([rows.sum(0) for rows in size.split(counts)]).double().numpy()
    left = float((v - compose(atoms, h)).norm() / v.norm())
    if not (np.isfinite(activations).all() and np.isfinite(left)):
        raise ConfigError(
            f"the search has diverged after {len(losses)} iterations: a lower learning_rate, or another model"
        )
    times = model.spectra.times(n_frames)
    return Decomposition(
        method, model.sources, times, activations, atoms.numpy(), counts, h.numpy(), np.array(losses), left
    )


def compose(atoms: Tensor, h: Tensor) -> Tensor:
    """The mixture (n_bins, n_frames) of atoms (n_bins, n_atoms) or, in each frame, (n_bins, n_src, n_frames)."""
    return atoms @ h if atoms.dim() == 2 else (atoms * h).sum(1)


def alternate(
    v: Tensor,
    atoms: Tensor,
    h: Tensor,
    codes: Tensor | None,
    decode: Callable[[Tensor], Tensor] | None,
    *,
    n_iter: int,
    prior: float,
    squared: bool,
    steps: Steps,
    progress: Told | None = None,
) -> tuple[Tensor, Tensor, list[float]]:
    """Alternating steps along the gradients for activations and codes, the former projected to what is not negative.

    Parameters
    ----------
    v : Tensor, (n_bins, n_frames)
    atoms : Tensor
        As for `compose`: the dictionary, or what `codes` decode to.
    h : Tensor, (n_atoms, n_frames)
        First activations.
    codes, decode : Tensor and callable, or None for a fixed dictionary
        First codes (n_src, n, n_free), and what makes atoms of them.
    n_iter, prior, squared, progress
        As for `dictionary_search`.
    steps : callable
        Makes the optimizer of some tensors.

    Returns
    -------
    atoms, h : Tensor
        Where the loss was lowest.
    losses : list of float
    """
    h = h.clone().requires_grad_()
    optimizers = [steps([h])]
    if codes is not None:
        codes = codes.clone().requires_grad_()
        optimizers.append(steps([codes]))
    plateaus = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=SLOWER, patience=WAIT, threshold=BETTER)
        for o in optimizers
    ]

    def loss_of(atoms: Tensor, h: Tensor) -> Tensor:
        error = (v - compose(atoms, h)).norm()
        return error**2 if squared else error

    best, since, losses = (atoms, h.detach().clone(), float("inf")), 0, []
    for i in range(n_iter):
        if codes is not None and decode is not None:
            atoms = decode(codes)
        with torch.no_grad():
            before = h.clone()
        fit = loss_of(atoms.detach(), h)
        optimizers[0].zero_grad()
        fit.backward()
        optimizers[0].step()
        with torch.no_grad():
            h.clamp_(min=0)
        loss = fit.item()
        if codes is not None:
            total = loss_of(atoms, h.detach())
            if prior:
                unlikely = (codes**2).mean(2) / 2
                total = total + prior * (_weights(h.detach(), atoms, codes) * unlikely).sum()
                with torch.no_grad():
                    loss += prior * float((_weights(before, atoms, codes) * unlikely).sum())
            optimizers[1].zero_grad()
            total.backward()
            optimizers[1].step()
        losses.append(loss)
        since += 1
        if loss < best[2] * (1 - BETTER) or not losses[1:]:
            since = 0
        if loss < best[2]:
            best = (atoms.detach(), before, loss)
        for plateau in plateaus:
            plateau.step(loss)
        if progress:
            progress(i + 1, n_iter, loss)
        if since > STOP:
            break
    return best[0], best[1], losses


def _weights(h: Tensor, atoms: Tensor, codes: Tensor) -> Tensor:
    """How much of all frames each atom is, (n_src, n), from activations."""
    share = h / (h.sum(0) + EPS)
    return share if atoms.dim() == 3 else share.sum(1).reshape(codes.shape[:2])


def _arranged(spectra: Tensor, method: str) -> Tensor:
    """Atoms as `compose` takes them, from spectra (n_src, n, n_bins)."""
    if method == "dds1":
        return spectra.permute(2, 0, 1)
    return spectra.reshape(-1, spectra.shape[2]).T


def _check_memory(model: SourceModel, method: str, n_atoms: int, n_samples: int) -> None:
    """Refuse what would not fit into the memory, roughly: what every step of a flow keeps for its gradient."""
    n_frames = n_samples // model.spectra.config.hop + 4
    if model.flow is None:
        needed = 4 * 6 * n_frames * sum(frames.shape[1] for frames in model.frames)
    else:
        shape = model.flow.shape
        decoded = len(model.sources) * (n_frames if method == "dds1" else n_atoms)
        needed = 4 * decoded * shape.n_steps * (8 * shape.n_features + 2 * shape.depth * shape.width)
    if needed > MAX_MEMORY:
        seconds = n_samples / model.spectra.sr
        raise ConfigError(
            f"{method} would need about {needed / 1e9:.1f} GB for {seconds:.0f} s, more than "
            f"{MAX_MEMORY / 1e9:.0f} GB; use a shorter piece" + (" or dds2" if method == "dds1" else "")
        )
