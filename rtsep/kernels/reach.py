"""What can end up in a compiled kernel: everything that its code reaches, by value.

numba compiles bytecode and freezes the values of the globals that it names. So a kernel is the same as long as the
bytecode of all functions that it reaches and the values of all constants that these name are the same, whichever
file they stand in. Followed are

- globals, attributes of modules, closures and default arguments, through functions, kernels and intrinsics, also
  the Python code that generates code;
- what numba's `overload` has registered for what is named;
- the types of the arguments, with the fields of their NamedTuple classes. A table whose keys are classes, such as
  that of the steps, stands for the entries of those classes.

Where code is registered with a type of its own (`rtsep.kernels.simd`), the source of the whole module counts. Python
itself, NumPy, numba and llvmlite count by their versions (`rtsep.kernels.cache`).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from numba import types
from numba.core.typing import Signature
from numba.core.typing.templates import builtin_registry

LIBRARIES = {"numba", "numpy", "llvmlite"}
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice)
_OF_EVERY_CLASS = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__"}


def reach(function: Callable[..., Any], argument_types: tuple[Any, ...] = ()) -> tuple[list[str], set[type]]:
    """All that `function`, compiled for these types, is made of, and the NamedTuple classes among it.

    One line for each thing, the same in all processes.
    """
    walk = _Walk()
    for ty in argument_types:
        walk.follow("argument", ty)
    walk.follow("kernel", function)
    return walk.lines(), walk.classes


class _Walk:
    def __init__(self) -> None:
        self.classes: set[type] = set()
        self._found: set[str] = set()
        self._seen: dict[int, Any] = {}  # keeps what was seen, so that no id comes twice
        self._pending: list[tuple[str, Any]] = []
        self._tables: list[tuple[str, dict[Any, Any]]] = []

    def follow(self, label: str, value: Any) -> None:
        self._pending.append((label, value))

    def lines(self) -> list[str]:
        """Walk to the end. Tables last, since they depend on the classes that were found."""
        while self._pending:
            while self._pending:
                self._visit(*self._pending.pop())
            for label, table in self._tables:
                for cls in sorted(self.classes & table.keys(), key=str):
                    if id(table[cls]) not in self._seen:
                        self.follow(f"{label}[{cls.__module__}.{cls.__qualname__}]", table[cls])
        return sorted(self._found)

    def _visit(self, label: str, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._found.add(f"{label} = {value!r}")
            return
        if isinstance(value, np.generic):
            self._found.add(f"{label} = {value.dtype} {value!r}")
            return
        if isinstance(value, np.ndarray):
            content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            self._found.add(f"{label} = {value.dtype} {value.shape} {value.strides} {content}")
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self._overloads(value)
        if isinstance(value, (tuple, list)):
            self.follow(f"type of {label}", type(value))
            for i, item in enumerate(value):
                self.follow(f"{label}[{i}]", item)
        elif isinstance(value, (set, frozenset)):
            self._found.add(f"{label} = {_text(sorted(map(repr, value)))}")
        elif isinstance(value, dict):
            self._dict(label, value)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.Type):
            self._type(label, value)
        elif isinstance(value, Signature):
            self._found.add(f"{label} = {_text(value)}")
            for ty in (value.return_type, *value.args):
                self.follow(label, ty)
        elif hasattr(value, "__wrapped__"):  # kernels, intrinsics, functools.cache
            self._found.add(f"{label}: {_text(sorted(getattr(value, 'targetoptions', {}).items()))}")
            self.follow(label, value.__wrapped__)
        elif isinstance(value, (staticmethod, classmethod, MethodType)):
            self.follow(label, value.__func__)
        elif isinstance(value, property):
            self.follow(label, (value.fget, value.fset))
        elif isinstance(value, partial):
            self.follow(label, (value.func, value.args, value.keywords))
        else:
            self._other(label, value)

    def _dict(self, label: str, value: dict[Any, Any]) -> None:
        if any(isinstance(key, type) for key in value):
            self._tables.append((label, value))
            return
        for key, item in value.items():
            self.follow(f"{label}[{_text(key)}]", item)

    def _function(self, function: FunctionType) -> None:
        name = f"{function.__module__}.{function.__qualname__}"
        # What `exec` makes without a module's name seems to be a builtin.
        if function.__module__ not in (None, "builtins") and _in_library(function):
            self._found.add(name)
            return
        names: set[str] = set()
        content = hashlib.sha256(repr(_content(function.__code__, names, function.__doc__)).encode()).hexdigest()
        self._found.add(f"{name}: {content}")
        for key in sorted(names & function.__globals__.keys()):
            value = function.__globals__[key]
            if isinstance(value, ModuleType):
                self._module(value, names)
            else:
                self.follow(f"{function.__module__}.{key}", value)
        for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # an empty cell
                self.follow(f"{name}.{key}", cell.cell_contents)
        self.follow(f"{name} defaults", (function.__defaults__, function.__kwdefaults__))
        for attribute, overload in _overloads()[1]:
            if attribute in names:
                self.follow(f"overload of {attribute}", overload)

    def _module(self, module: ModuleType, names: set[str]) -> None:
        """What `names` may mean in a module."""
        for key in sorted(names & vars(module).keys()):
            value = vars(module)[key]
            if not isinstance(value, ModuleType):
                if not _is_library(module.__name__):
                    self.follow(f"{module.__name__}.{key}", value)
                elif callable(value):
                    self._overloads(value)
            elif id(value) not in self._seen:
                self._seen[id(value)] = value
                self._module(value, names)

    def _overloads(self, value: Any) -> None:
        for overload in _overloads()[0].get(id(value), ()):
            self.follow("overload", overload)

    def _class(self, cls: type) -> None:
        name = f"{cls.__module__}.{cls.__qualname__}"
        self._found.add(name)
        if _in_library(cls):
            return
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            self._found.add(f"{name}{cls._fields}")
            return
        if issubclass(cls, types.Type):
            self._source(cls.__module__)
        for base in cls.__bases__:
            self.follow(name, base)
        for key, value in vars(cls).items():
            if key not in _OF_EVERY_CLASS:
                self.follow(f"{name}.{key}", value)

    def _type(self, label: str, ty: types.Type) -> None:
        self._found.add(f"{label}: {_text(ty)}")
        self.follow(label, type(ty))
        cls = getattr(ty, "instance_class", None)
        if isinstance(cls, type):
            self.classes.add(cls)
            self.follow(label, cls)
        for part in vars(ty).values():
            for inner in part if isinstance(part, tuple) else (part,):
                if isinstance(inner, types.Type) or hasattr(inner, "py_func"):
                    self.follow(f"part of {label}", inner)

    def _other(self, label: str, value: Any) -> None:
        """An object of any class. Those of libraries are what they show."""
        if _in_library(type(value)) or not hasattr(value, "__dict__"):
            self._found.add(f"{label} = {_text(value)}")
            return
        self._source(type(value).__module__)
        self.follow(label, type(value))
        for key, part in vars(value).items():
            self.follow(f"{label}.{key}", part)

    def _source(self, module: str) -> None:
        path = getattr(sys.modules.get(module), "__file__", None)
        with suppress(OSError):
            content = Path(path).read_bytes() if path else b""
            self._found.add(f"{module}: {hashlib.sha256(content).hexdigest()}")


def _text(value: Any) -> str:
    return _ADDRESS.sub("", str(value))


def _is_library(module: str | None) -> bool:
    return _is_top_library((module or "builtins").partition(".")[0])


@cache
def _is_top_library(name: str) -> bool:
    if name in LIBRARIES:
        return True
    # By name and place: a user's module may be called as one of the standard library, such as `wave`.
    path = getattr(sys.modules.get(name), "__file__", None)
    return name in sys.stdlib_module_names and (path is None or Path(path).is_relative_to(Path(os.__file__).parent))


def _in_library(value: Any) -> bool:
    return _is_library(getattr(value, "__module__", None))


def _content(code: CodeType, names: set[str], doc: str | None = None) -> tuple[Any, ...]:
    """What of a code object counts: all but its docstring and its place; adds the names that it uses."""
    names.update(code.co_names)
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(repr(_content(constant, names)))
        elif isinstance(constant, frozenset):  # whose order is not that of the next process
            constants.append(repr(sorted(map(repr, constant))))
        elif doc is None or constant != doc:
            constants.append(repr(constant))
    counts = code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, counts


_index: tuple[int, dict[int, list[Any]], list[tuple[str, Any]]] = (0, {}, [])


def _overloads() -> tuple[dict[int, list[Any]], list[tuple[str, Any]]]:
    """What others than libraries have registered with numba's `overload`: by id of the function, and by attribute."""
    global _index
    size = len(builtin_registry.globals) + len(builtin_registry.attributes)
    if _index[0] != size:
        functions: dict[int, list[Any]] = {}
        for value, ty in builtin_registry.globals:
            for overload in _registered(getattr(ty, "templates", ())):
                functions.setdefault(id(value), []).append(overload)
        attributes = [
            (template._attr, overload)
            for template in builtin_registry.attributes
            for overload in _registered((template,))
            if hasattr(template, "_attr")
        ]
        _index = size, functions, attributes
    return _index[1], _index[2]


def _registered(templates: Any) -> Iterator[Any]:
    for template in templates:
        overload = getattr(template, "_overload_func", None)
        if overload is not None and not _in_library(overload):
            yield overload
