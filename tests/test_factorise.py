"""Factorisations against reference arrays, other packages, what theory promises, and input that cannot work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rtsep import factorise
from rtsep.config import ConfigError, StreamConfig
from rtsep.factorise.adaptive_repet import locally_periodic_mask
from rtsep.factorise.anisotropic import Moments, anisotropy, posterior
from rtsep.factorise.factors import normalise
from rtsep.factorise.kam import HARMONIC, PERCUSSIVE, band_edges, kernel_median
from rtsep.factorise.nmf import monotone_exponent, multiplicative_step
from rtsep.factorise.repet import periodic_mask
from rtsep.factorise.repetition import beat_spectrum

DATA = Path(__file__).parent / "data"
BETAS = {"b2": 2.0, "b1": 1.0, "b05": 0.5, "b0": 0.0}
CLOSE = 1e-6  # relative to the largest value; float32 storage costs 6e-8


@pytest.fixture(scope="module")
def golden():
    found = {}
    for name in ("model_based_reference", "model_based_more"):
        with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
            found |= dict(file)
    return found


@pytest.fixture(scope="module")
def inputs(golden):
    return {name: golden[f"nmf_inputs/{name}"].astype(float) for name in ("V", "W0", "H0", "Wd", "Om")}


@pytest.fixture(scope="module")
def mixture(golden):
    """Mixture, dictionaries, activations, advance: sources first."""
    w, h, nu = (golden[f"complex_inputs/{name}"].transpose(2, 0, 1) for name in ("Wc", "Hc", "nu"))
    return golden["complex_inputs/X"], w, h, np.exp(2j * np.pi * 32 * nu[:, :, 0])


def assert_close(found, wanted, tolerance=CLOSE):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def falls(cost):
    return (np.diff(cost) <= 1e-9 * np.abs(cost[:-1])).all()


def spectrogram(v, beta):
    return v**2 if beta == 0 else v


def test_the_reference_says_what_it_is():
    assert "independent" in json.loads((DATA / "model_based_reference.json").read_text())["what"]


@pytest.mark.parametrize(("name", "beta"), BETAS.items())
def test_nmf_equals_the_reference(golden, inputs, name, beta):
    v, w0, h0, wd, om = (inputs[k] for k in ("V", "W0", "H0", "Wd", "Om"))
    v = spectrogram(v, beta)
    published = {"activations": h0, "beta": beta, "n_iter": 10, "exponent": 1.0}

    blind = factorise.nmf(v, w0, **{**published, "n_iter": 50})
    assert_close(blind.cost, golden[f"nmf_beta_joint/joint_{name}_cost"])
    blind = factorise.nmf(v, w0, **published)
    assert_close(blind.dictionary, golden[f"nmf_beta_joint/joint_{name}_it10_W"])
    assert_close(blind.activations, golden[f"nmf_beta_joint/joint_{name}_it10_H"])

    def supervised(key):
        return golden[f"nmf_beta_supervised/{key.replace('*', name)}"]

    known = factorise.nmf(v, dictionary=wd, **published)
    assert_close(known.activations, supervised("sup_*_it10_H"))
    sparse = factorise.nmf(v, dictionary=wd, sparsity=0.1, **published)
    assert_close(sparse.activations, supervised("sparsesup_*_it10_H"))
    weighted = factorise.nmf(v, w0, weights=om, **published)
    assert_close(weighted.dictionary, supervised("masked_*_it10_W"))
    assert_close(weighted.activations, supervised("masked_*_it10_H"))
    some = factorise.nmf(v, w0[:, 4:], dictionary=wd[:, :4], activations=h0, beta=beta, n_iter=10)
    assert_close(some.dictionary[:, 4:], supervised("semi_*_it10_Wfree"))
    assert_close(some.activations, supervised("semi_*_it10_H"))
    assert_close(some.cost, supervised("semi_*_cost"))


@pytest.mark.parametrize(("name", "beta"), BETAS.items())
def test_published_sparse_nmf_is_made_of_the_same_steps(golden, inputs, name, beta):
    """It leaves the dictionary out of the penalty, and may raise its own cost."""
    v, w, h = spectrogram(inputs["V"], beta) + 2.2e-16, inputs["W0"].copy(), inputs["H0"]
    for _ in range(10):
        h = multiplicative_step(v, w, h, beta, 1, 0.1)
        w = multiplicative_step(v.T, h.T, w.T, beta, 1).T
        normalise(w, h)
    assert_close(h, golden[f"nmf_beta_supervised/sparse_{name}_it10_H"])


@pytest.mark.parametrize("beta", [-1, 0, 0.5, 1, 1.5, 2, 3])
@pytest.mark.parametrize("sparsity", [0, 0.3])
@pytest.mark.parametrize("known", [0, 3])
def test_the_cost_of_nmf_falls(inputs, beta, sparsity, known):
    v, wd = spectrogram(inputs["V"], beta), inputs["Wd"]
    dictionary = wd[:, :known] if known else None
    found = factorise.nmf(v, 5, dictionary=dictionary, beta=beta, sparsity=sparsity, n_iter=30)
    assert falls(found.cost)
    assert found.cost[-1] < 0.8 * found.cost[0]
    assert np.array_equal(found.dictionary[:, :known], wd[:, :known])


def test_a_sparse_nmf_uses_fewer_activations(inputs):
    dense, sparse = (factorise.nmf(inputs["V"], 8, beta=2, sparsity=s, n_iter=200).activations for s in (0, 0.3))
    assert (sparse < 1e-6 * sparse.max()).mean() > (dense < 1e-6 * dense.max()).mean() + 0.05


@pytest.mark.parametrize("beta", [0, 0.5, 1, 2])
def test_nmf_agrees_with_scikit_learn(inputs, beta):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn comes with the extra eval")
    v, w, h = spectrogram(inputs["V"], beta), inputs["W0"], inputs["H0"]
    theirs_w, theirs_h, _ = decomposition.non_negative_factorization(
        v, W=w.copy(), H=h.copy(), n_components=8, init="custom", solver="mu", beta_loss=beta, max_iter=10, tol=0
    )
    g = monotone_exponent(beta)
    for _ in range(10):  # there the dictionary comes first
        w = multiplicative_step(v.T, h.T, w.T, beta, g).T
        h = multiplicative_step(v, w, h, beta, g)
    assert_close(w, theirs_w)
    assert_close(h, theirs_h)


@pytest.mark.parametrize(("name", "beta"), BETAS.items())
def test_activations_equal_those_of_scikit_learn(golden, inputs, name, beta):
    v, wd = spectrogram(inputs["V"], beta), inputs["Wd"]
    h = flat = np.full((8, 60), np.sqrt(v.mean() / 8))
    known = factorise.nmf(v, dictionary=wd, activations=flat, beta=beta, n_iter=10)
    assert_close(known.activations, golden[f"sklearn_nmf/sup_{name}_H_it10"])
    if name != "b1":  # there scikit-learn adds the penalty anew in every iteration
        for _ in range(10):
            h = multiplicative_step(v, wd, h, beta, monotone_exponent(beta), 1e-4 * 257)
        assert_close(h, golden[f"sklearn_nmf/sparsesup_{name}_H_it10"])


@pytest.mark.parametrize(("name", "beta"), [("kl", 1.0), ("is", 0.0), ("eu", 2.0)])
def test_online_nmf_of_scikit_learn_is_made_of_the_same_steps(golden, inputs, name, beta):
    """Six batches of ten frames; its sums start from W and 1 whatever the exponent."""
    v, w, g = spectrogram(inputs["V"], beta), inputs["Wd"].copy(), monotone_exponent(beta)
    gained, spent = w.copy(), np.ones_like(w)
    for x in np.split(v, 6, axis=1):
        h = np.full((8, 10), np.sqrt(x.mean() / 8))
        for _ in range(10):
            h = multiplicative_step(x, w, h, beta, g)
        model = w @ h
        gained = 0.7 * gained + (x * model ** (beta - 2)) @ h.T * w ** (1 / g)
        spent = 0.7 * spent + model ** (beta - 1) @ h.T
        w = (gained / spent) ** g
    assert_close(w, golden[f"sklearn_minibatch/mb_{name}_W"])


def test_online_isnmf_is_made_of_the_same_steps(golden, inputs):
    """The sums from which free atoms are renewed, too, without the pull: batches of ten frames, a warm start."""
    power, w, h = inputs["V"] ** 2, inputs["Wd"].copy(), np.ones((8, 1))
    gained, spent = np.zeros((2, *w.shape))
    for x in np.split(power, 6, axis=1):
        found = []
        for frame in x.T:
            for _ in range(10):
                h = multiplicative_step(frame[:, None], w, h, 0, 1)
            found.append(h)
        every = np.hstack(found)
        model = w @ every
        gained = 0.9 * gained + (x / model**2) @ every.T * w**2
        spent = 0.9 * spent + (1 / model) @ every.T
        w = np.sqrt(gained / spent)
        size = w.sum(0)
        w, gained, spent = w / size, gained / size, spent * size
    assert_close(w, golden["online_is_nmf/W_forget_then_add"])


def test_nmf_agrees_with_librosa(inputs):
    librosa = pytest.importorskip("librosa", reason="librosa comes with the extra eval")
    from sklearn.decomposition import NMF

    settings = {"solver": "mu", "beta_loss": "kullback-leibler", "init": "nndsvda", "max_iter": 1000, "tol": 1e-7}
    w, h = librosa.decompose.decompose(inputs["V"], transformer=NMF(n_components=8, **settings), sort=True)
    ours = factorise.nmf(inputs["V"], np.maximum(w, 1e-9), activations=np.maximum(h, 1e-9), n_iter=5)
    assert ours.cost[-1] > 0.999 * ours.cost[0]  # where theirs has converged, there is no way down
    found = factorise.nmf(inputs["V"], 8, n_iter=1000).cost[-1]
    assert found < 1.5 * ours.cost[0]


@pytest.mark.parametrize(("name", "equalise"), [("levy", False), ("levyme", True)])
def test_levy_nmf_equals_the_reference(golden, inputs, name, equalise):
    x, w, h = inputs["V"] ** 2, inputs["W0"], inputs["H0"]
    if not equalise:
        w, h = w / w.max(0), h / h.max(1, keepdims=True) * np.sqrt(x.max())
    found = factorise.levy_nmf(x, w, activations=h, equalise=equalise, n_iter=50)
    assert_close(found.cost, golden[f"levy_nmf/{name}_cost"])
    assert falls(found.cost)
    found = factorise.levy_nmf(x, w, activations=h, equalise=equalise, n_iter=10)
    assert_close(found.dictionary, golden[f"levy_nmf/{name}_W_it10"])
    assert_close(found.activations, golden[f"levy_nmf/{name}_H_it10"])


def test_levy_nmf_with_weights_or_a_dictionary_equals_the_reference(golden, inputs):
    x, h = inputs["V"] ** 2, inputs["H0"]
    weighted = factorise.levy_nmf(x, inputs["W0"], activations=h, weights=inputs["Om"], n_iter=10)
    assert_close(weighted.dictionary, golden["levy_nmf/levymask_W_it10"])
    assert_close(weighted.activations, golden["levy_nmf/levymask_H_it10"])
    known = factorise.levy_nmf(x, dictionary=inputs["Wd"], activations=h * inputs["V"].max(), n_iter=20)
    assert_close(known.activations, golden["levy_nmf/levy_sup_H_it20"])


def test_levy_nmf_ignores_an_outlier_and_itakura_saito_does_not():
    x = np.ones((10, 1))
    x[3] = 1e8
    ones = np.ones((10, 1))
    assert factorise.levy_nmf(x, dictionary=ones).activations[0, 0] == pytest.approx(np.sqrt(10 / 9), rel=1e-6)
    assert factorise.nmf(x, dictionary=ones, beta=0, n_iter=200).activations[0, 0] == pytest.approx(1e7, rel=1e-3)


def test_cauchy_nmf_equals_the_reference(golden, inputs):
    v, w, h = inputs["V"], inputs["W0"], inputs["H0"]
    w, h = w / w.max(0), h / h.max(1, keepdims=True) * v.max()
    found = factorise.cauchy_nmf(v, w, activations=h, n_iter=50)
    assert_close(found.cost, golden["levy_nmf/cauchy_cost"])
    found = factorise.cauchy_nmf(v, w, activations=h, n_iter=10)
    assert_close(found.dictionary, golden["levy_nmf/cauchy_W_it10"])
    assert_close(found.activations, golden["levy_nmf/cauchy_H_it10"])


@pytest.mark.parametrize(
    ("name", "settings"),
    [("em", {}), ("sage", {"sage": True}), ("emmur", {"n_src": 2}), ("sagemur", {"n_src": 2, "sage": True})],
)
def test_em_isnmf_equals_the_reference(golden, inputs, name, settings):
    settings = {"activations": inputs["H0"], **settings}
    power, w = inputs["V"] ** 2, inputs["W0"]
    found = factorise.em_isnmf(power, w, exponent=1.0, n_iter=50, **settings)
    assert_close(found.cost, golden[f"em_isnmf/{name}_cost"])
    found = factorise.em_isnmf(power, w, exponent=1.0, n_iter=10, **settings)
    assert_close(found.dictionary, golden[f"em_isnmf/{name}_W_it10"])
    assert_close(found.activations, golden[f"em_isnmf/{name}_H_it10"])
    assert falls(factorise.em_isnmf(power, w, n_iter=50, **settings).cost)


@pytest.mark.parametrize(("name", "exponent"), [("ml05", 0.5), ("ml1", 1.0)])
def test_maximum_likelihood_isnmf_is_made_of_the_same_steps(golden, inputs, name, exponent):
    power, w, h = inputs["V"] ** 2, inputs["W0"], inputs["H0"]
    for _ in range(10):
        w = multiplicative_step(power.T, h.T, w.T, 0, exponent).T
        h = multiplicative_step(power, w, h, 0, exponent)
        size = np.sqrt((w**2).sum(0))
        w, h = w / size, h * size[:, None]
    assert_close(w, golden[f"em_isnmf/{name}_W_it10"])
    assert_close(h, golden[f"em_isnmf/{name}_H_it10"])


def test_complex_isnmf_equals_the_reference(golden, mixture):
    x, w, h, advance = mixture

    def wanted(name):
        return golden[f"complex_isnmf/{name}"].transpose(2, 0, 1)

    found = factorise.complex_isnmf(x, w, h, advance, n_iter=10)
    assert_close(found.sources, wanted("k05t1_m_it10"))
    assert_close(found.activations, wanted("k05t1_H_it10"))
    assert_close(found.phases, wanted("k05t1_mu_it10"))
    found = factorise.complex_isnmf(x, w, h, advance, kappa=1.0, tau=0.1, adapt=True, n_iter=10)
    assert_close(found.sources, wanted("k1t01_upW_m_it10"))
    assert_close(found.dictionary, wanted("k1t01_upW_W_it10"))
    assert_close(found.activations, wanted("k1t01_upW_H_it10"))
    assert np.abs(found.sources.sum(0) - x).max() < 1e-12 * np.abs(x).max()


def test_complex_isnmf_without_phases_is_isnmf_with_the_wiener_filter(golden, mixture):
    x, w, h, advance = mixture
    found = factorise.complex_isnmf(x, w, h, advance, kappa=0, n_iter=10)
    assert_close(found.activations, golden["complex_isnmf/k0_H_it10"].transpose(2, 0, 1))
    assert falls(found.cost)
    assert_close(found.sources, factorise.separated(x, found.dictionary @ found.activations), 1e-9)


def test_complex_beta_nmf_equals_the_reference(golden, mixture):
    x, w, h, _ = mixture

    def wanted(name):
        return golden[f"complex_beta_nmf/{name}"].transpose(2, 0, 1)

    found = factorise.complex_beta_nmf(x, w, h, n_iter=10)
    assert_close(found.activations, wanted("b05_H_it10"))
    assert_close(found.sources, wanted("b05_m_it10"))
    assert_close(found.cost, golden["complex_beta_nmf/b05_cost"][:10])
    assert np.abs(found.sources.sum(0) - x).max() < 1e-12 * np.abs(x).max()
    assert_close(factorise.complex_beta_nmf(x, w, h, n_iter=50).activations, wanted("b05_H_it50"), 1e-3)
    for beta in (0, 1, 2):
        assert_close(factorise.complex_beta_nmf(x, w, h, beta=beta, n_iter=10).activations, wanted(f"b{beta}_H_it10"))
    found = factorise.complex_beta_nmf(x, w, h, adapt=True, n_iter=10)
    assert_close(found.dictionary, wanted("upW_W_it10"))
    # The reference adds 2e-16 to a determinant; ten iterations with the dictionary make 4e-6 of it.
    assert_close(found.activations, wanted("upW_H_it10"), 1e-5)


def test_complex_nmf_equals_the_reference(golden, mixture):
    x, w, h, advance = mixture

    def wanted(name):
        return golden[f"cnmf_sinusoidal/{name}"].transpose(2, 0, 1)

    found = factorise.complex_nmf(x, w, h, advance, n_iter=10)
    assert_close(found.sources, wanted("sup_Xhat_it10"))
    assert_close(found.activations, wanted("sup_H_it10"))
    assert falls(found.cost)
    found = factorise.complex_nmf(x, w, h, advance, sigma=0.1, adapt=True, n_iter=10)
    assert_close(found.sources, wanted("upW_Xhat_it10"))
    assert_close(found.dictionary, wanted("upW_W_it10"))
    assert_close(found.activations, wanted("upW_H_it10"))


def test_complex_nmf_with_repetition_finds_the_delays_of_its_onsets(mixture):
    x, w, h, advance = mixture
    onsets = np.zeros((2, x.shape[1]), bool)
    onsets[0, [3, 9, 17]] = onsets[1, [6, 14]] = True
    found = factorise.complex_nmf(x, w, h, advance, sigma=0.1, onsets=onsets, rho=0.5, n_iter=30)
    assert falls(found.cost)
    free = factorise.complex_nmf(x, w, h, advance, sigma=0.1, onsets=onsets, rho=0.0, n_iter=30)

    def unlike(result, source, one, other):
        """How far the phases of two onsets are from a delay of one another."""
        apart = np.exp(1j * (result.phases[source, :, one] - result.phases[source, :, other]))
        weights = np.abs(x[:, one] * x[:, other])
        return 1 - np.abs(np.fft.fft(weights * apart, 4096)).max() / weights.sum()

    assert unlike(found, 1, 6, 14) < 0.7 * unlike(free, 1, 6, 14)
    with pytest.raises(ConfigError, match="onsets have shape"):
        factorise.complex_nmf(x, w, h, advance, onsets=onsets[:1])


def test_complex_nmf_without_sinusoids_is_euclidean_nmf_with_the_phase_of_the_mixture(mixture):
    x, w, h, advance = mixture
    found = factorise.complex_nmf(x, w, h, advance, sigma=0, n_iter=10)
    stacked = factorise.nmf(
        np.abs(x), dictionary=np.hstack(w), activations=np.vstack(h), beta=2, exponent=1.0, n_iter=10
    )
    assert_close(np.vstack(found.activations), stacked.activations, 1e-9)
    assert np.abs((found.sources * x.conj()).imag).max() < 1e-9 * np.abs(x).max() ** 2


def test_posterior_moments_are_those_of_the_real_gaussian():
    rng = np.random.default_rng(0)
    v, mu = rng.uniform(0.5, 2, (3, 1, 1)), rng.uniform(-3, 3, (3, 1, 1))
    size, turn = anisotropy(1.3)
    prior = Moments(size * np.sqrt(v) * np.exp(1j * mu), (1 - size**2) * v, turn * v * np.exp(2j * mu))
    x = np.array([[0.7 - 0.4j]])
    found = posterior(x, prior)

    # The same as a joint Gaussian of real and imaginary parts.
    def covariance(g, c):
        return 0.5 * np.array([[g + c.real, c.imag], [c.imag, g - c.real]])

    blocks = [covariance(g, c) for g, c in zip(prior.variance[:, 0, 0], prior.relation[:, 0, 0], strict=True)]
    whole, rest = np.linalg.inv(sum(blocks)), x[0, 0] - prior.mean.sum()
    for j, block in enumerate(blocks):
        mean = block @ whole @ [rest.real, rest.imag]
        after = block - block @ whole @ block
        assert found.mean[j, 0, 0] == pytest.approx(prior.mean[j, 0, 0] + mean[0] + 1j * mean[1])
        assert found.variance[j, 0, 0] == pytest.approx(after[0, 0] + after[1, 1])
        assert found.relation[j, 0, 0] == pytest.approx(after[0, 0] - after[1, 1] + 2j * after[0, 1])


def test_sinusoidal_advance_follows_a_sine():
    config = StreamConfig(8000, 512, 128, 512)
    n, bins = np.arange(512), 40.3
    v = np.abs(np.fft.rfft(config.windows.analysis * np.cos(2 * np.pi * bins * n / 512)))
    advance = factorise.sinusoidal_advance(config, np.tile(v[None, :, None], (2, 1, 3)))
    assert np.abs(advance[:, 38:43] - np.exp(2j * np.pi * 128 * bins / 512)).max() < 0.03  # a bin: 1.4


def test_sinusoidal_advance_equals_the_reference_in_regions_of_peaks(golden):
    """Of bins; at the edges of regions the reference is another peak's."""
    s, bins = np.abs(golden["complex_inputs/S"][:, :, 0]), golden["phase_helpers/f_inf"]
    advance = factorise.sinusoidal_advance(StreamConfig(8000, 128, 32, 128), s[None])[0]
    apart = np.abs(np.angle(advance / np.exp(2j * np.pi * 32 * bins / 128)))
    assert np.median(apart) < 1e-6
    assert (apart * s).sum() < 5e-3 * s.sum()


