"""Algorithms without a local signal, and Griffin-Lim: against their twins, and what their models promise."""

from __future__ import annotations

import naive
import naive_single
import numpy as np
import pytest
import signals
from frames import Frames

from rtsep import Output, Separator, StreamConfig, separate
from rtsep.config import ConfigError
from rtsep.estimators import Oracle
from rtsep.kernels.heap import drop_top, push
from rtsep.kernels.jit import kernel
from rtsep.phase import OMISI, RTPGHI, SPSI, FastGriffinLim, GriffinLim, PUIter, Unwrapping
from rtsep.phase.rtpghi import window_gamma
from rtsep.phase.unwrapping import impulse_places, onset_frames

CONFIG = StreamConfig(16_000)
SIZES = CONFIG.analysis, CONFIG.hop, CONFIG.n_fft


def run(phase, mixture: np.ndarray, magnitudes: np.ndarray, start: int = 0) -> np.ndarray:
    """The step alone, without the output stage, from frame `start` on; (n_src, n_samples)."""
    analyse, state = Frames(CONFIG, phase.lookahead), phase.prepare(CONFIG, magnitudes.shape[1])
    out, emitted = np.zeros((magnitudes.shape[1], 1, CONFIG.hop), np.float32), []
    hops = mixture[: len(magnitudes) * CONFIG.hop].reshape(-1, 1, CONFIG.hop).astype(np.float32)
    for t, (hop_in, target) in enumerate(zip(hops, magnitudes.astype(np.float32), strict=True)):
        frame = analyse(hop_in)
        if t >= start:
            type(phase).step(state, *frame, target, out)
        emitted.append(out[:, 0].copy())
    return np.concatenate(emitted, 1)[:, phase.lookahead * CONFIG.hop :]


def scene(n_samples: int = 6_400, n_src: int = 2, sizes=SIZES) -> tuple[np.ndarray, np.ndarray]:
    """Sources and their spectra (n_frames, n_src, n_bins)."""
    sources = signals.voices(n_samples, n_src=n_src)
    n_frames = n_samples // sizes[1]
    return sources, np.stack([naive.stft(s, *sizes, n_frames) for s in sources], 1)


def convergence(heard: np.ndarray, reference: np.ndarray) -> float:
    """How well the spectra's magnitudes agree, in dB."""
    n_frames = reference.shape[-1] // CONFIG.hop
    wanted, found = (np.abs(naive.stft(s, *SIZES, n_frames)) for s in (reference, heard))
    return 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(found - wanted))


def aligned_with(heard: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stream's output and the reference at the time of its samples."""
    delay = CONFIG.analysis - CONFIG.hop
    heard = heard[delay:]
    return heard, reference[: heard.size]


def random_phases(n_frames: int, n_src: int, v: np.ndarray, tolerance: float) -> np.ndarray:
    """The random phases of `RTPGHI`, in radians: one number of its generator for each bin below the tolerance."""
    phases, seed = np.zeros(v.shape), 0
    for t in range(n_frames):
        for j in range(n_src):
            loudest = max(v[t, j].max(), v[t - 1, j].max() if t else 0)
            for k in np.flatnonzero(np.log(v[t, j].clip(1e-36)) <= np.log(max(loudest, 1e-36)) + np.log(tolerance)):
                seed = (1664525 * seed + 1013904223) % 2**32
                phases[t, j, k] = 2 * np.pi * seed / 2**32
    return phases


@kernel
def sort_by_heap(values, keys, items, order):
    n = 0
    for i in range(values.size):
        n = push(keys, items, n, values[i], i)
    for i in range(values.size):
        order[i] = items[0]
        n = drop_top(keys, items, n)


def test_the_heap_gives_the_largest_first():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=100), np.arange(7.0), np.zeros(5), np.ones(1), rng.integers(0, 4, 50)):
        values = values.astype(np.float32)
        keys, items, order = np.zeros_like(values), np.zeros(len(values), int), np.zeros(len(values), int)
        sort_by_heap(values, keys, items, order)
        assert np.array_equal(values[order], np.sort(values)[::-1])
        assert np.array_equal(np.sort(order), np.arange(len(values)))


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-2])
def test_rtpghi_equals_its_twin(lookahead, tolerance):
    sources, spectra = scene(3_200)
    v = np.abs(spectra).astype(np.float32).astype(float)
    n_frames, n_src, _ = v.shape
    heard = run(RTPGHI(lookahead, tolerance), sources.sum(0), v)
    random = random_phases(n_frames, n_src, v, tolerance)
    phases = [
        naive_single.rtpghi(v[:, j], *SIZES, random[:, j], tolerance, lookahead)[: n_frames - lookahead]
        for j in range(n_src)
    ]
    middle = v[: n_frames - lookahead] * np.exp(1j * naive_single.from_middle(np.stack(phases, 1), 256, 512))
    expected = naive_single.synthesis(middle, 256, 64)
    assert np.linalg.norm(heard - expected) < 1e-3 * np.linalg.norm(expected)


