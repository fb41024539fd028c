"""Reference arrays beside those of `test_factorise`: medians, masks, phases and scores by the code that streams, and
factorisations after their first and after many iterations.

What has no test here or there, and why:

- cnmf_repetition: another algorithm than ours. The article of 2016 has one atom for each source, W and H in closed
  form, made positive by abs(), the residual shared without the weights V_j / sum V, a penalty on H, and psi and lambda
  that start at exp(0.25 i); `complex_nmf` is the later form, with several atoms, its weights, no penalty and psi from
  the first phases. No setting of ours makes these terms vanish. `test_factorise` shows that onsets find their delays.
- cnmf_repetition/published_*, repet_masks/mask_period17, aw_published, W_oobss: published errors, not rebuilt as
  options; masks of period 17 and in ring order are shown to be what our parts make of these errors.
- fw_metrics/fw_*: the form for reporting, a mean of clamped ratios in 25 bands up to 3.8 kHz; `weighted_sdr` is the
  form for training by decision, and says so.
- fw_metrics/si_sar: what is left after a projection on each signal for itself; ours are on all of them together.
- sup_cost of cnmf_sinusoidal: it has the spectral norm where a Frobenius norm is meant.
- W_it50 and H_it50 of nbmf, plain and exactmask: the sums of rows wander there, to 0.8; ours are put right in every
  iteration, as in renorm. They are 4e-4 and 7e-5 apart then; after one and ten iterations they agree.
- H of online_is_nmf, W of it and of sklearn_minibatch after batches 1 and 3, W of sklearn_nmf: W after all batches
  hangs on them, and scikit-learn itself is compared with.
- toy_is_h: 1e7, as `test_factorise` has it from the formula; inputs of the sets are inputs here.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_factorise import BETAS, DATA, assert_close, naive_kam, spectrogram

from rtsep import StreamConfig, factorise
from rtsep.estimators.hpss import HPSSState, estimate_hpss
from rtsep.evaluation import si_sdr
from rtsep.factorise.nmf import beta_divergence, multiplicative_step
from rtsep.factorise.repetition import repeating_mask, similar_frames, similarity
from rtsep.phase import AnisotropicWiener, PUIter

CONFIG = StreamConfig(8000, 128, 32, 128)


@pytest.fixture(scope="module")
def golden():
    found = {}
    for name in ("model_based_reference", "model_based_rest"):
        with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
            found |= dict(file)
    return found


@pytest.fixture(scope="module")
def inputs(golden):
    return {name: golden[f"nmf_inputs/{name}"].astype(float) for name in ("V", "W0", "H0", "Wd")}


def check(golden, name, found):
    """Every seventh value is stored."""
    assert_close(found.ravel()[::7], golden[name])


@pytest.mark.parametrize("n_iter", [1, 50])
@pytest.mark.parametrize(("name", "beta"), BETAS.items())
def test_nmf_equals_the_reference_in_every_iteration(golden, inputs, name, beta, n_iter):
    v, wd = spectrogram(inputs["V"], beta), inputs["Wd"]
    published = {"activations": inputs["H0"], "beta": beta, "n_iter": n_iter, "exponent": 1.0}
    found = factorise.nmf(v, inputs["W0"], **published)
    check(golden, f"nmf_beta_joint/joint_{name}_it{n_iter}_W", found.dictionary)
    check(golden, f"nmf_beta_joint/joint_{name}_it{n_iter}_H", found.activations)
    found = factorise.nmf(v, dictionary=wd, **published)
    check(golden, f"nmf_beta_supervised/sup_{name}_it{n_iter}_H", found.activations)
    assert_close(found.cost, golden[f"nmf_beta_supervised/sup_{name}_cost"][: n_iter + 1])


@pytest.mark.parametrize(("name", "beta"), BETAS.items())
def test_nmf_of_a_frame_after_the_other_equals_the_reference(golden, inputs, name, beta):
    h, found = inputs["H0"][:, :1], []
    for frame in spectrogram(inputs["V"], beta).T:
        for _ in range(10):
            h = multiplicative_step(frame[:, None], inputs["Wd"], h, beta, 1)
        found.append(h)
        h = np.maximum(h, 1e-8)
    assert_close(np.hstack(found), golden[f"nmf_beta_supervised/frame_{name}_H"])


@pytest.mark.parametrize("n_iter", [1, 50])
def test_robust_nmf_equals_the_reference_in_every_iteration(golden, inputs, n_iter):
    v, w, h = (inputs[name] for name in ("V", "W0", "H0"))
    scaled = w / w.max(0), h / h.max(1, keepdims=True)
    for name, found in {
        "levy": factorise.levy_nmf(v**2, scaled[0], activations=scaled[1] * v.max(), n_iter=n_iter),
        "levyme": factorise.levy_nmf(v**2, w, activations=h, equalise=True, n_iter=n_iter),
        "cauchy": factorise.cauchy_nmf(v, scaled[0], activations=scaled[1] * v.max(), n_iter=n_iter),
    }.items():
        check(golden, f"levy_nmf/{name}_W_it{n_iter}", found.dictionary)
        check(golden, f"levy_nmf/{name}_H_it{n_iter}", found.activations)


@pytest.mark.parametrize("n_iter", [1, 50])
def test_isnmf_equals_the_reference_in_every_iteration(golden, inputs, n_iter):
    power, w, h = inputs["V"] ** 2, inputs["W0"], inputs["H0"]
    found = {}
    for name, settings in {"em": {}, "emmur": {"n_src": 2}}.items():
        for sage in (False, True):
            result = factorise.em_isnmf(power, w, activations=h, exponent=1.0, n_iter=n_iter, sage=sage, **settings)
            found[name.replace("em", "sage") if sage else name] = result.dictionary, result.activations
    for name, exponent in {"ml05": 0.5, "ml1": 1.0}.items():
        w, h = inputs["W0"], inputs["H0"]
        for _ in range(n_iter):
            w = multiplicative_step(power.T, h.T, w.T, 0, exponent).T
            h = multiplicative_step(power, w, h, 0, exponent)
            size = np.sqrt((w**2).sum(0))
            w, h = w / size, h * size[:, None]
        found[name] = w, h
        cost = beta_divergence(power, w @ h, 0).sum()
        assert cost == pytest.approx(golden[f"em_isnmf/{name}_cost"][n_iter], rel=1e-6)
    for name, (w, h) in found.items():
        check(golden, f"em_isnmf/{name}_H_it{n_iter}", h)
        if n_iter > 1:
            check(golden, f"em_isnmf/{name}_W_it{n_iter}", w)


@pytest.mark.parametrize("n_iter", [1, 50])
def test_complex_nmf_equals_the_reference_in_every_iteration(golden, n_iter):
    """Complex beta-NMF, whose rounding grows, after the first; after 50 `test_factorise` compares it to 1e-3."""
    w, h, nu = (golden[f"complex_inputs/{name}"].transpose(2, 0, 1) for name in ("Wc", "Hc", "nu"))
    x, advance = golden["complex_inputs/X"], np.exp(2j * np.pi * 32 * nu[:, :, 0])
    found = {
        "complex_isnmf/k05t1_m": factorise.complex_isnmf(x, w, h, advance, n_iter=n_iter),
        "cnmf_sinusoidal/sup_Xhat": factorise.complex_nmf(x, w, h, advance, n_iter=n_iter),
    }
    if n_iter == 1:
        found["complex_beta_nmf/b05_m"] = factorise.complex_beta_nmf(x, w, h, n_iter=n_iter)
    for name, result in found.items():
        check(golden, f"{name}_it{n_iter}", result.sources.transpose(1, 2, 0))
        check(golden, f"{name.rsplit('_', 1)[0]}_H_it{n_iter}", result.activations.transpose(1, 2, 0))


@pytest.mark.parametrize("n_iter", [1, 10])
def test_binary_nmf_equals_the_reference_in_every_iteration(golden, n_iter):
    """Plain, too: the sums of its rows have not moved far yet."""
    y, w, h, mask = (golden[f"nbmf/{name}"] for name in ("Y", "W0", "H0", "mask"))
    found = factorise.binary_nmf(y, w, activations=h, n_iter=n_iter)
    for kind in ("", "renorm_"):
        check(golden, f"nbmf/{kind}W_it{n_iter}", found.dictionary)
        check(golden, f"nbmf/{kind}H_it{n_iter}", found.activations)
    if n_iter == 1:
        found = factorise.binary_nmf(y, w, activations=h, observed=mask, n_iter=1)
        check(golden, "nbmf/exactmask_W_it1", found.dictionary)
        check(golden, "nbmf/exactmask_H_it1", found.activations)
    assert_close(found.cost[1:], golden["nbmf/exactmask_loss" if n_iter == 1 else "nbmf/loss"][:n_iter])


def harmonic_share(v, n_times, n_around):
    """Mask of the kernel of `hpss` with the median over time centred: it does not care for the order of its frames."""
    n_bins, n_frames = v.shape
    power = np.pad(v, ((0, 0), (n_times // 2, n_times // 2)), mode="symmetric").astype(np.float32) ** 2
    found, share = np.empty((2, n_bins), np.float32), np.empty(v.shape)
    for t in range(n_frames):
        state = HPSSState(
            history=np.zeros((n_bins, n_times), np.float32),
            ordered=np.zeros((n_bins, n_times), np.float32),
            around=np.zeros(n_around, np.float32),
            spectrum=np.zeros(n_bins, np.float32),
            n_seen=np.zeros(1, np.int64),
        )
        around = power[:, t : t + n_times].T
        for frame in (*np.delete(around, n_times // 2, 0), around[n_times // 2]):
            estimate_hpss(state, np.empty((1, 2, n_bins), np.float32), np.ascontiguousarray(frame), found)
        share[:, t] = found[0] / np.sqrt(power[:, t + n_times // 2])
    return share


def squared(mask, margin=1):
    """The mask of exponent 2 whose powers weigh alike, from one of exponent 1."""
    return mask**2 / (mask**2 + margin**2 * (1 - mask) ** 2)


def test_hpss_equals_the_reference(golden):
    """Masks of librosa, which has margins and other exponents: these are turned into those of the kernel."""
    v = golden["nmf_inputs/V"][:129]

    def wanted(name):
        return golden[f"hpss_librosa/{name}"].astype(float)

    share = harmonic_share(v, 31, 31)[::2]
    assert_close(share, wanted("harmonic_31x31_p2"))
    assert_close(1 - share, wanted("percussive_31x31_p2"))
    share = harmonic_share(v, 17, 9)[::2]
    assert_close(share, wanted("harmonic_17x9_margin1_3_p2"))
    weak = wanted("percussive_17x9_margin1_3_p2")  # P^2 / (P^2 + 9 H^2)
    assert_close(1 - share, 9 * weak / (1 + 8 * weak))
    share = harmonic_share(v, 17, 17)[::2]
    assert_close(share, squared(wanted("harmonic_17x17_p1")))
    assert_close(1 - share, squared(wanted("percussive_17x17_p1")))


def test_ratios_equal_the_reference(golden):
    """Of its parts, a projection on each signal for itself: shares of the energy, which an SI-SDR gives."""
    s, v, e = (golden[f"fw_metrics/{name}"].astype(float) for name in "sve")

    def level(ratio):
        return ratio - 10 * np.log10(1 + 10 ** (ratio / 10))

    assert si_sdr(s, e) == pytest.approx(float(golden["fw_metrics/si_sdr"]), rel=1e-6)
    assert level(si_sdr(s, e)) - level(si_sdr(v, e)) == pytest.approx(float(golden["fw_metrics/si_sir"]), rel=1e-6)


def streamed(golden, phase, order, prepare):
    """What a phase recovery makes of the mixture and the true magnitudes, (n_frames, 2, n_bins)."""
    v = np.abs(golden["complex_inputs/S"]).transpose(1, 2, 0)[:, ::order]
    state, hop, found = phase.prepare(CONFIG, 2), np.empty((2, 1, 32), np.float32), []
    for x, frame in zip(golden["complex_inputs/X"].T, v, strict=True):
        spectrum = np.stack([x.real, x.imag])[None].astype(np.float32)
        magnitudes = np.ascontiguousarray(frame, np.float32)
        spectra = prepare(state)
        type(phase).step(state, spectrum, spectrum[0, 0] ** 2, np.zeros((1, 128), np.float32), magnitudes, hop)
        found.append(spectra[:, 0] + 1j * spectra[:, 1])
    return np.array(found)


def test_phases_of_harmonic_and_percussive_sounds_equal_the_reference(golden):
    """PU-Iter whose first source, the percussive one, begins in every frame, and whose second one never does."""

    def prepare(state):
        state.before[:] = [[0], [1e6]]
        return state.synthesis.spectra

    wanted = golden["phase_helpers/pu_hpss_it5"].transpose(1, 2, 0)
    # The first bin advances by its own centre here, by the first peak there.
    assert_close(streamed(golden, PUIter(n_iter=5), -1, prepare)[..., 1:], wanted[..., 1:])


def test_anisotropic_wiener_equals_the_reference(golden):
    """But in its first frame, whose phases it takes for unknown, and where 2e-16 is much beside a determinant."""
    found = streamed(golden, AnisotropicWiener(kappa=1.0), 1, lambda state: state.estimate[0, 1])
    wanted = golden["phase_helpers/aw_zero_based"].transpose(1, 2, 0)
    power = (np.abs(golden["complex_inputs/S"]) ** 2).sum(2).T
    loud = np.broadcast_to((power > 1e-5)[1:, None, 1:], (23, 2, 64))
    assert loud.mean() > 0.35
    assert_close(found[1:, :, 1:][loud], wanted[1:, :, 1:][loud])


def test_online_repet_sim_with_the_released_error_is_made_of_the_same_steps(golden):
    """Distances by places in a ring of 47 frames; silence until it is full. By age masks differ by up to 0.9."""
    x, window = golden["repet_signals/x"] / 32768, np.hamming(513)[:-1]
    padded = np.pad(x, (0, 512))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[: 93 * 256 : 256]
    spectra = np.fft.rfft(window * frames).T
    v, ring, mask = np.abs(spectra), np.zeros((257, 47)), np.zeros((257, 93))
    for t in range(93):
        ring[:, t % 47] = v[:, t]
        if t >= 46:
            now = v[:, t : t + 1]
            alike = similar_frames(similarity(ring, now)[:, 0], 0, 8, 5)
            mask[:, t] = repeating_mask(now, np.median(ring[:, alike], 1)[:, None])[:, 0]
    assert_close(mask[::6, 46:], golden["repet_masks/mask_online_ring"])
    assert np.abs(factorise.repet_sim(v, distance=8, number=5, past=47) - mask)[:, 46:].max() > 0.8
    mask[1:7, 46:] = 1  # below the high-pass all is background
    found = np.zeros(padded.size)
    for t, frame in enumerate(np.fft.irfft((mask * spectra).T)):
        found[t * 256 : t * 256 + 512] += frame
    found = found[: x.size] / (window[0] + window[256])
    assert_close(found[::8], golden["repet_signals/background_online"])


def test_kam_as_released_equals_the_reference(golden):
    """Extents over time divided by the hop in samples: all of them are one frame."""
    x = golden["kam_hpss/X"].astype(complex)
    found = naive_kam(x, [0, 2, 34, 116, 256], 44_100 / 512, 128, released=True)
    for gain, name in zip(found, ("harmonic", "percussive"), strict=True):
        assert_close(gain, golden[f"kam_hpss/gain_{name}_hop_samples"], 1e-5)
