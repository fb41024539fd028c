"""Microseconds per hop.

    pytest bench/hop_time.py --benchmark-json=hop_time.json

`test_phase_recovery` is analysis and phase recovery in a compiled loop, two sources, 16 kHz, window 256, hop
128, FFT 512; `test_numpy` is the same in plain NumPy (`numpy_omisi.py`) and the yardstick of the ratios.
`test_window` are the members of `rtsep.phase.window` at their default settings and 75 % overlap.
`test_network` are the learned estimators, features and expansion included, at four sizes (parameters in the name).
`test_process` is `Separator.process`, one hop per call from Python, with everything in it; `share` is its part
of the hop time. `test_callback` is the live callback, called from Python, with what can be switched on in it.
`us_per_hop` of each result is the median over the rounds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy_omisi import NumpyOMISI

from rtsep import Separator, StreamConfig
from rtsep.engine.analysis import analyse, prepare_analysis
from rtsep.engine.line import prepare_line, take_in
from rtsep.engine.registry import PHASES
from rtsep.estimators import Speech
from rtsep.estimators.learned import estimate_learned
from rtsep.estimators.model_file import Shape
from rtsep.kernels.jit import kernel
from rtsep.phase import OMISI
from rtsep.phase.window import WindowState, recover_window

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import models
import signals
from test_live_callback import Device

CONFIG = StreamConfig(16_000, 256, 128, 512)
N_HOPS = 200


@pytest.fixture(autouse=True)
def one_core():
    """Pin the process to one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


def scene(config: StreamConfig) -> tuple[np.ndarray, np.ndarray]:
    """Hops of a two-voice mixture and the true magnitudes of its frames."""
    sources = signals.voices(N_HOPS * config.hop, config.sr)
    padded = np.pad(sources, ((0, 0), (config.win_length - config.hop, 0)))
    starts = range(0, N_HOPS * config.hop, config.hop)
    frames = np.stack([padded[:, i : i + config.win_length] for i in starts])
    magnitudes = np.abs(np.fft.rfft(frames * config.window, config.n_fft)).astype(np.float32)
    return np.ascontiguousarray(sources.sum(0).reshape(N_HOPS, 1, config.hop)), magnitudes


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


@pytest.mark.parametrize(
    "phase",
    [
        OMISI(n_iter=0),
        OMISI(n_iter=5),
        OMISI(n_iter=15),
        OMISI(n_iter=15, init="sinusoidal"),
        OMISI(n_iter=7, lookahead=1),
        OMISI(n_iter=5, lookahead=2),
        OMISI(n_iter=15, order="published"),
    ],
    ids=lambda p: f"K{p.lookahead}-{p.n_iter}-{p.init}-{p.order}",
)
def test_phase_recovery(benchmark, phase):
    hops, magnitudes = scene(CONFIG)
    line = prepare_line(1, CONFIG.win_length + phase.lookahead * CONFIG.hop)
    analysis, state = prepare_analysis(CONFIG), phase.prepare(CONFIG, 2)
    out = np.zeros((2, 1, CONFIG.hop), np.float32)
    benchmark.pedantic(run_hops, (line, analysis, state, hops, magnitudes, out), rounds=200, warmup_rounds=5)
    record(benchmark, CONFIG.hop_s, N_HOPS)


@kernel
def run_window_hops(line, analysis, state, hops, magnitudes, out):
    for t in range(len(hops)):
        take_in(line, hops[t])
        analyse(analysis, line.samples)
        recover_window(state, analysis.mixture, analysis.power, line.samples, magnitudes[t], out)


@pytest.mark.parametrize("sr", [16_000, 48_000])
@pytest.mark.parametrize(
    "name", [name for name, phase in PHASES.items() if getattr(phase, "State", None) is WindowState]
)
def test_window(benchmark, name, sr):
    config, phase = StreamConfig(sr), PHASES[name]()
    if phase.lookahead is None:
        pytest.skip("offline by default")
    hops, magnitudes = scene(config)
    line = prepare_line(1, config.win_length + phase.lookahead * config.hop)
    analysis, state = prepare_analysis(config), phase.prepare(config, 2)
    out = np.zeros((2, 1, config.hop), np.float32)
    benchmark.pedantic(run_window_hops, (line, analysis, state, hops, magnitudes, out), rounds=20, warmup_rounds=2)
    record(benchmark, config.hop_s, N_HOPS)


@kernel
def run_estimates(state, mixture, powers, magnitudes):
    for t in range(len(powers)):
        estimate_learned(state, mixture, powers[t], magnitudes)


# 30, 127, 277 and 841 thousand parameters.
SHAPES = [Shape(32, 40, 2, 48, 2, False), Shape(64, 80), Shape(64, 128), Shape(64, 240)]


@pytest.mark.parametrize("sr", [16_000, 48_000])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.n_parameters // 1000}k")
def test_network(benchmark, shape, sr, tmp_path):
    config = StreamConfig(sr)
    estimator = Speech(models.random_model(tmp_path / "model.npz", shape, Speech.sources))
    state, magnitudes = estimator.prepare(config), np.zeros((2, config.n_bins), np.float32)
    powers = scene(config)[1][:, 0] ** 2
    mixture = np.zeros((1, 2, config.n_bins), np.float32)
    benchmark.pedantic(run_estimates, (state, mixture, powers, magnitudes), rounds=50, warmup_rounds=2)
    record(benchmark, config.hop_s, N_HOPS)


@pytest.mark.parametrize("n_iter", [0, 15])
def test_numpy(benchmark, n_iter):
    hops, magnitudes = scene(CONFIG)
    frames = np.lib.stride_tricks.sliding_window_view(hops.ravel(), CONFIG.win_length)[:: CONFIG.hop]
    stage = NumpyOMISI(CONFIG.win_length, CONFIG.hop, CONFIG.n_fft, 2, n_iter)

    def run() -> None:
        for frame, target in zip(frames, magnitudes, strict=False):
            stage.step(frame, target)

    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
    record(benchmark, CONFIG.hop_s, len(frames))


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("sr", [16_000, 48_000])
@pytest.mark.parametrize("estimator", ["passthrough", "denoise", "hpss"])
def test_process(benchmark, estimator, sr, n_channels):
    config = StreamConfig(sr, n_channels=n_channels)
    separator = Separator(config, estimator, OMISI(n_iter=5))
    x = signals.voices(N_HOPS * config.hop, sr).sum(0)
    blocks = np.repeat(x.reshape(N_HOPS, 1, config.hop), n_channels, 1)
    blocks = np.ascontiguousarray(blocks if n_channels > 1 else blocks[:, 0])
    out = np.zeros((separator.n_src, *blocks.shape[1:]), np.float32)

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
