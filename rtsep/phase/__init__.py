"""Phase recovery: one algorithm a file. Importing this package registers all of them."""

from rtsep.phase.misi import MISI
from rtsep.phase.mixture import MixturePhase
from rtsep.phase.omisi import OMISI

__all__ = ["MISI", "OMISI", "MixturePhase"]
