"""What is exported computes the samples of `Separator.process`, on every processor that can be had here."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from signals import voices

import rtsep
from rtsep.export.library import write_library
from rtsep.export.target import Target
from rtsep.phase import OMISI

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
    ("talkers", None, 48000, 1),
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
}


@pytest.mark.parametrize("processor", CROSS)
@pytest.mark.parametrize(("estimator", "phase"), [("denoise", OMISI(n_iter=5)), ("speech", None)])
def test_other_processors_compute_the_same_bits(processor, estimator, phase, tmp_path):
    triple, compiler, runner = CROSS[processor]
    for tool in (compiler.split()[0], runner.split()[0]):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    separator = rtsep.Separator(rtsep.StreamConfig(16000), estimator, phase)
    x = voices(16000, seed=3).sum(0, keepdims=True)
    y = exported(separator, tmp_path, Target(triple), compiler.split(), runner.split(), x)
    assert np.array_equal(y[:, 0], separator.process(x[0]))
