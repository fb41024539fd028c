"""restore: a damaged recording without its clicks and gaps."""

from __future__ import annotations

import numpy as np

from rtsep.config import MAX_SR, MIN_SR, check_axes, check_choice, check_int, check_real
from rtsep.errors import ConfigError
from rtsep.restoration import autoregressive, clicks, unwrapping

METHODS = ("autoregressive", "unwrapping")
THRESHOLD = 12.0
MOST_MISSING = 0.5


def _channels(x: np.ndarray) -> np.ndarray:
    """`x` as float64 (n_channels, n_samples)."""
    x = np.asarray(x)
    if x.ndim not in (1, 2) or x.size == 0 or np.iscomplexobj(x) or not np.issubdtype(x.dtype, np.number):
        raise ConfigError(
            f"audio has shape {x.shape} and type {x.dtype}, not real (n_samples,) or (n_channels, n_samples)"
        )
    check_axes(x, known=True)  # a file of one sample has more channels
    return np.atleast_2d(x).astype(float)


def find_clicks(x: np.ndarray, sr: int, *, threshold: float = THRESHOLD) -> np.ndarray:
    """Find the samples that are part of clicks.

    Parameters
    ----------
    x : ndarray, real, (n_samples,) or (n_channels, n_samples)
        Audio, full scale is 1. Values that are not finite are found, too.
    sr : int
        Sample rate in Hz, 8000 to 192000.
    threshold : float
        How many times larger than usual what cannot be predicted must be, 3 to 1000.

    Returns
    -------
    damaged : ndarray, bool, shaped like `x`

    Raises
    ------
    ConfigError
        For values that cannot work.
    """
    check_int("sr", sr, MIN_SR, MAX_SR, " Hz")
    check_real("threshold", threshold, 3, 1000)
    found = []
    for channel in _channels(x):
        finite = np.isfinite(channel)
        found.append(clicks.find_clicks(np.where(finite, channel, 0.0), sr, threshold) | ~finite)
    return np.reshape(found, np.shape(x))


def restore(
    x: np.ndarray,
    sr: int,
    *,
    missing: np.ndarray | None = None,
    method: str = "autoregressive",
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """Take clicks out of a recording, or fill the gaps that are given.

    Parameters
    ----------
    x : ndarray, real, (n_samples,) or (n_channels, n_samples)
        Audio, full scale is 1. Values that are not finite count as missing.
    sr : int
        Sample rate in Hz, 8000 to 192000.
    missing : ndarray, bool, shaped like `x` or (n_samples,), optional
        Samples to make anew. Default: those that `find_clicks` finds.
    method : str
        "autoregressive", or "unwrapping" of phases, which is here to be compared with (docs/restoration.md).
    threshold : float
        As in `find_clicks`, if `missing` is not given.

    Returns
    -------
    restored : ndarray, float32, shaped like `x`
        Samples that are not missing are the same.

    Raises
    ------
    ConfigError
        For values that cannot work, and if more than half of a channel is missing.

    Notes
    -----
    Needs the whole signal. Not real-time safe.

    Examples
    --------
    >>> import numpy as np, rtsep
    >>> tone = np.sin(np.arange(8000) / 5)
    >>> damaged = tone.copy()
    >>> damaged[4000:4008] = 3
    >>> bool(np.abs(rtsep.restore(damaged, 16_000) - tone).max() < 1e-3)
    True
    """
    check_int("sr", sr, MIN_SR, MAX_SR, " Hz")
    check_choice("method", method, METHODS)
    audio = _channels(x)
    if missing is None:
        gaps = find_clicks(audio, sr, threshold=threshold)
    else:
        gaps = np.asarray(missing)
        if gaps.dtype != bool or gaps.shape not in (np.shape(x), audio.shape[1:]):
            raise ConfigError(
                f"missing has shape {gaps.shape} and type {gaps.dtype}, not booleans of shape {np.shape(x)}"
            )
        gaps = np.broadcast_to(gaps, audio.shape) | ~np.isfinite(audio)
    restored = audio.copy()
    for c, gap in enumerate(gaps):
        if gap.mean() > MOST_MISSING:
            raise ConfigError(
                f"{100 * gap.mean():.0f} % of channel {c} are missing, more than {100 * MOST_MISSING:.0f} %"
            )
        if gap.any():
            channel = np.where(gap, 0.0, audio[c])
            if method == "autoregressive":
                restored[c] = autoregressive.fill(channel, gap)
            else:
                restored[c] = unwrapping.fill(channel, gap, sr)
    return restored.astype(np.float32).reshape(np.shape(x))
