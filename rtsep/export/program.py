"""A separator as one LLVM module: the hop, its constants, and where each array lies in a block of memory.

The kernels are lowered as for this process, but not optimised. What they get as arguments is known here, sizes and
strides of every array among them, so they are called with constants, and LLVM makes of them a program for these very
sizes. An array of the state becomes an offset into the memory of an instance, or a constant of the program; an address
of code becomes the function itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import types

from rtsep.config import ConfigError
from rtsep.engine.hop import process_block
from rtsep.kernels.clock import Clock
from rtsep.kernels.inner import lowered
from rtsep.kernels.jit import ENTRIES, NJIT
from rtsep.kernels.memory import ALIGNMENT, Code
from rtsep.separator import Separator

NULL = "ptr null"
RUN, INIT = "rtsep_run", "rtsep_init"
# Functions of the C library that have a form which LLVM knows, and turns into an instruction where there is one.
INTRINSICS = {"sqrtf": ("float", "llvm.sqrt.f32"), "sqrt": ("double", "llvm.sqrt.f64")}


@dataclass(frozen=True)
class Program:
    """What an export is made of.

    Attributes
    ----------
    modules : tuple of str
        LLVM code for any target: kernels, and last what calls them.
    memory_bytes : int
        Of an instance.
    constant_bytes : int
        Of all constants.
    offsets : dict
        Where fields of the state lie in the memory of an instance, by the name of the setting that they hold.
    """

    separator: Separator
    modules: tuple[str, ...]
    memory_bytes: int
    constant_bytes: int
    offsets: dict[str, int]


def program(separator: Separator, pointer_bits: int) -> Program:
    """The program of a separator.

    Parameters
    ----------
    separator : Separator
        Fresh or used: an instance starts as a new separator would, with what `set` changed.
    pointer_bits : int
        32 or 64.

    Raises
    ------
    ConfigError
        For an estimator in Python, and code that is not of kernels.
    """
    if not separator.compiled:
        name = separator.estimator.name
        raise ConfigError(f"estimator={name!r} runs in Python and cannot be exported; one with a compiled step can")
    return _Builder(separator, pointer_bits).build()


class _Builder:
    """Collects the text of a module."""

    def __init__(self, separator: Separator, pointer_bits: int) -> None:
        self._separator, self._pointer_bits = separator, pointer_bits
        self._fresh = {id(a): f for a, f in zip(separator._memory, separator._fresh, strict=True)}
        self._globals: list[str] = []
        self._places: dict[tuple[int, int], str] = {}  # of arrays: data pointers in the text
        self._offsets: dict[int, int] = {}  # of arrays in memory, by address
        self._starts: list[str] = []  # copies of what does not start at zero
        self._body: list[str] = []
        self._thunks: dict[int, str] = {}
        self._modules: list[str] = []
        self._memory_bytes = self._constant_bytes = 0

    def build(self) -> Program:
        states = self._separator._states
        n_src, n_channels = self._separator.n_src, self._separator.config.n_channels
        blocks = types.Array(types.float32, 2, "C"), types.Array(types.float32, 3, "C")
        name = self._lower(process_block, (numba.typeof(states), *blocks))
        passed = ["ptr %result", "ptr %problem", *self._walk(states, states)]
        passed += _array("%in", "%n_in", 4, [f"{n_channels}", "%n"], ["%row", "4"])
        passed += _array("%out", "%n_out", 4, [f"{n_src}", f"{n_channels}", "%n"], ["%source", "%row", "4"])
        text = [
            *self._globals,
            *self._thunks.values(),
            f"declare i32 @{name}({', '.join(a.split()[0] for a in passed)})",
            f"define void @{RUN}(ptr noalias %memory, ptr noalias %in, ptr noalias %out, i64 %n) {{",
            "%result = alloca ptr",
            "%problem = alloca ptr",
            f"%n_in = mul i64 %n, {n_channels}",
            f"%n_out = mul i64 %n, {n_channels * n_src}",
            "%row = mul i64 %n, 4",
            f"%source = mul i64 %row, {n_channels}",
            *self._body,
            f"%status = call i32 @{name}({', '.join(passed)})",
            "ret void",
            "}",
            f"define void @{INIT}(ptr noalias %memory) {{",
            f"call void @llvm.memset.p0.i64(ptr %memory, i8 0, i64 {self._memory_bytes}, i1 false)",
            *self._starts,
            "ret void",
            "}",
            "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
            "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
        ]
        return Program(
            self._separator,
            (*self._modules, "\n".join(text)),
            self._memory_bytes,
            self._constant_bytes,
            dict(self._settings()),
        )

    def _settings(self) -> Iterator[tuple[str, int]]:
        """Settings that can be changed while it runs, and stand in one field."""
        states = self._separator._states
        parts = (self._separator.output, states.output), (self._separator.phase, states.core.phase)
        for settings, state in parts:
            for name, fields in settings.adjustable.items():
                if len(fields) == 1 and getattr(state, fields[0]).size == 1:
                    yield name, self._offsets[getattr(state, fields[0]).ctypes.data]

    def _lower(self, dispatcher: Any, args: tuple[Any, ...]) -> str:
        text, name = lowered(dispatcher, args)
        self._modules.append(portable(text))
        return name

    def _walk(self, state: Any, parent: Any) -> list[str]:
        """Arguments for a state, in the order in which numba passes them."""
        if isinstance(state, np.ndarray):
            data = self._function_table(state, parent) if isinstance(parent[-1], Code) else self._place(state)
            shape, strides = ([str(n) for n in ns] for ns in (state.shape, state.strides))
            return _array(data, str(state.size), state.itemsize, shape, strides)
        parents = (*parent, state) if isinstance(parent, tuple) and not hasattr(parent, "_fields") else (state,)
        return [argument for part in state for argument in self._walk(part, parents)]

    def _place(self, array: np.ndarray) -> str:
        """The data of an array in the text."""
        if not array.flags.c_contiguous:
            raise ConfigError(f"an array of the state, {array.shape}, is not contiguous: it cannot be exported")
        key = array.ctypes.data, array.nbytes
        if key not in self._places:
            n = len(self._places)
            if array.flags.writeable:
                self._places[key] = self._in_memory(array, n)
            else:
                self._constant_bytes += array.nbytes
                self._globals.append(_bytes(f"constant{n}", array))
                self._places[key] = f"@constant{n}"
        return self._places[key]

    def _in_memory(self, array: np.ndarray, n: int) -> str:
        offset = -(-self._memory_bytes // ALIGNMENT) * ALIGNMENT
        self._offsets[array.ctypes.data] = offset
        self._memory_bytes = offset + array.nbytes
        self._body.append(f"%memory{n} = getelementptr i8, ptr %memory, i64 {offset}")
        fresh = self._fresh[id(array)]
        if fresh.any():
            self._constant_bytes += fresh.nbytes
            self._globals.append(_bytes(f"start{n}", fresh))
            self._starts.append(f"%memory{n} = getelementptr i8, ptr %memory, i64 {offset}")
            self._starts.append(
                f"call void @llvm.memcpy.p0.p0.i64(ptr %memory{n}, ptr @start{n}, i64 {fresh.nbytes}, i1 false)"
            )
        return f"%memory{n}"

    def _function_table(self, addresses: np.ndarray, parents: tuple[Any, ...]) -> str:
        """Addresses of code: the functions themselves. The clock is read where there is a deadline: never here."""
        is_clock = len(parents) > 1 and isinstance(parents[-2], Clock)
        functions = ["null" if is_clock else f"@{self._thunk(int(address))}" for address in addresses]
        n = len(self._places)
        self._places[n, -1] = f"@code{n}"
        entry = "ptr" if self._pointer_bits == 64 else "{ ptr, i32 }"  # eight bytes
        values = [f"ptr {f}" if entry == "ptr" else f"{{ ptr, i32 }} {{ ptr {f}, i32 0 }}" for f in functions]
        self._globals.append(f"@code{n} = internal constant [{len(values)} x {entry}] [{', '.join(values)}], align 8")
        return f"@code{n}"

    def _thunk(self, address: int) -> str:
        """The function behind an address, with the signature by which kernels call it."""
        if address not in ENTRIES:
            raise ConfigError("a stage calls code that is no kernel: it cannot be exported")
        signature, function = ENTRIES[address]
        name = f"entry{list(ENTRIES).index(address)}"
        if address not in self._thunks:
            inner = self._lower(numba.njit(**NJIT)(function), signature.args)
            kinds = [_kind(ty) for ty in signature.args]
            named = [f"{kind} %a{i}" for i, kind in enumerate(kinds)]
            self._thunks[address] = "\n".join(
                [
                    f"declare i32 @{inner}(ptr, ptr, {', '.join(kinds)})",
                    f"define internal void @{name}({', '.join(named)}) {{",
                    "%result = alloca ptr",
                    "%problem = alloca ptr",
                    f"%status = call i32 @{inner}(ptr %result, ptr %problem, {', '.join(named)})",
                    "ret void",
                    "}",
                ]
            )
        return name


def _array(data: str, size: str, itemsize: int, shape: list[str], strides: list[str]) -> list[str]:
    """An array as numba passes it."""
    numbers = [size, str(itemsize)], [*shape, *strides]
    first, rest = ([f"i64 {n}" for n in part] for part in numbers)
    return [NULL, NULL, *first, f"ptr {data}", *rest]


def _kind(ty: Any) -> str:
    """The LLVM type of an argument of an `entry`."""
    if isinstance(ty, types.CPointer) or ty == types.voidptr:
        return "ptr"
    return {types.int64: "i64", types.float32: "float", types.float64: "double"}[ty]


def _bytes(name: str, array: np.ndarray) -> str:
    data = array.tobytes()
    text = "".join(f"\\{byte:02X}" for byte in data)
    return f'@{name} = internal constant [{len(data)} x i8] c"{text}", align {ALIGNMENT}'


def portable(text: str) -> str:
    """LLVM code without what it says of this machine, its functions good for being called from other modules only."""
    text = re.sub(r"^target (datalayout|triple) = .*$", "", text, flags=re.M)
    text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
    text = re.sub(r"= common (global|local_unnamed_addr global)", r"= internal \1", text)
    text = re.sub(r"^define (?:linkonce_odr|weak_odr) ", "define internal ", text, flags=re.M)
    for function, (kind, intrinsic) in INTRINSICS.items():
        text = re.sub(rf"@{function}\(", f"@{intrinsic}(", text)
        once = rf"^declare {kind} @{re.escape(intrinsic)}\(.*$"
        found = list(re.finditer(once, text, flags=re.M))
        for more in reversed(found[1:]):
            text = text[: more.start()] + text[more.end() :]
    return text