def test_binary_nmf_equals_the_reference(golden):
    y, w, h, mask = (golden[f"nbmf/{name}"] for name in ("Y", "W0", "H0", "mask"))
    found = factorise.binary_nmf(y, w, activations=h, n_iter=50)
    assert_close(found.dictionary, golden["nbmf/renorm_W_it50"])
    assert_close(found.activations, golden["nbmf/renorm_H_it50"])
    assert falls(found.cost)
    found = factorise.binary_nmf(y, w, activations=h, observed=mask, n_iter=10)
    assert_close(found.dictionary, golden["nbmf/exactmask_W_it10"])
    assert_close(found.activations, golden["nbmf/exactmask_H_it10"])
    assert falls(factorise.binary_nmf(y, w, activations=h, observed=mask, n_iter=200).cost)


def test_binary_nmf_fills_holes_of_a_mask():
    rng = np.random.default_rng(3)
    blocks = np.kron(np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]]), np.ones((12, 15)))
    seen = rng.random(blocks.shape) < 0.3
    found = factorise.binary_nmf(blocks, 3, observed=seen, n_iter=300)
    filled = (found.dictionary @ found.activations)[~seen]
    assert np.mean((filled > 0.5) == blocks[~seen]) > 0.97


def resynthesised(x, window, mask):
    """A signal from its masked frames of 512, every 256, centred."""
    padded, found = np.pad(x, (256, 512)), np.zeros(x.size + 768)
    for t in range(mask.shape[1]):
        frame = slice(t * 256, t * 256 + 512)
        found[frame] += np.fft.irfft(mask[:, t] * np.fft.rfft(window * padded[frame]))
    return found[256 : 256 + x.size] / (window[0] + window[256])