def test_the_gaussian_of_a_window_is_found():
    t = np.arange(1000) - 500
    assert window_gamma(np.exp(-np.pi * t**2 / 30_000)) == pytest.approx(30_000)
    assert window_gamma(CONFIG.windows.analysis) == pytest.approx(
        0.25645 * 256**2, rel=0.03
    )  # the paper's value for Hann


@pytest.mark.parametrize("lookahead", [0, 1])
def test_the_phase_of_a_chirp_with_a_gaussian_envelope_is_right_up_to_a_constant(lookahead):
    n = np.arange(8_000)
    envelope = np.exp(-(((n - 4_000) / 1_500) ** 2))
    chirp = 0.5 * envelope * np.cos(2 * np.pi * (0.05 * n + 0.5 * 0.06 / 8_000 * n**2))
    spectra = naive.stft(chirp, *SIZES, 125)
    heard, expected = aligned_with(run(RTPGHI(lookahead), chirp, np.abs(spectra)[:, None])[0], chirp)
    # Analytic signals differ by one factor.
    a, b = (np.fft.ifft(np.fft.fft(s) * (np.arange(s.size) < s.size / 2)) for s in (heard, expected))
    similarity = abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)
    assert similarity > 0.98


def test_spsi_equals_its_twin():
    sources, spectra = scene()
    v = np.abs(spectra).astype(np.float32).astype(float)
    heard = run(SPSI(), sources.sum(0), v)
    phases = np.stack([naive_single.spsi(v[:, j], 64, 512) for j in range(2)], 1)
    expected = naive_single.synthesis(v * np.exp(1j * naive_single.from_middle(phases, 256, 512)), 256, 64)
    assert np.linalg.norm(heard - expected) < 1e-3 * np.linalg.norm(expected)


def rest_of(heard: np.ndarray, hz: float) -> float:
    """Share that a sinusoid of this frequency does not explain."""
    basis = np.exp(2j * np.pi * hz / 16_000 * np.arange(heard.size))
    fit = np.stack([basis.real, basis.imag]).T
    return np.linalg.norm(heard - fit @ np.linalg.lstsq(fit, heard, rcond=None)[0]) / np.linalg.norm(heard)


@pytest.mark.parametrize("phase", [RTPGHI(), RTPGHI(1), SPSI(), PUIter(n_iter=0)], ids=str)
def test_a_steady_sinusoid_comes_back(phase):
    n = np.arange(9_600)
    for hz in (300.0, 1_013.0, 3_333.0):
        sine = 0.3 * np.sin(2 * np.pi * hz / 16_000 * n)
        # From the first frame that is all sinusoid.
        heard = run(phase, sine, np.abs(naive.stft(sine, *SIZES, 150))[:, None], start=3)[0, 2_000:]

        # One sinusoid of the same level; its frequency is read from the magnitudes.
        found = hz + np.arange(-8, 8, 0.1)
        rests = [rest_of(heard, f) for f in found]
        assert abs(found[np.argmin(rests)] - hz) < 3, hz
        assert np.sqrt(2) * heard.std() == pytest.approx(0.3, rel=0.01), hz
        assert min(rests) < 0.05, hz


