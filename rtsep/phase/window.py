"""One window, many updates: the engine of the iterative algorithms, online and offline.

Online, the spectra S of the newest K + 1 frames are open; everything before them is decided, and only its
overlap-add is kept. Every hop

1. a frame enters, with a first estimate, mostly the amplitude mask;
2. several times: the local signal, which is the frozen past and the frames of the window overlap-added, is
   analysed, Z = STFT(iSTFT(S)), and every frame gets its *update*, bin by bin: S from S, Z, mixture and target
   magnitudes. Normally all frames are analysed before any is updated (Jacobi); sequential algorithms go from
   the newest frame to the oldest, and each sees what became of the one before (Gauss-Seidel);
3. the oldest frame is committed: it joins the past, and the samples that no other frame will touch leave.

Offline is the same with a window of all frames and no past, so that the first hop with full look-ahead gives
what the offline form gives. Source of the scheme: P. Magron and T. Virtanen, IEEE Signal Process. Lett. 27, 2020.

An algorithm is a settings class that inherits `Windowed` and names its update. Updates are compiled on their
own and called by their address, and all members share one class of state: the engine is compiled once for all of
them. `omisi` stays outside: it carries only the differences of the sources (`rtsep.phase.difference`), which saves
one of J transforms, half of the time for two sources, and that works for no other update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.channels import share_of_channel
from rtsep.engine.protocols import OfflinePhase, OnlinePhase
from rtsep.kernels.fft import FFTPlan, irfft, plan_fft, rfft
from rtsep.kernels.jit import entry, inlined, kernel, pasted
from rtsep.kernels.memory import Code, aligned, code, constant, zeros
from rtsep.kernels.simd import LANES, clear, load, move, multiply, multiply_add, store
from rtsep.phase.difference import FALLBACK, inverse_size
from rtsep.phase.omisi import MAX_ITERATIONS, MAX_LOOKAHEAD

LEAST_LEVEL = np.float32(1e-18)  # that of the quietest sample; loud past over it still fits into float32

_floats = types.CPointer(types.float32)
_SIGNATURE = types.void(types.int64, types.int64, types.float32, *[_floats] * 7)


class Member(NamedTuple):
    """What makes a member of the engine.

    `update` and `enter` are functions of

    n_src, n_bins : int64
    level : float32
        Root mean square of the magnitudes in the window, over frames, sources and bins, and at least 1e-18: what
        makes steps and weights independent of the scale.
    mixture : (2, n_bins)
        Spectrum X of the frame.
    magnitudes : (n_src, n_bins)
        Targets V, finite and not negative.
    analysed : (n_src, 2, n_bins)
        Z, the consistent spectra; for `update` only.
    estimate : (n_src, 2, n_bins)
        S so far; in `enter` that of the frames before it, its own is still to be written.
    memory : (n_src, n_memory, n_bins)
        The frame's own values, which move through the window with it; filled by `enter`.
    work : (size of `work`,)
        Settings, constants and scratch of the algorithm.
    updated : (n_src, 2, n_bins)
        The new S, to be written.

    All but the first three are pointers to float32 (use `load`, `store`, `get` and `put`). Frames follow one
    another: the values of the frame before the present one, also of the one committed last, lie just below, as at
    `magnitudes - n_src * n_bins`.
    """

    update: Callable[..., None]
    enter: Callable[..., None]
    work: np.ndarray = np.zeros(1)
    n_memory: int = 0
    tail: float = 1.0  # normalisation of what future frames will still overlap, as in `OMISI`
    sequential: bool = False
    newest: np.ndarray | None = None  # (analysis,): analysis of the newest frame on the overlap-add itself
    first: np.ndarray | None = None  # (analysis,): the same in its first iteration


class WindowState(NamedTuple):
    """State of the engine for J sources; float32 unless said.

    Slots of the window: 0 the frame committed last, 1 that committed next, K + 1 the newest.
    """

    plan: FFTPlan
    hooks: Code  # `update` and `enter`
    n_iter: np.ndarray  # int64 (1,)
    n_seen: np.ndarray  # int64 (1,): frames so far
    sequential: np.ndarray  # bool (1,)
    work: np.ndarray
    window: np.ndarray  # constant (synthesis,): tail of the analysis window
    ratio: np.ndarray  # constant (synthesis,): synthesis window / that tail
    emit: np.ndarray  # constant (hop,): 1 / overlap
    whole: np.ndarray  # constant (analysis,): analysis window
    analysis: np.ndarray  # constant (n_kinds + 1, analysis): window / overlap; last the newest's in its first iteration
    energy: np.ndarray  # (n_channels, K + 2): mean squared magnitude
    mixture: np.ndarray  # (n_channels, K + 2, 2, n_bins)
    magnitudes: np.ndarray  # (n_channels, K + 2, J, n_bins)
    estimate: np.ndarray  # (n_channels, K + 2, J, 2, n_bins): S
    memory: np.ndarray  # (n_channels, K + 2, J, n_memory, n_bins)
    waves: np.ndarray  # (n_channels, K + 2, J, synthesis): last part of the inverse transforms of S, windowed
    past: np.ndarray  # (n_channels, J, synthesis): least-squares sums of the committed frames
    leaving: np.ndarray  # (n_channels, J, synthesis): the same with the synthesis window, for the output
    emitted: np.ndarray  # (n_channels, J, analysis - synthesis): newest samples that were emitted
    local: np.ndarray  # (J, analysis + K * hop) scratch: emitted samples, then overlap-add of past and window
    analysed: np.ndarray  # (J, 2, n_bins) scratch: Z of one frame
    updated: np.ndarray  # (J, 2, n_bins) scratch
    frame: np.ndarray  # (n_fft,) scratch, zero beyond the window
    wave: np.ndarray  # (n_fft,) scratch


@cache
def _compiled(hook: Callable[..., None]) -> Any:
    return entry(_SIGNATURE)(hook)


def prepare_window(
    config: StreamConfig, n_src: int, n_frames: int, n_iter: int, member: Member, n_channels: int
) -> WindowState:
    """Fresh state for a window of `n_frames`. Not real-time safe; compiles the hooks."""
    windows, n, hop, n_bins = config.windows, config.synthesis, config.hop, config.n_bins
    # The interior of a long window is all alike: frames that the newest one does not reach share the first row.
    n_kinds = min(n_frames, -(-config.analysis // hop) + 1)
    complete, present = windows.overlaps(n_kinds)
    overlap = present + member.tail * (complete - present)
    inverse = np.divide(1, overlap, out=np.zeros(overlap.size), where=overlap > 1e-6 * complete)
    inverse = np.append(np.ones(config.analysis - n), inverse)  # what is emitted is there as it is
    analysis = [windows.analysis * inverse[i * hop : i * hop + config.analysis] for i in range(n_kinds)]
    if member.newest is not None:
        analysis[-1] = member.newest
    analysis.append(analysis[-1] if member.first is None else member.first)
    slots = (n_channels, n_frames + 1)
    return WindowState(
        plan=plan_fft(config.n_fft),
        hooks=code(_compiled(member.update).address, _compiled(member.enter).address),
        n_iter=aligned([n_iter], np.int64),
        n_seen=zeros(1, np.int64),
        sequential=constant([member.sequential], np.bool_),
        work=aligned(member.work),
        window=constant(windows.tail),
        ratio=constant(windows.ratio),
        emit=constant(1 / windows.envelope),
        whole=constant(windows.analysis),
        analysis=constant(analysis),
        energy=zeros(slots),
        mixture=zeros((*slots, 2, n_bins)),
        magnitudes=zeros((*slots, n_src, n_bins)),
        estimate=zeros((*slots, n_src, 2, n_bins)),
        memory=zeros((*slots, n_src, member.n_memory, n_bins)),
        waves=zeros((*slots, n_src, n)),
        past=zeros((n_channels, n_src, n)),
        leaving=zeros((n_channels, n_src, n)),
        emitted=zeros((n_channels, n_src, config.analysis - n)),
        local=zeros((n_src, config.analysis + (n_frames - 1) * hop)),
        analysed=zeros((n_src, 2, n_bins)),
        updated=zeros((n_src, 2, n_bins)),
        frame=zeros(config.n_fft),
        wave=zeros(config.n_fft),
    )


@intrinsic
def _call(
    typingctx, address, n_src, n_bins, level,
    mixture, at_x, magnitudes, at_v, analysed, estimate, at_s, memory, at_m, work, updated, at_u,
):  # fmt: skip
    """Call the hook at `address` on arrays from flat positions on."""

    def codegen(context, builder, sig, args):
        def data(i, at=None):
            pointer = context.make_array(sig.args[i])(context, builder, args[i]).data
            return pointer if at is None else builder.gep(pointer, [args[at]])

        function_type = ir.FunctionType(ir.VoidType(), [context.get_value_type(ty) for ty in _SIGNATURE.args])
        function = builder.inttoptr(args[0], function_type.as_pointer())
        planes = [data(4, 5), data(6, 7), data(8), data(9, 10), data(11, 12), data(13), data(14, 15)]
        builder.call(function, [*args[1:4], *planes])
        return context.get_dummy_value()

    n = types.int64
    planes = (mixture, n, magnitudes, n, analysed, estimate, n, memory, n, work, updated, n)
    return types.void(n, n, n, types.float32, *planes), codegen


@inlined
def _hook(state, address, slot, level, updated, at):
    """`update` or `enter` for the frame in `slot`, counted over all channels."""
    n_src, n_memory, n_bins = state.memory.shape[2:]
    row = slot * n_src * n_bins
    _call(
        address, n_src, n_bins, level, state.mixture, 2 * slot * n_bins, state.magnitudes, row, state.analysed,
        state.estimate, 2 * row, state.memory, n_memory * row, state.work, updated, at,
    )  # fmt: skip


@pasted
def _energy(state, slot):
    """Mean squared magnitude of the frame in `slot`."""
    n_src, n_bins = state.magnitudes.shape[2], state.magnitudes.shape[3]
    c, s = slot // state.energy.shape[1], slot % state.energy.shape[1]
    total = np.float32(0)
    for j in range(n_src):
        for k in range(n_bins):
            v = state.magnitudes[c, s, j, k]
            total += v * v
    state.energy[c, s] = total / np.float32(n_src * n_bins)


@pasted
def _level(state, c):
    """Root mean square of the magnitudes in the window."""
    n_slots = state.energy.shape[1]
    total = np.float32(0)
    for s in range(1, n_slots):
        total += state.energy[c, s]
    return max(np.float32(math.sqrt(total / np.float32(n_slots - 1))), LEAST_LEVEL)


@kernel
def _synthesise(plan, estimate, window, start, wave, waves, first):
    """Waves of the J sources from row `first` on: their samples from `start` on, windowed."""
    n_src, n_bins, n = waves.shape[2], estimate.shape[4], window.size
    for row in range(first, first + n_src):
        irfft(plan, estimate, 2 * row * n_bins, wave)
        for at in range(0, n, LANES):
            i = min(at, n - LANES)
            store(waves, row * n + i, load(window, i) * load(wave, start + i))


@pasted
def _overlap_add(state, c):
    """Local signal from what is emitted, the frozen past and the waves of the window."""
    local, waves = state.local, state.waves
    n_slots, n_src, n = waves.shape[1:]
    length, hop, start = local.shape[1], state.emit.size, state.emitted.shape[2]
    for j in range(n_src):
        move(local, j * length, state.emitted, (c * n_src + j) * start, start)
        move(local, j * length + start, state.past, (c * n_src + j) * n, n)
        clear(local, j * length + start + n, length - start - n)
        for s in range(1, n_slots):
            at = start + (s - 1) * hop
            for i in range(n):
                local[j, at + i] += waves[c, s, j, i]


@pasted
def _iterate(state, c, n_iter, level):
    """Iterations on the window of channel `c`; leaves the local signal."""
    n_slots, n_src, n_bins = state.estimate.shape[1], state.estimate.shape[2], state.estimate.shape[4]
    n, length, hop, start = state.analysis.shape[1], state.local.shape[1], state.emit.size, state.emitted.shape[2]
    n_frames, n_kinds = n_slots - 1, state.analysis.shape[0] - 1
    # Frames between two overlap-adds: all, or one, the newest first.
    size = 1 if state.sequential[0] else n_frames
    n_parts = n_frames // size
    for part in range(n_iter * n_parts + 1):
        _overlap_add(state, c)
        if part == n_iter * n_parts:
            break
        stop = n_frames - part % n_parts * size
        for t in range(stop - size, stop):
            kind = max(0, n_kinds - n_frames + t)
            if t == n_frames - 1 and part == 0:
                kind = n_kinds
            for j in range(n_src):
                multiply(state.local, j * length + t * hop, state.analysis, kind * n, state.frame, n)
                rfft(state.plan, state.frame, state.analysed, 2 * j * n_bins)
            slot = c * n_slots + t + 1
            _hook(state, state.hooks.address[0], slot, level, state.updated, 0)
            move(state.estimate, 2 * slot * n_src * n_bins, state.updated, 0, 2 * n_src * n_bins)
            _synthesise(state.plan, state.estimate, state.window, start, state.wave, state.waves, slot * n_src)


@pasted
def _forget_oldest(frames, c):
    """Make room for a new frame of channel `c` in the last slot."""
    n_slots = frames.shape[1]
    size = frames.size // (frames.shape[0] * n_slots)
    move(frames, c * n_slots * size, frames, (c * n_slots + 1) * size, (n_slots - 1) * size)


@kernel
def recover_window(state, mixture, power, line, magnitudes, hop_out):
    """One hop of any member for every channel.

    Parameters
    ----------
    state : WindowState
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
    n_channels, hop = hop_out.shape[1], hop_out.shape[2]
    n_slots, n, start = state.waves.shape[1], state.window.size, state.emitted.shape[2]
    last = n_slots - 1
    # Until the window is full there is nothing to commit, and the first estimates stay as they are.
    n_iter = state.n_iter[0] if state.n_seen[0] >= n_slots - 2 else 0
    for c in range(n_channels):
        slot = c * n_slots + last
        _forget_oldest(state.mixture, c)
        _forget_oldest(state.magnitudes, c)
        _forget_oldest(state.estimate, c)
        _forget_oldest(state.memory, c)
        _forget_oldest(state.waves, c)
        for s in range(last):
            state.energy[c, s] = state.energy[c, s + 1]
        move(state.mixture, 2 * slot * n_bins, mixture, 2 * c * n_bins, 2 * n_bins)
        share_of_channel(mixture, c, power, magnitudes, state.magnitudes[c, last])
        _energy(state, slot)
        level = _level(state, c)
        _hook(state, state.hooks.address[1], slot, level, state.estimate, 2 * slot * n_src * n_bins)
        _synthesise(state.plan, state.estimate, state.window, start, state.wave, state.waves, slot * n_src)
        _iterate(state, c, n_iter, level)
        for j in range(n_src):
            for i in range(n):
                wave = state.waves[c, 1, j, i]
                state.past[c, j, i] += wave
                state.leaving[c, j, i] += state.ratio[i] * wave
            for i in range(hop):
                hop_out[j, c, i] = state.leaving[c, j, i] * state.emit[i]
            row = (c * n_src + j) * n
            move(state.past, row, state.past, row + hop, n - hop)
            clear(state.past, row + n - hop, hop)
            move(state.leaving, row, state.leaving, row + hop, n - hop)
            clear(state.leaving, row + n - hop, hop)
            row, kept = (c * n_src + j) * start, max(start - hop, 0)
            move(state.emitted, row, state.emitted, row + start - kept, kept)
            for i in range(hop - (start - kept), hop):
                state.emitted[c, j, start - hop + i] = hop_out[j, c, i]
    state.n_seen[0] += 1


