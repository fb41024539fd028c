"""An estimator of your own: its step in ordinary Python, and the same compiled, which also runs live."""

from typing import NamedTuple

import numpy as np

from rtsep import CompiledEstimator, PythonEstimator, register_estimator, separate
from rtsep.kernels.jit import kernel


class PeaksState(NamedTuple):
    factor: np.ndarray  # a peak has this many times the mean power; float32 (1,)


def find_peaks(state, mixture, power, magnitudes):  # power (n_bins,) -> magnitudes (n_src, n_bins)
    threshold = state.factor[0] * power.mean()
    for k in range(power.size):
        magnitudes[0, k] = np.sqrt(power[k]) if power[k] > threshold else 0
        magnitudes[1, k] = np.sqrt(power[k]) - magnitudes[0, k]


@register_estimator("peaks")
class Peaks(PythonEstimator):
    """Peaks of the spectrum, and the rest."""

    sources = ("peaks", "rest")
    step = staticmethod(find_peaks)

    def prepare(self, config):
        return PeaksState(np.array([4.0], np.float32))


@register_estimator("fast-peaks")
class FastPeaks(CompiledEstimator):
    """The same, compiled."""

    sources = ("peaks", "rest")
    State, step = PeaksState, kernel(find_peaks)

    def prepare(self, config):
        return PeaksState(np.array([4.0], np.float32))


x = 0.01 * np.random.default_rng(0).normal(size=8_000) + 0.1 * np.sin(0.2 * np.arange(8_000))
for estimator in ("peaks", "fast-peaks"):
    peaks, rest = separate(x, 16_000, estimator)
    print(f"{estimator}: {100 * np.sum(peaks**2) / np.sum(x**2):.2f} % of the power is in the peaks")
