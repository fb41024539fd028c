"""Estimators: one a file. Importing this package registers all of them."""

from rtsep.estimators.denoise import Denoise
from rtsep.estimators.hpss import HPSS
from rtsep.estimators.learned import Speech, Talkers
from rtsep.estimators.onnx import Onnx
from rtsep.estimators.oracle import Oracle
from rtsep.estimators.passthrough import Passthrough

__all__ = ["HPSS", "Denoise", "Onnx", "Oracle", "Passthrough", "Speech", "Talkers"]
