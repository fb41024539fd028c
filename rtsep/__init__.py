"""rtsep: separating sound while it happens."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsep import estimators, factorise, phase
    from rtsep.choose import list_estimators, list_phases
    from rtsep.config import StreamConfig
    from rtsep.dds import dictionary_search as dictionary_search
    from rtsep.engine.gate import Gate
    from rtsep.engine.output import Output
    from rtsep.engine.protocols import CompiledEstimator, OfflinePhase, OnlinePhase, PythonEstimator, WholeEstimator
    from rtsep.engine.registry import register_estimator, register_phase
    from rtsep.errors import ConfigError
    from rtsep.offline import separate
    from rtsep.pcm import from_pcm, to_pcm
    from rtsep.restoration import restore
    from rtsep.separator import Separator

__all__ = [
    "CompiledEstimator",
    "ConfigError",
    "Gate",
    "OfflinePhase",
    "OnlinePhase",
    "Output",
    "PythonEstimator",
    "Separator",
    "StreamConfig",
    "WholeEstimator",
    "estimators",
    "factorise",
    "from_pcm",
    "list_estimators",
    "list_phases",
    "phase",
    "register_estimator",
    "register_phase",
    "restore",
    "separate",
    "to_pcm",
]
__version__ = "0.2.0"

# Imported when first used: numba takes 0.3 s, in which the command line could not say why it was interrupted.
_HOMES = {
    "CompiledEstimator": "rtsep.engine.protocols",
    "ConfigError": "rtsep.errors",
    "Gate": "rtsep.engine.gate",
    "OfflinePhase": "rtsep.engine.protocols",
    "OnlinePhase": "rtsep.engine.protocols",
    "Output": "rtsep.engine.output",
    "PythonEstimator": "rtsep.engine.protocols",
    "Separator": "rtsep.separator",
    "StreamConfig": "rtsep.config",
    "WholeEstimator": "rtsep.engine.protocols",
    "dictionary_search": "rtsep.dds",  # not for `import *`: it needs the extra `train`, and says so
    "from_pcm": "rtsep.pcm",
    "list_estimators": "rtsep.choose",
    "list_phases": "rtsep.choose",
    "register_estimator": "rtsep.engine.registry",
    "register_phase": "rtsep.engine.registry",
    "restore": "rtsep.restoration",
    "separate": "rtsep.offline",
    "to_pcm": "rtsep.pcm",
}
_PARTS = ("estimators", "factorise", "phase")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"rtsep.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'rtsep' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
