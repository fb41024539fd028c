"""rtsep: separating sound while it happens."""

from rtsep.config import ConfigError, StreamConfig
from rtsep.offline import separate
from rtsep.separator import Separator
from rtsep.stages.output import Output
from rtsep.stages.registry import list_estimators, list_phases

__all__ = ["ConfigError", "Output", "Separator", "StreamConfig", "list_estimators", "list_phases", "separate"]
__version__ = "0.1.0"
