"""Estimators and phase recoveries of others: registered, in files, by entry points; what cannot work is one line."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import signals

from rtsep import (
    CompiledEstimator,
    ConfigError,
    OfflinePhase,
    OnlinePhase,
    PythonEstimator,
    Separator,
    StreamConfig,
    choose,
    list_estimators,
    register_estimator,
    separate,
)
from rtsep.choose import find
from rtsep.engine.registry import ESTIMATORS
from rtsep.errors import StepError
from rtsep.estimators import Passthrough, Speech
from rtsep.kernels.jit import kernel
from rtsep.phase import MISI, OMISI, MixturePhase, PUIter, Wiener

CONFIG = StreamConfig(16_000)
X = signals.voices(4_000).sum(0)
SLOW = 3e-3  # the slowest part of it, which belongs to the last source whatever an estimator says


class ShareState(NamedTuple):
    share: np.ndarray


@kernel
def first_share(state, mixture, power, magnitudes):
    for k in range(power.size):
        magnitudes[0, k] = state.share[0] * np.sqrt(power[k])
        magnitudes[1, k] = np.sqrt(power[k]) - magnitudes[0, k]


@kernel
def second_share(state, mixture, power, magnitudes):
    for k in range(power.size):
        magnitudes[1, k] = state.share[0] * np.sqrt(power[k])
        magnitudes[0, k] = np.sqrt(power[k]) - magnitudes[1, k]


class First(CompiledEstimator):
    sources, phase = ("a", "b"), "mixture"
    State, step = ShareState, first_share

    def prepare(self, config):
        return ShareState(np.ones(1, np.float32))


class Second(First):
    step = second_share


def test_two_estimators_with_one_class_of_state_keep_their_steps():
    """Which was made first must not matter."""
    for kinds in ((First, Second), (Second, First)):
        for kind in kinds:
            heard = Separator(CONFIG, kind()).process(X)
            loud = 0 if kind is First else 1
            assert np.abs(heard[loud]).max() > 0.1
            assert np.abs(heard[1 - loud]).max() < SLOW


def test_two_classes_of_states_with_one_name_keep_their_steps():
    """To numba two named tuples of one name and the same types are one type."""

    def define(step):
        class State(NamedTuple):
            share: np.ndarray

        return type("Own", (First,), {"State": State, "step": step, "prepare": lambda self, c: State(np.ones(1, "f"))})

    heard = [Separator(CONFIG, define(step)()).process(X) for step in (first_share, second_share)]
    assert np.abs(heard[0] - heard[1][::-1]).max() < 2 * SLOW < np.abs(heard[0] - heard[1]).max()


def test_a_name_that_is_taken_is_refused_but_not_one_of_the_same_class_defined_again():
    with pytest.raises(ConfigError, match=r"estimator 'speech' is taken by rtsep\.estimators\.learned\.Speech"):
        register_estimator("speech")(First)
    assert ESTIMATORS["speech"] is Speech

    def define(share):
        @register_estimator("again")
        class Again(First):
            def prepare(self, config):
                return ShareState(np.full(1, share, np.float32))

    try:
        for share in (1, 0.25):
            define(share)
            heard = separate(X, 16_000, "again")
            assert np.abs(heard[0] - share * X)[500:-500].max() < SLOW
        assert list_estimators()["again"] == ""  # no docstring
    finally:
        del ESTIMATORS["again"]


def test_names_of_sources_must_be_parts_of_file_names_and_differ():
    class Named(PythonEstimator):
        def __init__(self, sources):
            self.sources = sources

        def prepare(self, config):
            return None

        def step(self, state, mixture, power, magnitudes):
            magnitudes[:] = 0

    Separator(CONFIG, Named(["left ear", "Störung"]))
    for sources, message in (
        ((), "sources=.. has no names"),
        (("a", "a"), "are not all different"),
        (("a", "A"), "are not all different"),
        (("a/b", "c"), "source 'a/b' cannot be part of a file name"),
        (("..", "c"), "source '..' cannot be part"),
        (("", "c"), "source '' cannot be part"),
        ((3, "c"), "source 3 cannot be part"),
        (("a" * 65,), "cannot be part"),
        (("mixture", "c"), "source 'mixture' is what recordings call the input"),
        ("ab", "sources='ab' is not a tuple of names"),
        (7, "sources=7 is not a tuple of names"),
    ):
        with pytest.raises(ConfigError, match=message):
            Separator(CONFIG, Named(sources))


def with_(**members):
    return type("Own", (First,), members)()


@kernel
def wrong_names(state, x, power, magnitudes):
    magnitudes[:] = 0


@kernel
def untyped(state, mixture, power, magnitudes):
    magnitudes[0, 0] = state.missing


@kernel
def allocating(state, mixture, power, magnitudes):
    magnitudes[0] = np.sqrt(power)


@kernel
def constant_written(state, mixture, power, magnitudes):
    state.share[0] = 1


class Bare:
    sources = ("a",)

    def prepare(self, config):
        return None

    def step(self, state, mixture, power, magnitudes):
        pass


def python(**members):
    own = {"sources": ("a", "b"), "phase": "mixture", "prepare": lambda self, config: None}
    own["step"] = lambda self, state, mixture, power, magnitudes: None
    return type("Own", (PythonEstimator,), own | members)()


def read_only() -> ShareState:
    array = np.ones(1, np.float32)
    array.flags.writeable = False
    return ShareState(array)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_(step=lambda state, mixture, power, magnitudes: None), "its step '<lambda>' is not compiled"),
        (lambda: with_(step=wrong_names), r"the parameters of its step are \(state, x, power, magnitudes\), not"),
        (lambda: with_(step=untyped), "Own [+] mixture cannot be compiled: .*missing"),
        (
            lambda: with_(step=constant_written, prepare=lambda self, config: read_only()),
            "Own [+] mixture cannot be compiled: Cannot modify readonly array",
        ),
        (
            lambda: with_(step=allocating),
            r"Own [+] mixture cannot be compiled: it allocates memory.*test_extending.py, line",
        ),
        (lambda: with_(State=dict), "State=<class 'dict'> is not a NamedTuple class"),
        (lambda: with_(prepare=lambda self, config: [1]), "prepare returned list, not its State, ShareState"),
        (lambda: with_(prepare=lambda self, config: ShareState(1.0)), "share of its state is float, not an array"),
        (
            lambda: with_(prepare=lambda self, config: ShareState(np.ones((4, 4)).T)),
            "share of its state is not in C order; use np.ascontiguousarray",
        ),
        (lambda: with_(phase="nonsense"), "phase='nonsense' is not one of"),
        (Bare, "estimator Bare has no `adjustable`; inherit from rtsep.PythonEstimator, which has a default"),
        (lambda: type("Empty", (PythonEstimator,), {"sources": ("a",)})(), "estimator Empty has no `prepare`"),
        (lambda: First, "estimator=First is a class; pass settings, First"),
        (
            lambda: python(step=lambda self, power, magnitudes: None),
            r"parameters of its step are \(power, magnitudes\)",
        ),
        (lambda: python(step=lambda self, s, power, mixture, magnitudes: None), "parameters of its step are"),
        (lambda: python(step=5), "its step 5 cannot be called"),
        (lambda: python(for_phase=lambda self, phase: None), "for_phase returned None, not settings of its class"),
        (
            lambda: python(prepare=lambda self, config: 1 / 0),
            "Own: prepare failed: ZeroDivisionError: division by zero",
        ),
        (lambda: python(adjustable={"hz": ()}), "adjustable 'hz' is not a field of the dataclass Own"),
        (lambda: python(adjustable=["hz"]), "is not a mapping of settings to tuples of fields"),
        (lambda: with_(State=None), "estimator Own has no `State`|State=None is not a NamedTuple class"),
        (
            lambda: with_(prepare=lambda self, c: ShareState(np.ones(1, ">f4"))),
            "share of its state is >f4, which kernels",
        ),
        (MixturePhase, "is a phase recovery, not an estimator|neither a name nor"),
        (lambda: 3, "estimator=3 is neither a name nor the settings of one"),
        (MISI, "is neither a name nor the settings of one"),
    ],
)
def test_mistakes_of_an_estimator_are_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Separator(CONFIG, make())
    assert "\n" not in str(caught.value)


def test_mistakes_of_a_phase_recovery_are_one_line():
    for members, message in (
        ({}, "has no `prepare`"),
        ({"prepare": lambda self, config, n_src: None}, "has no `step`"),
        (
            {"prepare": lambda self, config, n_src: None, "step": first_share},
            r"parameters of its step are \(state, mixture, power, magnitudes\), not \(state, mixture, power, line,",
        ),
    ):
        phase = type("Own", (OnlinePhase,), {"State": ShareState, **members})()
        with pytest.raises(ConfigError, match=message) as caught:
            Separator(CONFIG, "passthrough", phase)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="phase Whole has no `run`"):
        separate(X, 16_000, "passthrough", type("Whole", (OfflinePhase,), {"lookahead": None})())


def test_what_a_step_in_python_raises_is_raised_and_the_stream_goes_on():
    class Failing(PythonEstimator):
        sources = ("a", "b")

        def prepare(self, config):
            return [0]

        def step(self, state, mixture, power, magnitudes):
            state[0] += 1
            if state[0] == 20:
                raise KeyError("twenty")
            magnitudes[:] = np.sqrt(power) / 2

    separator = Separator(CONFIG, Failing())
    message = r"estimator Failing failed: KeyError: 'twenty' \(.*test_extending\.py, line \d+\)"
    with pytest.raises(StepError, match=message) as caught:
        separator.process(X)
    assert isinstance(caught.value.__cause__, KeyError)
    assert np.isfinite(separator.process(X)).all()
    separator.reset()
    with pytest.raises(StepError, match=message):
        separator.process(X)
    with pytest.raises(StepError, match=message):
        separate(X, 16_000, Failing(), "misi")


def test_sources_are_those_that_were_chosen_whatever_they_become():
    class Growing(PythonEstimator):
        calls = 0

        @property
        def sources(self):
            type(self).calls += 1
            return ("a", "b") if self.calls < 2 else ("a", "b", "c", "d")

        def prepare(self, config):
            return None

        def step(self, state, mixture, power, magnitudes):
            magnitudes[:] = np.sqrt(power) / len(magnitudes)

    separator = Separator(CONFIG, Growing(), "mixture")
    assert separator.process(X).shape == (2, X.size)
    assert Separator(CONFIG, python(sources=iter("ab")), "mixture").sources == ("a", "b")


@pytest.mark.parametrize("lookahead", [-1, 1.0, "1", float("nan"), True, 10**9])
def test_a_look_ahead_that_cannot_be_is_refused(lookahead):
    phase = type("Own", (MixturePhase,), {"lookahead": lookahead})()
    with pytest.raises(ConfigError, match="phase Own: lookahead="):
        Separator(CONFIG, "passthrough", phase)


def test_what_a_step_returns_is_refused_since_it_is_lost():
    separator = Separator(CONFIG, python(), "mixture")
    separator.process(X)
    with pytest.raises(StepError, match=r"step returned list; it has to write into magnitudes\[\.\.\.\]"):
        Separator(CONFIG, python(step=lambda self, state, mixture, power, magnitudes: [power]), "mixture")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda self, config, line, magnitudes: None, r"run returned object of shape \(\)"),
        (lambda self, config, line, magnitudes: np.zeros((line.size, 2)), r"not real numbers of shape \(2, \d+\)"),
        (lambda self, config, line, magnitudes: np.zeros((2, line.size), complex), "run returned complex128"),
    ],
)
def test_what_an_offline_phase_returns_is_checked(run, message):
    phase = type("Whole", (OfflinePhase,), {"run": run})()
    with pytest.raises(ConfigError, match=message):
        separate(X, 16_000, "hpss", phase)
    fine = type("Whole", (OfflinePhase,), {"run": lambda self, config, line, m: np.zeros((2, line.size))})()
    assert separate(X, 16_000, "hpss", fine).dtype == np.float32


def test_a_copy_of_a_separator_has_a_stream_of_its_own():
    separator = Separator(CONFIG, "denoise")
    separator.process(X)
    copied = copy.copy(separator)
    expected = separator.process(X)
    assert np.array_equal(copied.process(X), expected)
    with pytest.raises(TypeError, match="cannot be pickled: pickle its settings"):
        pickle.dumps(separator)


def test_an_estimator_in_python_may_keep_what_is_expensive_over_a_reset():
    class Counting(PythonEstimator):
        sources = ("a",)
        prepared = 0

        def prepare(self, config):
            type(self).prepared += 1
            return [0]

        def reset(self, state, config):
            state[0] = 0
            return state

        def step(self, state, mixture, power, magnitudes):
            state[0] += 1
            magnitudes[0] = np.sqrt(power) / state[0]

    separator = Separator(CONFIG, Counting())
    first = separator.process(X)
    separator.reset()
    assert np.array_equal(separator.process(X), first)
    assert Counting.prepared == 1
    in_place = type("InPlace", (Counting,), {"reset": lambda self, state, config: state.__setitem__(0, 0)})
    separator = Separator(CONFIG, in_place())
    assert np.array_equal(separator.process(X), first)


def test_masks_go_to_phase_recoveries_that_keep_the_phase_of_the_mixture():
    keeping = [MixturePhase(), OMISI(n_iter=0), Wiener(), MISI(n_iter=0)]
    others = [OMISI(), OMISI(n_iter=0, init="sinusoidal"), MISI(), PUIter(n_iter=0)]
    for phase in keeping + others:
        chosen = choose.choose(Speech(), phase, 0.016, 0.004)
        assert chosen.estimator.masks == (phase in keeping), phase
    assert not choose.choose(Speech(target="magnitudes"), "mixture", 0.016, 0.004).estimator.masks


def test_the_offline_way_chooses_as_the_stream_does():
    assert np.array_equal(separate(X, 16_000, Speech(), MISI(n_iter=0)), separate(X, 16_000, Speech(), MISI(n_iter=0)))
    masked = separate(X, 16_000, Speech(target="mask"), MISI(n_iter=0))
    assert np.array_equal(separate(X, 16_000, Speech(), MISI(n_iter=0)), masked)


OWN = '''
from rtsep import PythonEstimator

class Half(PythonEstimator):
    """Half of everything."""

    sources, phase = ("half", "other"), "mixture"

    def prepare(self, config):
        return None

    def step(self, state, mixture, power, magnitudes):
        magnitudes[:] = power**0.5 / 2
'''


def test_a_class_in_a_file_is_an_estimator_by_its_path(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    heard = separate(X, 16_000, f"{file}:Half")
    assert np.abs(heard - X / 2).max() < SLOW
    assert find("estimator", f"{file}:Half") is find("estimator", f"{file}:Half")
    for text, message in (
        (f"{file}:Third", "mine.py has no class 'Third'; estimators in it: Half"),
        (str(file), "which class. Say .*mine.py:CLASS"),
        (f"{tmp_path}/none.py:Half", "none.py is no file of Python"),
    ):
        with pytest.raises(ConfigError, match=message):
            separate(X, 16_000, text)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be loaded: ZeroDivisionError: division by zero"):
        separate(X, 16_000, f"{tmp_path}/broken.py:Half")


def test_a_class_in_a_file_is_an_estimator_for_the_commands(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    source = Path(__file__).parents[1] / "rtsep" / "data" / "noisy_speech.flac"
    command = [sys.executable, "-m", "rtsep", "separate", str(source), "-o", "out", "--estimator", "mine.py:Half"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"noisy_speech.half.wav", "noisy_speech.other.wav"}


def test_packages_offer_estimators_by_entry_points(tmp_path, monkeypatch):
    """Of an installed package, as pip leaves it."""
    (tmp_path / "half_package.py").write_text(OWN)
    info = tmp_path / "half_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rtsep.estimators]\nhalf = half_package:Half\nlost = no_such_module:Lost\nspeech = half_package:Half\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert {point.name for point in metadata.entry_points(group="rtsep.estimators")} == {"half", "lost", "speech"}
        heard = separate(X, 16_000, "half")
        assert np.abs(heard - X / 2).max() < SLOW
        listed = list_estimators()
        assert listed["half"] == "Half of everything."
        assert "no_such_module:Lost cannot be loaded: ModuleNotFoundError" in listed["lost"]
        assert ESTIMATORS["speech"] is Speech
        with pytest.raises(ConfigError, match=r"estimator='nothing' is not one of .*half.*lost"):
            separate(X, 16_000, "nothing")
    finally:
        ESTIMATORS.pop("half", None)
        sys.modules.pop("half_package", None)


def test_settings_change_while_a_stream_runs():
    rng = np.random.default_rng(0)
    noise = (0.05 * rng.normal(size=32_000)).astype(np.float32)
    separator = Separator(CONFIG, "denoise", OMISI(n_iter=0))
    separator.process(noise)
    before = separator.process(noise)
    separator.set(max_attenuation_db=0, n_iter=3)
    after = separator.process(noise)
    assert (separator.estimator.max_attenuation_db, separator.phase.n_iter) == (0, 3)
    assert 10 * np.log10((after[0, 2_000:] ** 2).mean() / (before[0] ** 2).mean()) > 6
    separator.reset()  # what is set stays
    assert np.array_equal(
        separator.process(noise), Separator(CONFIG, separator.estimator, OMISI(n_iter=3)).process(noise)
    )
    for values, message in (
        ({"n_iter": -1}, "n_iter=-1 is not between"),
        (
            {"lookahead": 1},
            "lookahead=1 cannot be set while a stream runs; .*max_attenuation_db, min_presence, n_iter, strength_db",
        ),
        ({"strength_db": 3, "n_iter": -1}, "n_iter=-1"),
    ):
        with pytest.raises(ConfigError, match=message):
            separator.set(**values)
    assert separator.output.strength_db == np.inf


def test_the_strength_goes_to_its_new_value_without_a_step():
    separator = Separator(CONFIG, Passthrough())
    two = Separator(CONFIG, First())  # everything in the first source
    x = np.full(16_000, 0.25, np.float32)
    two.process(x)
    two.set(strength_db=0)
    other = two.process(x)[1]
    assert np.abs(np.diff(other)).max() < 0.25 / 300
    assert abs(other[-1] - 0.25) < 1e-6
    assert np.array_equal(separator.process(x), separator.process(x)) is False


def test_a_switch_of_the_iterations_switches_masks_and_magnitudes_too():
    separator = Separator(CONFIG, "speech", OMISI(n_iter=0))
    other = Separator(CONFIG, "speech", OMISI(n_iter=2))
    separator.set(n_iter=2)
    assert np.array_equal(separator.process(X), other.process(X))
    separator.set(n_iter=0)
    assert separator.estimator.masks


def test_the_page_on_extending_works_as_it_is_printed(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["mine", *(f"page_{i}" for i in range(1, len(blocks)))]
    for name, block in zip(names, blocks, strict=True):
        (tmp_path / f"{name}.py").write_text(block)
    modules = [importlib.import_module(name) for name in names]
    for name in names:
        del sys.modules[name]
    low_and_high, _, split, fast, steady, mask, whole = (list(vars(module).values())[-1] for module in modules)
    parts = [separate(X, 16_000, kind(), "mixture") for kind in (low_and_high, split, fast)]
    assert all(np.abs(part - parts[0]).max() < 1e-6 for part in parts)
    hum = 0.1 * np.sin(np.arange(16_000))
    click = np.zeros_like(hum)
    click[8_000] = 1
    always, rest = separate(hum + click, 16_000, steady())
    assert np.abs(always - hum)[1_000:-1_000].max() < 0.06
    assert rest[8_000] > 0.8
    assert np.abs(separate(X, 16_000, "hpss", mask()) - separate(X, 16_000, "hpss", "mixture")).max() < 1e-5
    assert np.abs(separate(X, 16_000, "hpss", whole()) - separate(X, 16_000, "hpss", MISI(n_iter=0))).max() < 1e-5