def test_repet_equals_the_reference(golden):
    x = golden["repet_signals/x"] / 32768
    window = np.hamming(513)[:-1]

    def magnitudes(signal, n_frames):
        return np.abs(np.stack([np.fft.rfft(window * signal[t * 256 : t * 256 + 512]) for t in range(n_frames)], 1))

    centred, online = magnitudes(np.pad(x, (256, 512)), 95), magnitudes(np.pad(x, (0, 512)), 93)

    def wanted(name):
        return golden[f"repet_masks/{name}"]

    assert_close(beat_spectrum(centred**2), wanted("beat_spectrum"))
    mask, period = factorise.repet(centred, 8, 30)
    assert period == 16
    assert_close(mask[::6], wanted("mask_period16"))
    assert_close(periodic_mask(centred, 17)[::6], wanted("mask_period17"))
    assert_close(factorise.repet_sim(centred, distance=8, number=5)[::6], wanted("mask_sim"))
    assert_close(factorise.repet_sim(online, distance=8, number=5, past=47)[::6, 46:], wanted("mask_online_age"))
    assert_close(locally_periodic_mask(centred, wanted("periods_adaptive"), 5)[::6], wanted("mask_adaptive"))
    for name, mask in (
        ("original", periodic_mask(centred, 17)),
        ("sim", factorise.repet_sim(centred, distance=8, number=5)),
    ):
        mask[1:7] = 1  # below the high-pass all is background
        assert_close(resynthesised(x, window, mask)[::8], golden[f"repet_signals/background_{name}"])
    # In the reference the last frame of every step has period 9, the error of the released code.
    assert (factorise.adaptive_repet(centred, 8, 30, segment=60, step=16)[1] == 16).all()


