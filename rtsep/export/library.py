"""A folder with a static C library, its header, an example and a page about it."""

from __future__ import annotations

from pathlib import Path

from rtsep.export.archive import archive
from rtsep.export.interface import example, framing, header, interface, public, title
from rtsep.export.program import program
from rtsep.export.target import Machine, Sizes, Target
from rtsep.separator import Separator
from rtsep.staging import StagedFiles

FILES = ("librtsep.a", "rtsep.h", "example.c", "README.md")
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
`memset`, those of `math.h` and, on some processors, those that every compiler brings (libgcc).
{samples}
"""
SAME = "It computes the very samples that `rtsep.Separator` does in Python."
NEAR = "WebAssembly has no fused multiply-add: samples differ from those of `rtsep.Separator` in the last bits."
SOFT = "Floats are computed in software, slowly. If the processor has a unit for them, name it with `--cpu`."
# How GCC calls what LLVM has in the first part of a triple.
ARCHITECTURES = {
    "thumbv6m": "armv6s-m",
    "thumbv7m": "armv7-m",
    "thumbv7em": "armv7e-m",
    "thumbv8m.base": "armv8-m.base",
    "thumbv8m.main": "armv8-m.main",
    "thumbv8.1m.main": "armv8.1-m.main",
    "arm": "armv4t",
    "armv7": "armv7-a",
    "thumbv7": "armv7-a",
    "armv8": "armv8-a",
}


def compiler_line(target: Target, soft_floats: bool) -> str:
    """The command that makes the example."""
    architecture, *system = target.parts
    last = ""
    if architecture.startswith("wasm"):
        command = "python -m ziglang cc -target wasm32-wasi"
    elif target.triple == Target().triple:
        command = "cc"
    elif architecture.startswith(("arm", "thumb")) and not architecture.startswith("arm64") and "apple" not in system:
        hard = target.triple.endswith("hf")
        if target.cpu != "generic":
            processor = f"-mcpu={target.cpu}"
        else:
            name = ARCHITECTURES.get(architecture, architecture.replace("thumb", "arm"))
            processor = f"-march={name}" + "+fp" * hard
        processor += f" -mfloat-abi={'hard' if hard else 'soft' if soft_floats else 'softfp'}"
        if "linux" in system:
            command = f"arm-linux-{system[-1]}-gcc {processor}" + " -mfpu=neon" * (architecture == "armv7")
        else:
            command, last = f"arm-none-eabi-gcc {processor} -mthumb", " --specs=nosys.specs"
    elif "linux" in system:
        command = f"{target.gnu}-gcc"
    else:
        command = f"clang --target={target.triple}"
    return f"{command} -O2 example.c -L. -lrtsep -lm{last} -o example"


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
    paths = {name: folder / name for name in FILES}
    with StagedFiles(list(paths.values()), overwrite) as staged:
        staged.part(paths["README.md"])  # what cannot be written is said before the work
        made = compiled(separator, target)
        contents = describe(made, target)
        contents["librtsep.a"] = archive({"rtsep.o": (made.object, public(made.program))})
        for name, path in paths.items():
            staged.write(path, contents[name])
        staged.commit()
    return made.sizes


def compiled(separator: Separator, target: Target) -> Machine:
    """The program of a separator, with the functions of the header, in the code of a target."""
    made = program(separator, target.pointer_bits)
    return target.compile(made, interface(made), public(made))


def describe(made: Machine, target: Target) -> dict[str, bytes]:
    """Header, example and page."""
    from rtsep import __version__

    made_of, line = made.program, compiler_line(target, made.soft_floats)
    notes = NOTES.format(
        title=title(made_of),
        version=__version__,
        triple=target.triple,
        cpu=target.cpu,
        framing=framing(made_of),
        sizes=made.sizes,
        compile=line,
        samples=(NEAR if "wasm" in target.triple else SAME) + f"\n\n{SOFT}" * made.soft_floats,
    )
    texts = {"rtsep.h": header(made_of, __version__), "example.c": example(line), "README.md": notes}
    return {name: text.encode() for name, text in texts.items()}
