"""Names of estimators and phase recoveries, and how their steps become part of the hop.

Inside compiled code the type of a state chooses the step that `estimate`, `recover` and `run_core` call, so that one
module-level `process_hop` serves every combination and its cache on disk is keyed by the types alone. Here is noted
which class of state belongs to which step, and what cannot work is refused before numba sees it.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from typing import Any, TypeVar

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from rtsep.config import ConfigError, check_int
from rtsep.engine.protocols import (
    CompiledEstimator,
    Estimator,
    OfflinePhase,
    OnlinePhase,
    PhaseRecovery,
    PythonEstimator,
    SpectraEstimator,
    WholeEstimator,
)
from rtsep.kernels.jit import call_kernel

ESTIMATORS: dict[str, type] = {}
PHASES: dict[str, type] = {}
STEPS: dict[type, Any] = {}  # class of a state -> step
_BOUND: dict[str, type] = {}  # name of a class of states -> the class

ESTIMATOR_STEP = ("state", "mixture", "power", "magnitudes")
PHASE_STEP = ("state", "mixture", "power", "line", "magnitudes", "hop_out")

NUMBERS = {"bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
MAX_LOOKAHEAD = 1000  # hops

T = TypeVar("T", bound=type)
_MISSING = object()


def register_estimator(name: str) -> Callable[[T], T]:
    """Class decorator: make the settings of an estimator known by `name`.

    Raises
    ------
    ConfigError
        For a class that is no estimator (see `rtsep.engine.protocols`), and a name that is taken.
    """
    return _registration("estimator", name, ESTIMATORS)


def register_phase(name: str) -> Callable[[T], T]:
    """Class decorator: make the settings of a phase recovery known by `name`.

    Raises
    ------
    ConfigError
        For a class that is no phase recovery (see `rtsep.engine.protocols`), and a name that is taken.
    """
    return _registration("phase", name, PHASES)


def _registration(kind: str, name: str, names: dict[str, type]) -> Callable[[T], T]:
    def register(settings: T) -> T:
        if not isinstance(name, str) or not name or not name.replace("-", "_").isidentifier():
            raise ConfigError(f"{kind} {name!r}: a name has letters, digits, - and _ and begins with a letter")
        if not isinstance(settings, type):
            raise ConfigError(f"{kind} {name!r}: {settings!r} is not a class")
        taken = names.get(name)
        # Defined once more, as in a notebook or after a reload, it takes the place of its former self.
        if taken is not None and _origin(taken) != _origin(settings):
            raise ConfigError(f"{kind} {name!r} is taken by {taken.__module__}.{taken.__qualname__}; take another name")
        check_declared(kind, settings)
        settings.name = name  # type: ignore[attr-defined]
        names[name] = settings
        return settings

    return register


def _origin(settings: type) -> tuple[str, str]:
    return settings.__module__, settings.__qualname__


def _members(protocol: type) -> set[str]:
    return {
        name
        for base in protocol.__mro__[:-1]
        for name in base.__dict__.keys() | inspect.get_annotations(base).keys()
        if not name.startswith("_")
    }


def is_whole(settings: Any) -> bool:
    """Whether an estimator needs the whole signal."""
    return inspect.getattr_static(settings, "estimate_all", None) is not None


def finds_phases(settings: Any) -> bool:
    """Whether an estimator gives complex spectra."""
    return SpectraEstimator in _class(settings).__mro__


def is_compiled(settings: Any) -> bool:
    """Whether a class, or an instance, says that its step is a kernel."""
    return inspect.getattr_static(settings, "State", None) is not None


def check_declared(kind: str, settings: Any) -> None:
    """Raise `ConfigError` unless a class, or an instance, says all that the engine asks of an estimator or a phase."""
    label = f"{kind} {_label(settings)}"
    ancestors = _class(settings).__mro__
    other, said = {"estimator": (PhaseRecovery, "a phase recovery"), "phase": (Estimator, "an estimator")}[kind]
    if other in ancestors:
        raise ConfigError(f"{label} is {said}, not {'an estimator' if kind == 'estimator' else 'a phase recovery'}")
    protocol: type
    parameters: tuple[str, ...]
    compiled = is_compiled(settings)
    if kind == "estimator":
        compiled |= CompiledEstimator in ancestors
        protocol, parameters = CompiledEstimator if compiled else PythonEstimator, ESTIMATOR_STEP
        protocol = WholeEstimator if is_whole(settings) else protocol
    else:
        whole = inspect.getattr_static(settings, "lookahead", 0) is None and not compiled
        compiled |= OnlinePhase in ancestors and not whole
        protocol, parameters = OnlinePhase if compiled else OfflinePhase, PHASE_STEP
    own = {"sources", "estimate_all"} if is_whole(settings) else {"sources", "prepare", "step", "run", "State"}
    later = {"name"} | ({"sources"} if isinstance(settings, type) else set())  # may be made with the instance
    for member in sorted(_members(protocol) - later):
        found = inspect.getattr_static(settings, member, _MISSING)
        inherited = member in own and any(found is base.__dict__.get(member) for base in protocol.__mro__[:-1])
        if found is _MISSING or inherited:
            if member in own:
                raise ConfigError(f"{label} has no `{member}`")
            raise ConfigError(f"{label} has no `{member}`; inherit from rtsep.{protocol.__name__}, which has a default")
    if not compiled:
        if kind == "estimator" and not is_whole(settings):
            _check_python_step(label, settings.step)
    else:
        state = settings.State
        if not (isinstance(state, type) and issubclass(state, tuple) and getattr(state, "_fields", None)):
            raise ConfigError(f"{label}: State={state!r} is not a NamedTuple class with at least one field")
        check_step(label, _class(settings).step, parameters)


def _check_python_step(label: str, step: Any) -> None:
    if not callable(step):
        raise ConfigError(f"{label}: its step {step!r} cannot be called")
    try:
        named = tuple(inspect.signature(step).parameters)
    except (TypeError, ValueError):  # of a function in C, which does not say
        return
    if "self" in named[:1]:  # of a class, looked at before there is an instance
        named = named[1:]
    if len(named) != 4 or named[1:] != ESTIMATOR_STEP[1:]:
        raise ConfigError(
            f"{label}: the parameters of its step are ({', '.join(named)}), not ({', '.join(ESTIMATOR_STEP)}), "
            "of which the first may have another name"
        )


def check_step(label: str, step: Any, parameters: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless `step` is a kernel of these parameters."""
    if not isinstance(step, Dispatcher):
        raise ConfigError(
            f"{label}: its step {getattr(step, '__name__', step)!r} is not compiled; "
            "decorate it with rtsep.kernels.jit.kernel, or leave State out to run it in Python"
        )
    named = tuple(inspect.signature(step.py_func).parameters)
    if named != parameters:
        raise ConfigError(
            f"{label}: the parameters of its step are ({', '.join(named)}), not ({', '.join(parameters)})"
        )


