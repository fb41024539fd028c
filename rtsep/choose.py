"""Names and settings become an estimator and a phase recovery: the one place where defaults are decided.

`Separator`, `separate`, files, the command line, live and evaluation all choose here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import rtsep.phase  # noqa: F401  registers all of them
from rtsep.config import ConfigError
from rtsep.engine.protocols import Estimator, PhaseRecovery
from rtsep.engine.registry import (
    ESTIMATORS,
    PHASES,
    check_declared,
    check_sources,
    checked,
    finds_phases,
    register_estimator,
    register_phase,
)
from rtsep.estimators import Talkers, default_estimator
from rtsep.estimators.dictionary_file import FORMAT as DICTIONARY
from rtsep.estimators.enrolment import FORMAT as VOICES
from rtsep.models import header_of
from rtsep.phase import OMISI
from rtsep.phase.own import OwnPhases

_NAMES = {"estimator": ESTIMATORS, "phase": PHASES}
_GROUPS = {"estimator": "rtsep.estimators", "phase": "rtsep.phases"}
_REGISTER = {"estimator": register_estimator, "phase": register_phase}

LOADED_FILES: list[str] = []  # of estimators or phase recoveries


class Chosen(NamedTuple):
    """Settings that fit one another."""

    estimator: Estimator
    phase: PhaseRecovery
    sources: tuple[str, ...]  # of the estimator, as they were when it was chosen


def choose(
    estimator: str | Estimator | None,
    phase: str | PhaseRecovery | None,
    window_s: float,
    hop_s: float,
    *,
    estimator_options: Mapping[str, Any] | None = None,
    phase_options: Mapping[str, Any] | None = None,
) -> Chosen:
    """Settings of an estimator and a phase recovery.

    Parameters
    ----------
    estimator : str, Estimator or None
        Name (`rtsep list`), `FILE.py:CLASS`, or settings. None for `speech`, or for `denoise` where the framing is not
        one that `speech` is trained for.
    phase : str, PhaseRecovery or None
        Name, `FILE.py:CLASS`, or settings. None for what suits the estimator and its model.
    window_s, hop_s : float
        Window and hop in seconds.
    estimator_options : mapping, optional
        Settings such as `model`, `components` and `with_rest`, for an estimator given by name.
    phase_options : mapping, optional
        Settings such as `n_iter` and `lookahead`, for a phase recovery given by name, or for oMISI if none is given.

    Raises
    ------
    ConfigError
        For names that do not exist, and settings that cannot work.
    """
    options, own_options = dict(phase_options or {}), dict(estimator_options or {})
    if estimator is None:
        # Who gives a model means an estimator that takes one, and who counts components wants factors.
        model = own_options.get("model")
        blind = "nmf" if "components" in own_options else default_estimator(window_s, hop_s)
        estimator = blind if model is None else _reader_of(model)
    if isinstance(estimator, str) and own_options.keys() == {"components"}:
        # Without a model it is another algorithm, of the same name to those who use it.
        estimator = getattr(find("estimator", estimator), "blind", estimator)
    chosen = _create("estimator", estimator, own_options)
    label = f"estimator {chosen.name}"
    sources = check_sources(label, chosen.sources)
    if phase is None:
        own_phase = chosen.phase  # may read a model, which says itself what is wrong with it
        try:
            suits = _create("phase", own_phase, {})
        except ConfigError as problem:
            raise ConfigError(f"{label}: its own {problem}") from problem
        if not options:
            phase = suits
        elif isinstance(suits, OMISI):
            phase = replace(suits, **options)
        else:  # who asks for iterations wants a phase recovery that has some
            phase = "omisi"
    recovery = _create("phase", phase, options) if isinstance(phase, str) else checked("phase", phase)
    if finds_phases(chosen) != isinstance(recovery, OwnPhases):
        raise ConfigError(f"{label} finds the phases itself; leave phase={recovery.name!r} and its settings out")
    fitting = chosen.for_phase(recovery)
    if type(fitting) is not type(chosen):
        raise ConfigError(f"{label}: for_phase returned {fitting!r}, not settings of its class")
    return Chosen(fitting, recovery, sources)


def usual_times(estimator: Any) -> dict[str, float]:
    """Window, hop and latency for those who say none, as `StreamConfig.from_ms` takes them: those of a model."""
    return {} if estimator is None or isinstance(estimator, str) else dict(getattr(estimator, "times_ms", {}))


def _reader_of(model: str) -> str:
    """The estimator for a model file."""
    with suppress(ConfigError):
        header = header_of(model)
        if header["format"] == DICTIONARY:
            return "nmf"
        manifest = header.get("manifest")
        if header["format"] == VOICES or (isinstance(manifest, dict) and "enrolled" in manifest):
            return "target"
        if header.get("sources") == list(Talkers.sources):
            return "talkers"
    return "speech"  # which says what is wrong with a file that is none


def takes(kind: str, name: str, option: str) -> bool:
    """Whether the estimator or phase recovery of this name has a setting of that name."""
    settings = find(kind, name)
    return is_dataclass(settings) and option in {field.name for field in fields(settings)}


def find(kind: str, name: str) -> type:
    """The settings class of a name, of an entry point or in a file. Raises `ConfigError`."""
    names = _NAMES[kind]
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        return _from_file(kind, Path(path), attribute)
    if name.endswith(".py"):
        raise ConfigError(f"{kind}={name!r}: which class? Say {name}:CLASS")
    if name not in names:
        for point in entry_points(group=_GROUPS[kind]):
            if point.name == name:
                _load_entry_point(kind, point)
    if name not in names:
        others = sorted({*names, *(point.name for point in entry_points(group=_GROUPS[kind]))})
        raise ConfigError(f"{kind}={name!r} is not one of {', '.join(others)}")
    return names[name]


def _create(kind: str, choice: Any, options: dict[str, Any]) -> Any:
    if not isinstance(choice, str):
        return checked(kind, choice)
    settings = find(kind, choice)
    for option, value in options.items():
        if not takes(kind, choice, option):
            raise ConfigError(f"{kind}={choice!r} does not take {option}={value}")
    try:
        made = settings(**options)
    except TypeError as problem:
        raise ConfigError(f"{kind}={choice!r} needs settings, which a name does not give: {problem}") from problem
    except ConfigError:
        if options.get("lookahead", 0) is None:
            raise ConfigError(f"{kind}={choice!r} does not take lookahead=all") from None
        raise
    return checked(kind, made)


def _load_entry_point(kind: str, point: Any) -> None:
    try:
        settings = point.load()
    except Exception as problem:  # whatever a foreign module does while it is imported
        raise ConfigError(
            f"{kind}={point.name!r}: {point.value} cannot be loaded: {type(problem).__name__}: {problem}"
        ) from problem
    if _NAMES[kind].get(point.name) is not settings:
        _REGISTER[kind](point.name)(settings)


def load_file(path: str | Path) -> Any:
    """Import a file of Python by its path; the same module in every process. Raises `ConfigError`."""
    path = Path(path).expanduser().resolve()
    for loaded in list(sys.modules.values()):  # imported by its name, too
        if (getattr(loaded, "__file__", None) or "") == str(path):
            return loaded
    module = f"_rtsep_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path} is no file of Python")
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except BaseException as problem:
        del sys.modules[module]
        if not isinstance(problem, Exception):
            raise
        raise ConfigError(f"{path} cannot be loaded: {type(problem).__name__}: {problem}") from problem
    LOADED_FILES.append(str(path))
    return loaded


def _from_file(kind: str, path: Path, attribute: str) -> type:
    module = load_file(path)
    settings = getattr(module, attribute, None)
    if not isinstance(settings, type):
        # Those that it defines, as far as they can be what is asked for.
        found = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__ and _fits(kind, value)
        ]
        raise ConfigError(f"{path} has no class {attribute!r}; {kind}s in it: {', '.join(found) or 'none'}")
    check_declared(kind, settings)
    return settings


def _fits(kind: str, settings: type) -> bool:
    try:
        check_declared(kind, settings)
    except ConfigError:
        return False
    return True


def list_estimators() -> dict[str, str]:
    """Names of the estimators, each with the first line of its docstring."""
    return _summaries("estimator")


def list_phases() -> dict[str, str]:
    """Names of the phase recoveries, each with the first line of its docstring."""
    return _summaries("phase")


def _summaries(kind: str) -> dict[str, str]:
    problems = {}
    for point in entry_points(group=_GROUPS[kind]):
        try:
            find(kind, point.name)
        except ConfigError as problem:
            problems[point.name] = str(problem)
    found = {name: _summary(settings) for name, settings in _NAMES[kind].items()}
    return dict(sorted((found | problems).items()))


def _summary(settings: type) -> str:
    text = (settings.__doc__ or "").strip()
    # A dataclass without a docstring has its signature for one.
    return "" if not text or text.startswith(f"{settings.__name__}(") else text.splitlines()[0]
