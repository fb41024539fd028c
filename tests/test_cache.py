"""The kernel cache on disk: hits when nothing changed, never a stale kernel, and never in the way."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import rtsep
from rtsep import compiling
from rtsep.kernels import cache
from rtsep.kernels.jit import kernel
from rtsep.kernels.reach import reach

# What a user may write, with everything that a kernel can reach; each edit below changes one of it.
USER = {
    "mine/__init__.py": "",
    "mine/constants.py": "import numpy as np\nSCALE = np.float32(2)\nTABLE = np.arange(3, dtype='f4')\nUNUSED = 1\n",
    "mine/fields.py": "from typing import NamedTuple\nclass Pair(NamedTuple):\n    a: object\n    b: object\n",
    "mine/parts.py": """
        from numba import types
        from numba.extending import intrinsic, overload
        from rtsep.kernels.jit import inlined, pasted
        from mine import constants

        @inlined
        def scale(x):
            '''Times two.'''
            return x * constants.SCALE

        def make(offset):
            @inlined
            def shift(x, by=1):
                return x + offset + by
            return shift

        shift = make(10)

        def emit(builder, value):
            return builder.fneg(value)

        @intrinsic
        def minus(typingctx, x):
            def codegen(context, builder, sig, args):
                return emit(builder, args[0])
            return x(x), codegen

        def chosen(x):
            raise NotImplementedError

        @overload(chosen)
        def _chosen(x):
            def implementation(x):
                return x + 0.25
            return implementation
        """,
    "mine/main.py": """
        from rtsep.kernels.jit import kernel
        from mine.constants import TABLE
        from mine.parts import chosen, minus, scale, shift

        @kernel
        def run(pair):
            total = 0.0
            for i in range(TABLE.size):
                total += TABLE[i]
            return total + scale(pair.a) + shift(pair.b) + minus(pair.b) + chosen(pair.a)
        """,
    "mine/beside.py": "A = 1\n",
}
REACHED = {
    "a constant, through its module": ("mine/constants.py", "SCALE = np.float32(2)", "SCALE = np.float32(5)"),
    "an array": ("mine/constants.py", "np.arange(3, ", "np.arange(4, "),
    "a function in another file": ("mine/parts.py", "x * constants.SCALE", "x - constants.SCALE"),
    "what a function closes over": ("mine/parts.py", "make(10)", "make(11)"),
    "a default argument": ("mine/parts.py", "by=1", "by=2"),
    "what generates code": ("mine/parts.py", "return builder.fneg(value)", "return value"),
    "what numba's overload chooses": ("mine/parts.py", "x + 0.25", "x + 0.5"),
    "the kernel itself": ("mine/main.py", "total = 0.0", "total = 1.0"),
    "fields of the state": ("mine/fields.py", "    a: object\n    b: object\n", "    b: object\n    a: object\n"),
}
UNREACHED = {
    "another file": ("mine/beside.py", "A = 1", "A = 2"),
    "a constant that is not used": ("mine/constants.py", "UNUSED = 1", "UNUSED = 2"),
    "a docstring": ("mine/parts.py", "Times two.", "Times SCALE.\n\n            As it is."),
}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files above in a folder that Python imports from, and a cache of their own."""
    for name, text in USER.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path
    forget()


def dedent(text: str) -> str:
    return text.replace("\n        ", "\n")


def forget() -> None:
    """Import the files anew, as another process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert text.count(old) == 1
    (folder / name).write_text(text.replace(old, new))
    shutil.rmtree((folder / name).parent / "__pycache__", ignore_errors=True)  # of the same second and size
    forget()


def reached() -> list[str]:
    """What the user's kernel reaches, in the files as they are now."""
    pair, main = importlib.import_module("mine.fields").Pair, importlib.import_module("mine.main")
    return reach(main.run.py_func, (numba.typeof(pair(1.0, 2.0)),))[0]


@pytest.mark.parametrize("what", REACHED)
def test_an_edit_of_what_is_reached_is_noticed(user, what):
    before = reached()
    forget()
    assert reached() == before
    edit(user, *REACHED[what])
    assert reached() != before


