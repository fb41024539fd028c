"""What every factorisation of a spectrogram shares: its result, its starting values, its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.errors import ConfigError
from rtsep.phase.sinusoidal import advance_phasors, prepare_sinusoids

EPS = float(np.finfo(float).eps)
TINY = EPS**2  # keeps a quotient finite and is lost beside what is not zero
Progress = Callable[[int, int, float], None]  # iterations done, iterations in all, cost


_LISTENER: ContextVar[Progress | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(progress: Progress | None) -> Iterator[None]:
    """While this lasts, what estimators of whole signals iterate is told to `progress`."""
    token = _LISTENER.set(progress)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> Progress | None:
    """Who is told of iterations."""
    return _LISTENER.get()


class Factors(NamedTuple):
    """A spectrogram as a product: V is about `dictionary @ activations`."""

    dictionary: np.ndarray  # float64 (n_bins, n_atoms)
    activations: np.ndarray  # float64 (n_atoms, n_frames)
    cost: np.ndarray  # float64 (n_iter + 1,): before the first iteration, after it, and so on


def random_factors(v: np.ndarray, n_atoms: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform atoms that sum to one, and activations that give the product the mean of `v`."""
    rng = np.random.default_rng(seed)
    w, h = rng.uniform(0.1, 1, (v.shape[0], n_atoms)), rng.uniform(0.1, 1, (n_atoms, v.shape[1]))
    w /= w.sum(0)
    return w, h * v.mean() / (w @ h).mean()


def check_spectrogram(v: np.ndarray, name: str = "spectrogram") -> np.ndarray:
    """`v` as float64. Raises `ConfigError` unless it is (n_bins, n_frames), finite, not negative and not silent."""
    v = np.asarray(v)
    if v.ndim != 2 or v.size == 0:
        raise ConfigError(f"{name} has shape {v.shape}, not (n_bins, n_frames)")
    if np.iscomplexobj(v):
        raise ConfigError(f"{name} is complex; pass its magnitudes or powers")
    v = v.astype(float)
    if not np.isfinite(v).all():
        raise ConfigError(f"{name} has {np.count_nonzero(~np.isfinite(v))} values that are not finite")
    if v.min() < 0:
        raise ConfigError(f"{name} has a negative value, {v.min():.3g}")
    if not v.any():
        raise ConfigError(f"{name} is silent")
    return v


def check_mixture(x: np.ndarray) -> np.ndarray:
    """`x` as complex128. Raises `ConfigError` unless it is (n_bins, n_frames), finite and not silent."""
    x = np.asarray(x, complex)
    check_spectrogram(np.abs(x), "mixture")
    return x


def check_factor(name: str, factor: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """A copy of `factor` as float64. Raises `ConfigError` for another shape (None: any) or values that cannot be."""
    factor = np.array(factor, float)
    fits = factor.ndim == len(shape) and all(
        want in (None, size) for want, size in zip(shape, factor.shape, strict=True)
    )
    if not fits or factor.size == 0:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ConfigError(f"{name} has shape {factor.shape}, not ({wanted})")
    if not np.isfinite(factor).all() or factor.min() < 0:
        raise ConfigError(f"{name} has values that are negative or not finite")
    return factor


def normalise(w: np.ndarray, h: np.ndarray) -> None:
    """Let every atom sum to one, in place; the activations take over its size.

    Shapes (..., n_bins, n_atoms), (..., n_atoms, n_frames).
    """
    size = w.sum(-2) + EPS
    w /= size[..., None, :]
    h *= size[..., :, None]


class ComplexFactors(NamedTuple):
    """Sources with phases, whose magnitudes or powers are products."""

    sources: np.ndarray  # complex128 (n_src, n_bins, n_frames)
    dictionary: np.ndarray  # float64 (n_src, n_bins, n_atoms)
    activations: np.ndarray  # float64 (n_src, n_atoms, n_frames)
    phases: np.ndarray  # float64 (n_src, n_bins, n_frames): radians, of the model
    cost: np.ndarray  # float64, one an iteration


def check_complex(
    x: np.ndarray,
    dictionary: np.ndarray,
    activations: np.ndarray,
    advance: np.ndarray | None,
    phases: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Copies of the inputs of complex factorisations, as they are needed: x, W, H, phases, advance per frame."""
    x = check_mixture(x)
    w = check_factor("dictionary", dictionary, (None, len(x), None))
    h = check_factor("activations", activations, (len(w), w.shape[2], x.shape[1]))
    shape = (len(w), *x.shape)
    mu = np.array(np.broadcast_to(np.angle(x), shape) if phases is None else phases, float)
    steps = np.ones(shape, complex) if advance is None else np.asarray(advance, complex)
    if steps.ndim == 2:
        steps = np.repeat(steps[:, :, None], x.shape[1], 2)
    for name, value in (("phases", mu), ("advance", steps)):
        if value.shape != shape or not np.isfinite(value).all():
            raise ConfigError(f"{name} has shape {value.shape}, not {shape}, or values that are not finite")
    return x, w, h, mu, steps


def sinusoidal_advance(config: StreamConfig, v: np.ndarray) -> np.ndarray:
    """exp(2 pi i hop nu) of every bin of magnitudes (n_src, n_bins, n_frames), from the peaks of their spectra.

    As `rtsep.phase.sinusoidal` finds them, with weighted regions of influence; complex128, shaped like `v`.
    """
    n_src, n_bins, n_frames = v.shape
    state, unused = prepare_sinusoids(config, n_src, weighted=True), np.zeros((2, n_bins), np.float32)
    before = np.zeros((n_src, 2, n_bins), np.float32)
    before[:, 0] = 1
    after = np.empty((n_src, 2, n_bins), np.float32)
    advance = np.empty(v.shape, complex)
    for t in range(n_frames):
        advance_phasors(state, np.ascontiguousarray(v[:, :, t], np.float32), unused, 0, before, after)
        advance[:, :, t] = after[:, 0] + 1j * after[:, 1]
    return advance
