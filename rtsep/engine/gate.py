"""The gate: a source that is not there is silent, for as long as it is not there.

It stands between estimator and phase recovery, and what it takes from a source goes to the last one. So it opens with
the frame in which a source begins, which is heard one latency later; overlap-add rounds its edges; and the sources
still add up to the mixture. What phase recovery makes of nothing is silenced behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import StreamConfig, check_real
from rtsep.engine.channels import MAX_MAGNITUDE
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import aligned, constant, zeros

LOWEST_HZ, HIGHEST_HZ = 200.0, 4000.0  # presence is judged here: hum below, and hiss above, say little
BAND_MEL = 300.0
OTHERS = np.float32(0.01)  # share of the energy of all bands that counts as noise in each: a faint one says nothing
RELEASE_S = 0.05  # from open to closed
FAINTEST = 1e-10  # energy of a sample: -100 dBFS
ZERO, ONE = np.float32(0), np.float32(1)


@dataclass(frozen=True)
class Gate:
    """When a source is taken for absent.

    Parameters
    ----------
    min_presence : float
        The presence of a source, 0 to 1, below which its gate closes; 0 for none. The last source, for the rest, has
        no gate and gets what the others lose.
    gate_hold_ms : float
        For how long a gate stays open after the source was last present, 0 to 5000 ms.

    Notes
    -----
    The presence is the largest share that the source has of the energy in a band of about 300 mel between 200 and
    4000 Hz: for a network, from its mask; for every other estimator, from its magnitudes.
    """

    min_presence: float = 0.0
    gate_hold_ms: float = 250.0

    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {"min_presence": ("threshold",), "gate_hold_ms": ("hold",)}

    def __post_init__(self) -> None:
        check_real("min_presence", self.min_presence, 0, 1)
        check_real("gate_hold_ms", self.gate_hold_ms, 0, 5000, " ms")

    def prepare(self, config: StreamConfig, n_src: int, lookahead: int = 0) -> GateState:
        """Fresh state, before a phase recovery that looks so many hops ahead. Not real-time safe."""
        bands = _bands(config)
        # Of a sine of that power, up to a factor of two.
        faintest = FAINTEST * float((config.windows.analysis.astype(float) ** 2).sum())
        return GateState(
            threshold=aligned([self.min_presence]),
            hold=aligned([round(self.gate_hold_ms * config.sr / (1000 * config.hop))], np.int64),
            bands=constant(bands, np.int64),
            release=constant([config.hop_s / RELEASE_S]),
            faintest=constant([faintest]),
            energies=zeros(len(bands) - 1),
            presence=zeros(n_src),
            open=zeros(n_src),
            held=zeros(n_src, np.int64),
            span=constant([-(-config.synthesis // config.hop) + lookahead], np.int64),
            shut=zeros(n_src, np.int64),
            weights=aligned(np.ones(n_src)),
            shares=aligned(np.full(n_src, ONE / np.float32(n_src))),
        )


def _bands(config: StreamConfig) -> np.ndarray:
    """First bin of each band, and the bin after the last one; none is empty."""
    lowest, highest = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    mel = np.linspace(lowest, highest, 1 + round((highest - lowest) / BAND_MEL))
    bins = np.ceil(700 * (10 ** (mel / 2595) - 1) * config.n_fft / config.sr).astype(int)
    return np.unique(np.minimum(bins, config.n_bins))


class GateState(NamedTuple):
    """State of the gates of J sources; float32 unless said."""

    threshold: np.ndarray  # (1,): presence below which a gate closes
    hold: np.ndarray  # int64 (1,): hops
    bands: np.ndarray  # int64, constant (n_bands + 1,): first bin of each band, and the bin after the last one
    release: np.ndarray  # constant (1,): by how much an open gate closes in a hop
    faintest: np.ndarray  # constant (1,): energy that counts as noise in each band
    energies: np.ndarray  # (n_bands,) scratch: of the mixture
    presence: np.ndarray  # (J,): of this frame
    open: np.ndarray  # (J,): 1 for open, 0 for closed
    held: np.ndarray  # int64 (J,): hops for which a gate stays open
    span: np.ndarray  # int64, constant (1,): frames that a hop of output comes from
    shut: np.ndarray  # int64 (J,): frames since the gate closed
    weights: np.ndarray  # (J,): 0 where a source is silent, else 1
    shares: np.ndarray  # (J,): weights that sum to one


@kernel
def gate(state, power, magnitudes):
    """Judge the presence of every source, and take away those that are absent.

    Parameters
    ----------
    state : GateState
        Updated in place.
    power : ndarray, float32, (n_bins,)
        Squared magnitude of the mixture. Read only.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Of the sources; updated in place, where a gate is not open.

    Notes
    -----
    Real-time safe. With a threshold of zero the magnitudes stay as they are, bit by bit.
    """
    bands, energies, presence, is_open = state.bands, state.energies, state.presence, state.open
    n_src, n_bins = magnitudes.shape
    total = ZERO
    for b in range(energies.size):
        energies[b] = ZERO
        for k in range(bands[b], bands[b + 1]):
            energies[b] += power[k]
        total += energies[b]
    noise = OTHERS * total + state.faintest[0]
    least = ONE
    for j in range(n_src):
        presence[j] = ZERO
        for b in range(energies.size):
            energy = ZERO
            for k in range(bands[b], bands[b + 1]):
                m, most = magnitudes[j, k], power[k]
                # A source has no more than all; what is no magnitude counts as zero.
                energy += min(m * m, most) if ZERO < m < MAX_MAGNITUDE else ZERO
            presence[j] = max(presence[j], energy / (energies[b] + noise))
        if presence[j] >= state.threshold[0]:
            is_open[j], state.held[j] = ONE, state.hold[0]
        elif state.held[j] > 0:
            state.held[j] -= 1
        else:
            is_open[j] = max(is_open[j] - state.release[0], ZERO)
        state.shut[j] = state.shut[j] + 1 if is_open[j] == ZERO else 0
        if j < n_src - 1:
            least = min(least, is_open[j])
    if least < ONE:
        last = n_src - 1
        for k in range(n_bins):
            rest = ZERO
            for j in range(last):
                m = magnitudes[j, k] * is_open[j]
                magnitudes[j, k] = m
                rest += m if ZERO < m < MAX_MAGNITUDE else ZERO
            # What is missing would be shared among all sources: with one that is closed, there is nothing missing.
            rest = max(np.float32(math.sqrt(power[k])) - rest, ZERO)
            magnitudes[last, k] = rest + least * (magnitudes[last, k] - rest)


@kernel
def silence(state, hop_out):
    """Silence the sources of which nothing was left in all frames that the hop comes from.

    Parameters
    ----------
    state : GateState
        After `gate`; updated in place.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Updated in place.

    Notes
    -----
    Real-time safe.
    """
    n_src, n_channels, hop = hop_out.shape
    weights, total = state.weights, ONE
    for j in range(n_src - 1):
        before, after = weights[j], ZERO if state.shut[j] > state.span[0] else ONE
        weights[j] = after
        total += after
        if before < ONE or after < ONE:
            step = (after - before) / np.float32(hop)
            for c in range(n_channels):
                gain = before
                for i in range(hop):
                    gain += step
                    hop_out[j, c, i] *= gain if after != before else after
    for j in range(n_src):
        state.shares[j] = weights[j] / total
