"""Learning flows from recordings of every source alone, by maximum likelihood.

DDS-1 and DDS-2 have a flow for each source. DDS-3 has one for all, whose first codes are to be the label y (one for the
source, zero for the others) and whose other codes are to tell nothing of it:

    loss = |z_y - y|^2 / (2 s^2) - log N(z_rest; 0, 1) - log |det| - i CE(y; C(z_rest)),

with a classifier C, which is trained at the same time to tell the source from the other codes: the independence
cross-entropy of J.-H. Jacobsen, J. Behrmann, R. Zemel, M. Bethge, "Excessive invariance causes adversarial
vulnerability", ICLR 2019, with the squared error on the labels in place of their cross-entropy (Martak et al., 2022).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor, nn

from rtsep.audio_files import FileError, read_audio
from rtsep.config import ConfigError, check_choice, check_int
from rtsep.dds.flows import Flow, FlowShape, log_normal
from rtsep.dds.model import METHODS, SEARCHES, SourceModel
from rtsep.dds.spectra import Spectra, compress
from rtsep.engine.registry import check_sources

BAND_HZ = 4000.0
QUIET_DB = 40.0  # frames so far below the loudest of their recording teach nothing
HELD_OUT = 5  # every fifth recording is for validation; of fewer, every fifth frame
LEAST_FRAMES = 10
LABEL_SPREAD = 0.1  # s above
INDEPENDENCE = 1.0  # i above
NOISE = 0.01  # added to levels in training, so that bins which never change do not have infinite likelihood
LARGEST_GRADIENT = 100.0
PATIENCE = 0.3  # of all epochs, without a better validation

Told = Callable[[int, int, float], Any]  # epochs done, epochs in all, validation NLL of a feature; true ends it


class Size(NamedTuple):
    """What a flow is like and how long it learns."""

    n_steps: int
    depth: int
    width: int
    lr: float
    batch: int
    epochs: int


SIZES = {  # those of the paper are larger: see PAPER
    "dds1": Size(6, 2, 64, 1e-3, 64, 60),
    "dds3": Size(6, 2, 192, 5e-4, 128, 30),
}
PAPER = {"dds1": Size(16, 4, 128, 1e-3, 512, 2500), "dds3": Size(32, 3, 1024, 1e-5, 512, 2500)}
PAPER_BAND_HZ = 8000.0


def size_of(method: str, paper: bool = False) -> Size:
    """The size for a method: DDS-1 and DDS-2 share theirs."""
    return (PAPER if paper else SIZES)["dds3" if method == "dds3" else "dds1"]


def learn_sources(
    recordings: Mapping[str, Sequence[Path]],
    method: str = "dds3",
    *,
    sr: int | None = None,
    band_hz: float | None = None,
    paper: bool = False,
    epochs: int | None = None,
    seed: int = 0,
    resume: SourceModel | None = None,
    progress: Told | None = None,
) -> SourceModel:
    """Learn what sources are made of, from files; see `learn_signals`.

    Parameters
    ----------
    recordings : mapping of str to sequence of Path
        Names of the sources, at least two, and audio files of each alone.
    sr : int, optional
        Rate in Hz to learn at. Default: that of the recordings, which then all have the same.

    Raises
    ------
    ConfigError, FileError
        One line each.
    """
    signals: dict[str, list[np.ndarray]] = {}
    rates: dict[int, Path] = {}
    for name, paths in recordings.items():
        signals[name] = []
        for path in paths:
            x, rate = read_audio(path)
            if not np.isfinite(x).all():
                raise FileError(f"{path}: {np.count_nonzero(~np.isfinite(x))} of its samples are not finite")
            if not x.any():
                raise FileError(f"{path}: it is silent")
            mono = x.mean(0, dtype=float)
            if sr is not None and rate != sr:
                mono, rate = resample_poly(mono, sr, rate), sr
            rates.setdefault(rate, path)
            signals[name].append(mono)
    if len(rates) > 1:
        (one, here), (other, there) = list(rates.items())[:2]
        raise ConfigError(f"{here} has {one} Hz, {there} has {other} Hz; which one should it be for? Say sr")
    if not rates:
        raise ConfigError("there are no recordings to learn from")
    options: dict[str, Any] = {"band_hz": band_hz, "paper": paper, "epochs": epochs, "seed": seed, "resume": resume}
    return learn_signals(signals, next(iter(rates)), method, **options, progress=progress)


def learn_signals(
    signals: Mapping[str, Sequence[np.ndarray]],
    sr: int,
    method: str = "dds3",
    *,
    band_hz: float | None = None,
    paper: bool = False,
    size: Size | None = None,
    epochs: int | None = None,
    seed: int = 0,
    resume: SourceModel | None = None,
    progress: Told | None = None,
) -> SourceModel:
    """Learn what sources are made of.

    Parameters
    ----------
    signals : mapping of str to sequence of ndarray, real, (n_samples,)
        Names of the sources, at least two, and signals of each alone.
    sr : int
        Their rate in Hz.
    method : str
        "nmf", "dds1", "dds2" or "dds3".
    band_hz : float, optional
        Highest frequency that is looked at. Default: 4000, or half the rate.
    paper : bool
        With the sizes and the band of the paper: days on a processor.
    size : Size, optional
        Any other size.
    epochs : int, optional
        Passes through the training frames, at most; fewer when the validation has long been better before.
    seed : int
        Of first weights, order and noise.
    resume : SourceModel, optional
        Go on from these flows, learned of the same sources with the same size: with a new optimizer, which remembers
        no earlier steps. The result is nowhere worse than they were.
    progress : callable, optional
        Called with epochs done, epochs in all and the validation NLL of a feature; if it says true, that was the last.

    Returns
    -------
    SourceModel
        As it was where the validation NLL was lowest; each flow of DDS-1 and DDS-2 by itself.

    Raises
    ------
    ConfigError
        For what cannot be learned from.

    Notes
    -----
    Not real-time safe. The same seed gives the same model on the same machine with as many threads.
    """
    check_choice("method", method, METHODS)
    check_int("seed", seed, 0, 2**31 - 1)
    names = check_sources("the model", tuple(signals))
    if len(names) < 2:
        raise ConfigError(f"{names[0]!r} alone: a decomposition tells sources apart, so it needs two at least")
    band = min(PAPER_BAND_HZ if paper else BAND_HZ, sr / 2) if band_hz is None else band_hz
    spectra = Spectra(sr, band)
    if method == "dds3" and len(names) >= spectra.n_bins // 2:
        raise ConfigError(f"{len(names)} sources are too many for spectra of {spectra.n_bins} bins")
    train, valid = _levels(signals, spectra)
    manifest: dict[str, Any] = {"seed": seed, "frames": {n: x.shape[1] for n, x in zip(names, train, strict=True)}}
    if method == "nmf":  # as in the paper, all frames there are
        if resume is not None:
            raise ConfigError("method='nmf' keeps all frames; there is nothing to resume")
        frames = tuple(np.concatenate(pair, 1) for pair in zip(train, valid, strict=True))
        return SourceModel(method, spectra, names, None, frames, manifest)
    size = size or size_of(method, paper)
    if epochs is not None:
        size = size._replace(epochs=check_int("epochs", epochs, 1, 100_000))
    shape = FlowShape("glow" if method == "dds3" else "realnvp", spectra.n_bins, size.n_steps, size.depth, size.width)
    _check_resumed(resume, method, spectra, names, shape)
    fit = _fit_one if method == "dds3" else _fit_each
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow, history = fit(shape, size, _tensors(train), _tensors(valid), resume.flow if resume else None, progress)
    before = list(resume.manifest.get("validation", [])) if resume else []
    manifest |= {"size": size._asdict(), "validation": before + history}
    return SourceModel(method, spectra, names, flow.requires_grad_(False), (), manifest)


def _check_resumed(
    old: SourceModel | None, method: str, spectra: Spectra, names: tuple[str, ...], shape: FlowShape
) -> None:
    if old is None:
        return
    if SEARCHES[method] != SEARCHES[old.method] and method not in SEARCHES[old.method]:
        raise ConfigError(f"the model to resume was learned for {old.method}, not for {method}")
    if old.spectra != spectra:
        there = f"{old.spectra.sr} Hz up to {old.spectra.band_hz:g} Hz"
        raise ConfigError(f"the model to resume is for {there}, not for {spectra.sr} Hz up to {spectra.band_hz:g} Hz")
    if old.sources != names:
        raise ConfigError(f"the model to resume knows {', '.join(old.sources)}, the recordings are {', '.join(names)}")
    if old.flow is None or old.flow.shape != shape:
        raise ConfigError("the model to resume has flows of another size")


def negative_log_likelihood(flow: Flow, x: Tensor, labels: Tensor | None = None) -> Tensor:
    """Of spectra (n_flows, n, n_features), for a feature: (n_flows, n); of DDS-3 given labels (n, n_src)."""
    z, log_det = flow(x)
    if labels is None:
        return -(log_normal(z) + log_det) / x.shape[2]
    return _given_labels(z, log_det, labels)


def _given_labels(z: Tensor, log_det: Tensor, labels: Tensor) -> Tensor:
    n_src = labels.shape[1]
    named = log_normal((z[..., :n_src] - labels) / LABEL_SPREAD) - n_src * math.log(LABEL_SPREAD)
    return -(named + log_normal(z[..., n_src:]) + log_det) / z.shape[2]


def _levels(signals: Mapping[str, Sequence[np.ndarray]], spectra: Spectra) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Levels of the frames of each source that are not quiet, for training and for validation."""
    found: dict[str, list[np.ndarray]] = {}
    for name, clips in signals.items():
        found[name] = []
        for x in clips:
            try:
                magnitudes = spectra.magnitudes(x)
            except ConfigError as problem:
                raise ConfigError(f"a recording of {name!r}: {problem}") from None
            loud = magnitudes.sum(0)
            found[name].append(magnitudes[:, loud > loud.max() * 10 ** (-QUIET_DB / 20)])
        n = sum(clip.shape[1] for clip in found[name])
        if n < LEAST_FRAMES:
            raise ConfigError(f"{n} frames of {name!r} that are not quiet: at least {LEAST_FRAMES} are needed")
    top = max(clip.max() for clips in found.values() for clip in clips)
    if top == 0:
        raise ConfigError(f"nothing can be heard up to {spectra.band_hz:g} Hz")
    train: list[np.ndarray] = []
    valid: list[np.ndarray] = []
    for clips in found.values():
        groups = clips if len(clips) >= HELD_OUT else list(np.concatenate(clips, 1).T[:, :, None])
        held = np.arange(len(groups)) % HELD_OUT == HELD_OUT - 1
        for part, wanted in ((train, False), (valid, True)):
            some = [group for group, out in zip(groups, held, strict=True) if out == wanted]
            part.append(compress(np.concatenate(some, 1) / top))
    return train, valid


