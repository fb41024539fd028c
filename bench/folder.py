"""How fast a folder is separated with one job and with one per core, and whether the bits are the same.

    python bench/folder.py                  # 4 files of 10 minutes at 16 kHz, `speech`
    python bench/folder.py --minutes 1 --json out.json

Prints seconds, times real time and the gain; the command line itself is timed, with its start, its reading and writing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

RECORDING = Path(__file__).resolve().parents[1] / "rtsep" / "data" / "noisy_speech.flac"
SR = 16_000


def write_folder(folder: Path, n_files: int, minutes: float) -> None:
    """The shipped recording, repeated, from another sample on in each file."""
    x, sr = sf.read(RECORDING, dtype="float32")
    assert sr == SR
    for i in range(n_files):
        sf.write(folder / f"{i}.wav", np.resize(np.roll(x, 1_000 * i), int(minutes * 60 * SR)), SR, subtype="PCM_16")


def digest(folder: Path) -> str:
    """Of the samples of all files in a folder; their headers have a date."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        for block in sf.blocks(path, 1 << 16, dtype="float32"):
            total.update(block.tobytes())
    return total.hexdigest()


def main() -> None:
    """Time it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seconds, sums = {}, set()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        command = [sys.executable, "-m", "rtsep", "separate", "--overwrite", "--json"]
        write_folder(folder, 1, 0.1)  # compiles
        subprocess.run([*command, str(folder), "-o", f"{place}/warm"], check=True, stdout=subprocess.DEVNULL)
        write_folder(folder, args.files, args.minutes)
        for jobs in (1, cores):
            out = Path(place) / str(jobs)
            start = time.perf_counter()
            run = [*command, str(folder), "-o", str(out), "--jobs", str(jobs)]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
            seconds[jobs] = time.perf_counter() - start
            sums.add(digest(out))
            audio = 60 * args.minutes * args.files
            print(f"{jobs} jobs: {seconds[jobs]:.1f} s, {audio / seconds[jobs]:.1f} x real time", flush=True)
    gain, same = seconds[1] / seconds[cores], len(sums) == 1
    print(
        f"{gain:.2f} times as fast, {'the same bits' if same else 'OTHER BITS'}; load of the machine {os.getloadavg()}"
    )
    if args.json:
        args.json.write_text(json.dumps({"cores": cores, "seconds": seconds, "gain": gain, "same_bits": same}) + "\n")


if __name__ == "__main__":
    main()
