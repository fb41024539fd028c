"""A folder with a static C library, its header, an example and a page about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtsep.config import ConfigError
from rtsep.export.archive import archive
from rtsep.export.interface import example, framing, header, interface, public, title
from rtsep.export.program import program
from rtsep.export.target import Machine, Sizes, Target
from rtsep.separator import Separator

NOTES = """\
# {title}

Made by rtsep {version} for {triple}, {cpu}. {framing}

| | bytes |
|---|---|
| code (flash) | {sizes.code:,} |
| constants: weights, windows, tables (flash) | {sizes.constants:,} |
| memory of an instance (RAM) | {sizes.memory:,} |

On top come the stack and what is used of `math.h`. `rtsep.h` declares all functions:

    {compile}

`example.c` is a filter from standard input to standard output. The library calls no function but `memcpy`, `memmove`,
`memset`, those of `math.h` and, on some processors, those that every compiler brings (libgcc). It computes the very
samples that `rtsep.Separator` does in Python.
"""


def compiler_line(target: Target) -> str:
    """The command that makes the example."""
    triple = target.triple
    if "none" in triple or triple.startswith("thumb"):
        command = f"arm-none-eabi-gcc -mcpu={target.cpu} -mthumb -mfloat-abi=softfp"
    elif triple.startswith("armv7"):
        command = f"arm-linux-gnueabi-gcc -mcpu={target.cpu} -mfpu=neon -mfloat-abi=softfp"
    else:
        command = "aarch64-linux-gnu-gcc" if triple == "aarch64-linux-gnu" else "cc"
    return f"{command} -O2 example.c -L. -lrtsep -lm -o example"


def write_library(separator: Separator, target: Target, folder: Path, overwrite: bool = False) -> Sizes:
    """Write librtsep.a, rtsep.h, example.c and README.md.

    Parameters
    ----------
    separator : Separator
    target : Target
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
        For a separator that cannot be exported, and files that are there already.
    OSError
        If the folder cannot be written.
    """
    made = compiled(separator, target)
    with whole_folder(folder, ("librtsep.a", "rtsep.h", "example.c", "README.md"), overwrite) as part:
        describe(made, target, part)
        (part / "librtsep.a").write_bytes(archive({"rtsep.o": (made.object, public(made.program))}))
    return made.sizes


def compiled(separator: Separator, target: Target) -> Machine:
    """The program of a separator, with the functions of the header, in the code of a target."""
    made = program(separator, target.pointer_bits)
    return target.compile(made, interface(made), public(made))


def describe(made: Machine, target: Target, folder: Path) -> None:
    """Write header, example and page."""
    from rtsep import __version__

    made_of, line = made.program, compiler_line(target)
    (folder / "rtsep.h").write_text(header(made_of, __version__))
    (folder / "example.c").write_text(example(line))
    (folder / "README.md").write_text(
        NOTES.format(
            title=title(made_of),
            version=__version__,
            triple=target.triple,
            cpu=target.cpu,
            framing=framing(made_of),
            sizes=made.sizes,
            compile=line,
        )
    )


@contextmanager
def whole_folder(folder: Path, names: tuple[str, ...], overwrite: bool) -> Iterator[Path]:
    """A folder to write files of these names to, which are moved to their place once all are there."""
    taken = [name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise ConfigError(f"{folder / taken[0]} exists (--overwrite replaces it)")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".rtsep-export"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    done = False
    try:
        part.mkdir()
        yield part
        for name in names:
            (part / name).replace(folder / name)
        done = True
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if new and not done:
            shutil.rmtree(folder, ignore_errors=True)