def _tensors(groups: list[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(frames.T)) for frames in groups]


def _fit_each(
    shape: FlowShape, size: Size, train: list[Tensor], valid: list[Tensor], old: Flow | None, progress: Told | None
) -> tuple[Flow, list[float]]:
    """A flow for each source, all at once; each is kept where it was best."""
    flow = Flow(len(train), shape)
    longest = max(len(x) for x in train)

    def drawn(n: int) -> Tensor:
        return torch.stack([x[torch.randint(len(x), (n,))] for x in train])

    best = torch.full((len(train),), math.inf)
    if old is None:
        flow.start(_noisy(drawn(longest)))
    else:
        flow.load_state_dict(old.state_dict())
        best = _validation(flow, valid)
    optimizer = torch.optim.Adam(flow.parameters(), size.lr)
    kept, history, since = copy.deepcopy(flow.state_dict()), [], 0
    for epoch in range(size.epochs):
        for _ in range(-(-longest // size.batch)):
            x = drawn(size.batch)
            _step(optimizer, negative_log_likelihood(flow, _noisy(x)).mean(1).sum(), flow)
        now = _validation(flow, valid)
        better = now < best
        for name, value in flow.state_dict().items():
            if value.shape[:1] == better.shape and value.dim() > 1:
                kept[name][better] = value[better]
        best = torch.minimum(best, now)
        since = 0 if better.any() else since + 1
        history.append(round(float(now.mean()), 4))
        if (progress and progress(epoch + 1, size.epochs, float(best.mean()))) or since > PATIENCE * size.epochs:
            break
    flow.load_state_dict(kept)
    return flow, history


@torch.no_grad()
def _validation(flow: Flow, valid: list[Tensor]) -> Tensor:
    longest = max(len(x) for x in valid)
    padded = torch.stack([x[torch.arange(longest) % len(x)] for x in valid])
    noise = NOISE * torch.randn(padded.shape, generator=torch.Generator().manual_seed(0))
    each = negative_log_likelihood(flow, padded + noise)
    return torch.stack([row[: len(x)].mean() for row, x in zip(each, valid, strict=True)])


def _fit_one(
    shape: FlowShape, size: Size, train: list[Tensor], valid: list[Tensor], old: Flow | None, progress: Told | None
) -> tuple[Flow, list[float]]:
    """One flow for all sources, which knows their names."""
    n_src = len(train)
    flow = Flow(1, shape)
    x, y = _labelled(train)
    held, held_y = _labelled(valid)
    held = held + NOISE * torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    best = math.inf
    if old is None:
        flow.start(_noisy(x)[None], y)
    else:
        flow.load_state_dict(old.state_dict())
        with torch.no_grad():
            best = float(negative_log_likelihood(flow, held[None], held_y).mean())
    n_rest = shape.n_features - n_src
    classifier = nn.Sequential(nn.Linear(n_rest, 64), nn.LeakyReLU(), nn.Linear(64, n_src))
    optimizer = torch.optim.Adam(flow.parameters(), size.lr)
    adversary = torch.optim.Adam(classifier.parameters(), 1e-3)
    kept, history, since = copy.deepcopy(flow.state_dict()), [], 0
    for epoch in range(size.epochs):
        for rows in torch.randperm(len(x)).split(size.batch):
            spectra, labels = x[rows], y[rows]
            z, log_det = flow(_noisy(spectra)[None])
            rest = z[0, :, n_src:]
            guess = nn.functional.cross_entropy(classifier(rest.detach()), labels)
            adversary.zero_grad()
            guess.backward()
            adversary.step()
            known = nn.functional.cross_entropy(classifier(rest), labels).clamp_max(math.log(n_src))
            loss = _given_labels(z, log_det, labels).mean() - INDEPENDENCE * known / shape.n_features
            _step(optimizer, loss, flow)
        with torch.no_grad():
            now = float(negative_log_likelihood(flow, held[None], held_y).mean())
        history.append(round(now, 4))
        since += 1
        if now < best:
            best, kept, since = now, copy.deepcopy(flow.state_dict()), 0
        if (progress and progress(epoch + 1, size.epochs, best)) or since > PATIENCE * size.epochs:
            break
    flow.load_state_dict(kept)
    return flow, history


def _labelled(groups: list[Tensor]) -> tuple[Tensor, Tensor]:
    counts = torch.tensor([len(x) for x in groups])
    return torch.cat(groups), torch.eye(len(groups)).repeat_interleave(counts, 0)


def _noisy(x: Tensor) -> Tensor:
    return x + NOISE * torch.randn_like(x)


def _step(optimizer: Any, loss: Tensor, flow: Flow) -> None:
    if not torch.isfinite(loss):
        return  # a batch that a young flow cannot take; the gradient of the next one is finite again
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(flow.parameters(), LARGEST_GRADIENT)
    optimizer.step()
