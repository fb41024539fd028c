"""rtsep: separating sound while it happens."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsep import estimators, phase
    from rtsep.config import StreamConfig
    from rtsep.errors import ConfigError
    from rtsep.offline import separate
    from rtsep.separator import Separator
    from rtsep.stages.output import Output
    from rtsep.stages.registry import list_estimators, list_phases

__all__ = [
    "ConfigError",
    "Output",
    "Separator",
    "StreamConfig",
    "estimators",
    "list_estimators",
    "list_phases",
    "phase",
    "separate",
]
__version__ = "0.1.0"

# Imported when first used: numba takes 0.3 s, in which the command line could not say why it was interrupted.
_HOMES = {
    "ConfigError": "rtsep.errors",
    "Output": "rtsep.stages.output",
    "Separator": "rtsep.separator",
    "StreamConfig": "rtsep.config",
    "list_estimators": "rtsep.stages.registry",
    "list_phases": "rtsep.stages.registry",
    "separate": "rtsep.offline",
}
_PARTS = ("estimators", "phase")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"rtsep.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'rtsep' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
