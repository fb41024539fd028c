"""The hop: mixture in at the line, through one core, sources out; everything else only brings hops to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rtsep.config import StreamConfig
from rtsep.engine.line import LineState, prepare_line, take_in
from rtsep.engine.offset import OffsetState, give_back, prepare_offset, set_aside
from rtsep.engine.output import Output, OutputState, finish
from rtsep.engine.protocols import Core
from rtsep.engine.registry import run_core
from rtsep.kernels.jit import kernel, pasted
from rtsep.kernels.memory import zeros
from rtsep.kernels.simd import move


class FramingState(NamedTuple):
    """Hops on their way in and out."""

    hop_in: np.ndarray  # float32 (n_channels, hop): filled up to `position`
    hop_out: np.ndarray  # float32 (n_src, n_channels, hop): emptied up to `position`
    position: np.ndarray  # int64 (1,)


class States(NamedTuple):
    """Everything that a stream works on."""

    framing: FramingState
    line: LineState
    offset: OffsetState
    core: Any
    output: OutputState


def prepare_states(config: StreamConfig, core: Core, output: Output) -> States:
    """Fresh states. Not real-time safe."""
    n_src, latency, length = len(core.sources), core.latency(config).samples, core.line_length(config)
    core_state = core.prepare(config)
    return States(
        framing=FramingState(
            hop_in=zeros((config.n_channels, config.hop)),
            hop_out=zeros((n_src, config.n_channels, config.hop)),
            position=zeros(1, np.int64),
        ),
        line=prepare_line(config.n_channels, length),
        offset=prepare_offset(config.n_channels, length, config.sr),
        core=core_state,
        output=output.prepare(
            config, core.consistent, latency - config.hop, length - latency, getattr(core_state, "shares", None)
        ),
    )


@pasted
def process_hop(states, hop_in, hop_out):
    """The hop: mixture in, sources out; the one function that everything else calls.

    Parameters
    ----------
    states : States
        Updated in place.
    hop_in : ndarray, float32, (n_channels, hop)
        Read only.
    hop_out : ndarray, float32, (n_src, n_channels, hop)
        Overwritten; `latency - hop` samples behind `hop_in`.

    Notes
    -----
    Real-time safe: allocates nothing, takes no lock, never raises.
    """
    take_in(states.line, hop_in)
    set_aside(states.offset, states.line.samples, hop_in.shape[1])
    run_core(states.core, states.offset.samples, hop_out)
    give_back(states.offset, states.line.samples, states.output.start[0], hop_out)
    finish(states.output, states.line.samples, hop_out)


@kernel
def process_block(states, block_in, block_out):
    """Cut a block of any size into hops.

    One index serves both directions: a hop is emptied while the next one is filled, so that every block
    size has the same latency, one hop more than `process_hop`.

    Parameters
    ----------
    states : States
        Updated in place.
    block_in : ndarray, float32, (n_channels, n_samples)
        Read only.
    block_out : ndarray, float32, (n_src, n_channels, n_samples)
        Overwritten.

    Notes
    -----
    Real-time safe.
    """
    hop_in, hop_out, position = states.framing.hop_in, states.framing.hop_out, states.framing.position
    n_src, n_channels, hop = hop_out.shape
    n_samples = block_in.shape[1]
    done = 0
    while done < n_samples:
        at = position[0]
        n = min(n_samples - done, hop - at)
        for c in range(n_channels):
            move(hop_in, c * hop + at, block_in, c * n_samples + done, n)
        for row in range(n_src * n_channels):
            move(block_out, row * n_samples + done, hop_out, row * hop + at, n)
        done += n
        position[0] = at + n
        if at + n == hop:
            process_hop(states, hop_in, hop_out)
            position[0] = 0
