"""Phase recovery: one algorithm a file. Importing this package registers all of them."""

from rtsep.phase.griffin_lim import FastGriffinLim, GriffinLim
from rtsep.phase.misi import MISI
from rtsep.phase.mixture import MixturePhase
from rtsep.phase.omisi import OMISI
from rtsep.phase.pu_iter import PUIter
from rtsep.phase.rtpghi import RTPGHI
from rtsep.phase.spsi import SPSI
from rtsep.phase.unwrapping import Unwrapping

__all__ = ["MISI", "OMISI", "RTPGHI", "SPSI", "FastGriffinLim", "GriffinLim", "MixturePhase", "PUIter", "Unwrapping"]
