"""A network that looks along frequency and along time: convolutions over bands, recurrences over frames.

A frame is 32 places of two bands each, with a vector of channels at every place. A block mixes neighbouring places,
remembers a summary of all places in one recurrence, and remembers every place in another one, whose weights the places
share. It needs no future: within a frame all of frequency is there.

References
----------
X. Hao et al., "FullSubNet", ICASSP 2021, for the two recurrences, over all of the frame and shared by its bands;
X. Rong et al., "GTCRN", ICASSP 2024, for how little of both is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rtsep.estimators.bands import band_centres
from rtsep.estimators.features import ADVANCE_HZ
from rtsep.estimators.model_file import CUES, ENCODER, LEAK, N_ADVANCES, NEIGHBOURS, SUMMARY, Model
from rtsep.kernels.jit import kernel
from rtsep.kernels.memory import constant, zeros
from rtsep.kernels.network import PANEL, Layers, affine, gru_step, leaky_relu, panels, stacked
from rtsep.kernels.rows import NARROW, affine_rows, gru_rows, narrow_panels
from rtsep.kernels.simd import LANES, load, store

Pack = Callable[[np.ndarray, np.ndarray], np.ndarray]


def advance_bands(n_bands: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where bands lie among the phase advances.

    Returns
    -------
    lower : ndarray, int64, (n_bands,)
        The band is between this advance and the next one,
    share : ndarray, float32, (n_bands,)
        so far up, 0 to 1.
    heard : ndarray, float32, (n_bands,)
        1, or 0 above the uppermost advance.
    """
    at = band_centres(n_bands) / ADVANCE_HZ - 0.5
    lower = np.clip(np.floor(at), 0, N_ADVANCES - 2).astype(np.int64)
    return lower, np.clip(at - lower, 0, 1).astype(np.float32), (at < N_ADVANCES - 1).astype(np.float32)


class DualPathWeights(NamedTuple):
    """In panels; float32 unless said. The first axis of layers is the block; there is one where blocks have none."""

    lower: np.ndarray  # int64 (n_bands,)
    share: np.ndarray  # (n_bands,)
    heard: np.ndarray  # (n_bands,)
    encoder: Layers
    encoder_place: np.ndarray  # (places, channels)
    near: Layers
    summary: Layers
    wide_into: Layers
    wide_within: Layers
    back: Layers
    lift: Layers
    each_into: Layers
    each_within: Layers
    decoder: Layers
    heads: Layers
    heads_place: np.ndarray  # (n_bands, n_heads)


class DualPathState(NamedTuple):
    """Weights in panels, and what the network remembers; float32."""

    weights: DualPathWeights
    hidden: np.ndarray  # (n_streams, n_layers, hidden): of the recurrence over all places
    each: np.ndarray  # (n_streams, n_layers, places, channels): of that which the places share
    features: np.ndarray  # (n_features,) scratch
    cues: np.ndarray  # (n_bands + ENCODER - 1, CUES) scratch: zeros beyond the ends
    frame: np.ndarray  # ((places + NEIGHBOURS - 1) * channels,) scratch: zeros beyond the ends
    near: np.ndarray  # (places * channels,) scratch
    rows: np.ndarray  # scratch: for each place 3 * channels or the panels of the heads, whichever is more
    more: np.ndarray  # as `rows`
    summary: np.ndarray  # (n_panels * PANEL,) scratch: SUMMARY values of every place
    a: np.ndarray  # scratch of the recurrence over all places
    b: np.ndarray  # scratch of the recurrence over all places
    said: np.ndarray  # scratch: the heads, n_bands values each: n_src masks, n_src ratios, confidence


