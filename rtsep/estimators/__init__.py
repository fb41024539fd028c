"""Estimators: one a file. Importing this package registers all of them."""

from rtsep.estimators.binary_nmf import BinaryNMF
from rtsep.estimators.complex_factors import ComplexBetaNMF, ComplexISNMF, ComplexNMF
from rtsep.estimators.denoise import Denoise
from rtsep.estimators.factorised import EMISNMF, BlindLevyNMF, BlindNMF, WholeNMF
from rtsep.estimators.hpss import HPSS
from rtsep.estimators.hrnmf import HRNMF
from rtsep.estimators.kam import KAM
from rtsep.estimators.learned import Speech, SpeechSmall, Talkers, Target, trained_for
from rtsep.estimators.nmf import NMF, LevyNMF
from rtsep.estimators.onnx import Onnx
from rtsep.estimators.oracle import Oracle
from rtsep.estimators.passthrough import Passthrough
from rtsep.estimators.repet import AdaptiveRepet, Repet
from rtsep.estimators.repet_sim import RepetSim

__all__ = [
    "EMISNMF",
    "HPSS",
    "HRNMF",
    "KAM",
    "NMF",
    "AdaptiveRepet",
    "BinaryNMF",
    "BlindLevyNMF",
    "BlindNMF",
    "ComplexBetaNMF",
    "ComplexISNMF",
    "ComplexNMF",
    "Denoise",
    "LevyNMF",
    "Onnx",
    "Oracle",
    "Passthrough",
    "Repet",
    "RepetSim",
    "Speech",
    "SpeechSmall",
    "Talkers",
    "Target",
    "WholeNMF",
]


def default_estimator(window_s: float, hop_s: float) -> str:
    """Name of the estimator for those who name none: `speech`, or `denoise` for a framing it is not trained for."""
    return "speech" if trained_for(window_s, hop_s) else "denoise"