@pytest.mark.parametrize("what", UNREACHED)
def test_an_edit_of_anything_else_costs_nothing(user, what):
    before = reached()
    edit(user, *UNREACHED[what])
    assert reached() == before


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, float]:
    """Cache hits and the number that Python prints for these arguments, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-B", *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        stdout=-1,
        text=True,
        check=True,
    )
    hits, value = done.stdout.split()
    return int(hits), float(value)


def test_the_next_process_sees_the_edit_of_a_users_script(user):
    """Kernel and constant in `__main__`, the rest in the user's modules."""
    script = user / "script.py"
    script.write_text(
        "import numpy as np\nfrom rtsep.kernels.jit import kernel\nfrom mine import constants\nOFFSET = 2\n"
        "@kernel\ndef add(x):\n    return x + OFFSET + constants.SCALE\n"
        "value = add(1.0)\nprint(sum(add.stats.cache_hits.values()), value)\n"
    )
    package = {
        "PYTHONPATH": f"{Path(rtsep.__file__).parent.parent}{os.pathsep}{user}",
        "NUMBA_CACHE_DIR": str(user / "cache"),
    }
    assert run(user, "script.py", **package) == (0, 5)
    assert run(user, "script.py", **package) == (1, 5)
    edit(user, "script.py", "OFFSET = 2", "OFFSET = 5")
    assert run(user, "script.py", **package) == (0, 8)
    edit(user, "mine/constants.py", "SCALE = np.float32(2)", "SCALE = np.float32(3)")
    assert run(user, "script.py", **package) == (0, 9)
    edit(user, *UNREACHED["another file"])
    assert run(user, "script.py", **package) == (1, 9)


# The spectrum of a frame, in a copy of the package.
ANALYSE = """
import numpy as np
from rtsep import StreamConfig
from rtsep.engine.analysis import analyse, prepare_analysis
state = prepare_analysis(StreamConfig())
analyse(state, np.ones((1, 256), np.float32))
print(sum(analyse.stats.cache_hits.values()), float(state.power.sum()))
"""


def test_the_next_process_sees_the_edit_of_the_package(tmp_path):
    source = Path(rtsep.__file__).parent
    shutil.copytree(source, tmp_path / "rtsep", ignore=shutil.ignore_patterns("__pycache__", "data"))
    alone = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    first = run(tmp_path, "-c", ANALYSE, **alone)
    assert first[0] == 0
    for unreached in ("live/health.py", "cli/doctor.py", "separator.py"):
        path = tmp_path / "rtsep" / unreached
        path.write_text(path.read_text() + "\nUNREACHED = 1\n")
    assert run(tmp_path, "-c", ANALYSE, **alone) == (1, first[1])
    # What is called by its address is compiled on its own, and anew; its caller is not.
    fft = tmp_path / "rtsep" / "kernels" / "fft.py"
    text = fft.read_text()
    assert text.count("HALF = np.float32(0.5)") == 1
    fft.write_text(text.replace("HALF = np.float32(0.5)", "HALF = np.float32(0.25)"))
    hits, changed = run(tmp_path, "-c", ANALYSE, **alone)
    assert hits == 1
    assert changed < 0.7 * first[1]


@pytest.mark.parametrize(
    "constant",
    [
        ("rtsep.kernels.fft", "HALF"),  # reached by address only: the machine code of its own
        ("rtsep.estimators.learned", "LEAK"),
        ("rtsep.phase.difference", "TINY"),
        ("rtsep.engine.line", "MAX_SAMPLE"),
        ("rtsep.kernels.simd", "LANES"),
    ],
)
def test_constants_of_the_hop(monkeypatch, constant):
    """Those of the chosen steps count, those of others and of what is called by address do not."""
    from rtsep.engine.hop import process_block
    from rtsep.kernels.fft import _transform

    separator = rtsep.Separator(rtsep.StreamConfig(), "speech", "mixture")
    hop = process_block.py_func, (numba.typeof(separator._states),)
    before, transform = reach(*hop)[0], reach(_transform)[0]
    module, name = constant
    monkeypatch.setattr(f"{module}.{name}", np.float32(7))
    assert (reach(*hop)[0] != before) == (module != "rtsep.kernels.fft")
    assert (reach(_transform)[0] != transform) == (module in ("rtsep.kernels.fft", "rtsep.kernels.simd"))


