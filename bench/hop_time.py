"""Microseconds per hop.

    pytest bench/hop_time.py --benchmark-json=hop_time.json

`test_phase_recovery` is analysis and phase recovery in a compiled loop, two sources, 16 kHz, window 256, hop
128, FFT 512; `test_numpy` is the same in plain NumPy (`numpy_omisi.py`) and the yardstick of the ratios.
Windows, networks and every other phase recovery: `algorithms.py` and `learned.py`.
`test_process` is `Separator.process`, one hop per call from Python, with everything in it; `share` is its part
of the hop time. `test_callback` is the live callback, called from Python, with what can be switched on in it.
`us_per_hop` of each result is the median over the rounds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from material import N_HOPS, hops, signals
from numpy_omisi import NumpyOMISI
from study import one_core

from rtsep import Separator, StreamConfig
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.line import prepare_line, take_in
from rtsep.kernels.jit import kernel
from rtsep.phase import OMISI

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_live_callback import Device

CONFIG = StreamConfig(16_000, 256, 128, 512)


@pytest.fixture(autouse=True)
def pinned():
    with one_core():
        yield


step = OMISI.step


@kernel
def run_hops(line, analysis, state, hops, magnitudes, out):
    for t in range(len(hops)):
        take_in(line, hops[t])
        analyse(analysis, line.samples)
        step(state, analysis.mixture, analysis.power, line.samples, magnitudes[t], out)


def record(benchmark, hop_s: float, n_hops: int) -> None:
    if benchmark.stats is None:  # benchmarks are switched off
        return
    median = benchmark.stats.stats.median / n_hops
    benchmark.extra_info["us_per_hop"] = round(1e6 * median, 2)
    benchmark.extra_info["share"] = f"{100 * median / hop_s:.2f} %"


@pytest.mark.parametrize("n_iter", [0, 15])
def test_phase_recovery(benchmark, n_iter):
    phase = OMISI(n_iter)
    mixture, magnitudes = hops(CONFIG)
    line = prepare_line(1, CONFIG.analysis + phase.lookahead * CONFIG.hop)
    analysis, state = prepare_analysis(CONFIG), phase.prepare(CONFIG, 2)
    out = np.zeros((2, 1, CONFIG.hop), np.float32)
    benchmark.pedantic(run_hops, (line, analysis, state, mixture, magnitudes, out), rounds=200, warmup_rounds=5)
    record(benchmark, CONFIG.hop_s, N_HOPS)


@pytest.mark.parametrize("n_iter", [0, 15])
def test_numpy(benchmark, n_iter):
    mixture, magnitudes = hops(CONFIG)
    frames = np.lib.stride_tricks.sliding_window_view(mixture.ravel(), CONFIG.analysis)[:: CONFIG.hop]
    stage = NumpyOMISI(CONFIG.analysis, CONFIG.hop, CONFIG.n_fft, 2, n_iter)

    def run() -> None:
        for frame, target in zip(frames, magnitudes, strict=False):
            stage.step(frame, target)

    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
    record(benchmark, CONFIG.hop_s, len(frames))


@pytest.mark.parametrize("sr", [16_000, 48_000])
@pytest.mark.parametrize("estimator", ["passthrough", "denoise", "hpss"])
def test_process(benchmark, estimator, sr):
    config = StreamConfig(sr)
    separator = Separator(config, estimator, OMISI(n_iter=5))
    blocks = hops(config)[0][:, 0]
    out = np.zeros((separator.n_src, config.hop), np.float32)

    def run() -> None:
        for block in blocks:
            separator.process(block, out)

    benchmark.pedantic(run, rounds=50, warmup_rounds=2)
    record(benchmark, config.hop_s, N_HOPS)


@pytest.mark.parametrize("sr", [16_000, 48_000])
@pytest.mark.parametrize("extra", ["nothing", "bypass", "recording", "howling"])
def test_callback(benchmark, extra, sr):
    """The audio callback on one hop, with what can be switched on; nothing of a panel reaches the audio thread."""
    config = StreamConfig(sr)
    device = Device(Separator(config, "denoise"))
    live = device.live
    if extra == "bypass":
        device.hear(0)
    live.taps[0] = extra == "recording"
    live.listens[0] = extra == "howling"
    block, out = signals.voices(config.hop, sr).sum(0), np.zeros(config.hop, np.float32)
    into, address = (block.ctypes.data, out.ctypes.data, config.hop, None, 0), device.handle.address
    call, tap = device._call, live.tap

    def run() -> None:
        for _ in range(N_HOPS):
            call(*into, address)
            tap.read[0] = tap.written[0]

    benchmark.pedantic(run, rounds=50, warmup_rounds=2)
    record(benchmark, config.hop_s, N_HOPS)
    device.close()
