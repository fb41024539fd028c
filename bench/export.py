"""What an exported separator asks of a small processor: `python bench/export.py -o docs` (20 minutes or less).

Emulated boards count the instructions of each hop, over a quarter of a second of two voices at 16 kHz, and their output
is compared with that of the engine, bit for bit.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import cortex_m
import numpy as np
from study import parser, publish

from rtsep import Separator, StreamConfig
from rtsep.estimators import Speech, SpeechSmall
from rtsep.phase import OMISI

SR = 16_000
# Label, estimator, phase recovery, hop in ms.
CASES: list[tuple[str, Any, Any, float]] = [
    ("`denoise`", "denoise", None, 4),
    ("`denoise` + `omisi`, 5 iterations", "denoise", OMISI(n_iter=5), 4),
    ("`denoise` + `omisi`, 5 iterations", "denoise", OMISI(n_iter=5), 8),
    ("`speech`", "speech", None, 4),
    ("`speech`", "speech", None, 8),
    ("`speech`, `--weights int8`", Speech(weights="int8"), None, 8),
    ("`speech_small`", "speech_small", None, 4),
    ("`speech_small`", "speech_small", None, 8),
    ("`speech_small`, `--weights int8`", SpeechSmall(weights="int8"), None, 8),
]
# Clock in MHz, flash and RAM in kB, of data sheets.
PARTS = {
    "STM32H743": ("Cortex-M7", 480, 2048, 1024),
    "Ambiq Apollo4": ("Cortex-M4", 192, 2048, 1843),
    "Nordic nRF5340": ("Cortex-M33", 128, 1024, 512),
}
SHARE = 0.8  # of the clock that the hop may take, an instruction a cycle


def sound() -> np.ndarray:
    """Two buzzing voices, and noise."""
    rng, t = np.random.default_rng(0), np.arange(SR // 4) / SR
    x = sum(np.sin(2 * np.pi * f * h * t) / h for f in (120, 210) for h in range(1, 15))
    return (0.1 * x + 0.01 * rng.normal(size=t.size)).astype(np.float32)


def main() -> None:
    """Run all cases on all boards."""
    output = parser("export", __doc__).parse_args().output
    if tool := cortex_m.missing():
        sys.exit(f"{tool} is not installed")
    rows = []
    for label, estimator, phase, hop_ms in CASES:
        for board in cortex_m.BOARDS:
            separator = Separator(StreamConfig.from_ms(SR, hop_ms=hop_ms), estimator, phase)
            x = sound()
            with tempfile.TemporaryDirectory() as folder:
                ran = cortex_m.run(separator, cortex_m.BOARDS[board], x, Path(folder) / "out")
            expected = separator.process(x[: ran.sources.shape[1]])
            difference = float(np.abs(ran.sources - expected).max() / np.abs(expected).max())
            ram = sum(array.nbytes for array in separator._memory)
            rows.append(
                {
                    "what": label,
                    "hop_ms": hop_ms,
                    "board": board,
                    "difference": difference,
                    "instructions": ran.instructions,
                    "longest": ran.longest,
                    "stack": ran.stack,
                    "code": ran.sizes.code,
                    "constants": ran.sizes.constants,
                    "ram": ram,
                }
            )
            print(rows[-1], flush=True)
    publish(output, "small_processors", {"command": "python bench/export.py -o docs", "rows": rows}, page)


def page(result: dict[str, Any]) -> str:
    """Tables of instructions and of parts."""
    lines = [
        "# Small processors",
        "",
        "Made by `python bench/export.py -o docs`: 16 kHz, latency 16 ms, one channel. Instructions of a hop in an "
        "emulator (mean; the longest within a few per cent), and what that is a second. RAM: an instance; the deepest "
        "stack of a hop comes on top. Bits: those of `rtsep.Separator`, or not.",
        "",
        "| | hop | processor | thousand instructions a hop | million a second | code, kB | constants, kB | RAM, kB | "
        "stack, bytes | bits |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        a_second = row["instructions"] / row["hop_ms"] / 1e3
        sizes = [f"{row[name] / 1024:.0f}" for name in ("code", "constants", "ram")]
        same = f"within {row['difference']:.0e} of the peak" if row["difference"] else "the same"
        lines.append(
            f"| {row['what']} | {row['hop_ms']:g} ms | {row['board']} | {row['instructions'] / 1e3:.0f} | "
            f"{a_second:.0f} | {' | '.join(sizes)} | {row['stack']} | {same} |"
        )
    lines += [
        "",
        "What fits which part, by its data sheet: flash for code and constants, RAM for an instance, and instructions "
        f"within {100 * SHARE:g} % of the clock, one a cycle (flash without a cache is slower).",
        "",
        "| | hop | " + " | ".join(f"{part}, {PARTS[part][0]}, {PARTS[part][1]} MHz" for part in PARTS) + " |",
        "|---|---|" + "---|" * len(PARTS),
    ]
    for label, _, _, hop_ms in CASES:
        verdicts = []
        for board, mhz, flash, ram in PARTS.values():
            row = next(r for r in result["rows"] if (r["what"], r["hop_ms"], r["board"]) == (label, hop_ms, board))
            needs = row["instructions"] / hop_ms / 1e3
            lacks = [
                what
                for what, fails in (
                    (f"clock ({needs:.0f} of {mhz})", needs > SHARE * mhz),
                    ("flash", row["code"] + row["constants"] > 1024 * flash),
                    ("RAM", row["ram"] > 1024 * ram),
                )
                if fails
            ]
            verdicts.append(f"no: {', '.join(lacks)}" if lacks else f"yes, {100 * needs / mhz:.0f} % of the clock")
        lines.append(f"| {label} | {hop_ms:g} ms | {' | '.join(verdicts)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