def _class(settings: Any) -> Any:
    return settings if isinstance(settings, type) else type(settings)


def _label(settings: Any) -> str:
    # A name is not inherited: a subclass of `speech` is not `speech`.
    return vars(_class(settings)).get("name", "") or _class(settings).__name__


def checked(kind: str, choice: Any) -> Any:
    """The settings of an estimator or a phase recovery, checked and with a name. Raises `ConfigError`."""
    if isinstance(choice, type):
        raise ConfigError(f"{kind}={choice.__name__} is a class; pass settings, {choice.__name__}(...)")
    # What can be nothing but the other kind, or nothing at all, is told at once.
    if inspect.getattr_static(choice, {"estimator": "sources", "phase": "lookahead"}[kind], _MISSING) is _MISSING:
        raise ConfigError(f"{kind}={choice!r} is neither a name nor the settings of one")
    check_declared(kind, choice)
    if kind == "phase" and choice.lookahead is None:
        if inspect.getattr_static(choice, "run", _MISSING) is _MISSING:
            raise ConfigError(f"phase {_label(choice)}: lookahead=None is for the whole signal, but it has no `run`")
    elif kind == "phase":
        check_int(f"phase {_label(choice)}: lookahead", choice.lookahead, 0, MAX_LOOKAHEAD, " hops")
    _check_adjustable(f"{kind} {_label(choice)}", choice)
    if not vars(type(choice)).get("name", ""):
        type(choice).name = type(choice).__name__
    return choice