def test_better_models_give_more_consistent_spectra():
    sources, spectra = scene(16_000)
    v = np.abs(spectra)
    scores = {}
    for name, phase in {"rtpghi": RTPGHI(lookahead=1), "spsi": SPSI(), "causal": RTPGHI()}.items():
        heard = run(phase, sources.sum(0), v)
        scores[name] = [convergence(*aligned_with(h, s)) for h, s in zip(heard, sources, strict=True)]
    assert np.mean(scores["rtpghi"]) > 15
    assert np.mean(scores["rtpghi"]) > np.mean(scores["causal"])
    assert min(np.mean(s) for s in scores.values()) > 10


# Three sources that all start with the phase of the mixture are balanced on a point; rounding decides where they
# fall, so fewer iterations there.
@pytest.mark.parametrize(
    ("n_src", "n_iter", "onset"), [(1, 50, 0.5), (2, 0, 1.0), (2, 50, 0.5), (2, 50, 0.1), (3, 0, 0.5), (3, 3, 0.5)]
)
def test_pu_iter_equals_its_twin(n_src, n_iter, onset):
    sources, spectra = scene(3_200, n_src)
    x = sources.sum(0).astype(float)
    v = np.abs(spectra).astype(np.float32).astype(float)
    heard = run(PUIter(n_iter, onset), x, v)
    frames = naive_single.pu_iter(naive.stft(x, *SIZES, len(v)), v, 64, 512, n_iter, onset)
    expected = naive_single.synthesis(frames, 256, 64)
    # A phase is ill-defined where a bin all but vanishes.
    assert np.linalg.norm(heard - expected) < 5e-3 * np.linalg.norm(expected)


def test_pu_iter_explains_the_mixture_better_with_every_iteration():
    sources, spectra = scene()
    x = sources.sum(0)
    errors = []
    for n_iter in (0, 1, 5, 20, 50):
        heard, expected = aligned_with(run(PUIter(n_iter), x, np.abs(spectra)).sum(0), x)
        errors.append(np.linalg.norm(heard - expected))
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.05 * np.linalg.norm(x)


def test_pu_iter_beats_the_mask():
    sources = signals.voices(32_000)
    score = {}
    for name in ("mixture", "pu_iter"):
        error = sources - separate(sources.sum(0), 16_000, Oracle(sources), name)
        score[name] = 10 * np.log10((sources**2).sum() / (error**2).sum())
    assert score["pu_iter"] > score["mixture"] + 3


def test_the_sinusoidal_model_is_worth_a_decibel_on_steady_voices():
    sources, config, score = signals.voices(32_000), StreamConfig(16_000, 256, 128), {}
    for init in ("mixture", "sinusoidal"):
        error = sources - separate(sources.sum(0), 16_000, Oracle(sources), OMISI(init=init), config=config)
        score[init] = 10 * np.log10((sources**2).sum() / (error**2).sum())
    assert score["sinusoidal"] > score["mixture"] + 1


