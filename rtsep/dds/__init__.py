"""Differentiable dictionary search: sounds as normalizing flows, searched through a linear mixture.

L. S. Martak, R. Kelz, G. Widmer, "Differentiable dictionary search: integrating linear mixing with deep non-linear
modelling for audio source separation", 2022. A flow for each source, or one for all, learns which spectra a source can
have. A mixture is then decomposed by looking for the spectra, within what the flows know, that add up to it. It needs
the optional extra `train`, and takes seconds to minutes: nothing of it is for a stream.
"""

from __future__ import annotations

from importlib.util import find_spec

from rtsep.errors import ConfigError

if find_spec("torch") is None:
    raise ConfigError("a dictionary search needs PyTorch: pip install 'rtsep[train]'")

from rtsep.dds.learning import learn_signals, learn_sources
from rtsep.dds.model import SourceModel, read_model, write_model
from rtsep.dds.search import Decomposition, dictionary_search

__all__ = [
    "Decomposition",
    "SourceModel",
    "dictionary_search",
    "learn_signals",
    "learn_sources",
    "read_model",
    "write_model",
]
