"""Adaptation: a recipe for recordings of known voices or noises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rtsep.config import ConfigError
from rtsep.estimators.learned import Speech, Talkers
from rtsep.estimators.model_file import Model
from rtsep.training.recipe import Corpus, Mixtures, Recipe, Stage, recipe_from

STAGES = {  # by the number of talkers
    # With the losses that `speech` has ended with, what was learned of listening and understanding is kept.
    1: (Stage("adapt", steps=300, batch=16, seconds=2.0, lr=2e-4, perceptual=1.5, estoi=8.0),),
    2: (  # told apart anew: many short steps teach more in the same time
        Stage("adapt", steps=16_000, batch=16, seconds=1.0, lr=4e-3),
        # Magnitudes of voices that are known are good enough for phase recovery, once they are made for it.
        Stage("through oMISI", steps=1000, batch=16, seconds=1.0, lr=1e-3, magnitude=5.0, omisi=0.3),
    ),
}
OWN_HELD_OUT, HELD_OUT = 0.15, 0.1  # for validation, of the recordings to adapt to, and of speakers or noises
KNOWN_SPEED = 0.05  # change of the speed of known voices
OWN = "own"
GENERAL = "general"


def adapt_recipe(model: Model, own: tuple[str, ...], general: tuple[str, ...]) -> Recipe:
    """A recipe that adapts a model.

    Parameters
    ----------
    model : Model
    own : tuple of str
        Kinds ("speech", "noise") of which there are recordings to adapt to. The end of each is for validation: what is
        kept is best with them.
    general : tuple of str
        Kinds of which there are other recordings, which are drawn as often so that the rest is not forgotten. They are
        validated with only where there are none to adapt to; synthetic noise and babble are on both sides, as in the
        training of the model.

    Raises
    ------
    ConfigError
        If the model is for other sources, or there is no speech at all.
    """
    talkers, mixtures = _talkers(model), _made_of(model)
    if mixtures is None or mixtures.talkers != talkers:
        mixtures = Mixtures(talkers=talkers)
    corpora = {}
    for kind in ("speech", "noise"):
        known = Corpus(OWN, "as given", "as given", validation=OWN_HELD_OUT, known=True)
        other = Corpus(GENERAL, "as given", "as given", validation=0.0 if kind in own else HELD_OUT)
        corpora[kind] = ((known,) if kind in own else ()) + ((other,) if kind in general else ())
    if not corpora["speech"]:
        raise ConfigError("an adaptation to noises needs speech as well: --general-speech DIR")
    stages = tuple(s if s.omisi else replace(s, hop_ms=model.shape.hop_ms) for s in STAGES[talkers])
    # A voice that is known is not to become another one.
    mixtures = replace(mixtures, speed=min(mixtures.speed, KNOWN_SPEED) if "speech" in own else mixtures.speed)
    epoch = max(50, stages[0].steps // 20)
    select = "heard" if stages[-1].omisi else "mask"
    return Recipe("adapted", model.shape, mixtures, stages, corpora, epoch=epoch, validation=24, select=select)


def _made_of(model: Model) -> Mixtures | None:
    table: Any = model.manifest.get("recipe")
    try:
        return recipe_from(table).mixtures if isinstance(table, dict) else None
    except ConfigError:  # by another version
        return None


def _talkers(model: Model) -> int:
    for talkers, estimator in ((1, Speech), (2, Talkers)):
        if model.sources == estimator.sources:
            return talkers
    raise ConfigError(f"a model that separates {', '.join(model.sources)} cannot be adapted")
