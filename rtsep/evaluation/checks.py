"""What every score asks of its signals, and what it does where there is no answer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

LIMIT_DB = 100.0  # of every ratio; rounding of float32 audio is near 140 dB, and infinity would spoil every mean
SILENT = 1e-20  # mean power, -200 dBFS: below it a signal counts as silence


class ScoreError(ValueError):
    """A score that is not defined for these signals; the message is the reason, one line."""


def as_signal(name: str, x: Any, n_channels: int | None = None) -> np.ndarray:
    """`x` as float64, (n_samples,), or (n_channels, n_samples) if that is asked for.

    Raises
    ------
    ScoreError
        For other shapes, no samples, and samples that are not finite real numbers.
    """
    signal = np.asarray(x)
    if signal.dtype.kind not in "fiu":
        raise ScoreError(f"{name} has samples of type {signal.dtype}, not real numbers")
    if n_channels is None and signal.ndim != 1:
        raise ScoreError(f"{name} has shape {signal.shape}, not (n_samples,)")
    if n_channels is not None and (signal.ndim != 2 or signal.shape[0] != n_channels):
        raise ScoreError(f"{name} has shape {signal.shape}, not ({n_channels}, n_samples)")
    if signal.size == 0:
        raise ScoreError(f"{name} has no samples")
    signal = signal.astype(np.float64)
    if not np.isfinite(signal).all():
        raise ScoreError(f"{name} has {np.count_nonzero(~np.isfinite(signal))} samples that are not finite")
    return signal


def as_pair(reference: Any, estimate: Any, n_channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reference and estimate as float64 of the same length, neither of them silent. Raises `ScoreError`."""
    pair = as_signal("reference", reference, n_channels), as_signal("estimate", estimate, n_channels)
    if pair[0].shape != pair[1].shape:
        raise ScoreError(f"reference has {pair[0].shape[-1]} samples, estimate has {pair[1].shape[-1]}")
    for name, signal in zip(("reference", "estimate"), pair, strict=True):
        refuse_silence(name, signal)
    return pair


def as_references(references: Any, estimate: np.ndarray) -> np.ndarray:
    """True sources as float64, (n_src, n_samples), as long as the estimate, none silent. Raises `ScoreError`."""
    rows = [as_signal(f"reference {j}", row) for j, row in enumerate(np.atleast_2d(references))]
    for j, row in enumerate(rows):
        if row.shape != estimate.shape:
            raise ScoreError(f"reference {j} has {row.size} samples, estimate has {estimate.size}")
        refuse_silence(f"reference {j}", row)
    return np.stack(rows)


def refuse_silence(name: str, signal: np.ndarray) -> None:
    """Raise `ScoreError` for a signal below -200 dBFS."""
    if np.mean(signal**2) < SILENT:
        raise ScoreError(f"{name} is silent")


def ratio_db(numerator: float, denominator: float) -> float:
    """Ratio of two energies in dB, between -100 and 100: perfect and hopeless are finite."""
    if numerator <= 0 and denominator <= 0:
        raise ScoreError("both energies are zero")
    if denominator <= 0:
        return LIMIT_DB
    if numerator <= 0:
        return -LIMIT_DB
    return float(np.clip(10 * (np.log10(numerator) - np.log10(denominator)), -LIMIT_DB, LIMIT_DB))


def require(module: str, extra: str) -> Any:
    """A module of an optional package.

    Raises
    ------
    ImportError
        That names the extra to install.
    """
    try:
        return import_module(module)
    except ImportError as problem:
        raise ImportError(f'{module} cannot be imported ({problem}): pip install "rtsep[{extra}]"') from problem