def prepare_dual_path(model: Model, n_streams: int = 1, weights_as: str = "float32") -> DualPathState:
    """Fresh state with the weights of a model, "float32" or "int8". Not real-time safe."""
    shape, weights = model.shape, model.weights
    n_places, n, blocks = shape.bands_in // 2, shape.channels, range(shape.n_layers)

    def layer(name: str, pack: Pack = narrow_panels) -> np.ndarray:
        return pack(weights[f"{name}.weight"], weights[f"{name}.bias"])

    def gru(name: str, part: str, pack: Pack = narrow_panels) -> np.ndarray:
        return pack(weights[f"{name}.weight_{part}_l0"], weights[f"{name}.bias_{part}_l0"])

    def kept(layers: list[np.ndarray]) -> Layers:
        return stacked(layers, weights_as)

    heads = layer("heads")
    wide_into = [gru(f"blocks.{i}.wide", "ih", panels) for i in blocks]
    back = [layer(f"blocks.{i}.back", panels) for i in blocks]
    width = max(3 * n, heads.shape[0] * NARROW)
    lower, share, heard = advance_bands(shape.bands_in)
    return DualPathState(
        weights=DualPathWeights(
            lower=constant(lower, np.int64),
            share=constant(share),
            heard=constant(heard),
            encoder=kept([layer("encoder")]),
            encoder_place=constant(weights["encoder_place"].reshape(n_places, n)),
            near=kept([layer(f"blocks.{i}.near") for i in blocks]),
            summary=kept([layer(f"blocks.{i}.summary") for i in blocks]),
            wide_into=kept(wide_into),
            wide_within=kept([gru(f"blocks.{i}.wide", "hh", panels) for i in blocks]),
            back=kept(back),
            lift=kept([layer(f"blocks.{i}.lift") for i in blocks]),
            each_into=kept([gru(f"blocks.{i}.each", "ih") for i in blocks]),
            each_within=kept([gru(f"blocks.{i}.each", "hh") for i in blocks]),
            decoder=kept([layer("decoder")]),
            heads=kept([heads]),
            heads_place=constant(weights["heads_place"].reshape(shape.bands_in, shape.n_heads)),
        ),
        hidden=zeros((n_streams, shape.n_layers, shape.hidden)),
        each=zeros((n_streams, shape.n_layers, n_places, n)),
        features=zeros(shape.n_features),
        cues=zeros((shape.bands_in + ENCODER - 1, CUES)),
        frame=zeros((n_places + NEIGHBOURS - 1) * n),
        near=zeros(n_places * n),
        rows=zeros(n_places * width),
        more=zeros(n_places * width),
        summary=zeros(back[0].shape[0] * PANEL),
        a=zeros(wide_into[0].shape[0] * PANEL),
        b=zeros(wide_into[0].shape[0] * PANEL),
        said=zeros(shape.n_heads * shape.bands_out),
    )


@kernel
def run_dual_path(network, stream):
    """One step of the network from `network.features` to `network.said`, before the sigmoids.

    Parameters
    ----------
    network : DualPathState
        Updated in place.
    stream : int
        Whose frame it is.

    Notes
    -----
    Real-time safe.
    """
    weights, features, said = network.weights, network.features, network.said
    cues, frame, near, rows, more = network.cues, network.frame, network.near, network.rows, network.more
    n_places, n = weights.encoder_place.shape
    n_bands, n_heads = weights.heads_place.shape
    wide, each = network.hidden[stream], network.each[stream]
    slope = np.float32(LEAK)
    edge = ENCODER // 2
    for band in range(n_bands):
        cues[edge + band, 0], cues[edge + band, 1] = features[band], features[n_bands + band]
        low, up, scale = 2 * n_bands + weights.lower[band], weights.share[band], weights.heard[band]
        for part in range(2):
            below, above = features[low + part * N_ADVANCES], features[low + part * N_ADVANCES + 1]
            cues[edge + band, 2 + part] = scale * (below + up * (above - below))
    inner = frame[n:]  # without the zeros before the first place
    affine_rows(weights.encoder, 0, cues, 0, 2 * CUES, n_places, inner, n)
    for i in range(0, n_places * n, LANES):
        store(inner, i, load(inner, i) + load(weights.encoder_place, i))
    leaky_relu(inner, n_places * n, slope)
    summary = network.summary
    for block in range(wide.shape[0]):
        affine_rows(weights.near, block, frame, 0, n, n_places, near, n)
        leaky_relu(near, near.size, slope)
        affine_rows(weights.summary, block, near, 0, n, n_places, rows, NARROW)
        for place in range(n_places):
            for i in range(SUMMARY):
                summary[place * SUMMARY + i] = rows[place * NARROW + i]
        gru_step(
            weights.wide_into,
            weights.wide_within,
            block,
            summary,
            0,
            n_places * SUMMARY,
            wide,
            network.a,
            network.b,
        )
        affine(weights.back, block, wide, block * wide.shape[1], wide.shape[1], summary)
        affine_rows(weights.lift, block, summary, 0, SUMMARY, n_places, rows, n)
        for i in range(0, near.size, LANES):
            store(near, i, load(near, i) + load(rows, i))
        gru_rows(weights.each_into, weights.each_within, block, near, 0, n, each[block], rows, more)
        for i in range(0, near.size, LANES):
            store(inner, i, load(inner, i) + load(each[block], i))
    affine_rows(weights.decoder, 0, frame, 0, n, n_places, near, n)
    leaky_relu(near, near.size, slope)
    width = -(-2 * n_heads // NARROW) * NARROW
    affine_rows(weights.heads, 0, near, 0, n, n_places, rows, width)
    for band in range(n_bands):
        at = band // 2 * width + band % 2 * n_heads
        for head in range(n_heads):
            said[head * n_bands + band] = rows[at + head] + weights.heads_place[band, head]
