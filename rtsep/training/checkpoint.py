"""Checkpoints: all that a training needs to go on, complete or not there, refused if damaged."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from rtsep.config import ConfigError
from rtsep.staging import replacing

MAGIC = b"rtsep checkpoint 4\n"
DIGEST = 64 + 1  # hexadecimal, and a newline


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write at once: an interruption leaves the former file. Raises `FileError`."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    with replacing(path) as part:
        part.write_bytes(MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What was written. Raises `ConfigError` for any other file."""
    try:
        text = path.read_bytes()
    except OSError as problem:
        raise ConfigError(f"checkpoint {path}: {problem.strerror}") from None
    if not text.startswith(MAGIC):
        raise ConfigError(f"checkpoint {path}: is no checkpoint, or one of another version of rtsep")
    digest, data = text[len(MAGIC) : len(MAGIC) + DIGEST - 1], text[len(MAGIC) + DIGEST :]
    if hashlib.sha256(data).hexdigest().encode() != digest:
        raise ConfigError(
            f"checkpoint {path}: is damaged: its content does not match its SHA-256; --overwrite starts again"
        )
    return torch.load(io.BytesIO(data), "cpu", weights_only=True)
