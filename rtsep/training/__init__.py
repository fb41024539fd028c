"""Training of the learned estimators, with PyTorch: the optional extra `train`."""

from __future__ import annotations

from importlib.util import find_spec

from rtsep.errors import ConfigError

if find_spec("torch") is None:
    raise ConfigError("training needs PyTorch: pip install 'rtsep[train]'")
