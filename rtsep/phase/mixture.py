"""The amplitude mask: every source keeps the phase of the mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rtsep.config import StreamConfig
from rtsep.phase.omisi import OMISI, OMISIState
from rtsep.stages.registry import register_phase


@register_phase("mixture")
@dataclass(frozen=True)
class MixturePhase:
    """Amplitude mask: the estimated magnitudes with the phase of the mixture, no iterations.

    The same kernel as `OMISI` with no iterations and no look-ahead, so that comparisons between the two
    differ in the iterations alone. The sources sum to the mixture.
    """

    lookahead: ClassVar[int] = 0
    consistent: ClassVar[bool] = True
    State: ClassVar[type] = OMISIState
    step: ClassVar[Any] = OMISI.step

    def prepare(self, config: StreamConfig, n_src: int) -> OMISIState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        return OMISI(n_iter=0).prepare(config, n_src)
