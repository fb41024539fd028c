"""Phase recovery: one algorithm a file. Importing this package registers all of them."""

from rtsep.phase.bregman import Bregman
from rtsep.phase.griffin_lim import FastGriffinLim, GriffinLim
from rtsep.phase.inversion import InconsHardMix, MagInconsHardMix, MixIncons, MixInconsHardMag
from rtsep.phase.misi import MISI
from rtsep.phase.mixture import MixturePhase
from rtsep.phase.omisi import OMISI
from rtsep.phase.pu_iter import PUIter
from rtsep.phase.retrieval import BregmanADMM, BregmanGradient
from rtsep.phase.rtisi import GSRTISILA, RTISILA
from rtsep.phase.rtpghi import RTPGHI
from rtsep.phase.spsi import SPSI
from rtsep.phase.unwrapping import Unwrapping

__all__ = [
    "GSRTISILA",
    "MISI",
    "OMISI",
    "RTISILA",
    "RTPGHI",
    "SPSI",
    "Bregman",
    "BregmanADMM",
    "BregmanGradient",
    "FastGriffinLim",
    "GriffinLim",
    "InconsHardMix",
    "MagInconsHardMix",
    "MixIncons",
    "MixInconsHardMag",
    "MixturePhase",
    "PUIter",
    "Unwrapping",
]
