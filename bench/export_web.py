"""What the separators of the page cost: `python bench/export_web.py` (two minutes).

The WebAssembly of `rtsep export --format web` separates ten seconds of noise in node, whose engine is Chromium's, in
blocks of 128 samples, as an audio worklet gets them; the best of three runs counts.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from rtsep import Separator, StreamConfig
from rtsep.export.web import write_page

CASES = [("denoise", 16_000), ("denoise", 48_000), ("speech", 16_000), ("speech", 48_000), ("talkers", 48_000)]
SCRIPT = """
import { readFileSync } from "node:fs";
import { Separator } from "./rtsep.js";
const separator = new Separator(readFileSync("rtsep.wasm")), blocks = Math.ceil(10 * separator.rate / 128);
const noise = Array.from({length: 100}, () => Float32Array.from({length: 128}, () => 0.1 * Math.random()));
const run = () => {
  const start = performance.now();
  for (let i = 0; i < blocks; i++) separator.process([noise[i % 100]]);
  return (performance.now() - start) / 1e3 / (blocks * 128 / separator.rate);
};
run();
console.log(Math.min(run(), run(), run()));
"""


def main() -> None:
    """Print a table."""
    print("| | rate | share of real time | rtsep.wasm |\n|---|---|---|---|")
    for estimator, sr in CASES:
        with tempfile.TemporaryDirectory() as name:
            site = Path(name)
            write_page(Separator(StreamConfig(sr), estimator), site)
            (site / "package.json").write_text('{"type": "module"}')
            (site / "main.js").write_text(SCRIPT)
            ran = subprocess.run(["node", "main.js"], cwd=site, capture_output=True, text=True, check=True)
            size = (site / "rtsep.wasm").stat().st_size / 1e6
        print(f"| `{estimator}` | {sr} Hz | {100 * float(ran.stdout):.1f} % | {size:.2f} MB |", flush=True)


if __name__ == "__main__":
    main()
