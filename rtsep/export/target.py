"""Machine code of a program for a processor, by LLVM."""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from rtsep.config import ConfigError
from rtsep.export.program import Program
from rtsep.kernels.simd import FEW_REGISTERS
from rtsep.models import one_line

# What is taken where no processor is named: by the start of the triple.
PROCESSORS = {
    "x86_64": "x86-64-v3",
    "aarch64": "generic",
    "armv7": "cortex-a8",
    "thumbv7em": "cortex-m7",
    "thumbv8m.main": "cortex-m33",
    "thumbv8.1m.main": "cortex-m55",
    "wasm32": "generic",
}
# As LLVM names them. It has code for others, which are no processors: graphics cards, filters of a system.
FAMILIES = re.compile(r"x86|aarch64|arm|thumb|riscv|mips|ppc|loongarch|hexagon|wasm")
FEW = re.compile(r"thumb|riscv|arm.*cortex-m|wasm")  # registers, or short ones: see `few_registers`
FEATURES = {"wasm32": "+simd128", "armv7": "+neon,+vfp3", "riscv64": "+m,+a,+f,+d,+c"}
ABIS = {"riscv64": "lp64d"}  # as on Linux


@dataclass(frozen=True)
class Target:
    """A processor.

    Parameters
    ----------
    triple : str
        As LLVM names targets: aarch64-linux-gnu, thumbv7em-none-eabi, wasm32-unknown-unknown. Default: this machine.
    cpu : str
        As LLVM names processors. Default: a common one, see `PROCESSORS`.

    Raises
    ------
    ConfigError
        For those that LLVM does not know, and those that are no little-endian processors of 32 or 64 bits.
    """

    triple: str = ""
    cpu: str = ""

    def __post_init__(self) -> None:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        object.__setattr__(self, "triple", self.triple or llvm.get_default_triple())
        try:
            family = llvm.Target.from_triple(self._whole_triple).name
        except RuntimeError:
            raise ConfigError(f"target {self.triple!r} is not known; aarch64-linux-gnu is one, for example") from None
        if not FAMILIES.match(family):
            raise ConfigError(f"target {self.triple!r}: exports are for processors of 32 or 64 bits, not for {family}")
        # LLVM would take it for a processor of that version with ARM code.
        if re.match(r"armv\d[\d.]*e?-?m\b", self.triple):
            thumb = "thumb" + re.sub("-?m", "m", self.triple[3:], count=1)
            raise ConfigError(f"target {self.triple!r}: Cortex-M has Thumb code alone; say {thumb}")
        object.__setattr__(self, "cpu", self.cpu or self._default(PROCESSORS, "generic"))
        if self.cpu == "help" or "not a recognized" in _said(self._machine):
            raise ConfigError(f"target {self.triple!r}: cpu {self.cpu!r} is not known")
        if not str(self._machine().target_data).startswith("e"):
            raise ConfigError(f"target {self.triple!r} is big-endian; exports are for little-endian processors")

    @property
    def _whole_triple(self) -> str:
        """With the vendor that most leave out; LLVM would take the system for one, and know no ABI of that system."""
        architecture, *rest = self.triple.split("-")
        return "-".join([architecture, *["unknown"] * (rest[:1] in (["linux"], ["none"], ["wasi"])), *rest])

    @property
    def parts(self) -> list[str]:
        """Architecture, system, and its kind: the triple without a vendor."""
        return [part for part in self.triple.split("-") if part not in ("unknown", "pc")]

    @property
    def gnu(self) -> str:
        """What compilers of GNU for Linux are called by."""
        architecture, *system = self.parts
        return "-".join([architecture.replace("arm64", "aarch64"), *(system if system[1:] else [*system, "gnu"])])

    def _default(self, table: dict[str, str], otherwise: str) -> str:
        return next((value for start, value in table.items() if self.triple.startswith(start)), otherwise)

    @property
    def pointer_bits(self) -> int:
        """32 or 64."""
        pointer = llvm.parse_assembly("@p = external global ptr").get_global_variable("p").type
        return 8 * int(self._machine().target_data.get_abi_size(pointer))

    def _machine(self) -> Any:
        # Code that is loaded by a system may come to lie anywhere; on a bare processor and in a page it does not.
        bare = "none" in self.triple or "wasm" in self.triple
        try:
            return llvm.Target.from_triple(self._whole_triple).create_target_machine(
                cpu=self.cpu,
                features=self._default(FEATURES, ""),
                opt=3,
                reloc="static" if bare else "pic",
                codemodel="default",
                abiname=self._default(ABIS, ""),
            )
        except RuntimeError as problem:
            raise ConfigError(f"target {self.triple!r}, cpu {self.cpu!r}: {problem}") from None

    def compile(self, program: Program, interface: str, public: list[str]) -> Machine:
        """Machine code.

        Parameters
        ----------
        program : Program
        interface : str
            LLVM code that calls it.
        public : list of str
            Functions that can be called from outside.
        """
        machine = self._machine()
        modules = (interface, *program.modules)
        if "wasm" in self.triple:  # no fused multiply-add there; in software it takes ten times as long
            modules = tuple(text.replace("@llvm.fma.", "@llvm.fmuladd.") for text in modules)
        few = f"@{FEW_REGISTERS} = internal constant i1 {str(bool(FEW.match(self.triple + self.cpu))).lower()}"
        modules = tuple(re.sub(rf"^@{re.escape(FEW_REGISTERS)} = .*$", few, text, flags=re.M) for text in modules)
        if self.triple.startswith(("thumbv8.1m", "wasm")):
            modules = tuple(map(_in_halves, modules))
        whole, *others = map(llvm.parse_assembly, modules)
        for module in others:
            whole.link_in(module)
        whole.triple, whole.data_layout = self._whole_triple, str(machine.target_data)
        for function in whole.functions:
            if not function.is_declaration and function.name not in public:
                function.linkage = llvm.Linkage.internal
        whole.verify()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
        builder.getModulePassManager().run(whole, builder)
        try:
            content = bytes(machine.emit_object(whole))
        except RuntimeError as problem:
            raise ConfigError(f"target {self.triple!r}: LLVM cannot make code for it ({one_line(problem)})") from None
        return Machine(program, content, _sizes(content, program.memory_bytes))


