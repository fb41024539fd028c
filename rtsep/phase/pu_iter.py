"""PU-Iter: phases by the sinusoidal model, then moved until the sources explain the mixture, frame by frame.

Source: P. Magron, R. Badeau, B. David, "Model-based STFT phase recovery for audio source separation",
IEEE/ACM TASLP 26(6), 2018, sections III and IV. In each bin the mixing error E = X - sum_j S_j is
distributed and the magnitudes are imposed again,

    S_j <- V_j dir(S_j + lambda_j E),  lambda_j = V_j^2 / sum_k V_k^2,

which never increases |E| and does not couple bins. Two sources whose magnitudes fit the mixture form a triangle
with it, which is one of two mirror images: the model chooses which. So phases that all start from the mixture's
cannot move. At the onset of a source, where nothing goes on, its phase is that of the mixture.

*Onset.* The detector of the authors normalises by the future. This one is causal: an onset is a frame in which
the magnitudes that rose, sum_k max(0, V_t - V_t-1), are more than a share of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.channels import TINY, share_of_channel, take_valid
from rtsep.engine.protocols import OnlinePhase
from rtsep.engine.registry import register_phase
from rtsep.kernels.jit import kernel, pasted
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.simd import LANES, load, move, multiply_add, store
from rtsep.phase.difference import inverse_size, mixture_phase
from rtsep.phase.omisi import MAX_ITERATIONS
from rtsep.phase.sinusoidal import SinusoidState, advance_phasors, prepare_sinusoids
from rtsep.phase.synthesis import SynthesisState, overlap_add, prepare_synthesis

# A source of no magnitude keeps its phase: this much is inaudible, and its square not denormal.
SMALLEST = np.float32(1e-15)
ONE = np.float32(1)


class PUIterState(NamedTuple):
    """State of PU-Iter for J sources; float32 unless said."""

    synthesis: SynthesisState
    sinusoids: SinusoidState
    n_iter: np.ndarray  # int64 (1,)
    started: np.ndarray  # bool (1,): a frame has been seen
    rise: np.ndarray  # (1,): share of risen magnitude from which on a frame is an onset
    before: np.ndarray  # (J, n_bins): magnitudes of the frame before
    magnitudes: np.ndarray  # (J, n_bins) scratch: of one channel
    phasors: np.ndarray  # (n_channels, J, 2, n_bins): exp(i phase) of the newest frame
    first: np.ndarray  # (J, 2, n_bins) scratch: phases before the iterations
    mixture: np.ndarray  # (n_channels, J, 2, n_bins) scratch: phase of the mixture


@pasted
def _is_onset(now, before, j, rise):
    """Whether source `j` begins or grows."""
    risen, total = np.float32(0), TINY
    for k in range(now.shape[1]):
        risen += max(now[j, k] - before[j, k], np.float32(0))
        total += now[j, k]
    return risen > rise * total


@pasted
def _explain(mixture, c, magnitudes, first, n_iter, spectra, phasors):
    """The iterations of channel `c` in all bins, from the phases `first`; eight bins at a time.

    `spectra` (J, 2, n_bins) and `phasors[c]` are overwritten.
    """
    n_src, n_bins = magnitudes.shape
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, 2 * c * n_bins + k), load(mixture, (2 * c + 1) * n_bins + k)
        v = load(magnitudes, k)
        power = v * v + TINY
        for j in range(1, n_src):
            v = load(magnitudes, j * n_bins + k)
            power = multiply_add(v, v, power)
        for j in range(n_src):
            v, at = load(magnitudes, j * n_bins + k), 2 * j * n_bins + k
            store(spectra, at, load(first, at) * (v + SMALLEST))
            store(spectra, at + n_bins, load(first, at + n_bins) * (v + SMALLEST))
        for _ in range(n_iter):
            er, ei = xr, xi
            for j in range(n_src):
                at = 2 * j * n_bins + k
                er, ei = er - load(spectra, at), ei - load(spectra, at + n_bins)
            for j in range(n_src):
                v, at = load(magnitudes, j * n_bins + k), 2 * j * n_bins + k
                share = v * v / power
                sr = multiply_add(share, er, load(spectra, at))
                si = multiply_add(share, ei, load(spectra, at + n_bins))
                scale = inverse_size(sr, si) * (v + SMALLEST)
                store(spectra, at, sr * scale)
                store(spectra, at + n_bins, si * scale)
        for j in range(n_src):
            at = 2 * j * n_bins + k
            sr, si = load(spectra, at), load(spectra, at + n_bins)
            scale = inverse_size(sr, si)
            sr, si, v = sr * scale, si * scale, load(magnitudes, j * n_bins + k)
            store(phasors, 2 * c * n_src * n_bins + at, sr)
            store(phasors, 2 * c * n_src * n_bins + at + n_bins, si)
            store(spectra, at, sr * v)
            store(spectra, at + n_bins, si * v)


@kernel
def recover_pu_iter(state, mixture, power, line, magnitudes, hop_out):
    """One hop of PU-Iter for every channel.

    Parameters
    ----------
    state : PUIterState
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
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    n_src, n_bins = magnitudes.shape
    valid, before, first, spectra = state.synthesis.magnitudes, state.before, state.first, state.synthesis.spectra
    take_valid(magnitudes, valid)
    for c in range(hop_out.shape[1]):
        mixture_phase(mixture, c, state.mixture)
        # Frequencies and onsets from the magnitudes for the mean power: the channels are linked.
        advance_phasors(state.sinusoids, valid, mixture[c], c, state.phasors[c], first)
        for j in range(n_src):
            if not state.started[0] or _is_onset(valid, before, j, state.rise[0]):
                move(first, 2 * j * n_bins, state.mixture, 2 * (c * n_src + j) * n_bins, 2 * n_bins)
        share_of_channel(mixture, c, power, valid, state.magnitudes)
        _explain(mixture, c, state.magnitudes, first, state.n_iter[0], spectra, state.phasors)
        overlap_add(state.synthesis, c, n_src, spectra, hop_out)
    move(before, 0, valid, 0, n_src * n_bins)
    state.started[0] = True


@register_phase("pu_iter")
@dataclass(frozen=True)
class PUIter(OnlinePhase):
    """PU-Iter: phases of a sinusoidal model, moved until the sources add up to the mixture; no extra FFT.

    Parameters
    ----------
    n_iter : int
        Iterations in each frame, 0 to 1000; with 0 it is phase unwrapping alone.
    onset : float
        Share of a source's magnitude, 0 to 1, that must have risen since the frame before for the phase of the
        mixture to be taken; at 1 no frame is an onset but the first.

    References
    ----------
    Magron, Badeau and David, IEEE/ACM TASLP 26(6), 2018.
    """

    n_iter: int = 50
    onset: float = 0.5

    State: ClassVar[type] = PUIterState
    step = recover_pu_iter

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        check_real("onset", self.onset, 0, 1)

    def prepare(self, config: StreamConfig, n_src: int) -> PUIterState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        n_bins = config.n_bins
        return PUIterState(
            synthesis=prepare_synthesis(config, n_src),
            sinusoids=prepare_sinusoids(config, n_src, weighted=True),
            n_iter=aligned([self.n_iter], np.int64),
            started=np.array([False]),
            rise=constant([self.onset]),
            before=zeros((n_src, n_bins)),
            magnitudes=zeros((n_src, n_bins)),
            phasors=zeros((config.n_channels, n_src, 2, n_bins)),
            first=zeros((n_src, 2, n_bins)),
            mixture=zeros((config.n_channels, n_src, 2, n_bins)),
        )
