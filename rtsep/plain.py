"""Plain values: what reports and JSON take."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """`value` for JSON, which has neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(stage: Any) -> dict[str, Any]:
    """Name and plain settings of an estimator or a phase recovery."""
    values = asdict(stage) if is_dataclass(stage) and not isinstance(stage, type) else {}
    return {"name": stage.name} | {
        key: value for key, value in values.items() if isinstance(value, (str, int, float, bool))
    }