def naive_median(z, size):
    centre = [(n + 1) // 2 - 1 for n in size]
    padded = np.pad(z, [(c, n - 1 - c) for c, n in zip(centre, size, strict=True)], mode="symmetric")
    seen = np.lib.stride_tricks.sliding_window_view(padded, size).reshape(*z.shape, -1)
    return np.sort(seen, -1)[..., int(np.floor(size[0] * size[1] / 2 + 0.5)) - 1]


def naive_kam(x, edges, bin_hz, hop_s, released):
    """KAM as released, with its floors and the relearnt covariance, or without."""
    power, eps = np.abs(x) ** 2, 1e-5 if released else 1e-10 * np.mean(np.abs(x) ** 2)
    powers, spatial = [power / 2, power / 2], [1.0, 1.0]
    for _ in range(6):
        total = sum(p * r for p, r in zip(powers, spatial, strict=True)) + eps
        for j, kernels in enumerate((HARMONIC, PERCUSSIVE)):
            filtered = (powers[j] * spatial[j] / total) ** 2 * power
            if released:
                spatial[j] = (filtered / np.maximum(filtered, 2.220446049250313e-16)).mean(1, keepdims=True)
                filtered = np.divide(filtered, spatial[j], out=np.zeros_like(filtered), where=spatial[j] > 0)
            new = np.zeros_like(power)
            for (width, time), low, high in zip(kernels, edges, edges[1:], strict=False):
                size = max(1, round(width / bin_hz)), max(1, round(time / hop_s))
                new[low:high] = naive_median(filtered[low:high], size)
            powers[j] = new
    total = sum(p * r for p, r in zip(powers, spatial, strict=True)) + (eps if released else 0)
    return [p * r / total for p, r in zip(powers, spatial, strict=True)]


def test_kam_equals_its_twin_and_the_twin_the_reference(golden):
    x = golden["kam_hpss/X"].astype(complex)
    sizes = 44_100 / 512, 128 / 44_100
    edges = band_edges(257, sizes[0])
    assert edges == [0, 2, 34, 116, 257]
    harmonic, percussive = naive_kam(x, [*edges[:-1], 256], *sizes, released=True)
    assert_close(harmonic, golden["kam_hpss/gain_harmonic_hop_seconds"], 3e-5)
    assert_close(percussive, golden["kam_hpss/gain_percussive_hop_seconds"], 3e-5)
    assert_close(naive_kam(x, edges, *sizes, released=True)[1], golden["kam_hpss/gain_percussive_corrected"], 3e-5)
    for found, wanted in zip(
        factorise.kam(np.abs(x) ** 2, *sizes), naive_kam(x, edges, *sizes, released=False), strict=True
    ):
        assert_close(found, wanted, 1e-9)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 4), (3, 2), (6, 5)])
