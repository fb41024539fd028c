"""Factorisation and repetition: offline separation by models of spectrograms; plain NumPy on arrays, float64 inside."""

from rtsep.factorise.adaptive_repet import adaptive_repet
from rtsep.factorise.binary_nmf import binary_nmf
from rtsep.factorise.cauchy_nmf import cauchy_nmf
from rtsep.factorise.complex_beta_nmf import complex_beta_nmf
from rtsep.factorise.complex_isnmf import complex_isnmf
from rtsep.factorise.complex_nmf import complex_nmf
from rtsep.factorise.em_isnmf import em_isnmf
from rtsep.factorise.factors import ComplexFactors, Factors, sinusoidal_advance
from rtsep.factorise.hrnmf import HRFactors, hrnmf
from rtsep.factorise.kam import Kernel, kam
from rtsep.factorise.levy_nmf import levy_nmf
from rtsep.factorise.nmf import nmf, separated
from rtsep.factorise.repet import repet
from rtsep.factorise.repet_sim import repet_sim

__all__ = [
    "ComplexFactors",
    "Factors",
    "HRFactors",
    "Kernel",
    "adaptive_repet",
    "binary_nmf",
    "cauchy_nmf",
    "complex_beta_nmf",
    "complex_isnmf",
    "complex_nmf",
    "em_isnmf",
    "hrnmf",
    "kam",
    "levy_nmf",
    "nmf",
    "repet",
    "repet_sim",
    "separated",
    "sinusoidal_advance",
]