@kernel
def recover_all(state, line, targets, sources):
    """The offline form on one channel; see `Windowed.run`."""
    n_frames, n_src, n_bins = targets.shape
    n, hop, start, n_samples = state.whole.size, state.emit.size, state.emitted.shape[2], line.size
    for t in range(n_frames):
        multiply(line, t * hop, state.whole, 0, state.frame, n)
        rfft(state.plan, state.frame, state.mixture, 2 * (t + 1) * n_bins)
        move(state.magnitudes, (t + 1) * n_src * n_bins, targets, t * n_src * n_bins, n_src * n_bins)
        _energy(state, t + 1)
    level = _level(state, 0)
    for slot in range(1, n_frames + 1):
        _hook(state, state.hooks.address[1], slot, level, state.estimate, 2 * slot * n_src * n_bins)
        _synthesise(state.plan, state.estimate, state.window, start, state.wave, state.waves, slot * n_src)
    _iterate(state, 0, state.n_iter[0], level)
    for j in range(n_src):
        for i in range(sources.shape[1]):
            sources[j, i] = np.float32(0)
        for t in range(n_frames):
            at = start + t * hop
            for i in range(min(state.window.size, n_samples - at)):
                sources[j, at + i] += state.ratio[i] * state.waves[0, t + 1, j, i]
        for i in range(start, n_samples):
            sources[j, i] *= state.emit[(i - start) % hop]


