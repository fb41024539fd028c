"""What every estimator and every phase recovery promises; found in the registries, so new ones are tested too."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import models
import numpy as np
import pytest
import signals
from numba.core.runtime import _nrt_python, rtsys

from rtsep import ConfigError, Output, PythonEstimator, Separator, StreamConfig, separate
from rtsep.engine.hop import process_block
from rtsep.engine.registry import ESTIMATORS, PHASES, is_whole
from rtsep.estimators import Denoise, Oracle, Speech
from rtsep.phase import MISI, OMISI, BregmanADMM, BregmanGradient

SR = 16_000
N = 6_000
BLOCKS = {
    "1": [1],
    "63": [63],
    "64": [64],
    "128": [128],
    "480": [480],
    "1000": [1000],
    "mix": [1, 700, 63, 2, 128, 333],
}
# Settings that change the structure of an algorithm, beside the default of each registered one.
VARIANTS = {
    "omisi K=0 sinusoidal": OMISI(n_iter=3, init="sinusoidal"),
    "omisi K=1": OMISI(n_iter=2, lookahead=1),
    "omisi K=2 sinusoidal": OMISI(n_iter=2, lookahead=2, init="sinusoidal"),
    "omisi no iterations": OMISI(n_iter=0, lookahead=3),
    "omisi least squares": OMISI(n_iter=3, tail=0.0),
    "omisi published": OMISI(n_iter=2, lookahead=1, order="published"),
    "misi K=1": MISI(n_iter=2, lookahead=1),
    "bregman_gradient K=1": BregmanGradient(n_iter=2, lookahead=1),
    "bregman_admm K=0": BregmanADMM(n_iter=2, lookahead=0),
}


class InPython(PythonEstimator):
    """A compiled estimator whose step is called from Python."""

    sources, step = (), None  # those of the estimator

    def __init__(self, compiled):
        self._compiled, self.sources, self.step = compiled, compiled.sources, type(compiled).step

    def prepare(self, config):
        return self._compiled.prepare(config)

    def for_phase(self, phase):
        return InPython(self._compiled.for_phase(phase))


def estimator(name: str, sources: np.ndarray):
    if name == "dual path":
        return Speech(models.tiny_dual_path(Speech))
    return InPython(Denoise()) if name == "python" else ESTIMATORS[name].example(sources)


def has_example(name: str) -> bool:
    try:
        estimator(name, np.zeros((2, 8), np.float32))
    except ConfigError:  # it needs what only its user has
        return False
    return True


ONLINE = [name for name, settings in PHASES.items() if settings().lookahead is not None]
NAMES = [name for name in ("python", "dual path", *ESTIMATORS) if has_example(name)]
# Every estimator with the default phase recovery, every phase recovery with true magnitudes.
PAIRS = [(name, "omisi") for name in NAMES] + [("oracle", PHASES[name]()) for name in ONLINE if name != "omisi"]
IDS = [f"{e}-{getattr(p, 'name', p)}" for e, p in PAIRS]
# Synthesis windows of 8 and 4 ms.
SHORT = StreamConfig.from_ms(SR, latency_ms=8), StreamConfig.from_ms(SR, latency_ms=4)
OF_PAIRS = [PHASES[name]() for name in ("mixture", "wiener", "anisotropic_wiener", "pu_iter", "rtpghi", "spsi")]
OF_PAIRS += [OMISI(2), VARIANTS["omisi K=1"], VARIANTS["omisi published"], VARIANTS["misi K=1"]]
SHORT_CASES = [("oracle", phase, SHORT[i % 2]) for i, phase in enumerate(OF_PAIRS)]
SHORT_CASES += [("speech", "mixture", SHORT[0]), ("denoise", "mixture", SHORT[1])]
CASES = PAIRS + [("oracle", phase) for phase in VARIANTS.values()] + SHORT_CASES
CASE_IDS = IDS + list(VARIANTS) + [f"{e}-{p}-{c.synthesis}" for e, p, c in SHORT_CASES]


def make(case, sources: np.ndarray, **output) -> Separator:
    name, phase, config = (*case, StreamConfig(SR))[:3]
    config = replace(config, n_channels=sources.shape[1] if sources.ndim == 3 else 1)
    return Separator(config, estimator(name, sources), phase, Output(**output))


def stream(separator: Separator, x: np.ndarray, blocks: list[int]) -> np.ndarray:
    out, start, i = [], 0, 0
    while start < x.shape[-1]:
        size = blocks[i % len(blocks)]
        out.append(separator.process(x[..., start : start + size]))
        start, i = start + size, i + 1
    return np.concatenate(out, -1)


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_every_block_size_and_the_offline_call_give_the_same_bits(case):
    sources = signals.voices(N)
    x = sources.sum(0)
    separator = make(case, sources)
    expected = separator.process(x)
    for blocks in BLOCKS.values():
        separator.reset()
        assert np.array_equal(stream(separator, x, blocks), expected), blocks
    name, phase = case[:2]
    whole = separate(x, SR, estimator(name, sources), phase, config=separator.config)
    assert np.array_equal(whole[:, : N - separator.latency], expected[:, separator.latency :])


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_reset_is_as_new_and_without_it_the_past_is_heard(case):
    sources = signals.voices(N)
    x = sources.sum(0)
    separator, other = make(case, sources), make(case, sources)
    first = separator.process(x)
    carried = separator.process(x)
    separator.reset()
    again = separator.process(x)
    assert np.array_equal(first, again)
    assert np.array_equal(first, other.process(x))
    assert not np.array_equal(first, carried)


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_the_future_changes_nothing_that_was_heard(case):
    sources = signals.voices(N)
    x = sources.sum(0)
    first = make(case, sources).process(x)
    for s in (1_000, 3_333):
        changed, reference = x.copy(), sources.copy()
        changed[s:] = -0.3
        reference[:, s:] = 0.1
        assert np.array_equal(make(case, reference).process(changed)[:, :s], first[:, :s])


@pytest.mark.parametrize("lookahead", [0, 1, 3])
@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("times", [(16, 4), (16, 8), (8, 2), (4, 2)])
def test_a_click_comes_out_at_the_latency(sr, times, lookahead):
    config = StreamConfig.from_ms(sr, *times)
    separator = Separator(config, "passthrough", OMISI(n_iter=1, lookahead=lookahead, order="published"))
    assert separator.latency == config.analysis + lookahead * config.hop
    for at in (0, 1, config.hop - 1, 2 * config.hop + 3):
        click = np.zeros(at + 2 * separator.latency, np.float32)
        click[at] = 0.5
        separator.reset()
        heard = separator.process(click)[0]
        assert np.argmax(np.abs(heard)) == at + separator.latency
        assert abs(heard[at + separator.latency] - 0.5) < 1e-6
        assert np.abs(np.delete(heard, at + separator.latency)).max() < 1e-6


@pytest.mark.parametrize("signal", signals.hostile())
@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_any_input_gives_finite_output_below_the_ceiling_and_is_forgotten(case, signal):
    x = signals.hostile()[signal]
    with np.errstate(all="ignore"):
        references = np.stack([0.7 * x, 0.3 * x])
    separator = make(case, references)
    heard = separator.process(x)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= np.float32(10 ** (-1 / 20))
    clean = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    if np.abs(clean).max() < 0.4:
        expected = np.concatenate([np.zeros(separator.latency), clean])[: x.size]
        assert not separator.phase.consistent or np.abs(heard.sum(0) - expected).max() < 1e-6
    separator.process(np.zeros(2 * SR, np.float32))  # the limiter recovers, too
    assert separator.process(np.zeros(64, np.float32)).max() < 1e-20


@pytest.mark.parametrize("case", PAIRS, ids=IDS)
def test_bad_values_are_forgotten_within_a_window(case):
    sources = signals.voices(N)
    x = sources.sum(0)
    broken = x.copy()
    broken[1_000:1_003] = np.nan, np.inf, -np.inf
    reference = sources.copy()
    reference[:, 1_000:1_003] = np.nan
    separator = make(case, reference)
    heard = separator.process(broken)
    assert separator.counts["replaced"] == 3
    expected = x.copy()
    expected[1_000:1_003] = 0
    delay = separator.latency
    assert np.abs(heard[:, delay:].sum(0) - expected[:-delay]).max() < 1e-6


# Python itself may allocate.
@pytest.mark.parametrize("case", CASES[1:], ids=CASE_IDS[1:])
def test_a_hop_allocates_nothing_and_compiles_nothing(case):
    sources = signals.voices(64 * 110)
    separator = make(case, sources)
    hop = separator.config.hop
    x = sources.sum(0)
    block, out = np.zeros(hop, np.float32), np.zeros((separator.n_src, hop), np.float32)
    many, many_out = x[: 100 * hop].copy(), np.zeros((separator.n_src, 100 * hop), np.float32)
    separator.process(block, out)
    separator.process(many, many_out)

    def allocations(x: np.ndarray, out: np.ndarray) -> int:
        # numba counts the handle of each array that crosses from Python: the same for one hop and for many.
        before = rtsys.get_allocation_stats()
        separator.process(x, out)
        after = rtsys.get_allocation_stats()
        return after.alloc - before.alloc

    _nrt_python.memsys_enable_stats()
    signatures = len(process_block.signatures)
    assert allocations(block, out) == allocations(many, many_out)
    assert len(process_block.signatures) == signatures

    tracemalloc.start()
    try:
        grown = []
        for n_calls in (500, 500, 500):  # the first round fills CPython's free lists, and other threads allocate, too
            start = tracemalloc.get_traced_memory()[0]
            for _ in range(n_calls):
                separator.process(block, out)
            grown.append(tracemalloc.get_traced_memory()[0] - start)
        assert min(grown) < 16 * n_calls, grown
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", PAIRS + SHORT_CASES, ids=IDS + CASE_IDS[-len(SHORT_CASES) :])
def test_equal_channels_get_equal_sources_and_the_image_stays(case):
    sources = signals.voices(N)
    stereo = np.stack([sources, 0.5 * sources], 1)
    heard = make(case, stereo).process(stereo.sum(0))
    assert heard.shape == (heard.shape[0], 2, N)
    assert np.abs(heard[:, 1] - 0.5 * heard[:, 0]).max() < 1e-6


def test_all_estimators_are_tested_but_those_that_need_a_file_of_their_user():
    streams = {name for name, settings in ESTIMATORS.items() if not is_whole(settings)}
    assert streams - set(NAMES) <= {"onnx"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "python"])
def test_an_estimator_without_compiled_step_gives_the_same_bits(name):
    sources = signals.voices(N)
    x = sources.sum(0)
    compiled = estimator(name, sources)
    plain = Separator(StreamConfig(SR), InPython(compiled), "omisi")
    expected = Separator(StreamConfig(SR), compiled, "omisi").process(x)
    for _ in range(2):
        assert np.array_equal(stream(plain, x, [1, 700, 63]), expected)
        plain.reset()


def test_the_output_is_not_an_internal_buffer():
    sources = signals.voices(N)
    separator = make(PAIRS[0], sources)
    first = separator.process(sources.sum(0))
    kept = first.copy()
    separator.process(sources.sum(0))
    assert np.array_equal(first, kept)


def test_flush_gives_the_rest_and_starts_anew():
    sources = signals.voices(N)
    x = sources.sum(0)
    for n_channels in (1, 2):
        separator = Separator(StreamConfig(SR, n_channels=n_channels), "passthrough", OMISI(lookahead=1))
        signal = x if n_channels == 1 else np.stack([x, -x])
        heard = separator.process(signal)
        whole = np.concatenate([heard, separator.flush()], -1)[..., separator.latency :]
        assert np.abs(whole[0] - signal).max() < 1e-6
        assert np.array_equal(separator.process(signal), heard)


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "audio is list, not an array"),
        (np.zeros(8, complex), TypeError, "audio is complex128, not real numbers"),
        (np.zeros(8, np.int16), TypeError, "audio is int16; rtsep.from_pcm makes floats"),
        (np.array(["a"]), TypeError, "not real numbers"),
        (np.zeros((2, 8)), ValueError, r"audio has shape \(2, 8\), not \(n_samples,\)"),
        (np.float32(1), TypeError, "not an array"),
        (np.zeros((1, 1, 8)), ValueError, r"audio has shape \(1, 1, 8\)"),
    ],
)
def test_what_is_not_audio_is_refused(block, error, message):
    separator = Separator(StreamConfig(SR), "passthrough")
    with pytest.raises(error, match=message):
        separator.process(block)


def test_what_cannot_be_written_to_is_refused():
    separator = Separator(StreamConfig(SR), "passthrough")
    x = np.zeros(8, np.float32)
    with pytest.raises(TypeError, match="out is float64, not contiguous float32"):
        separator.process(x, np.zeros((1, 8)))
    with pytest.raises(ValueError, match=r"out has shape \(2, 8\), not \(1, 8\)"):
        separator.process(x, np.zeros((2, 8), np.float32))
    for out in ([0.0] * 8, np.broadcast_to(np.float32(0), (1, 8))):
        with pytest.raises(TypeError, match="not an array that can be written to"):
            separator.process(x, out)
    with pytest.raises(TypeError, match="not contiguous"):
        separator.process(x, np.zeros((1, 16), np.float32)[:, ::2])


def test_any_layout_and_float_type_of_a_block_is_taken():
    x = signals.voices(2_000).sum(0)
    separator = Separator(StreamConfig(SR), "passthrough")
    expected = separator.process(x)
    signatures = len(process_block.signatures)
    for block in (x.astype(np.float64), np.repeat(x, 2)[::2], x[::-1][::-1], np.frombuffer(x.tobytes(), np.float32)):
        separator.reset()
        assert np.array_equal(separator.process(block), expected)
    assert len(process_block.signatures) == signatures
    line = np.concatenate([x, np.zeros(50, np.float32)])
    separator.reset()
    assert np.array_equal(separator.process(line[:2_000], line[50:][None]), expected)
    assert separator.process(np.zeros(0)).shape == (1, 0)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"estimator='x' is not one of .*oracle, passthrough"):
        Separator(StreamConfig(SR), "x")
    with pytest.raises(ValueError, match=r"phase='x' is not one of .*misi, mix_incons, .*omisi"):
        Separator(StreamConfig(SR), "passthrough", "x")
    for phase in (3, ESTIMATORS["passthrough"]()):
        with pytest.raises(ValueError, match=r"phase=.* is neither a name nor"):
            Separator(StreamConfig(SR), "passthrough", phase)
    with pytest.raises(ValueError, match=r"phase=OMISI is a class; pass settings, OMISI\(...\)"):
        Separator(StreamConfig(SR), "passthrough", OMISI)
    with pytest.raises(ValueError, match="config=16000 is no StreamConfig"):
        Separator(16_000)
    with pytest.raises(ValueError, match=r"output=\{\} is no Output"):
        Separator(StreamConfig(SR), "passthrough", output={})


def test_a_signal_with_its_axes_exchanged_is_recognised():
    with pytest.raises(
        ValueError, match=r"shape \(8000, 2\); if that is \(n_samples, n_channels\), pass its transpose"
    ):
        separate(np.zeros((8_000, 2)), SR, "passthrough")
    with pytest.raises(ValueError, match=r"shape \(480, 2\); if that is \(n_samples, n_channels\), pass its transpose"):
        separate(np.zeros((480, 2)), SR, "passthrough")
    with pytest.raises(ValueError, match=r"shape \(2000, 2\); .* pass its transpose"):
        separate(np.zeros((2_000, 2)), SR, "passthrough", config=StreamConfig(SR, n_channels=2))
    with pytest.raises(ValueError, match=r"shape \(2000, 3000\); 1024 channels are the most"):
        separate(np.zeros((2_000, 3_000)), SR, "passthrough")


def test_many_sources_are_no_trouble():
    sources = signals.voices(2_000, n_src=12)
    x = sources.sum(0)
    heard = separate(x, SR, Oracle(sources), output=Output(ceiling_db=float("inf")))
    assert heard.shape == (12, 2_000)
    assert np.abs(heard.sum(0) - x).max() < 1e-5
