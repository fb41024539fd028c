"""The container of every model file: arrays in an .npz without pickles, with everything needed to trust them.

Beside its arrays a file holds `header`, a JSON text: format, version, what the format needs, the SHA-256 of all else.
`rtsep.estimators.model_file` reads and writes networks, `rtsep.estimators.dictionary_file` dictionaries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rtsep.errors import ConfigError
from rtsep.staging import replacing

MAX_BYTES = 64 << 20


def refusal(path: Path | str, reason: str) -> ConfigError:
    """The error that says why a file cannot be used, in one line."""
    return ConfigError(f"{path} cannot be used as a model: {reason}")


def write_container(
    path: Path,
    kind: str,
    version: int,
    header: dict[str, Any],
    content: dict[str, np.ndarray],
    check: Callable[[Path], Any],
) -> None:
    """Write a model file at once: it is complete or not there.

    Parameters
    ----------
    path : Path
        An .npz; replaced if it exists. Its folder is made if need be.
    kind : str
        Name of the format.
    version : int
        Of the format.
    header : dict
        What JSON can hold.
    content : dict of str to ndarray
    check : callable
        Reads the file before it gets its name; what that raises is raised.

    Raises
    ------
    ConfigError
        For another suffix.
    FileError
        If it cannot be written.
    """
    if path.suffix != ".npz":
        raise ConfigError(f"{path} does not end in .npz")
    header = {"format": kind, "version": version, **header}
    header["sha256"] = _digest(header, content)
    with replacing(path) as part:
        with open(part, "wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **content)  # type: ignore[arg-type]
        try:
            check(part)
        except ConfigError as problem:
            raise ConfigError(str(problem).replace(str(part), str(path))) from None


def read_container(
    path: Path | str, kind: str, version: int, max_bytes: int = MAX_BYTES
) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Header, arrays and SHA-256 of a model file. Raises `ConfigError` unless all of it is as it was written."""
    header, content = _load(Path(path), max_bytes)
    found = header.get("format"), header.get("version")
    if found[0] != kind:
        raise refusal(path, f"its format is {found[0]!r}, not {kind!r}")
    if found[1] != version:
        raise refusal(path, f"its version is {found[1]!r}; this rtsep reads {version}")
    sha256 = header.pop("sha256", None)
    if sha256 != _digest(header, content):
        raise refusal(path, "its content does not match its SHA-256")
    return header, content, sha256


def header_of(path: Path | str) -> dict[str, Any]:
    """Header of a model file; its `format` says what kind it is. Raises `ConfigError` if it is none."""
    return _load(Path(path))[0]


def checked_arrays(
    path: Path | str, content: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The arrays as float32. Raises `ConfigError` unless they are those expected, of these shapes, and finite."""
    if set(content) != set(expected):
        raise refusal(path, f"it has other arrays: {', '.join(sorted(set(content) ^ set(expected)))}")
    for name, array in content.items():
        if array.shape != expected[name]:
            raise refusal(path, f"{name} has shape {array.shape}, not {expected[name]}")
        if array.dtype not in (np.float16, np.float32):
            raise refusal(path, f"{name} is {array.dtype}, neither float16 nor float32")
        if not array.size or not np.isfinite(array).all():
            raise refusal(path, f"{name} is {'not finite' if array.size else 'empty'}")
    return {name: array.astype(np.float32) for name, array in content.items()}


def one_line(error: Exception) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _load(path: Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise refusal(path, "it is no file" if path.exists() else "there is no such file")
    if path.stat().st_size > max_bytes:
        raise refusal(path, f"it has {path.stat().st_size} bytes, more than {max_bytes}")
    try:
        with np.load(path, allow_pickle=False) as file:
            n_bytes = sum(entry.file_size for entry in file.zip.infolist())
            if n_bytes > max_bytes:
                raise refusal(path, f"its arrays have {n_bytes} bytes, more than {max_bytes}")
            content = {name: file[name] for name in file.files}
    except ConfigError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        # NumPy recommends to allow pickles for whatever is no file of its own.
        reason = "not plain arrays" if "pickle" in str(error) else one_line(error)
        raise refusal(path, f"it is damaged or no .npz file ({reason})") from None
    try:
        header = json.loads(str(content.pop("header")))
        header["format"], header["version"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise refusal(path, "it has no header") from None
    return header, content


def _digest(header: dict[str, Any], content: dict[str, np.ndarray]) -> str:
    """SHA-256 of the header, and of name, type, shape and bytes of every array in the order of the names."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(content):
        array = np.ascontiguousarray(content[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
