"""A folder with a page that separates sound in a browser, in WebAssembly."""

from __future__ import annotations

import html
import importlib.util
import json
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from rtsep.config import ConfigError
from rtsep.export.interface import framing, public, title
from rtsep.export.library import NEAR, compiled
from rtsep.export.plugin import STRENGTH_MAX
from rtsep.export.target import Machine, Sizes, Target
from rtsep.separator import Separator
from rtsep.staging import StagedFiles

TRIPLE = "wasm32-unknown-unknown"
STACK_BYTES = 1 << 18
FILES = ("page.js", "rtsep.js", "style.css", "worklet.js")  # as they are

NOTES = """\
# {title}

Made by rtsep {version} for browsers. {framing}

    python -m http.server --bind 127.0.0.1

in this folder, and then http://localhost:8000 in a browser. All of it runs there, without a connection once these files
are there. Other web servers do as well, with https where they are not this machine: browsers let no other page hear a
microphone.

| | bytes |
|---|---|
| rtsep.wasm | {wasm:,} |
| of it constants: weights, windows, tables | {sizes.constants:,} |
| memory of an instance | {sizes.memory:,} |

`rtsep.js` is for pages of your own, and for node. {samples}
"""


def write_page(separator: Separator, folder: Path, overwrite: bool = False) -> Sizes:
    """Write index.html and what it needs.

    Parameters
    ----------
    separator : Separator
    folder : path
        Made if it does not exist. All is written, or nothing.
    overwrite : bool
        Whether files of these names may be replaced.

    Returns
    -------
    sizes : Sizes
        In bytes.

    Raises
    ------
    ConfigError
        For a separator that cannot be exported, without a linker, and for files that are there already.
    OSError
        If the folder cannot be written.
    """
    from rtsep import __version__

    if not importlib.util.find_spec("ziglang"):
        raise ConfigError("a page needs a linker for WebAssembly (python -m pip install 'rtsep[export]')")
    ours = resources.files("rtsep.export") / "page"
    paths = {name: folder / name for name in ("rtsep.wasm", *FILES, "README.md", "index.html")}
    with StagedFiles(list(paths.values()), overwrite) as staged:
        staged.part(paths["index.html"])  # what cannot be written is said before the work
        made = compiled(separator, Target(TRIPLE))
        about = {"title": title(made.program), "framing": framing(made.program)}
        wasm = _linked(made)
        text = (ours / "index.html").read_text()
        for name, value in about.items():
            text = text.replace(f"{{{name}}}", html.escape(value))
        settings = {
            "sr": separator.config.sr,
            "channels": separator.config.n_channels,
            "latency": separator.latency,
            "sources": separator.sources,
            "strength_db": min(separator.output.strength_db, STRENGTH_MAX),
        }
        text = text.replace("{settings}", json.dumps(settings).replace("<", "\\u003c"))
        notes = NOTES.format(version=__version__, wasm=len(wasm), sizes=made.sizes, samples=NEAR, **about)
        contents = {name: (ours / name).read_bytes() for name in FILES}
        contents |= {"rtsep.wasm": wasm, "README.md": notes.encode(), "index.html": text.encode()}
        for name, path in paths.items():
            staged.write(path, contents[name])
        staged.commit()
    return made.sizes


def _linked(made: Machine) -> bytes:
    """A module that imports nothing: the object, with what it takes of a C library."""
    with tempfile.TemporaryDirectory(prefix="rtsep") as name:
        work = Path(name)
        (work / "rtsep.o").write_bytes(made.object)
        exports = [f"-Wl,--export={symbol}" for symbol in (*public(made.program), "__heap_base")]
        line = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-s"]
        line += [f"-Wl,-z,stack-size={STACK_BYTES}", *exports]
        ran = subprocess.run([*line, "rtsep.o", "-o", "rtsep.wasm"], cwd=work, capture_output=True, text=True)
        if ran.returncode:
            said = next((line for line in ran.stderr.splitlines() if "error" in line), ran.stderr.strip()[-200:])
            raise ConfigError(f"the linker cannot make the page: {said.strip()}")
        return (work / "rtsep.wasm").read_bytes()
