"""Training of the learned estimators, with PyTorch: the optional extra `train`."""

from __future__ import annotations

import os
from importlib.util import find_spec

from rtsep.errors import ConfigError

if find_spec("torch") is None:
    raise ConfigError("training needs PyTorch: pip install 'rtsep[train]'")

# PyTorch asks once, when it is first used: large tensors in huge pages cost fewer page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
