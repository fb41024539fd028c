"""Clicks out of a stream: the same finding and filling as in files, on a window that moves on.

The window holds what has been restored, a block, and what comes after the block, 50 ms each but for the past, which
is 100. Once it is full, clicks are looked for in all of it, those in the block are filled from both sides, and the
block is emitted. So a sample comes out 100 ms after it went in.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import MAX_CHANNELS, MAX_SR, MIN_SR, check_int, check_real
from rtsep.restoration import autoregressive, clicks
from rtsep.restoration.repair import MOST_MISSING, THRESHOLD

BLOCK_S = 0.05


class ClickRemover:
    """Takes clicks out of a stream.

    Parameters
    ----------
    sr : int
        Sample rate in Hz, 8000 to 192000.
    n_channels : int
        1 to 1024.
    threshold : float
        As in `find_clicks`.

    Attributes
    ----------
    latency : int
        Samples that the output is behind the input: 100 ms.
    n_replaced : int
        Samples, in all channels, that were made anew so far.

    Raises
    ------
    ConfigError
        For values that cannot work.

    Notes
    -----
    The output does not depend on the sizes of the blocks. Not for the audio callback: NumPy, with all the work of a
    block of 50 ms in the call that completes it, a few ms for each channel.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsep.restoration import ClickRemover
    >>> remover = ClickRemover(16_000)
    >>> tone = np.sin(np.arange(8000) / 5)
    >>> damaged = tone.copy()
    >>> damaged[4000:4008] = 3
    >>> out = np.concatenate([remover.process(damaged), remover.flush()])[remover.latency :]
    >>> bool(np.abs(out - tone).max() < 1e-3)
    True
    """

    def __init__(self, sr: int, n_channels: int = 1, *, threshold: float = THRESHOLD) -> None:
        self.sr = check_int("sr", sr, MIN_SR, MAX_SR, " Hz")
        self.n_channels = check_int("n_channels", n_channels, 1, MAX_CHANNELS)
        check_real("threshold", threshold, 3, 1000)
        self.threshold = threshold
        self._block = max(8 * clicks.ORDER, round(BLOCK_S * sr))
        self.latency = 2 * self._block
        self.reset()

    def reset(self) -> None:
        """As new: nothing is remembered."""
        self.n_replaced = 0
        self._past = np.zeros((self.n_channels, 0))  # restored, up to two blocks of it
        self._ahead = np.zeros((self.n_channels, 0))  # not yet; less than two blocks of it
        self._damaged = np.zeros((self.n_channels, 0), bool)  # of `_ahead`, found with the block before
        self._ready = np.zeros((self.n_channels, self.latency))  # to be emitted

    def process(self, block: np.ndarray) -> np.ndarray:
        """Restore the next samples.

        Parameters
        ----------
        block : ndarray, real, (n,) or (n_channels, n)
            Full scale is 1; values that are not finite count as damaged.

        Returns
        -------
        restored : ndarray, float32, shaped like `block`
            `latency` samples behind; silence at first.

        Raises
        ------
        ValueError
            For another shape.
        """
        x = np.asarray(block, float)
        expected = (x.ndim == 1 and self.n_channels == 1) or (x.ndim == 2 and len(x) == self.n_channels)
        if not expected:
            raise ValueError(f"block has shape {x.shape}, not ({self.n_channels}, n)")
        self._ahead = np.concatenate([self._ahead, np.atleast_2d(x)], 1)
        parts = [self._ready]
        while self._ahead.shape[1] >= 2 * self._block:
            parts.append(self._restore_block())
        ready = np.concatenate(parts, 1)
        n = x.shape[-1]
        out, self._ready = ready[:, :n], ready[:, n:]
        return out.astype(np.float32).reshape(x.shape)

    def flush(self) -> np.ndarray:
        """End the stream: the last `latency` samples, float32 (latency,) or (n_channels, latency).

        Then everything but `n_replaced` is as new.
        """
        parts = [self._ready]
        while self._ahead.shape[1]:
            parts.append(self._restore_block())
        out = np.concatenate(parts, 1).astype(np.float32)
        n_replaced = self.n_replaced
        self.reset()
        self.n_replaced = n_replaced
        return out if self.n_channels > 1 else out[0]

    def _restore_block(self) -> np.ndarray:
        """The next block of every channel, which leaves `_ahead`; a shorter one at the end."""
        n, past = min(self._block, self._ahead.shape[1]), self._past.shape[1]
        window = np.concatenate([self._past, self._ahead[:, : 2 * self._block]], 1)
        known = np.zeros(window.shape, bool)
        known[:, past : past + self._damaged.shape[1]] = self._damaged
        for c, channel in enumerate(window):
            finite = np.isfinite(channel)
            channel[~finite] = 0
            damaged = known[c] | ~finite
            if channel.any():
                damaged |= clicks.find_clicks(channel, self.sr, self.threshold)
            damaged[:past] = False
            known[c] = damaged
            if damaged.any() and damaged[past:].mean() <= MOST_MISSING:
                channel[:] = autoregressive.fill(channel, damaged)
        self.n_replaced += int(known[:, past : past + n].sum())
        # What begins in the block and goes on after it was found with the whole of it in sight.
        goes_on = known[:, past + n :]
        self._damaged = np.logical_and.accumulate(goes_on, 1) & known[:, past + n - 1, None]
        self._ahead = self._ahead[:, n:]
        done = window[:, past : past + n]
        self._past = np.concatenate([self._past, done], 1)[:, -2 * self._block :]
        return done
