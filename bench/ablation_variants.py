"""The variants of bench/ablation.py: the shipped network and recipe, each with one change. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from rtsep.training.network import Network
from rtsep.training.optimizer import BIASES
from rtsep.training.recipe import Recipe, Stage, read_recipe
from rtsep.training.train import Scores, Training

BATCH, SECONDS = 32, 2.0
ADAM_LR = 1.5e-3  # that of the recipe before it had Muon
OTHER_SEED = 1001


@dataclass(frozen=True)
class Variant:
    """A training of the ablation.

    Parameters
    ----------
    name, group : str
    recipe : Recipe
    training : type
        `Training`, or one that changes what no recipe can.
    scored : tuple of str
        The scores of what is trained at all.
    note : str
        What the reader must know.
    """

    name: str
    group: str
    recipe: Recipe
    training: type[Training] = Training
    scored: tuple[str, ...] = Scores._fields
    note: str = ""


class MasksOnly(Network):
    """Masks that sum to one over the sources; magnitudes are the same masks times those of the mixture."""

    def run_bands(self, spectra: Tensor, n_streams: int = 1) -> Tensor:
        bands = super().run_bands(spectra, n_streams)
        n_src = self.shape.n_src
        masks = bands[..., :n_src, :]
        masks = masks / masks.sum(-2, keepdim=True)
        return torch.cat([masks, masks, bands[..., 2 * n_src :, :]], -2)


class RatiosAlone(Network):
    """Magnitudes are the ratios, however far off: the confidence is one."""

    def run_bands(self, spectra: Tensor, n_streams: int = 1) -> Tensor:
        bands = super().run_bands(spectra, n_streams)
        return torch.cat([bands[..., :-1, :], torch.ones_like(bands[..., -1:, :])], -2)


class MasksOnlyTraining(Training):
    network_class = MasksOnly


class RatiosAloneTraining(Training):
    network_class = RatiosAlone


class LateMisiTraining(Training):
    """With the loss through phase recovery in the last third of the steps alone, under the same learning rates."""

    def _gradients(self, stage: Stage, *part: int) -> tuple[float, list[Tensor]]:
        late = 3 * self.progress.step >= 2 * self.recipe.steps
        return super()._gradients(stage if late else replace(stage, misi=0.0), *part)


class AdamTraining(Training):
    """With Adam for the matrices, too, as for the biases."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.optimizers = [Adam(self.network.parameters())]


def variants(steps: int) -> list[Variant]:
    """All of them, the shipped one first: one stage of `steps` steps, validated at its end."""
    shipped = read_recipe(Path("speech"))
    stage = replace(shipped.stages[0], name="ablation", steps=steps, batch=BATCH, seconds=SECONDS)
    recipe = replace(shipped, stages=(stage,), epoch=steps)
    of_a_head = recipe.network.bands_out * (recipe.network.hidden + 1)

    def shape(**changes: Any) -> Recipe:
        return replace(recipe, network=replace(recipe.network, **changes))

    def loss(**changes: float) -> Recipe:
        return replace(recipe, stages=(replace(stage, **changes),))

    # All frames then belong to one memory, which takes twice the time to train.
    memory_of_4_ms = replace(recipe, network=replace(recipe.network, hop_ms=4), stages=(replace(stage, hop_ms=4),))

    return [
        Variant("as shipped", "shipped", recipe),
        Variant("as shipped, another seed", "shipped", replace(recipe, seed=OTHER_SEED)),
        Variant("32 bands in, 40 units, 32 bands out", "size", shape(bands_in=32, hidden=40, bands_out=32)),
        Variant("80 units", "size", shape(hidden=80)),
        Variant("128 units", "size", shape(hidden=128)),
        Variant("256 units", "size", shape(hidden=256)),
        Variant("memory of 4 ms", "features", memory_of_4_ms),
        Variant("bands without their floor", "features", shape(floor_cue=False)),
        Variant("without phase advances", "features", shape(advance_cue=False)),
        Variant("32 bands in", "features", shape(bands_in=32)),
        Variant("32 bands out", "features", shape(bands_out=32)),
        Variant(
            "masks that sum to one, and nothing else",
            "heads",
            recipe,
            MasksOnlyTraining,
            note=f"{(recipe.network.n_src + 1) * of_a_head} of the weights, for ratios and confidence, are not used; "
            "for the phase of the mixture masks and magnitudes are the same.",
        ),
        Variant(
            "ratios without confidence",
            "heads",
            recipe,
            RatiosAloneTraining,
            note=f"{of_a_head} of the weights, for the confidence, are not used.",
        ),
        Variant("without SI-SDR", "losses", loss(si_sdr=0.0)),
        Variant("without the complex loss", "losses", loss(complex=0.0)),
        Variant(
            "SI-SDR alone",
            "losses",
            loss(magnitude=0.0, complex=0.0),
            scored=("mask",),
            note="it is a loss of the masks: nothing trains the magnitudes.",
        ),
        Variant("SI-SDR after MISI in the last third", "losses", loss(misi=shipped.stages[-1].misi), LateMisiTraining),
        Variant("Adam", "optimizer", loss(lr=ADAM_LR / BIASES), AdamTraining),
    ]
