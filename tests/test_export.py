"""What is exported computes the samples of `Separator.process`, on every processor that can be had here."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import tiny_dual_path
from signals import voices

import rtsep
from rtsep.cli import main
from rtsep.estimators import HPSS, Speech, Talkers
from rtsep.export.library import write_library
from rtsep.export.program import INIT, RUN, program
from rtsep.export.target import Target
from rtsep.kernels.simd import FEW_REGISTERS
from rtsep.phase import OMISI

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import cortex_m

# Reads samples, and writes those of all sources, in blocks of 1 to 1000: `main in out`.
PROGRAM = r"""
#include <stdio.h>
#include "rtsep.h"
static rtsep first, second;
static float in[RTSEP_CHANNELS * 1000], out[RTSEP_SOURCES * RTSEP_CHANNELS * 1000];
int main(void) {
    static const int sizes[] = {1, 1000, 64, 7, 333, 160, 2, 481};
    int n_total, at, n, k = 0;
    if (fread(&n_total, 4, 1, stdin) != 1) return 2;
    rtsep_init(&first);
    rtsep_init(&second);
    for (n = 0; n < RTSEP_CHANNELS * 1000; n++) in[n] = n % 7 * 0.01f;
    rtsep_process(&second, in, out, 1000);              /* nothing to do with the first */
    for (at = 0; at < n_total; at += n) {
        n = sizes[k++ % 8];
        if (n > n_total - at) n = n_total - at;
        if (fread(in, 4 * RTSEP_CHANNELS, n, stdin) != (size_t)n) return 3;
        rtsep_process(&first, in, out, n);
        if (fwrite(out, 4 * RTSEP_SOURCES * RTSEP_CHANNELS, n, stdout) != (size_t)n) return 4;
    }
    return 0;
}
"""
SIZES = (1, 1000, 64, 7, 333, 160, 2, 481)


def blocks(n):
    at = k = 0
    while at < n:
        size = min(SIZES[k % 8], n - at)
        yield at, at + size
        at, k = at + size, k + 1


def exported(separator, folder, target, compiler, runner, x):
    """The sources as the exported library computes them, for a mixture (n_channels, n_samples)."""
    write_library(separator, target, folder)
    (folder / "main.c").write_text(PROGRAM)
    line = [*compiler, "-O1", "-static", "main.c", "-L.", "-lrtsep", "-lm", "-o", "main"]
    made = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    sent = np.int32(x.shape[1]).tobytes() + b"".join(
        np.ascontiguousarray(x[:, a:b]).tobytes() for a, b in blocks(x.shape[1])
    )
    ran = subprocess.run([*runner, "./main"], cwd=folder, input=sent, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    y = np.frombuffer(ran.stdout, np.float32)
    parts, at, shape = [], 0, (separator.n_src, x.shape[0])
    for a, b in blocks(x.shape[1]):
        n = np.prod(shape) * (b - a)
        parts.append(y[at : at + n].reshape(*shape, b - a))
        at += n
    assert at == y.size
    return np.concatenate(parts, -1)


NATIVE = [
    ("passthrough", None, 16000, 1),
    ("denoise", OMISI(n_iter=5), 16000, 1),
    ("denoise", OMISI(n_iter=2, lookahead=1), 48000, 2),
    ("speech", None, 16000, 1),
    (Speech(weights="int8"), None, 16000, 1),
    (Speech(tiny_dual_path(Speech)), None, 16000, 1),
    (Speech(tiny_dual_path(Speech), weights="int8"), None, 16000, 1),
    ("talkers", None, 48000, 1),
    (Talkers(weights="float32"), None, 16000, 1),
    ("hpss", None, 48000, 1),
]


@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler")
@pytest.mark.parametrize(("estimator", "phase", "sr", "n_channels"), NATIVE)
def test_the_library_computes_the_same_bits(estimator, phase, sr, n_channels, tmp_path):
    separator = rtsep.Separator(rtsep.StreamConfig(sr, n_channels=n_channels), estimator, phase)
    x = voices(sr, sr, n_channels, seed=1)
    y = exported(separator, tmp_path / "out", Target(), ["gcc"], [], x)
    assert np.array_equal(y, separator.process(x if n_channels > 1 else x[0]).reshape(y.shape))


CROSS = {
    "aarch64": ("aarch64-linux-gnu", "aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "armv7": (
        "armv7-linux-gnueabi",
        "arm-linux-gnueabi-gcc -mcpu=cortex-a8 -mfpu=neon -mfloat-abi=softfp",
        "qemu-arm -cpu cortex-a8",
    ),
    "riscv64": ("riscv64-linux-gnu", f"{sys.executable} -m ziglang cc -target riscv64-linux-musl", "qemu-riscv64"),
    "armv7hf": (
        "armv7-linux-gnueabihf",
        "arm-linux-gnueabihf-gcc -mcpu=cortex-a8 -mfpu=neon -mfloat-abi=hard",
        "qemu-arm -cpu cortex-a8",
    ),
}


@pytest.mark.parametrize(
    ("processor", "estimator", "phase"),
    [
        *((processor, *what) for processor in CROSS for what in (("denoise", OMISI(n_iter=5)), ("speech", None))),
        ("aarch64", "talkers", None),
    ],
)
def test_other_processors_compute_the_same_bits(processor, estimator, phase, tmp_path):
    triple, compiler, runner = CROSS[processor]
    for tool in (compiler.split()[0], runner.split()[0]):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if "ziglang" in compiler:
        pytest.importorskip("ziglang", reason="needs ziglang, the extra `export`")
    separator = rtsep.Separator(rtsep.StreamConfig(16000), estimator, phase)
    x = voices(16000, seed=3).sum(0, keepdims=True)
    y = exported(separator, tmp_path, Target(triple), compiler.split(), runner.split(), x)
    assert np.array_equal(y[:, 0], separator.process(x[0]))


@pytest.mark.parametrize("board", ["Cortex-M4", "Cortex-M7", "Cortex-M55"])
def test_small_processors_compute_the_same_bits(board, tmp_path):
    if tool := cortex_m.missing():
        pytest.skip(f"{tool} is not installed")
    separator = rtsep.Separator(rtsep.StreamConfig(16000), "denoise", OMISI(n_iter=5))
    x = voices(16000, seed=3).sum(0)
    ran = cortex_m.run(separator, cortex_m.BOARDS[board], x, tmp_path / "out")
    assert np.array_equal(ran.sources, separator.process(x))
    assert ran.instructions > 1e5
    assert 100 < ran.stack < 16_000


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "thumbv7em-none-eabi", "wasm32-unknown-unknown"])
def test_it_is_known_while_compiling_how_many_registers_there_are(triple):
    separator = rtsep.Separator(rtsep.StreamConfig(16000), Speech(tiny_dual_path(Speech)))
    target = Target(triple)
    made = program(separator, target.pointer_bits)
    assert any(FEW_REGISTERS in text for text in made.modules)
    assert FEW_REGISTERS.encode() not in target.compile(made, "", [RUN, INIT]).object


@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler")
def test_settings_change_as_they_do_in_python_and_a_reset_is_a_new_start(tmp_path):
    phase = OMISI(n_iter=2)
    separator = rtsep.Separator(rtsep.StreamConfig(16000), "denoise", phase)
    write_library(separator, Target(), tmp_path / "out")
    line = "gcc -shared -o lib.so -Wl,--whole-archive librtsep.a -Wl,--no-whole-archive -lm"
    subprocess.run(line.split(), cwd=tmp_path / "out", check=True)
    library = ctypes.CDLL(str(tmp_path / "out" / "lib.so"))
    library.rtsep_source.restype = ctypes.c_char_p
    assert [library.rtsep_source(i) for i in (-1, 0, 1, 2)] == [None, b"speech", b"noise", None]
    assert (library.rtsep_latency(), library.rtsep_rate(), library.rtsep_sources()) == (separator.latency, 16000, 2)
    memory = np.zeros(library.rtsep_memory_bytes(), np.uint8)
    x = voices(8000, seed=4).sum(0)

    def run():
        y = np.zeros((2, x.size), np.float32)
        library.rtsep_process(*map(ctypes.c_void_p, (memory.ctypes.data, x.ctypes.data, y.ctypes.data)), x.size)
        return y

    def change(function, value):
        getattr(library, function)(ctypes.c_void_p(memory.ctypes.data), value)

    library.rtsep_init(ctypes.c_void_p(memory.ctypes.data))
    assert np.array_equal(run(), separator.process(x))
    change("rtsep_set_strength", ctypes.c_float(12))
    change("rtsep_set_ceiling", ctypes.c_float(-20))
    change("rtsep_set_iterations", 5)
    for nonsense in (np.nan, -1):
        change("rtsep_set_strength", ctypes.c_float(nonsense))
    change("rtsep_set_ceiling", ctypes.c_float(3))
    change("rtsep_set_iterations", -1)
    separator.set(strength_db=12, ceiling_db=-20, n_iter=5)
    y = run()
    assert np.array_equal(y, separator.process(x))
    assert np.abs(y).max() <= np.float32(0.1)
    library.rtsep_process(*map(ctypes.c_void_p, (memory.ctypes.data, 0, 0)), 0)
    library.rtsep_reset(ctypes.c_void_p(memory.ctypes.data))
    fresh = rtsep.Separator(rtsep.StreamConfig(16000), "denoise", phase)
    assert np.array_equal(run(), fresh.process(x))


@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler")
def test_names_of_sources_may_be_of_any_script(tmp_path):
    class Named(HPSS):
        sources = ("Gerät", "übriges 音")

    write_library(rtsep.Separator(rtsep.StreamConfig(16000), Named()), Target(), tmp_path)
    line = "gcc -shared -o lib.so -Wl,--whole-archive librtsep.a -Wl,--no-whole-archive -lm"
    subprocess.run(line.split(), cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "lib.so"))
    library.rtsep_source.restype = ctypes.c_char_p
    assert [library.rtsep_source(i).decode() for i in (0, 1)] == ["Gerät", "übriges 音"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "vax-unknown-vms"], "target 'vax-unknown-vms' is not known"),
        (["--target", "s390x-linux-gnu"], "not for systemz"),
        (["--target", "mips-linux-gnu"], "big-endian"),
        (["--target", "amdgcn-amd-amdhsa"], "not for amdgcn"),
        (["--target", "armv7em-none-eabi"], "say thumbv7em-none-eabi"),
        (["--target", "armv7e-m-none-eabi"], "say thumbv7em-none-eabi"),
        (["--cpu", "help"], "cpu 'help'"),
        (["--channels", "0"], "--channels=0"),
        (["--target", "aarch64-linux-gnu", "--cpu", "i486"], "cpu 'i486'"),
        (["--estimator", "hpss"], "one of them"),
        (["--weights", "int8"], "estimator='denoise' has none"),
        (["--rate", "100"], "100"),
        (["-o", "/proc/nowhere/deep"], "/proc/nowhere/deep"),
        (["--phase", "griffin_lim"], "whole signal"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(options, message, tmp_path, capsys):
    assert main(["export", "denoise", "-o", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_an_estimator_in_python_is_refused_and_an_earlier_export_is_kept(tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        "from rtsep import PythonEstimator\n"
        "class Half(PythonEstimator):\n"
        "    sources = ('a', 'b')\n"
        "    def prepare(self, config): return None\n"
        "    def step(self, state, mixture, power, magnitudes): magnitudes[:] = 0.5 * power ** 0.5\n"
    )
    assert main(["export", f"{own}:Half", "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs in Python and cannot be exported" in line
    out = tmp_path / "kept"
    out.mkdir()
    (out / ".rtsep-00.part").write_text("left by a run that was killed")
    (out / "rtsep.h").write_text("mine")
    assert main(["export", "passthrough", "-o", str(out)]) == 2
    assert "rtsep.h exists" in capsys.readouterr().err
    assert (out / "rtsep.h").read_text() == "mine"
    assert main(["export", "passthrough", "-o", str(out), "--overwrite"]) == 0
    assert {path.name for path in out.iterdir()} == {"rtsep.h", "librtsep.a", "example.c", "README.md"}
    (out / "README.md").unlink()
    (out / "README.md").mkdir()
    assert main(["export", "denoise", "-o", str(out), "--overwrite"]) == 2
    assert "README.md is a folder" in capsys.readouterr().err
    assert "passthrough" in (out / "rtsep.h").read_text()
