"""Phase recovery: one algorithm a file. Importing this package registers all of them."""

from rtsep.phase.anisotropic_wiener import AnisotropicWiener
from rtsep.phase.bayesian_anisotropic import BayesianAnisotropic
from rtsep.phase.bregman import Bregman
from rtsep.phase.consistent_wiener import ConsistentAnisotropicWiener, ConsistentWiener
from rtsep.phase.griffin_lim import FastGriffinLim, GriffinLim
from rtsep.phase.inversion import InconsHardMix, MagInconsHardMix, MixIncons, MixInconsHardMag
from rtsep.phase.misi import MISI
from rtsep.phase.mixture import MixturePhase
from rtsep.phase.omisi import OMISI
from rtsep.phase.pu_iter import PUIter
from rtsep.phase.repeated_events import RepeatedEvents
from rtsep.phase.retrieval import BregmanADMM, BregmanGradient
from rtsep.phase.rtisi import GSRTISILA, RTISILA
from rtsep.phase.rtpghi import RTPGHI
from rtsep.phase.spsi import SPSI
from rtsep.phase.unwrapping import Unwrapping
from rtsep.phase.von_mises import von_mises_concentration
from rtsep.phase.wiener import Wiener

__all__ = [
    "GSRTISILA",
    "MISI",
    "OMISI",
    "RTISILA",
    "RTPGHI",
    "SPSI",
    "AnisotropicWiener",
    "BayesianAnisotropic",
    "Bregman",
    "BregmanADMM",
    "BregmanGradient",
    "ConsistentAnisotropicWiener",
    "ConsistentWiener",
    "FastGriffinLim",
    "GriffinLim",
    "InconsHardMix",
    "MagInconsHardMix",
    "MixIncons",
    "MixInconsHardMag",
    "MixturePhase",
    "PUIter",
    "RepeatedEvents",
    "Unwrapping",
    "Wiener",
    "von_mises_concentration",
]