def test_only_the_steps_of_the_states_count(monkeypatch):
    from rtsep.engine.hop import process_block

    separator = rtsep.Separator(rtsep.StreamConfig(), "speech", "mixture")
    hop = process_block.py_func, (numba.typeof(separator._states),)
    before = reach(*hop)[0]
    assert any("rtsep.estimators.learned" in line for line in before)
    assert not any("rtsep.phase.omisi" in line or "rtsep.estimators.denoise" in line for line in before)


@pytest.fixture
def counted(user):
    """`count()`: compile the user's kernel as a new process would, and say whether it came from the cache."""

    def count() -> tuple[int, float]:
        forget()
        pair, main = importlib.import_module("mine.fields").Pair, importlib.import_module("mine.main")
        value = main.run(pair(1.0, 2.0))
        return sum(main.run.stats.cache_hits.values()), value

    return count


def test_a_damaged_file_is_compiled_anew(user, counted):
    first = counted()
    assert counted() == (1, first[1])
    (path,) = (user / "cache").rglob("*.nbc")
    content = path.read_bytes()
    for damaged in (b"", b"not a kernel", content[:100], content[:-1], content[:-9] + b"\0" + content[-8:]):
        path.write_bytes(damaged)
        assert counted() == first
        assert counted() == (1, first[1])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_is_still_read(user, counted, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(user / "own"))
    first = counted()
    shipped = user / "cache"
    monkeypatch.setattr(cache, "writable", lambda folder: not folder.is_relative_to(shipped))
    assert counted() == (1, first[1])
    assert not (user / "own").exists()
    # What it lacks goes to the user's own folder, and is found there.
    edit(user, *REACHED["a default argument"])
    assert counted() == (0, first[1] + 1)
    assert counted() == (1, first[1] + 1)
    assert len(list((user / "own").rglob("*.nbc"))) == 1


def test_a_full_disk_costs_time_only(user, counted, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError(28, "No space left on device")

    first = counted()
    shutil.rmtree(user / "cache")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert counted() == first
    assert counted() == first
    assert not list((user / "cache").rglob("*.*"))


def test_who_asks_is_told_once_and_only_when_compiling(user, counted, monkeypatch):
    told = []
    monkeypatch.setattr(compiling, "_listener", told.append)
    counted()
    assert told == [True]
    monkeypatch.setattr(compiling, "_listener", told.append)
    counted()
    assert told == [True]
    monkeypatch.setattr(cache, "writable", lambda folder: False)
    edit(user, *REACHED["the kernel itself"])
    counted()
    assert told == [True, False]


def test_types_of_main_are_not_kept(tmp_path, monkeypatch):
    """Another process could not find their class again."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    @kernel
    def first(pair):
        return pair[0]

    from typing import NamedTuple

    class Local(NamedTuple):
        a: float

    assert first(Local(3.0)) == 3
    assert not list(tmp_path.rglob("*.nbc"))
    assert first((4.0,)) == 4
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


@kernel
def _speaks(x):
    print("x", x)
    return x


def _calls(x):
    if x > 2:
        raise ValueError("too large")
    return _speaks(x)


def test_a_kernel_inside_a_kernel_can_print_and_raise(tmp_path, monkeypatch, capfd):
    """Nothing that belongs into a hop, but what one looks for a mistake with."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for hits in (0, 1):
        calls = kernel(_calls)
        assert calls(1.0) == 1
        assert sum(calls.stats.cache_hits.values()) == hits
        with pytest.raises(ValueError, match="too large"):
            calls(3.0)
        assert capfd.readouterr().out == "x 1.0\n"


@pytest.mark.parametrize("code", ["import rtsep; rtsep.Separator(rtsep.StreamConfig())", "list"])
def test_without_the_compiler_one_line_says_so(code):
    arguments = ["-m", "rtsep", code] if code == "list" else ["-c", code]
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert "NUMBA_DISABLE_JIT is set, but rtsep needs the compiler" in last
    assert done.returncode != 0
    if code == "list":
        assert done.stderr.count("\n") == 1