def test_kernel_medians_equal_their_twin(size):
    z = np.random.default_rng(0).random((9, 12))
    assert np.array_equal(kernel_median(z, size), naive_median(z, size))


def test_kam_tells_a_tone_from_a_click_at_16_khz():
    power = np.full((257, 60), 1e-6)
    power[80] = power[:, 29:33] = 1.0
    harmonic, percussive = factorise.kam(power, 31.25, 0.004)
    assert harmonic[80, 10] > 0.9
    assert percussive[200, 31] > 0.9
    assert np.allclose(harmonic + percussive, 1)


def ringing(poles, starts, n_frames):
    """Damped sinusoids (n_bins, order) struck at the given frames: (n_bins, n_frames)."""
    sound = np.zeros((len(poles), n_frames), complex)
    for start in starts:
        sound[:, start:] += (poles[:, :, None] ** np.arange(n_frames - start)).sum(1)
    return sound


def test_hrnmf_recovers_two_damped_sinusoids_a_bin():
    poles = np.array([[0.97 * np.exp(0.5j), 0.95 * np.exp(-1.1j)], [0.98 * np.exp(2j), 0.9 * np.exp(0.3j)]])
    x = ringing(poles, [0], 60)
    found = factorise.hrnmf(x, 1, order=2, n_iter=30)
    for wanted, coefficients in zip(poles, found.coefficients[0], strict=True):
        roots = np.roots([1, *-coefficients])
        assert np.abs(np.sort_complex(roots) - np.sort_complex(wanted)).max() < 1e-6
    assert_close(found.components[0], x, 1e-4)
    assert falls(found.cost)


