"""oMISI: online multiple input spectrogram inversion.

Source: P. Magron and T. Virtanen, "Online spectrogram inversion for low-latency audio source separation",
IEEE Signal Process. Lett. 27, 2020, section III; the offline algorithm is D. Gunawan and D. Sen, IEEE
Signal Process. Lett. 17(5), 2010.

The kernels work in the difference form (`rtsep.phase.difference`). In the order of the paper (consistency,
magnitude, mixing) T, what the spectra are made to sum to, is the transform of what the overlap-add holds of the
mixture; in that of the released code (consistency, mixing, magnitude) it is the mixture X itself. That, and
what is finally emitted, is the only difference between the two orders.

*Gate.* Iterations trust the magnitudes; where these are far off (6 dB), the amplitude mask is better than what
becomes of it. Such magnitudes give themselves away: no signals have them, so the iterations leave a mismatch
between the spectra and their targets. That of the last iteration, smoothed over 80 ms, decides how much of the
mask is blended into the frame that is committed. `bench/degraded.py` draws what that is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rtsep.config import ConfigError, StreamConfig, check_choice, check_int, check_real
from rtsep.engine.channels import TINY, share_of_channel
from rtsep.engine.protocols import OnlinePhase, Shedding
from rtsep.engine.registry import register_phase
from rtsep.kernels.clock import Clock, now, system_clock
from rtsep.kernels.fft import FFTPlan, irfft, plan_fft, rfft
from rtsep.kernels.jit import inlined, kernel, pasted
from rtsep.kernels.memory import aligned, constant, zeros
from rtsep.kernels.simd import LANES, clear, load, move, multiply, store
from rtsep.phase.difference import impose, mask, mismatch, mixture_phase, project
from rtsep.phase.sinusoidal import SinusoidState, advance_phasors, prepare_sinusoids

MAX_ITERATIONS = 1000
MAX_LOOKAHEAD = 32

# Below, true magnitudes gain more and wrong ones lose; on training voices, windows of one length and pairs.
TAILS = (0.03, 0.02)

MISMATCH_S = 0.08  # smoothing of the mismatch
HALF_MASK = np.float32(0.15)  # squared mismatch, relative to the squared magnitudes, at which half is the mask


class OMISIState(NamedTuple):
    """State of oMISI for J sources, window frames 0 (committed next) to K (newest); float32 unless said."""

    plan: FFTPlan
    sinusoids: SinusoidState
    n_iter: np.ndarray  # int64 (1,)
    n_seen: np.ndarray  # int64 (1,): frames so far
    clock: Clock
    deadline: np.ndarray  # int64 (1,): when the hop should be done, by the clock in ns; 0 for no limit
    took: np.ndarray  # int64 (1,): ns that an iteration takes, a running mean
    began: np.ndarray  # int64 (1,): when the present iteration began
    shed: np.ndarray  # int64 (1,): iterations left out so far because of the deadline
    sinusoidal: np.ndarray  # bool (1,): initialisation by the sinusoidal model
    published: np.ndarray  # bool (1,): order of the released code
    gated: np.ndarray  # bool (1,): blend in the amplitude mask where the magnitudes do not fit
    keep: np.ndarray  # (1,): share of the old mismatch per hop
    misfit: np.ndarray  # (n_channels, 2): smoothed squared mismatch, squared magnitudes
    sums: np.ndarray  # (2,) scratch: the same of one frame
    window: np.ndarray  # constant (synthesis,): tail of the analysis window
    ratio: np.ndarray  # constant (synthesis,): synthesis window / that tail
    emit: np.ndarray  # constant (hop,): 1 / overlap of the samples that are emitted
    analysis: np.ndarray  # constant (K + 1, analysis): window / overlap of the local signal, for each frame
    held: np.ndarray  # constant (K + 1, analysis): window times what the local signal holds of the mixture
    mixture: np.ndarray  # (n_channels, K + 1, 2, n_bins)
    magnitudes: np.ndarray  # (n_channels, K + 1, J, n_bins)
    phasors: np.ndarray  # (n_channels, K + 1, J, 2, n_bins): exp(i phase)
    past: np.ndarray  # (n_channels, J, synthesis): least-squares sums of the committed frames: d_1 to d_J-1, sum
    leaving: np.ndarray  # (n_channels, J, synthesis): the same with the synthesis window, for the output
    emitted: np.ndarray  # (n_channels, J, analysis - synthesis): newest samples of d_1 to d_J-1 that were emitted
    target: np.ndarray  # (K + 1, 2, n_bins) scratch: T
    analysed: np.ndarray  # (K + 1, J, 2, n_bins) scratch: D of the local signal
    masked: np.ndarray  # (K + 1, J, 2, n_bins) scratch: D of the amplitude mask
    imposed: np.ndarray  # (K + 1, J, 2, n_bins) scratch: D after the magnitude step, sum in row J - 1
    local: np.ndarray  # (J, analysis + K * hop) scratch: emitted samples, then overlap-add of past and window
    out: np.ndarray  # (J, synthesis) scratch: `leaving` with frame 0
    frame: np.ndarray  # (n_fft,) scratch
    wave: np.ndarray  # (n_fft,) scratch


@pasted
def _overlap_add(state, past, n_rows):
    """Open samples of the local signal of `n_rows`, from the committed frames and those of the window."""
    local, wave, window, imposed = state.local, state.wave, state.window, state.imposed
    n_ahead, n_src, n_bins = imposed.shape[0] - 1, imposed.shape[1], imposed.shape[3]
    n, length, hop = window.size, local.shape[1], state.emit.size
    start = length - n - n_ahead * hop
    for row in range(n_rows):
        base = row * length + start
        irfft(state.plan, imposed, 2 * row * n_bins, wave)
        for first in range(0, n, LANES):
            i = min(first, n - LANES)
            store(local, base + i, load(past, row * n + i) + load(window, i) * load(wave, start + i))
        clear(local, base + n, n_ahead * hop)
        for frame in range(1, n_ahead + 1):
            irfft(state.plan, imposed, 2 * (frame * n_src + row) * n_bins, wave)
            for i in range(n):
                local[row, start + frame * hop + i] += window[i] * wave[start + i]


@pasted
def _commit(state, c, n_rows):
    """Frame 0 joins the sums of `n_rows`, which move on by one hop; `state.out` begins with what leaves."""
    local, wave, window, ratio, out = state.local, state.wave, state.window, state.ratio, state.out
    past, leaving = state.past[c], state.leaving[c]
    n_ahead, n_bins = state.imposed.shape[0] - 1, state.imposed.shape[3]
    n, length, hop = window.size, local.shape[1], state.emit.size
    start = length - n - n_ahead * hop
    for row in range(n_rows):
        base = row * length + start
        irfft(state.plan, state.imposed, 2 * row * n_bins, wave)
        for first in range(0, n, LANES):
            i = min(first, n - LANES)
            weighted = load(window, i) * load(wave, start + i)
            store(local, base + i, load(past, row * n + i) + weighted)
            store(out, row * n + i, load(leaving, row * n + i) + load(ratio, i) * weighted)
        move(past, row * n, local, base + hop, n - hop)
        clear(past, (row + 1) * n - hop, hop)
        move(leaving, row * n, out, row * n + hop, n - hop)
        clear(leaving, (row + 1) * n - hop, hop)


@pasted
def _remember(state, c, n_rows):
    """The hop of differences that has left becomes the newest part of what the analysis still reaches back to."""
    emitted, emit, out = state.emitted, state.emit, state.out
    size, hop = emitted.shape[2], emit.size
    kept = max(size - hop, 0)
    for row in range(n_rows):
        base = (c * emitted.shape[1] + row) * size
        move(emitted, base, emitted, base + size - kept, kept)
        for i in range(hop - (size - kept), hop):
            emitted[c, row, size - hop + i] = out[row, i] * emit[i]


@kernel
def recover_omisi(state, mixture, power, line, magnitudes, hop_out):
    """One hop of oMISI for every channel.

    Parameters
    ----------
    state : OMISIState
        Updated in place.
    mixture : ndarray, float32, (n_channels, 2, n_bins)
        Newest spectra of the mixture. Read only.
    power : ndarray, float32, (n_bins,)
        Squared magnitude, mean over the channels. Read only.
    line : ndarray, float32, (n_channels, analysis + lookahead * hop)
        Newest samples of the mixture. Read only.
    magnitudes : ndarray, float32, (n_src, n_bins)
        Target magnitudes of the newest frame, for the mean power of the channels; each channel gets its
        part. Values that are negative or not finite count as zero. Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten. In the order of the paper the sources lack an equal part each of the mixture, which the
        output stage adds (`consistent`); in the published order they are complete.

    Notes
    -----
    Real-time safe.
    """
    n_src, n_bins = magnitudes.shape
    n_channels, hop = hop_out.shape[1], hop_out.shape[2]
    n_ahead = state.target.shape[0] - 1
    n, length = state.analysis.shape[1], state.local.shape[1]
    published = state.published[0]
    # Until the window is full there is nothing to commit, and the first phases stay as they are.
    n_iter = state.n_iter[0] if state.n_seen[0] >= n_ahead else 0
    frame, emit, local, out = state.frame, state.emit, state.local, state.out
    n_before = state.emitted.shape[2]
    first = state.n_seen[0] == 0
    for c in range(n_channels):
        spectra, targets, phasors = state.mixture[c], state.magnitudes[c], state.phasors[c]
        _advance_window(state, mixture, power, magnitudes, c)
        for j in range(n_src - 1):
            move(local, j * length, state.emitted, (c * n_src + j) * n_before, n_before)
        if state.sinusoidal[0] and state.n_seen[0] >= n_ahead:
            if first:
                mixture_phase(spectra, n_ahead, phasors)
                previous = n_ahead
            else:
                previous = max(n_ahead - 1, 0)
            advance_phasors(state.sinusoids, targets[n_ahead], spectra[n_ahead], c, phasors[previous], phasors[n_ahead])
        else:
            mixture_phase(spectra, n_ahead, phasors)
        for i in range(n_ahead + 1):
            if published:
                move(state.target, 2 * i * n_bins, spectra, 2 * i * n_bins, 2 * n_bins)
            elif n_iter > 0:
                multiply(line, c * length + i * hop, state.held, i * n, frame, n)
                rfft(state.plan, frame, state.target, 2 * i * n_bins)
            impose(targets, phasors, i, state.imposed)
            if state.gated[0] and n_iter > 0:
                mask(spectra, targets, i, state.masked)

        mask_share = np.float32(0)
        # Step numbers of the paper's algorithm: consistency, then the projections, frame by frame.
        iteration, stop = 0, n_iter
        while iteration < stop:
            if state.deadline[0] != 0:
                stop = _affordable(
                    state.clock, state.deadline, state.took, state.began, state.shed, iteration, stop, n_channels - c
                )
                if stop == 0:
                    break
            _overlap_add(state, state.past[c], n_src - 1)
            last = iteration == stop - 1
            for i in range(n_ahead + 1):
                for j in range(n_src - 1):
                    multiply(local, j * length + i * hop, state.analysis, i * n, frame, n)
                    rfft(state.plan, frame, state.analysed, 2 * (i * n_src + j) * n_bins)
            if last and state.gated[0]:
                mismatch(state.analysed, state.target, targets, state.sums)
                mask_share = _mask_share(state.misfit, c, state.sums, state.keep[0])
            for i in range(n_ahead + 1):
                project(
                    state.analysed,
                    state.target,
                    spectra,
                    targets,
                    i,
                    last,
                    phasors,
                    state.masked,
                    mask_share,
                    state.imposed,
                )
            iteration += 1

        _commit(state, c, n_src if published else n_src - 1)
        _remember(state, c, n_src - 1)
        for i in range(hop):
            total = np.float32(0)
            for j in range(n_src - 1):
                total += out[j, i]
            rest = (out[n_src - 1, i] - total) / np.float32(n_src) if published else np.float32(0)
            for j in range(n_src - 1):
                hop_out[j, c, i] = (out[j, i] + rest) * emit[i]
            hop_out[n_src - 1, c, i] = rest * emit[i]
    state.n_seen[0] += 1


@inlined
def _mask_share(misfit, c, sums, keep):
    """Share of the amplitude mask, 0 to 1: one half at a smoothed ratio of squares of HALF_MASK."""
    for i in range(2):
        misfit[c, i] = sums[i] + keep * (misfit[c, i] - sums[i])
    ratio = misfit[c, 0] / (HALF_MASK * misfit[c, 1] + TINY)
    fourth = min(ratio * ratio, np.float32(1e6)) ** 2
    return fourth / (np.float32(1) + fourth)


@inlined
def _affordable(clock, deadline, took, began, shed, iteration, stop, n_left):
    """At which iteration to stop, so that each of the `n_left` channels to come gets its share of the time."""
    time = now(clock)
    if iteration > 0:
        # An eighth of the newest: an interruption does not decide alone.
        took[0] += (time - began[0] - took[0]) >> 3
    began[0] = time
    left = deadline[0] - time
    if left >= 2 * took[0] * n_left:
        return stop
    # The last iteration is special and has to be known as such when it begins, so only the first can be left out.
    earlier = 0 if iteration == 0 and left < took[0] * n_left else iteration + 1
    shed[0] += max(0, stop - earlier)
    return min(stop, earlier)


@pasted
def _advance_window(state, mixture, power, magnitudes, c):
    """Move the window of channel `c` on by one frame and fill in the newest one."""
    spectra, targets, phasors = state.mixture[c], state.magnitudes[c], state.phasors[c]
    n_src, n_bins = magnitudes.shape
    n_ahead = targets.shape[0] - 1
    n_frame = 2 * n_bins
    move(spectra, 0, spectra, n_frame, n_ahead * n_frame)
    move(targets, 0, targets, n_src * n_bins, n_ahead * n_src * n_bins)
    move(phasors, 0, phasors, n_src * n_frame, n_ahead * n_src * n_frame)
    move(spectra, n_ahead * n_frame, mixture, c * n_frame, n_frame)
    share_of_channel(mixture, c, power, magnitudes, targets[n_ahead])


@register_phase("omisi")
@dataclass(frozen=True)
class OMISI(OnlinePhase):
    """Online MISI: phases from a sliding window of frames; latency of one window plus look-ahead.

    Parameters
    ----------
    n_iter : int
        Iterations per hop, 0 to 1000; with 0 the sources are those of the amplitude mask.
    lookahead : int
        Future frames to wait for, 0 to 32 hops.
    init : {"mixture", "sinusoidal"}
        First phases of a new frame: those of the mixture, or those of the previous frame advanced by the
        sinusoidal model where it holds (`rtsep.phase.sinusoidal`); in the published order, everywhere.
    tail : float, optional
        How the samples are normalised that future frames will still overlap: 1 divides by the complete
        overlap, as published; 0 by the overlap that is there, the strict least-squares solution, which trusts
        the magnitudes of the newest frame most. Default: 0.03, or 0.02 where the synthesis window is the shorter one.
    gate : bool
        Blend in the amplitude mask where the magnitudes turn out not to fit (see `rtsep.phase.omisi`). Without it
        this is plain oMISI. The published order has no gate.
    order : {"paper", "published"}
        Order of the projections. "paper": the sources sum to the mixture. "published": the order of the
        released code, for comparison with its results (with `tail=1`); they do not.

    References
    ----------
    Magron and Virtanen, IEEE Signal Process. Lett. 27, 2020, section III.
    """

    n_iter: int = 5
    lookahead: int = 0
    init: str = "mixture"
    tail: float | None = None
    gate: bool = True
    order: str = "paper"

    State: ClassVar[type] = OMISIState
    step = recover_omisi

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        object.__setattr__(self, "lookahead", check_int("lookahead", self.lookahead, 0, MAX_LOOKAHEAD, " hops"))
        check_choice("init", self.init, ("mixture", "sinusoidal"))
        if self.tail is not None:
            check_real("tail", self.tail, 0, 1)
        if not isinstance(self.gate, bool):
            raise ConfigError(f"gate={self.gate!r} is neither True nor False")
        check_choice("order", self.order, ("paper", "published"))

    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {"n_iter": ("n_iter",), "gate": ("gated",)}

    @property
    def keeps_mixture_phase(self) -> bool:  # type: ignore[override]
        """Without iterations, if the first phases are those of the mixture."""
        return self.n_iter == 0 and self.init == "mixture"

    @property
    def consistent(self) -> bool:  # type: ignore[override]
        """Whether the output stage shares the mixing error."""
        return self.order == "paper"

    def shedding(self, state: OMISIState) -> Shedding:
        """Leaves out iterations that would come too late."""
        return Shedding(state.deadline, state.shed)

    def prepare(self, config: StreamConfig, n_src: int) -> OMISIState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        windows, hop, n_bins, n_frames = config.windows, config.hop, config.n_bins, self.lookahead + 1
        complete, present = windows.overlaps(n_frames)
        tail = TAILS[windows.is_pair] if self.tail is None else self.tail
        overlap = present + tail * (complete - present)
        # What is emitted is there as it is, and its sources sum to the mixture.
        before = np.ones(config.analysis - config.synthesis)
        inverse = np.append(before, np.divide(1, overlap, out=np.zeros(overlap.size), where=overlap > 0))
        held = np.append(before, np.divide(present, overlap, out=np.zeros(overlap.size), where=overlap > 0))
        spans = [slice(i * hop, i * hop + config.analysis) for i in range(n_frames)]
        spectra = (n_frames, n_src, 2, n_bins)
        return OMISIState(
            plan=plan_fft(config.n_fft),
            sinusoids=prepare_sinusoids(config, n_src, guarded=self.order == "paper"),
            n_iter=aligned([self.n_iter], np.int64),
            n_seen=zeros(1, np.int64),
            clock=system_clock(),
            deadline=zeros(1, np.int64),
            took=zeros(1, np.int64),
            began=zeros(1, np.int64),
            shed=zeros(1, np.int64),
            sinusoidal=constant([self.init == "sinusoidal"], np.bool_),
            published=constant([self.order == "published"], np.bool_),
            gated=np.array([self.gate and self.order == "paper"]),
            keep=constant([math.exp(-config.hop_s / MISMATCH_S)]),
            misfit=zeros((config.n_channels, 2)),
            sums=zeros(2),
            window=constant(windows.tail),
            ratio=constant(windows.ratio),
            emit=constant(1 / windows.envelope),
            analysis=constant([windows.analysis * inverse[span] for span in spans]),
            held=constant([windows.analysis * held[span] for span in spans]),
            mixture=zeros((config.n_channels, n_frames, 2, n_bins)),
            magnitudes=zeros((config.n_channels, n_frames, n_src, n_bins)),
            phasors=zeros((config.n_channels, *spectra)),
            past=zeros((config.n_channels, n_src, config.synthesis)),
            leaving=zeros((config.n_channels, n_src, config.synthesis)),
            emitted=zeros((config.n_channels, n_src, config.analysis - config.synthesis)),
            target=zeros((n_frames, 2, n_bins)),
            analysed=zeros(spectra),
            masked=zeros(spectra),
            imposed=zeros(spectra),
            local=zeros((n_src, config.analysis + self.lookahead * hop)),
            out=zeros((n_src, config.synthesis)),
            frame=zeros(config.n_fft),
            wave=zeros(config.n_fft),
        )
