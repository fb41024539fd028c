"""Missing samples of a frame from the magnitudes of its Fourier transform: alternating minimisation, convex relaxation.

For a frame x of length L, missing at d places, with magnitudes b that are known for the whole frame:

    min |x_m, u|  ||b u - DFT x||^2,   |u| = 1 in every bin.

*Alternating minimisation* (as Griffin and Lim's) from zeros: x_m <- (IDFT b e^(i arg DFT x))_m.
*Convex relaxation* (PhaseCut): with Phi_m, Phi_r the columns of the DFT for missing and known samples, and u the
phases, the best x_m leaves the residual A (u, 1), A = [(Phi_m Phi_m^H / L - I) diag(b), Phi_r x_r]. U = (u, 1)(u, 1)^H
of rank one becomes any positive matrix with a diagonal of ones that has the least trace(A^H A U); block coordinate
descent with M = A^H A, for every k in turn, c all other places:

    z = U_cc M_ck,   gamma = z^H M_ck,   U_ck = -z / sqrt(gamma).

u is the main eigenvector, divided by its last entry.

Source: L. Bahrman, M. Kreme, P. Magron, A. Deleforge, "Signal inpainting from Fourier magnitudes", EUSIPCO 2023. When
it can work: the solution is unique for almost all frames if fewer than (L - 1) / 3 samples are missing, and magnitudes
have to be right within 20 dB; guessed ones are not. Relaxation, then alternation from its result, is best (20.7 dB,
alternation alone 18.4 dB, 45 % missing); as released the second one started from zeros again.
"""

from __future__ import annotations

import numpy as np

from rtsep.config import check_int
from rtsep.errors import ConfigError


def _check(x: np.ndarray, missing: np.ndarray, magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, missing, b = np.array(x, float), np.asarray(missing), np.asarray(magnitudes, float)
    if x.ndim != 1 or missing.shape != x.shape or missing.dtype != bool:
        raise ConfigError(f"frame has shape {x.shape}; missing must be booleans of that shape, not {missing.shape}")
    if b.shape != (x.size // 2 + 1,) or not np.isfinite(b).all() or b.min() < 0:
        raise ConfigError(f"magnitudes have shape {b.shape}, not ({x.size // 2 + 1},), or values that cannot be")
    x[missing] = 0
    if not np.isfinite(x).all():
        raise ConfigError("frame has known samples that are not finite")
    return x, missing, b


def alternating_minimisation(
    x: np.ndarray, missing: np.ndarray, magnitudes: np.ndarray, *, start: np.ndarray | None = None, n_iter: int = 100
) -> np.ndarray:
    """Fill the missing samples of a frame.

    Parameters
    ----------
    x : ndarray, real, (n,)
        Frame; missing samples may have any value.
    missing : ndarray, bool, (n,)
    magnitudes : ndarray, real, (n // 2 + 1,)
        Of the whole frame's Fourier transform.
    start : ndarray, real, (n_missing,), optional
        What the missing samples start from. Default: zeros.
    n_iter : int
        Iterations, 0 to 100000.

    Returns
    -------
    x : ndarray, float64, (n,)
    """
    x, missing, b = _check(x, missing, magnitudes)
    check_int("n_iter", n_iter, 0, 100_000)
    if start is not None:
        x[missing] = start
    for _ in range(n_iter):
        spectrum = np.fft.rfft(x)
        size = np.abs(spectrum)
        phasors = np.divide(spectrum, size, out=np.ones_like(spectrum), where=size > 0)
        x[missing] = np.fft.irfft(b * phasors, x.size)[missing]
    return x


def convex_relaxation(x: np.ndarray, missing: np.ndarray, magnitudes: np.ndarray, *, n_iter: int = 10) -> np.ndarray:
    """Fill the missing samples of a frame; parameters and result as in `alternating_minimisation`.

    The cost grows with the cube of the frame's length: seconds for 512 samples.
    """
    x, missing, half = _check(x, missing, magnitudes)
    check_int("n_iter", n_iter, 0, 10_000)
    n = x.size
    b = np.concatenate([half, half[1 : (n + 1) // 2][::-1]])
    transform = np.exp(-2j * np.pi * np.outer(np.arange(n), np.flatnonzero(missing)) / n)
    matrix = np.concatenate([(transform @ transform.conj().T / n - np.eye(n)) * b, np.fft.fft(x)[:, None]], 1)
    cost = matrix.conj().T @ matrix
    u = np.eye(n + 1, dtype=complex)
    for _ in range(n_iter):
        for k in range(n + 1):
            toward = cost[:, k].copy()
            toward[k] = 0
            z = u @ toward
            z[k] = 0
            gamma = (z.conj() @ toward).real
            column = -z / np.sqrt(gamma) if gamma > 0 else np.zeros(n + 1, complex)
            u[:, k], u[k] = column, column.conj()
            u[k, k] = 1
    vector = np.linalg.eigh(u)[1][:, -1]
    x[missing] = np.fft.ifft(b * vector[:-1] / vector[-1]).real[missing]
    return x
