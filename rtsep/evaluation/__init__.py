"""Scores, mixtures and reports: how well something separates, in numbers that can be trusted.

One rule for all scores: a number is returned only where the score is defined. Silent references, unequal lengths,
samples that are not finite: `ScoreError` with the reason, and in a table an empty field beside the reason.
"""

from rtsep.evaluation.activations import psa, sparsity
from rtsep.evaluation.bss_eval import bss_eval_v3, bss_eval_v4
from rtsep.evaluation.checks import ScoreError
from rtsep.evaluation.labelled import ca_sdr, casa_sdr
from rtsep.evaluation.matching import match
from rtsep.evaluation.perceptual import dnsmos, estoi, haspi, hasqi, pesq, stoi
from rtsep.evaluation.ratios import improvement, sdr, si_sdr, si_sdr_parts
from rtsep.evaluation.spatial import delay, interaural_level_error, interaural_time_error
from rtsep.evaluation.weighted import weighted_sdr

__all__ = [
    "ScoreError",
    "bss_eval_v3",
    "bss_eval_v4",
    "ca_sdr",
    "casa_sdr",
    "delay",
    "dnsmos",
    "estoi",
    "haspi",
    "hasqi",
    "improvement",
    "interaural_level_error",
    "interaural_time_error",
    "match",
    "pesq",
    "psa",
    "sdr",
    "si_sdr",
    "si_sdr_parts",
    "sparsity",
    "stoi",
    "weighted_sdr",
]
