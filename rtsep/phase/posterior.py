"""What the Wiener family has in common: sources that sum to the mixture, as likely as possible, bin by bin.

Source j is Gaussian around m_j = mean V_j u_j, where u_j = exp(i mu_j) is its predicted phase, with variances
`radial` V_j^2 along u_j and `tangential` V_j^2 across it (`rtsep.phase.von_mises`). With A_j the matrix of these
variances and Z_j the spectra of the present signals, every member takes in each frame

    argmin over S with sum_j S_j = X of   sum_j (S_j - m_j)' A_j^-1 (S_j - m_j) + delta |S_j - Z_j|^2,

which is, with W_j = (A_j^-1 + delta)^-1 and nu such that the sum is X,

    S_j = m_j + W_j (delta (Z_j - m_j) + nu),  nu = (sum_k W_k)^-1 (X - sum_k (m_k + W_k delta (Z_k - m_k))).

Adding anything to all Z_j alike changes nothing, so their differences are enough (`rtsep.phase.difference`).
Without consistency, delta = 0, it is the posterior mean of the anisotropic model; without phase, kappa = 0, the
Wiener filter. In the code all variances are relative to the sum of V_j^2 over the sources, so that nothing
depends on the level.

Sources: P. Magron, R. Badeau, B. David, ICASSP 2017, eqs. 9 to 12, for the posterior mean; J. Le Roux and
E. Vincent, "Consistent Wiener filtering for audio source separation", IEEE Signal Process. Lett. 20(3), 2013, for
the consistency term. The joint form for any number of sources takes the place of their one source after another.
"""

from __future__ import annotations

import numpy as np

from rtsep.engine.channels import TINY
from rtsep.kernels.jit import inlined, pasted
from rtsep.kernels.simd import LANES, get, load, multiply_add, store

ONE = np.float32(1)


@inlined
def _source(v, inverse, delta, ur, ui, zr, zi, mean, radial, tangential):
    """W_j as its tangential part and what the radial one has more, m_j, and delta (Z_j - m_j); on lanes."""
    p = v * v * inverse
    # Where the phase is unknown, u = 0, the source is isotropic.
    known = multiply_add(ur, ur, ui * ui)
    across = p * multiply_add(known, tangential - ONE, ONE)
    along = p * radial
    across = across / multiply_add(across, delta, ONE)
    along = along / multiply_add(along, delta, ONE)
    m = v * mean
    mr, mi = ur * m, ui * m
    return across, along - across, mr, mi, (zr - mr) * delta, (zi - mi) * delta


@pasted
def posterior(
    n_src, n_bins, mixture, at_x, magnitudes, at_v, phasors, at_u, shapes, at_shape, consistency, analysed, spectra
):
    """The most likely sources of one frame; see the module.

    Parameters
    ----------
    n_src, n_bins, at_x, at_v, at_u, at_shape : int
        Sizes, and flat positions at which the values begin.
    mixture, magnitudes, phasors, shapes, analysed : float32, arrays or pointers
        X (2, n_bins), V (n_src, n_bins), u (n_src, 2, n_bins) where 0 says that nothing is known, (n_src, 3) from
        `von_mises_shapes`, Z (n_src, 2, n_bins). Read only; V and Z as in `MAX_MAGNITUDE`. Without consistency
        Z is any finite spectra.
    consistency : float32
        delta, 0 for none, as the inverse of a power.
    spectra : float32, array or pointer
        S (n_src, 2, n_bins), overwritten. Zero where all magnitudes are.
    """
    for start in range(0, n_bins, LANES):
        k = min(start, n_bins - LANES)
        v = load(magnitudes, at_v + k)
        power = multiply_add(v, v, TINY)
        for j in range(1, n_src):
            v = load(magnitudes, at_v + j * n_bins + k)
            power = multiply_add(v, v, power)
        inverse, delta = ONE / power, power * consistency
        er, ei = load(mixture, at_x + k), load(mixture, at_x + n_bins + k)
        wxx, wxy, wyy = inverse * np.float32(0), inverse * np.float32(0), inverse * np.float32(0)
        for j in range(n_src):
            at, shape = 2 * j * n_bins + k, at_shape + 3 * j
            ur, ui = load(phasors, at_u + at), load(phasors, at_u + at + n_bins)
            across, more, mr, mi, gr, gi = _source(
                load(magnitudes, at_v + j * n_bins + k), inverse, delta, ur, ui,
                load(analysed, at), load(analysed, at + n_bins),
                get(shapes, shape), get(shapes, shape + 1), get(shapes, shape + 2),
            )  # fmt: skip
            extra = more * multiply_add(ur, gr, ui * gi)
            er = er - mr - multiply_add(across, gr, extra * ur)
            ei = ei - mi - multiply_add(across, gi, extra * ui)
            wxx = wxx + multiply_add(more * ur, ur, across)
            wyy = wyy + multiply_add(more * ui, ui, across)
            wxy = multiply_add(more * ur, ui, wxy)
        scale = ONE / (wxx * wyy - wxy * wxy + TINY)
        nr, ni = (wyy * er - wxy * ei) * scale, (wxx * ei - wxy * er) * scale
        for j in range(n_src):
            at, shape = 2 * j * n_bins + k, at_shape + 3 * j
            ur, ui = load(phasors, at_u + at), load(phasors, at_u + at + n_bins)
            across, more, mr, mi, gr, gi = _source(
                load(magnitudes, at_v + j * n_bins + k), inverse, delta, ur, ui,
                load(analysed, at), load(analysed, at + n_bins),
                get(shapes, shape), get(shapes, shape + 1), get(shapes, shape + 2),
            )  # fmt: skip
            gr, gi = gr + nr, gi + ni
            extra = more * multiply_add(ur, gr, ui * gi)
            store(spectra, at, mr + multiply_add(across, gr, extra * ur))
            store(spectra, at + n_bins, mi + multiply_add(across, gi, extra * ui))
