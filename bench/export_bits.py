"""Whether exported separators compute the samples of Python: `python bench/export_bits.py -o docs` (half an hour).

A minute of speech in noise (the demo recording, again and again, at levels from -30 to 0 dB) goes through the C library
on this machine and on an emulated AArch64, and through the WebAssembly of the page in node, in blocks of every size
from 1 to 1000 samples, and through `Separator.process` in one piece.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from itertools import product
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import soundfile as sf
from study import earlier, parser, publish

from rtsep import Separator, StreamConfig
from rtsep.export.library import write_library
from rtsep.export.target import Target
from rtsep.export.web import write_page
from rtsep.phase import OMISI

SECONDS = 60
CASES: list[tuple[str, Any]] = [
    ("passthrough", None),
    ("denoise", OMISI(n_iter=3)),
    ("speech", None),
    ("talkers", None),
    ("hpss", None),
]
RATES = 16_000, 48_000
MACHINES = {
    "x86-64": ("x86_64-linux-gnu", "gcc", []),
    "AArch64": ("aarch64-linux-gnu", "aarch64-linux-gnu-gcc", ["qemu-aarch64"]),
}
# Sizes of blocks: each from 1 to 1000, small and large ones in turn.
PROGRAM = r"""
#include <stdio.h>
#include "rtsep.h"
static rtsep state;
static float in[1000], out[RTSEP_SOURCES * 1000];
int main(void) {
    int k, n;
    rtsep_init(&state);
    for (k = 0; (n = (int)fread(in, 4, 1 + k * 617 % 1000, stdin)) > 0; k++) {
        rtsep_process(&state, in, out, n);
        fwrite(out, 4, (size_t)(RTSEP_SOURCES * n), stdout);
    }
    return 0;
}
"""
SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
import { Separator } from "./rtsep.js";
const separator = new Separator(readFileSync("rtsep.wasm")), parts = [];
const x = new Float32Array(readFileSync("in.f32").buffer);
for (let at = 0, k = 0, n; at < x.length; at += n, k++) {
  n = Math.min(1 + k * 617 % 1000, x.length - at);
  separator.process([x.subarray(at, at + n)]).flat().forEach(row => parts.push(Buffer.from(row.slice().buffer)));
}
writeFileSync("out.f32", Buffer.concat(parts));
"""


def sound(sr: int) -> np.ndarray:
    """A minute, float32 (n_samples,)."""
    with (resources.files("rtsep") / "data" / "noisy_speech.flac").open("rb") as file:
        x, own = sf.read(file)
    x = scipy.signal.resample_poly(x, sr // gcd(sr, own), own // gcd(sr, own))
    n = SECONDS * sr
    gain = 10 ** (-1.5 * (1 - np.cos(2 * np.pi * np.arange(n) / n)) / 2)
    return (np.resize(x, n) * gain).astype(np.float32)


def in_order(y: np.ndarray, n_src: int, n_samples: int) -> np.ndarray:
    """Blocks of all sources as rows (n_src, n_samples)."""
    rows, at, k = np.empty((n_src, n_samples), np.float32), 0, 0
    while at < n_samples:
        n = min(1 + k * 617 % 1000, n_samples - at)
        rows[:, at : at + n] = y[n_src * at : n_src * (at + n)].reshape(n_src, n)
        at, k = at + n, k + 1
    return rows


def on_machine(separator: Separator, x: np.ndarray, folder: Path, machine: str) -> np.ndarray:
    """What the C library computes, as the program writes it."""
    triple, compiler, runner = MACHINES[machine]
    write_library(separator, Target(triple), folder)
    (folder / "main.c").write_text(PROGRAM)
    line = [compiler, "-O2", "-static", "main.c", "-L.", "-lrtsep", "-lm", "-o", "main"]
    subprocess.run(line, cwd=folder, check=True)
    ran = subprocess.run([*runner, "./main"], cwd=folder, input=x.tobytes(), capture_output=True, check=True)
    return np.frombuffer(ran.stdout, np.float32)


def in_node(separator: Separator, x: np.ndarray, folder: Path) -> np.ndarray:
    """What the WebAssembly computes."""
    write_page(separator, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "main.js").write_text(SCRIPT)
    x.tofile(folder / "in.f32")
    subprocess.run(["node", "main.js"], cwd=folder, check=True)
    return np.fromfile(folder / "out.f32", np.float32)


def main() -> None:
    """Run all cases everywhere."""
    output = parser("export", __doc__).parse_args().output
    tools = ["node", *(tool for _, compiler, runner in MACHINES.values() for tool in (compiler, *runner))]
    if lacking := next((tool for tool in tools if not shutil.which(tool)), None):
        sys.exit(f"{lacking} is not installed")
    command = "python bench/export_bits.py -o docs"
    rows = earlier(output, "export_bits", command).get("rows", [])
    for sr, (estimator, phase) in list(product(RATES, CASES))[len(rows) :]:
        separator, x = Separator(StreamConfig(sr), estimator, phase), sound(sr)
        expected = separator.process(x)
        separator.reset()
        differences = {}
        for machine in (*MACHINES, "WebAssembly"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "out"
                y = on_machine(separator, x, folder, machine) if machine in MACHINES else in_node(separator, x, folder)
            difference = np.abs(in_order(y, separator.n_src, x.size) - expected).max() / np.abs(expected).max()
            differences[machine] = float(difference)
        rows.append({"estimator": estimator, "phase": separator.phase.name, "sr": sr, "differences": differences})
        publish(output, "export_bits", {"command": command, "rows": rows}, page)


def page(result: dict[str, Any]) -> str:
    """A table."""
    lines = [
        "# The samples of exported separators",
        "",
        f"Made by `{result['command']}`: a minute of speech in noise, in blocks of every size from 1 to 1000 samples. "
        "AArch64 is emulated. Largest difference from `Separator.process`, in shares of the peak; WebAssembly has no "
        "fused multiply-add.",
        "",
        "| | | rate | " + " | ".join(result["rows"][0]["differences"]) + " |",
        "|---|---|---|" + "---|" * len(result["rows"][0]["differences"]),
    ]
    for row in result["rows"]:
        found = [f"{difference:.0e}" if difference else "the same bits" for difference in row["differences"].values()]
        lines.append(f"| `{row['estimator']}` | `{row['phase']}` | {row['sr']} Hz | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