@dataclass(frozen=True)
class Online(OnlinePhase):
    """What the settings of all members share.

    Parameters
    ----------
    n_iter : int
        Iterations per hop, 0 to 1000.
    lookahead : int
        Future frames to wait for, 0 to 32 hops.
    """

    n_iter: int = 5
    lookahead: int | None = 0

    State: ClassVar[type] = WindowState
    step = recover_window
    adjustable: ClassVar[Mapping[str, tuple[str, ...]]] = {"n_iter": ("n_iter",)}

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        object.__setattr__(self, "lookahead", check_int("lookahead", self.lookahead, 0, MAX_LOOKAHEAD, " hops"))

    @property
    def keeps_mixture_phase(self) -> bool:  # type: ignore[override]
        """Without iterations: the first estimates are those of a mask."""
        return self.n_iter == 0

    def member(self, config: StreamConfig) -> Member:
        """The algorithm."""
        raise NotImplementedError

    def prepare(self, config: StreamConfig, n_src: int) -> WindowState:
        """Fresh state for `n_src` sources. Not real-time safe."""
        assert self.lookahead is not None
        member = self.member(config)
        return prepare_window(config, n_src, self.lookahead + 1, self.n_iter, member, config.n_channels)


@dataclass(frozen=True)
class Windowed(Online, OfflinePhase):
    """What the settings of all members share that also have an offline form.

    Parameters
    ----------
    n_iter : int
        Iterations per hop, or over the whole signal, 0 to 1000.
    lookahead : int or None
        Future frames to wait for, 0 to 32 hops; None for the whole signal (`rtsep.separate` alone).
    tail : float
        How the samples are normalised that future frames will still overlap, from 1, by the complete overlap, to
        0, by that which is there.
    """

    tail: float = 0.1

    def __post_init__(self) -> None:
        if self.lookahead is None:
            object.__setattr__(self, "n_iter", check_int("n_iter", self.n_iter, 0, MAX_ITERATIONS))
        else:
            super().__post_init__()
        check_real("tail", self.tail, 0, 1)

    def run(self, config: StreamConfig, line: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
        """Sources of one channel, offline.

        Parameters
        ----------
        config : StreamConfig
        line : ndarray, float32, (n_samples,)
            Mixture; frame t starts at sample `t * hop`. Samples that fewer frames cover than elsewhere come
            out faded, so pad both ends.
        magnitudes : ndarray, float32, (n_frames, n_src, n_bins)
            Targets, not negative.

        Returns
        -------
        sources : ndarray, float32, (n_src, n_samples)
            Zero beyond the last frame.
        """
        n_frames, n_src, _ = magnitudes.shape
        state = prepare_window(config, n_src, n_frames, self.n_iter, self.member(config), 1)
        sources = zeros((n_src, line.size))
        recover_all(state, aligned(line), np.ascontiguousarray(magnitudes, np.float32), sources)
        return sources


# What updates are made of. A spectrum that vanishes takes the phase of the mixture.


@inlined
def unit(re, im, xr, xi):
    """exp(i phase) of a spectrum, on lanes, with the mixture's where it vanishes."""
    re, im = multiply_add(xr, FALLBACK, re), multiply_add(xi, FALLBACK, im)
    scale = inverse_size(re, im)
    return re * scale, im * scale


def mask(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`enter`: the amplitude mask, S_j = V_j X / |X|."""
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        scale = inverse_size(xr, xi)
        for j in range(n_src):
            v = load(magnitudes, j * n_bins + k) * scale
            store(updated, 2 * j * n_bins + k, xr * v)
            store(updated, (2 * j + 1) * n_bins + k, xi * v)


def mixed_mask(n_src, n_bins, level, mixture, magnitudes, analysed, estimate, memory, work, updated):
    """`enter`: the amplitude mask with the mixing error distributed, S_j = (V_j + (|X| - sum_k V_k) / J) X / |X|."""
    share = np.float32(1) / np.float32(n_src)
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        xr, xi = load(mixture, k), load(mixture, n_bins + k)
        scale = inverse_size(xr, xi)
        total = load(magnitudes, k)
        for j in range(1, n_src):
            total = total + load(magnitudes, j * n_bins + k)
        for j in range(n_src):
            # In the order of operations that leaves nothing of a vanishing mixture times a large number.
            v = (load(magnitudes, j * n_bins + k) - total * share) * scale + share
            store(updated, 2 * j * n_bins + k, xr * v)
            store(updated, (2 * j + 1) * n_bins + k, xi * v)
