"""What a live stream hears and separates, for those who look on: spectrograms, meters of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.live.rings import forget, read, waiting

if TYPE_CHECKING:
    from rtsep.live.processor import Processor


class Scope:
    """A window on a stream, for one who looks at a time; closed at first.

    The callback copies its samples to a ring, if the scope is open, and does not care who takes them: whoever looks too
    seldom misses some.

    Parameters
    ----------
    processor : Processor
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    @property
    def open(self) -> bool:
        """Whether the callback copies samples; can be set."""
        return bool(self._processor.live.scopes[0])

    @open.setter
    def open(self, open: bool) -> None:
        live = self._processor.live
        if open and not live.scopes[0]:
            forget(live.scope)
        live.scopes[0] = open

    def read(self) -> NDArray[np.float32]:
        """What has come since the last time: (1 + n_src, n_channels, n_samples), delayed mixture and sources."""
        live = self._processor.live
        ring, n_channels = live.scope, live.delayed.shape[0]
        n_rows, n = ring.data.shape[0], int(waiting(ring))
        block = np.empty(n_rows * n, np.float32)
        read(ring, block, n)
        return block.reshape(n_rows // n_channels, n_channels, n)
