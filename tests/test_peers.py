"""The experiments of bench/peers on engines whose latency is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import signals

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "peers"))
import engines
import measure

SR = 16_000


class Delayed:
    """Whole blocks in, `late` samples later out."""

    sr = SR

    def __init__(self, block: int, late: int) -> None:
        self.block = self.least = block
        self.line = np.zeros(late, np.float32)

    def process(self, x: np.ndarray) -> np.ndarray:
        line = np.concatenate([self.line, x])
        self.line = line[x.size :]
        return line[: x.size]


class Centred:
    """A mean over a whole signal, or over samples on either side."""

    sr, block, least = SR, 0, 1

    def __init__(self, reach: int | None) -> None:
        self.reach = reach

    def process(self, x: np.ndarray) -> np.ndarray:
        if self.reach is None:
            return x / np.abs(x).max()
        return np.convolve(x, np.hanning(2 * self.reach + 3)[1:-1], "same").astype(np.float32)


def speech() -> np.ndarray:
    return signals.voices(2 * SR, n_src=1)[0]


@pytest.mark.parametrize(("block", "late"), [(1, 37), (160, 0), (160, 96)])
def test_latency_is_delay_and_what_a_block_waits_for(block, late):
    found = measure.latency(lambda: Delayed(block, late), speech()[: SR if block == 1 else None])
    assert found["delay_ms"] == pytest.approx(1000 * late / SR)
    assert found["ahead_ms"] == 0  # nothing in a delay line depends on what comes later, but a block must be full
    assert found["latency_ms"] == pytest.approx(1000 * (late + block - 1) / SR)


def test_latency_of_a_file_at_once_is_how_far_ahead_it_looks_or_the_whole():
    assert measure.latency(lambda: Centred(50), speech())["latency_ms"] == pytest.approx(1000 * 50 / SR)
    assert measure.latency(lambda: Centred(None), speech())["latency_ms"] is None


def test_this_engine_has_the_latency_that_it_states():
    found = measure.latency(lambda: engines.Rtsep("denoise"), speech())
    assert found["latency_ms"] == 16


def test_scores_are_those_of_the_aligned_output():
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    x = speech()
    noisy = x + 0.01 * np.random.default_rng(0).normal(size=x.size).astype(np.float32)
    late, plain = (measure.quality(lambda n=n: Delayed(160, n), x, noisy, SR) for n in (100, 0))
    assert late["delay"] == 100
    assert late["si_sdr"] == pytest.approx(plain["si_sdr"], abs=0.1)


def test_blocks_are_padded_and_cut():
    x = speech()[:1_000]
    assert np.array_equal(engines.run(Delayed(160, 0), x), x)