def test_hrnmf_of_known_notes_is_better_than_a_wiener_filter_by_their_nmf():
    """Two synthetic notes about an octave apart, each struck twice: partials of one fall beside those of the other."""

    def note(pitch, strikes):
        late = np.arange(9600)[None] / 8000 - np.array(strikes)[:, None]
        tones = [0.7**k * np.exp(-late * (2 + k)) * np.sin(2 * np.pi * pitch * k * late + k) for k in range(1, 5)]
        sound = np.where(late >= 0, sum(tones), 0).sum(0)
        frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::128] * np.hanning(512)
        return np.fft.rfft(frames).T[8:60]

    notes = [note(220, [0.05, 0.6]), note(443, [0.3, 0.6])]
    alone = [factorise.nmf(np.abs(x) ** 2, 1, n_iter=20) for x in notes]
    w, h = np.hstack([a.dictionary for a in alone]), np.vstack([a.activations for a in alone])

    def sdr(components):
        return [
            10 * np.log10((abs(x) ** 2).sum() / (abs(x - c) ** 2).sum()) for x, c in zip(notes, components, strict=True)
        ]

    found = factorise.hrnmf(sum(notes), 2, order=1, dictionary=w, activations=h, n_iter=20)
    wiener = factorise.separated(sum(notes), w.T[:, :, None] * h[:, None, :])
    assert falls(found.cost)
    assert min(sdr(found.components)) > max(17, max(sdr(wiener)) + 6)