def _check_adjustable(label: str, settings: Any) -> None:
    """Settings that can be changed in a stream are fields of a dataclass, and what they change is named."""
    adjustable = settings.adjustable
    fine = isinstance(adjustable, Mapping) and all(isinstance(fields, tuple) for fields in adjustable.values())
    if not fine:
        raise ConfigError(f"{label}: adjustable={adjustable!r} is not a mapping of settings to tuples of fields")
    known = {field.name for field in fields_of(settings)} if is_dataclass(settings) else set()
    state = set(settings.State._fields) if is_compiled(settings) else set()
    for name, fields in adjustable.items():
        if name not in known:
            raise ConfigError(f"{label}: adjustable {name!r} is not a field of the dataclass {type(settings).__name__}")
        for field in fields:
            if field not in state:
                raise ConfigError(f"{label}: adjustable {name!r} changes {field!r}, which its State does not have")


def check_sources(label: str, sources: Any) -> tuple[str, ...]:
    """The names of the sources. Raises `ConfigError` for what cannot be told apart or be part of a file name."""
    if not isinstance(sources, Iterable) or isinstance(sources, str):
        raise ConfigError(f"{label}: sources={sources!r} is not a tuple of names")
    names = tuple(sources)
    if not names:
        raise ConfigError(f"{label}: sources=() has no names; an estimator has one source at least")
    for name in names:
        usable = isinstance(name, str) and name.isprintable() and name.strip(". ") and not set(name) & set('/\\:*?"<>|')
        if not usable or len(name.encode()) > 64:
            raise ConfigError(f"{label}: source {name!r} cannot be part of a file name")
        if name.casefold() == "mixture":
            raise ConfigError(f"{label}: source {name!r} is what recordings call the input")
    if len({unicodedata.normalize("NFC", name).casefold().rstrip(". ") for name in names}) < len(names):
        raise ConfigError(f"{label}: sources={names!r} are not all different")
    return names


def bound_state(settings: Any, state: Any) -> Any:
    """A fresh state, of a class by which the hop finds the step of `settings`.

    Where another step has come first for that class, or another class of that name (numba tells types of named tuples
    apart by nothing else), it becomes a class of the same fields that belongs to `settings` alone. Raises `ConfigError`
    for a state that the hop cannot work on.
    """
    kind, step = type(settings), type(settings).step  # on an instance it would be a bound method
    label = _label(settings)
    if type(state) is not settings.State:
        raise ConfigError(f"{label}: prepare returned {type(state).__name__}, not its State, {settings.State.__name__}")
    _check_arrays(label, state)
    shared, own = settings.State, kind.__dict__.get("_OwnState")
    if STEPS.get(shared, step) is step and _BOUND.setdefault(shared.__name__, shared) is shared:
        STEPS[shared] = step
        return state
    if own is None or STEPS[own] is not step:
        name = f"{kind.__module__}_{kind.__qualname__}_State".replace(".", "_")
        while name in _BOUND:  # of a class that is defined once more, as in a notebook
            name += "_"
        own = type(name, (shared,), {"__module__": kind.__module__, "__slots__": ()})
        own.__qualname__ = f"{kind.__qualname__}._OwnState"
        kind._OwnState, STEPS[own], _BOUND[name] = own, step, own
    return own(*state)


def _check_arrays(label: str, state: Any, name: str = "") -> None:
    for field, value in zip(state._fields, state, strict=True):
        full = f"{name}{field}"
        if isinstance(value, tuple) and getattr(value, "_fields", None):
            _check_arrays(label, value, f"{full}.")
        elif not isinstance(value, np.ndarray):
            raise ConfigError(
                f"{label}: {full} of its state is {type(value).__name__}, not an array; "
                "what changes stands in an array of one element"
            )
        elif not value.flags.c_contiguous:
            raise ConfigError(f"{label}: {full} of its state is not in C order; use np.ascontiguousarray")
        elif type(value) is not np.ndarray or not value.dtype.isnative or value.dtype.name not in NUMBERS:
            raise ConfigError(f"{label}: {full} of its state is {value.dtype}, which kernels cannot work on")


@intrinsic
def estimate(typingctx, state, mixture, power, magnitudes):
    """Run the step of the estimator that `state` belongs to."""
    return call_kernel(typingctx, STEPS[state.instance_class], (state, mixture, power, magnitudes))


@intrinsic
def recover(typingctx, state, mixture, power, line, magnitudes, hop_out):
    """Run the step of the phase recovery that `state` belongs to."""
    return call_kernel(typingctx, STEPS[state.instance_class], (state, mixture, power, line, magnitudes, hop_out))


@intrinsic
def run_core(typingctx, state, line, hop_out):
    """Run the step of the core that `state` belongs to."""
    return call_kernel(typingctx, STEPS[state.instance_class], (state, line, hop_out))
