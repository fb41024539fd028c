"""HR-NMF as an estimator: components that ring on in every bin, of a whole signal, each channel by itself.

See `rtsep.factorise.hrnmf`. It starts from the NMF of all channels together, so that components are the same in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rtsep.config import StreamConfig, check_int
from rtsep.engine.protocols import SpectraEstimator
from rtsep.engine.registry import register_estimator
from rtsep.errors import ConfigError
from rtsep.estimators.factorised import MOST_ITERATIONS, component_names
from rtsep.factorise.factors import listener
from rtsep.factorise.hrnmf import MAX_ORDER, hrnmf
from rtsep.factorise.nmf import nmf
from rtsep.phase.own import OwnPhases

MOST_MEMORY = 4_000_000_000  # bytes


@register_estimator("hrnmf")
@dataclass(frozen=True)
class HRNMF(SpectraEstimator):
    """Components that ring on, told apart even where their partials meet (HR-NMF); seconds of sound, whole signal.

    Parameters
    ----------
    components : int
        Sources to look for, 1 to 64.
    order : int
        Damped sinusoids in each bin of a component, 0 to 8.
    n_iter : int
        Iterations, 1 to 10000.
    """

    components: int = 2
    order: int = 2
    n_iter: int = 20

    phase = OwnPhases()
    sources: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_int("order", self.order, 0, MAX_ORDER)
        check_int("n_iter", self.n_iter, 1, MOST_ITERATIONS)
        object.__setattr__(self, "sources", component_names(self.components))

    def estimate_all(self, config: StreamConfig, spectra: np.ndarray) -> np.ndarray:
        """Spectra of the components, complex (n_channels, n_frames, n_src, n_bins)."""
        n_channels, n_frames, n_bins = spectra.shape
        place = self.components * (self.order + 1)
        needed = 32 * n_frames * n_bins * place * (place + 4)
        if needed > MOST_MEMORY:
            raise ConfigError(
                f"estimator='hrnmf' would take {needed / 1e9:.0f} GB of memory for {n_frames * config.hop_s:.0f} s and "
                f"{self.components} components; more than {MOST_MEMORY / 1e9:.0f} GB: a shorter file, a longer hop, "
                "or fewer components"
            )
        out = np.zeros((n_channels, n_frames, self.components, n_bins), complex)
        if not spectra.any():
            return out
        size = np.sqrt((np.abs(spectra) ** 2).mean(0)).T
        w, h, _ = nmf(size, self.components, n_iter=50)
        for x, sources in zip(spectra.transpose(0, 2, 1), out, strict=True):
            if x.any():
                found = hrnmf(
                    x,
                    self.components,
                    order=self.order,
                    dictionary=w**2,
                    activations=h**2,
                    n_iter=self.n_iter,
                    progress=listener(),
                )
                sources[:] = found.components.transpose(2, 0, 1)
        return out