def struck(pitch, strikes, seed, sr=11_025, n=26_000):
    """Spectra of a string that is struck: stiff, the higher the sooner silent, with the noise of a hammer."""
    rng = np.random.default_rng(seed)
    late = np.arange(n)[None] / sr - np.array(strikes)[:, None]
    partials = np.arange(1, 14)
    hz = partials * pitch * np.sqrt(1 + 2e-4 * partials**2)
    size = 0.75**partials * rng.uniform(0.6, 1.4, 13)
    waves = np.sin(2 * np.pi * hz * late[..., None] + partials) * np.exp(-late[..., None] * (1.5 + 0.45 * partials))
    noise = 0.05 * rng.normal(size=late.shape) * np.exp(-late * sr / 60)
    sound = np.where(late >= 0, (size * waves * (hz < sr / 2 - 200)).sum(2) * np.clip(late / 0.005, 0, 1) + noise, 0)
    frames = np.lib.stride_tricks.sliding_window_view(sound.sum(0), 512)[::128] * np.hanning(513)[:-1]
    return np.fft.rfft(frames).T[:80]


def test_hrnmf_tells_two_notes_apart_blindly_better_than_a_wiener_filter():
    """Two notes a fifth apart, each heard alone, then both: 17 dB are published for a start from KL-NMF."""
    notes = [struck(261.6, [0.1, 1.6], 0), struck(392.0, [0.85, 1.6], 1)]
    x = sum(notes)
    w, h, _ = factorise.nmf(np.abs(x), 2, n_iter=50)

    def sdr(components):
        def of(order):
            pairs = zip(notes, components[list(order)], strict=True)
            return min(10 * np.log10((abs(s) ** 2).sum() / (abs(s - c) ** 2).sum()) for s, c in pairs)

        return max(of((0, 1)), of((1, 0)))

    wiener = factorise.separated(x, (w.T[:, :, None] * h[:, None, :]) ** 2)
    found = factorise.hrnmf(x, 2, order=2, n_iter=5)
    assert falls(found.cost)
    assert sdr(found.components) > max(17, sdr(wiener) + 5)


