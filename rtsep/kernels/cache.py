"""Machine code on disk: one file for a kernel, the types of its arguments and the processor.

A file is valid for one state of what the kernel reaches (`rtsep.kernels.reach`), whose hash stands in its head, with
that of its content. Files are replaced as a whole, so that processes may write at the same time; one that is
damaged, or of another state, is compiled anew and replaced. What cannot be written is still read. Whatever fails costs
time only.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import re
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from rtsep import compiling
from rtsep.kernels.reach import reach

config: Any = numba.config

VERSIONS = sys.version, np.__version__, numba.__version__, llvmlite.__version__
FLAGS = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT


# How kernels are compiled and kept counts as they do.
HOUSE = [path.read_bytes() for path in map(Path(__file__).with_name, ("cache.py", "inner.py", "jit.py"))]


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder that exists or has yet to be made."""
    # Not the methods of paths: they raise where a folder above is closed to this user.
    existing = next((path for path in (folder, *folder.parents) if os.path.exists(path)), folder)
    return os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)


def folders(source: str) -> list[Path]:
    """Where machine code of a source file is looked for, in this order; the last one is written to.

    The first is in `NUMBA_CACHE_DIR`, if that is set, else `__pycache__` beside the source. Where that cannot be
    written, the user's own cache folder holds what it lacks.
    """
    path = Path(source).absolute()
    if not os.path.exists(path) and not any(map(os.path.isfile, path.parents)):  # typed in, or made by `exec`
        return []
    name = caching._CacheLocator.get_suitable_cache_subpath(str(path))
    first = Path(config.CACHE_DIR) / name if config.CACHE_DIR else path.parent / "__pycache__"
    own = Path(AppDirs("numba", appauthor=False).user_cache_dir) / name
    return [first] if writable(first) else [first, own]


class KernelCache(caching._Cache):
    """The cache of one kernel, with the interface of numba's.

    Parameters
    ----------
    function : callable
        What is compiled.
    options : dict
        How.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        self._source = inspect.getfile(function)

    @property
    def cache_path(self) -> str | None:
        """The folder that is written to."""
        return str(places[-1]) if (places := folders(self._source)) else None

    def enable(self) -> None:
        """Always on."""

    disable = flush = enable

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for these types, or None."""
        target_context.refresh()
        name, stamp = self._name_and_stamp(sig, target_context.codegen())
        places = folders(self._source) if stamp else []
        for folder in places:
            with suppress(Exception):
                return CompileResult._rebuild(target_context, *pickle.loads(_read(folder / name, stamp)))
        compiling.tell(kept=bool(places) and writable(places[-1]))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep it, unless it contains addresses of this process."""
        # What `print` looks up: numba sets it for the kernel, but not for its parts (`rtsep.kernels.inner`).
        data.library._ensure_finalized()
        for environment in data._find_referenced_environments():
            data.codegen.set_env(environment.env_name, environment)
        name, stamp = self._name_and_stamp(sig, data.codegen)
        if stamp and not data.library.has_dynamic_globals and all(loop.can_cache for loop in data.lifted):
            with suppress(Exception):
                _write(folders(self._source)[-1] / name, stamp, dumps(data._reduce()))

    def _name_and_stamp(self, sig: Any, codegen: Any) -> tuple[str, str]:
        """Name of the file, and hash of what the kernel reaches: empty if it cannot be known in another process."""
        argument_types = tuple(getattr(sig, "args", sig))
        with suppress(Exception):
            lines, classes = reach(self._function, argument_types)
            if all(map(_importable, classes)):
                # Functions of one name in one file differ by what they close over.
                closed = [cell.cell_contents for cell in self._function.__closure__ or ()]
                closed = reach(lambda: closed)[0] if closed else []
                key = _hash(VERSIONS, FLAGS, codegen.magic_tuple(), argument_types, *closed)
                stem = re.sub(r"[^\w.]", "", f"{Path(self._source).stem}.{self._function.__qualname__}")
                return f"{stem}-{key[:16]}.{sys.implementation.cache_tag}.nbc", _hash(HOUSE, self._options, *lines)
        return "", ""


def _importable(cls: type) -> bool:
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls and cls.__module__ != "__main__"


def _hash(*parts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _read(path: Path, stamp: str) -> bytes:
    """The content of a file. Raises unless it has this stamp and is whole."""
    head, _, content = path.read_bytes().partition(b"\n")
    if head.decode() != f"{stamp} {hashlib.sha256(content).hexdigest()}":
        raise ValueError(f"{path} is of another state of the sources, or damaged")
    return content


def _write(path: Path, stamp: str, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}")
    try:
        unfinished.write_bytes(f"{stamp} {hashlib.sha256(content).hexdigest()}\n".encode() + content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
