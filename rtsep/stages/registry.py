"""Names of estimators and phase-recovery algorithms, and how their steps become part of the hop.

A stage is settings, state and step (see CONTRIBUTING.md). Inside compiled code the type of the state
chooses the step that `estimate` and `recover` call, so that one module-level `process_hop`
serves every combination and its cache on disk is keyed by the types alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba.extending import intrinsic

from rtsep.config import ConfigError
from rtsep.kernels.jit import call_kernel

ESTIMATORS: dict[str, type] = {}
PHASES: dict[str, type] = {}

_ESTIMATOR_STEPS: dict[type, Any] = {}  # class of the state -> compiled step
_PHASE_STEPS: dict[type, Any] = {}

T = TypeVar("T", bound=type)


def register_estimator(name: str) -> Callable[[T], T]:
    """Class decorator: make an estimator's settings known by `name`.

    The class says `sources` (names), `prepare(config) -> state`, and `step(state, mixture, power,
    magnitudes)`; `phase`, name or settings of a phase recovery, if oMISI is not what suits its magnitudes; and
    `suited(phase) -> settings`, if its magnitudes depend on the phase recovery that follows. A compiled step,
    made with `rtsep.kernels.jit.kernel`, also needs `State`, the NamedTuple class that `prepare` returns;
    without `State` the step is ordinary Python, which works everywhere but in the native audio callback.
    """
    return _registration(name, ESTIMATORS, _ESTIMATOR_STEPS)


def register_phase(name: str) -> Callable[[T], T]:
    """Class decorator: make the settings of a phase-recovery algorithm known by `name`.

    The class says `lookahead` (hops), `consistent` (whether the output stage shares the mixing error),
    `State`, `prepare(config, n_src) -> State` and `step(state, analysis, magnitudes, hop_out)`.
    """
    return _registration(name, PHASES, _PHASE_STEPS)


def _registration(name: str, names: dict[str, type], steps: dict[type, Any]) -> Callable[[T], T]:
    def register(settings: T) -> T:
        names[name] = settings
        settings.name = name  # type: ignore[attr-defined]
        state = getattr(settings, "State", None)
        if state is not None:
            steps[state] = settings.step  # type: ignore[attr-defined]
        return settings

    return register


def create(kind: str, names: dict[str, type], choice: Any, options: dict[str, Any]) -> Any:
    """Settings from a name and options, or the settings themselves if `choice` is no name."""
    if isinstance(choice, type):
        raise ConfigError(f"{kind}={choice.__name__} is a class; pass settings, {choice.__name__}(...)")
    if not isinstance(choice, str):
        # An estimator names its sources, a phase recovery its look-ahead.
        if not hasattr(choice, {"estimator": "sources", "phase": "lookahead"}[kind]):
            raise ConfigError(f"{kind}={choice!r} is neither a name nor the settings of one")
        return choice
    if choice not in names:
        raise ConfigError(f"{kind}={choice!r} is not one of {', '.join(sorted(names))}")
    return names[choice](**options)


def create_phase(choice: Any, estimator: Any) -> Any:
    """As `create`; for None, the phase recovery that suits the estimator: its attribute `phase`, else oMISI."""
    return create("phase", PHASES, getattr(estimator, "phase", "omisi") if choice is None else choice, {})


def list_estimators() -> dict[str, str]:
    """Names of the estimators, each with the first line of its docstring."""
    import rtsep.estimators  # noqa: F401  registers ours

    return _summaries(ESTIMATORS)


def list_phases() -> dict[str, str]:
    """Names of the phase-recovery algorithms, each with the first line of its docstring."""
    import rtsep.phase  # noqa: F401  registers ours

    return _summaries(PHASES)


def _summaries(names: dict[str, type]) -> dict[str, str]:
    return {name: (names[name].__doc__ or "").strip().splitlines()[0] for name in sorted(names)}


@intrinsic
def estimate(typingctx, state, mixture, power, magnitudes):
    """Run the step of the estimator that `state` belongs to."""
    return call_kernel(typingctx, _ESTIMATOR_STEPS[state.instance_class], (state, mixture, power, magnitudes))


@intrinsic
def recover(typingctx, state, analysis, magnitudes, hop_out):
    """Run the step of the phase recovery that `state` belongs to."""
    return call_kernel(typingctx, _PHASE_STEPS[state.instance_class], (state, analysis, magnitudes, hop_out))
