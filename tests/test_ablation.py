"""The variants of bench/ablation.py; skipped without PyTorch."""

# ruff: noqa: E402
from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch, the extra `train`")

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import ablation
from ablation_variants import LateMisiTraining, MasksOnly, RatiosAlone, variants

from rtsep.estimators.model_file import Shape
from rtsep.training.corpus import Clip, Pool
from rtsep.training.mixer import Mixer
from rtsep.training.network import Network
from rtsep.training.recipe import Corpus, Mixtures, Recipe, Stage

SMALL = Shape(16, 16, 1, 16, 2)


def leaves(value, at=()):
    """Plain values of a nested structure by where they are."""
    if not isinstance(value, (dict, list)):
        return {at: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {key: leaf for name, part in pairs for key, leaf in leaves(part, (*at, name)).items()}


def test_every_variant_has_its_change_and_no_other():
    shipped, *others = ((v, leaves(json.loads(json.dumps(v.recipe.as_dict())))) for v in variants(600))
    changed = {}
    for variant, settings in others:
        assert settings.keys() == shipped[1].keys()
        changed[variant.name] = {key[-1] for key, value in settings.items() if value != shipped[1][key]}
        if variant.training is not shipped[0].training:
            changed[variant.name].add(variant.training.__name__)
    assert changed == {
        "as shipped, another seed": {"seed"},
        "32 bands in, 40 units, 32 bands out": {"bands_in", "hidden", "bands_out"},
        "80 units": {"hidden"},
        "128 units": {"hidden"},
        "256 units": {"hidden"},
        "memory of 4 ms": {"hop_ms"},
        "bands without their floor": {"floor_cue"},
        "without phase advances": {"advance_cue"},
        "32 bands in": {"bands_in"},
        "32 bands out": {"bands_out"},
        "masks that sum to one, and nothing else": {"MasksOnlyTraining"},
        "ratios without confidence": {"RatiosAloneTraining"},
        "without SI-SDR": {"si_sdr"},
        "without the complex loss": {"complex"},
        "SI-SDR alone": {"magnitude", "complex"},
        "SI-SDR after MISI in the last third": {"misi", "LateMisiTraining"},
        "Adam": {"lr", "AdamTraining"},
    }


def test_results_of_other_settings_or_recordings_are_told_apart():
    digests = [ablation.digest_of(v, data) for data in ({}, {"speech": 1}) for n in (6, 7) for v in variants(n)]
    assert len(set(digests)) == 4 * len(variants(6))
    assert digests[: len(variants(6))] == [ablation.digest_of(v, {}) for v in variants(6)]


def heads_of(kind):
    torch.manual_seed(0)
    return kind(SMALL)(torch.randn(2, 9, 257, dtype=torch.complex64))


def test_masks_only_are_masks_that_sum_to_one_and_magnitudes_are_the_same():
    heads, usual = heads_of(MasksOnly), heads_of(Network)
    torch.testing.assert_close(heads.masks.sum(1), torch.ones(2, 9, 257))
    torch.testing.assert_close(heads.gains, heads.masks)
    # Bin 0 has the value of the lowest band.
    expected = usual.masks[..., 0] / usual.masks[..., 0].sum(1, keepdim=True)
    torch.testing.assert_close(heads.masks[..., 0], expected)


def test_ratios_alone_are_the_magnitudes():
    heads, usual = heads_of(RatiosAlone), heads_of(Network)
    torch.testing.assert_close(heads.masks, usual.masks)
    torch.testing.assert_close(heads.gains[..., 0], usual.bands[:, :, 2:4, 0].transpose(1, 2))


def test_the_loss_after_misi_sets_in_with_the_last_third(tmp_path):
    pool = Pool([(1.0, [Clip(g, g, g, np.full(16_000, 9000, np.int16)) for g in "ab"])])
    stage = Stage("a", 6, 2, 0.25, misi=5.0)
    with_misi = Recipe("r", SMALL, Mixtures(), (stage,), {"speech": (Corpus("s", "-", "-"),)}, validation=1)
    without = replace(with_misi, stages=(replace(stage, misi=0.0),))
    mixer = Mixer(with_misi.mixtures, pool, Pool([]), Pool([]), 0)

    def gradients(recipe, step):
        training = LateMisiTraining(recipe, mixer, mixer, tmp_path / "m.npz", {}, 1)
        training.progress.step = step
        return training._gradients(recipe.stages[0], 0, 2, 4000)[0]

    assert gradients(with_misi, 3) == gradients(without, 3)
    assert gradients(with_misi, 4) != gradients(without, 4)
