"""Wiener filter: the mixture in proportion to the powers, S_j = V_j^2 / (sum_k V_k^2) X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.channels import TINY
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.simd import LANES, load, multiply_add, store
from rtsep.phase.window import Member, WindowState, prepare_window, recover_window

ONE = np.float32(1)


def wiener(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`enter` and `update` of the engine (`rtsep.phase.window`)."""
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        v = load(magnitudes, k)
        power = multiply_add(v, v, TINY)
        for j in range(1, n_src):
            v = load(magnitudes, j * n_bins + k)
            power = multiply_add(v, v, power)
        scale = ONE / power
        xr, xi = load(mixture, k) * scale, load(mixture, n_bins + k) * scale
        for j in range(n_src):
            v = load(magnitudes, j * n_bins + k)
            store(updated, 2 * j * n_bins + k, xr * (v * v))
            store(updated, (2 * j + 1) * n_bins + k, xi * (v * v))


@register_phase("wiener")
@dataclass(frozen=True)
class Wiener(OnlinePhase):
    """Wiener filter: the mixture in proportion to the powers of the sources, no iterations.

    The sources sum to the mixture, which the amplitude mask of `mixture` has to be brought to; with true
    magnitudes it is about as good.
    """

    keeps_mixture_phase = True
    State: ClassVar[type] = WindowState
    step = recover_window

    def prepare(self, config: StreamConfig, n_src: int) -> WindowState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        return prepare_window(config, n_src, 1, 0, Member(wiener, wiener), config.n_channels)
