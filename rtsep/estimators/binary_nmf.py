"""Binary NMF as an estimator: of what a dictionary is sure of, the rest of the masks is completed.

The shares of the sources by NMF with the dictionary become ones and zeros where they are certain, and holes elsewhere;
few atoms that fit the ones and zeros fill the holes (`rtsep.factorise.binary_nmf`). Whole signals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.config import StreamConfig, check_int, check_real
from rtsep.engine.registry import register_estimator
from rtsep.estimators.factorised import Supervised
from rtsep.factorise.binary_nmf import binary_nmf
from rtsep.factorise.factors import listener
from rtsep.factorise.nmf import nmf, separated

FIRST_ITERATIONS = 50


@register_estimator("binary_nmf")
@dataclass(frozen=True)
class BinaryNMF(Supervised):
    """Masks of a model with holes where it is not sure, completed by binary NMF; whole signal.

    Parameters
    ----------
    model, n_iter
        As for `rtsep.estimators.factorised.Supervised`.
    atoms_per_mask : int
        Of the completed masks, 1 to 1000.
    certain : float
        A share of more than that, or less than one minus it, is certain; 0.5 to 0.999.
    """

    atoms_per_mask: int = 20
    certain: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("atoms_per_mask", self.atoms_per_mask, 1, 1000)
        check_real("certain", self.certain, 0.5, 0.999)

    def estimate_all(self, config: StreamConfig, power: np.ndarray) -> np.ndarray:
        """Magnitudes of the sources, (n_frames, n_src, n_bins)."""
        w = self.atoms(config, powers=False)
        if not power.any():
            return np.zeros((len(power), len(w), config.n_bins))
        x = np.sqrt(power.T)
        h = nmf(x, dictionary=np.hstack(w), n_iter=FIRST_ITERATIONS).activations
        edges = np.cumsum(self.dictionary.n_atoms)[:-1]
        parts = np.stack([atoms @ rows for atoms, rows in zip(w, np.split(h, edges), strict=True)])
        shares = separated(np.ones_like(x), parts**2)
        # Of two sources one mask says all.
        masks = [self._completed(share) for share in (shares[:1] if len(w) == 2 else shares)]
        if len(w) == 2:
            masks.append(1 - masks[0])
        return separated(x, np.stack(masks)).transpose(2, 0, 1)

    def _completed(self, share: np.ndarray) -> np.ndarray:
        """A mask between 0 and 1 of shares (n_bins, n_frames); where they are certain, of these alone."""
        seen = np.abs(share - 0.5) >= self.certain - 0.5
        # Every bin has been seen at least once.
        surest = np.abs(share - 0.5).argmax(1)
        seen[np.arange(len(seen)), surest] = True
        w, h, _ = binary_nmf(share > 0.5, self.atoms_per_mask, observed=seen, n_iter=self.n_iter, progress=listener())
        return np.clip(w @ h, 0, 1)