def _in_halves(text: str) -> str:
    """LLVM code that loads eight int8 as twice four: four become numbers while they are loaded, eight one by one.

    So it is for Cortex-M55 and WebAssembly.
    """
    eight = re.compile(
        r"^ *(%\S+) = load <8 x i8>, ptr (\S+), align 1.*\n *(%\S+) = sitofp <8 x i8> \1 to <8 x float>$", re.M
    )
    numbers = itertools.count()

    def halves(found: re.Match[str]) -> str:
        place, value, n = found[2], found[3], next(numbers)
        return "\n".join(
            [
                f"  %place.{n} = getelementptr i8, ptr {place}, i32 4",
                f"  %low.{n} = load <4 x i8>, ptr {place}, align 1",
                f"  %high.{n} = load <4 x i8>, ptr %place.{n}, align 1",
                *(f"  %{half}.{n}.f = sitofp <4 x i8> %{half}.{n} to <4 x float>" for half in ("low", "high")),
                f"  {value} = shufflevector <4 x float> %low.{n}.f, <4 x float> %high.{n}.f, "
                "<8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>",
            ]
        )

    return eight.sub(halves, text)


@dataclass(frozen=True)
class Sizes:
    """In bytes."""

    code: int
    constants: int
    memory: int  # of an instance


@dataclass(frozen=True)
class Machine:
    """A program in the code of a processor: an object file."""

    program: Program
    object: bytes
    sizes: Sizes

    @property
    def soft_floats(self) -> bool:
        """Whether it calls functions that add and multiply floats, as without a unit for them."""
        return any(name in self.object for name in (b"__aeabi_fadd", b"__addsf3"))


def _said(function: Callable[[], object]) -> str:
    """What a function writes to standard error; LLVM says only there that it does not know a processor."""
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(said.fileno(), 2)
            function()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        return said.read().decode(errors="replace")


def _sizes(content: bytes, memory: int) -> Sizes:
    code = constants = 0
    for section in llvm.ObjectFileRef.from_data(content).sections():
        name = section.name() or b""
        name = name.decode("latin-1") if isinstance(name, bytes) else name
        if section.is_text():
            code += section.size()
        elif name.startswith((".rodata", ".rdata", ".data", "__const", "DATA")):
            constants += section.size()
    return Sizes(code, constants, memory)