def test_hrnmf_of_order_0_is_the_wiener_filter(mixture):
    x = mixture[0]
    found = factorise.hrnmf(x, 2, order=0, n_iter=3)
    v = found.dictionary.T[:, :, None] * found.activations[:, None, :]
    assert falls(found.cost)
    assert np.abs(found.components - v / (v.sum(0) + found.noise) * x).max() < 1e-9 * np.abs(x).max()


BAD = [
    (np.ones(3), "shape (3,)"),
    (np.zeros((3, 4)), "silent"),
    (np.full((3, 4), np.nan), "12 values that are not finite"),
    (-np.ones((3, 4)), "negative value, -1"),
    (np.ones((3, 4), complex), "complex"),
]


@pytest.mark.parametrize(("v", "words"), BAD)
@pytest.mark.parametrize(
    "call",
    [
        lambda v: factorise.nmf(v, 2),
        lambda v: factorise.levy_nmf(v, 2),
        lambda v: factorise.cauchy_nmf(v, 2),
        lambda v: factorise.em_isnmf(v, 2),
        lambda v: factorise.repet(v, 1, 1),
        lambda v: factorise.repet_sim(v, distance=1),
        lambda v: factorise.kam(v, 30.0, 0.01),
    ],
)
def test_a_spectrogram_that_cannot_be_one_is_named_in_a_line(call, v, words):
    with pytest.raises(ConfigError) as caught:
        call(v)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: factorise.nmf(v), "atoms=0 without a dictionary"),
        (lambda v: factorise.nmf(v, 2, beta=9.0), "beta=9.0"),
        (lambda v: factorise.nmf(v, dictionary=np.ones((5, 2))), "dictionary has shape (5, 2), not (3, any)"),
        (lambda v: factorise.nmf(v, dictionary=-np.ones((3, 2))), "dictionary has values that are negative"),
        (lambda v: factorise.nmf(v, 2, activations=np.ones((3, 4))), "activations has shape (3, 4), not (2, 4)"),
        (lambda v: factorise.nmf(v, 2, n_iter=-1), "n_iter=-1"),
        (lambda v: factorise.levy_nmf(v), "atoms=0"),
        (lambda v: factorise.em_isnmf(v, 3, n_src=2), "n_src=2 sources cannot share 3 atoms"),
        (lambda v: factorise.repet(v, 2, 3), "a third of the time"),
        (lambda v: factorise.kam(v, 0.0, 0.01), "bin_hz=0.0"),
        (lambda v: factorise.binary_nmf(2 * v, 2), "values other than 0 and 1"),
        (lambda v: factorise.binary_nmf(v, 2, observed=0 * v), "nothing is observed"),
        (lambda v: factorise.hrnmf(v, 2, order=2), "4 frames are too few"),
        (lambda v: factorise.complex_nmf(v, np.ones((2, 3, 1)), np.ones((2, 1, 5)), np.ones((2, 3))), "activations"),
        (lambda v: factorise.complex_isnmf(v, np.ones((2, 3, 1)), np.ones((2, 1, 4)), np.ones((2, 9))), "advance"),
        (lambda v: factorise.complex_beta_nmf(v, np.ones((2, 3, 1)), np.ones((2, 1, 4)), kappa=99.0), "kappa=99"),
    ],
)
def test_settings_that_cannot_work_are_named_in_a_line(call, words):
    with pytest.raises(ConfigError) as caught:
        call(np.ones((3, 4)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zeros_and_levels_do_no_harm(inputs):
    quiet = inputs["V"].copy()
    quiet[:, 10:20] = 0
    quiet[30:40] = 0
    for found in (
        factorise.nmf(quiet, 4),
        factorise.nmf(quiet**2, 4, beta=0, n_iter=20),
        factorise.levy_nmf(quiet**2, 4, n_iter=20),
        factorise.em_isnmf(quiet**2, 4, n_iter=20),
    ):
        assert np.isfinite(found.dictionary).all()
        assert np.isfinite(found.activations).all()
        assert np.isfinite(found.cost).all()
    loud, soft = (factorise.nmf(scale * inputs["V"], 4, n_iter=20) for scale in (1e3, 1e-3))
    assert_close(loud.dictionary, soft.dictionary, 1e-9)
