"""The amplitude mask: every source keeps the phase of the mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.channels import share_of_channel
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import zeros
from rtsep.phase.difference import mask
from rtsep.phase.synthesis import SynthesisState, overlap_add, prepare_synthesis


class MixtureState(NamedTuple):
    """State of the amplitude mask for J sources; float32."""

    synthesis: SynthesisState  # of the differences d_1 to d_J-1
    magnitudes: np.ndarray  # (n_channels, J, n_bins): of the newest frame
    masked: np.ndarray  # (n_channels, J, 2, n_bins) scratch: D, the last row is not used


@kernel
def recover_mixture(state, mixture, power, line, magnitudes, hop_out):
    """One hop of the amplitude mask for every channel.

    Parameters
    ----------
    state : MixtureState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Newest spectra of the mixture. Read only.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    line : ndarray, float32, (n_channels, analysis + lookahead * hop)
        Newest samples of the mixture. Not used.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Target magnitudes of the newest frame, for the mean power of the channels; each channel gets its
        part. Values that are negative or not finite count as zero. Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten. The sources lack an equal part each of the mixture, which the output stage adds (`consistent`).

    Notes
    -----
    Real-time safe. In the difference form (`rtsep.phase.difference`): what `recover_omisi` does without iterations.
    """
    last, n_channels, hop = hop_out.shape[0] - 1, hop_out.shape[1], hop_out.shape[2]
    for c in range(n_channels):
        share_of_channel(mixture, c, power, magnitudes, state.magnitudes[c])
        mask(mixture, state.magnitudes, c, state.masked)
        overlap_add(state.synthesis, c, last, state.masked[c], hop_out)
        for i in range(hop):
            hop_out[last, c, i] = np.float32(0)


@register_phase("mixture")
@dataclass(frozen=True)
class MixturePhase(OnlinePhase):
    """Amplitude mask: the estimated magnitudes with the phase of the mixture, no iterations.

    `OMISI` with no iterations and no look-ahead gives the same, and takes longer to compile. The sources sum to the
    mixture.
    """

    keeps_mixture_phase = True
    State: ClassVar[type] = MixtureState
    step = recover_mixture

    def prepare(self, config: StreamConfig, n_src: int) -> MixtureState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        shape = (config.n_channels, n_src)
        return MixtureState(
            synthesis=prepare_synthesis(config, n_src),
            magnitudes=zeros((*shape, config.n_bins)),
            masked=zeros((*shape, 2, config.n_bins)),
        )