def offline_case(n_src: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded mixture, its phases and the true magnitudes."""
    sources = np.pad(signals.voices(4_000, n_src=n_src), ((0, 0), (256, 256)))
    x = sources.sum(0)
    x, sources = (a[..., : (x.size - 256) // 64 * 64 + 256] for a in (x, sources))
    frames = np.lib.stride_tricks.sliding_window_view(np.stack([*sources, x]), 256, axis=1)[:, ::64]
    spectra = np.fft.rfft(frames * naive.hann(256), 512).transpose(1, 0, 2)
    return x, np.angle(spectra[:, -1]), np.abs(spectra[:, :-1]).astype(np.float32)


@pytest.mark.parametrize("init", ["mixture", "random"])
@pytest.mark.parametrize(("n_iter", "momentum"), [(0, 0.0), (1, 0.5), (6, 0.0), (6, 0.99)])
def test_griffin_lim_equals_its_twin(n_iter, momentum, init):
    x, angles, magnitudes = offline_case()
    settings = FastGriffinLim(n_iter, init, momentum) if momentum else GriffinLim(n_iter, init)
    heard = settings.run(CONFIG, x, magnitudes)
    random = np.random.default_rng(0).uniform(-np.pi, np.pi, magnitudes.shape)
    for j in range(2):
        phase = angles if init == "mixture" else random[:, j]
        expected = naive_single.griffin_lim(magnitudes[:, j].astype(float), phase, *SIZES, n_iter, momentum)
        assert np.linalg.norm(heard[j] - expected) < 2e-3 * np.linalg.norm(expected)


def mismatch(signal: np.ndarray, magnitudes: np.ndarray) -> float:
    frames = np.lib.stride_tricks.sliding_window_view(signal, 256)[::64]
    weights = np.full(257, 2.0)
    weights[[0, -1]] = 1  # a one-sided spectrum counts its inner bins twice
    return float((weights * (np.abs(np.fft.rfft(frames * naive.hann(256), 512)) - magnitudes) ** 2).sum())


def test_griffin_lim_never_increases_the_magnitude_error_and_momentum_gets_further():
    x, _, magnitudes = offline_case()
    losses = [mismatch(GriffinLim(n, "random").run(CONFIG, x, magnitudes)[0], magnitudes[:, 0]) for n in range(1, 9)]
    assert np.all(np.diff(losses) < 0)
    plain, fast = (p.run(CONFIG, x, magnitudes)[0] for p in (GriffinLim(50, "random"), FastGriffinLim(50, "random")))
    assert mismatch(fast, magnitudes[:, 0]) < mismatch(plain, magnitudes[:, 0])


def test_griffin_lim_from_the_mixture_beats_the_mask():
    sources = signals.voices()
    masked, refined = (separate(sources.sum(0), 16_000, Oracle(sources), p) for p in ("mixture", "griffin_lim"))
    assert ((refined - sources) ** 2).sum() < 0.5 * ((masked - sources) ** 2).sum()


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim_converges_as_far_as_that_of_librosa(momentum):
    librosa = pytest.importorskip("librosa")
    source = np.pad(signals.voices(15_232)[0], 512)  # librosa does not fade the edges; in silence nobody can tell
    settings = {"n_fft": 512, "hop_length": 128, "window": naive.hann(512), "center": False}
    wanted = np.abs(librosa.stft(source, **settings))
    n_frames = wanted.shape[1]

    class SameStart(np.random.RandomState):
        """Gives librosa, which counts in turns, the random phases that ours begin with."""

        def random(self, size: tuple[int, int]) -> np.ndarray:
            return np.random.default_rng(0).uniform(-np.pi, np.pi, (n_frames, 1, 257))[:, 0].T / (2 * np.pi)

    def convergence(signal: np.ndarray) -> float:
        found = np.abs(librosa.stft(signal, **settings))
        return 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(found - wanted))

    theirs = librosa.griffinlim(wanted, n_iter=32, momentum=momentum, random_state=SameStart(), **settings)
    silence = np.zeros((n_frames - 1) * 128 + 512, np.float32)
    magnitudes = np.ascontiguousarray(wanted.T[:, None], np.float32)
    ours = FastGriffinLim(32, "random", momentum).run(StreamConfig(16_000, 512, 128, 512), silence, magnitudes)[0]
    assert convergence(ours) == pytest.approx(convergence(theirs), abs=0.1)


def test_clicks_come_back_from_their_magnitudes():
    clicks = np.zeros(8_192)
    clicks[[1_000, 3_017, 5_555]] = 0.5, 0.2, 0.4
    frames = np.lib.stride_tricks.sliding_window_view(clicks, 256)[::64]
    v = np.abs(np.fft.rfft(frames * naive.hann(256), 512))
    for t, at in zip(onset_frames(v, 0.5), (1_000, 3_017, 5_555), strict=True):
        assert np.all(impulse_places(v[t : t + 4], CONFIG) == at - 64 * t)
    heard = Unwrapping().run(CONFIG, np.zeros(len(v) * 64 + 192, np.float32), v[:, None].astype(np.float32))[0]
    assert np.abs(heard - clicks[: heard.size]).max() < 1e-5


def test_unwrapped_sinusoids_keep_their_phase_for_twenty_frames():
    n = np.arange(4_096)
    frequencies = 440.0, 1_234.0, 3_456.0
    tones = sum(np.sin(2 * np.pi * hz / 16_000 * n + hz) for hz in frequencies)
    frames = np.lib.stride_tricks.sliding_window_view(tones, 256)[::64]
    spectra = np.fft.rfft(frames * naive.hann(256), 512)
    phasors = Unwrapping(onset=1.0).phases(CONFIG, np.abs(spectra))
    for hz in frequencies:
        error = phasors[:20, round(hz * 512 / 16_000)] / spectra[:20, round(hz * 512 / 16_000)]
        assert np.degrees(np.abs(np.angle(error / error[0]))).max() < 10, hz


def test_onsets_as_impulses_give_more_consistent_spectra_than_none():
    x, _, magnitudes = offline_case()
    with_onsets, without = (mismatch(Unwrapping(o).run(CONFIG, x, magnitudes)[0], magnitudes[:, 0]) for o in (0.5, 1))
    assert with_onsets < 0.8 * without


@pytest.mark.parametrize("name", ["griffin_lim", "fast_griffin_lim", "unwrapping", "repeated_events"])
def test_an_offline_algorithm_adds_up_to_the_mixture_and_has_no_stream(name):
    sources = signals.voices()
    x = sources.sum(0)
    heard = separate(np.stack([x, 0.5 * x]), 16_000, Oracle(np.stack([sources, 0.5 * sources], 1)), name)
    assert np.abs(heard.sum(0)[0] - x).max() < 1e-5
    assert np.abs(heard[:, 1] - 0.5 * heard[:, 0]).max() < 1e-4
    with pytest.raises(ConfigError, match=f"'{name}' needs the whole signal"):
        Separator(CONFIG, "passthrough", name)


@pytest.mark.parametrize("settings", [RTPGHI, SPSI])
def test_the_stereo_image_of_the_mixture_stays(settings):
    """A source that reaches the second channel later and softer."""
    source = signals.voices(12_800, n_src=1)
    stereo = np.concatenate([source, 0.5 * np.roll(source, 3, 1)])[None]
    output = Output(ceiling_db=float("inf"))

    class Unshared(settings):
        """Without the mixing error, which for one source would be the whole difference."""

        consistent = False

    heard = separate(stereo[0], 16_000, Oracle(stereo), Unshared(), output=output)[0]
    delays = np.arange(-8, 9)
    correlation = [np.vdot(heard[0], np.roll(heard[1], -d)) for d in delays]
    assert delays[np.argmax(correlation)] == 3
    assert np.linalg.norm(heard[1]) == pytest.approx(0.5 * np.linalg.norm(heard[0]), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (RTPGHI, {"lookahead": 2}, "lookahead=2 is not between 0 and 1 hops"),
        (RTPGHI, {"tolerance": 0}, "tolerance=0 is not between 1e-30 and 1"),
        (PUIter, {"n_iter": -1}, "n_iter=-1 is not between 0 and 1000"),
        (PUIter, {"onset": 2}, "onset=2 is not between 0 and 1"),
        (Unwrapping, {"onset": -1}, "onset=-1 is not between 0 and 1"),
        (GriffinLim, {"init": "zero"}, "init='zero' is not one of mixture, random"),
        (FastGriffinLim, {"momentum": 1.5}, "momentum=1.5 is not between 0 and 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, options, message):
    with pytest.raises(ConfigError, match=message):
        settings(**options)
