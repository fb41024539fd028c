"""How long the free atoms of `--with-rest` remember, and how hard they are pulled to their first shapes: why so.

    python bench/free_atoms.py -o docs --train FOLDER

Writes free_atoms.json and free_atoms.md. FOLDER/music has training recordings, none of those that tables are about. Two
of them are known, each by its first two thirds; their last thirds, over and over, are mixed at 0 dB with others, which
change every 20 s and come again, four times. What is gained in the first round is how well the rest adapts, what is
lost by the last one how far it drifts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from known_soak import learned, stream
from known_sounds import SR, read
from study import measured, one_core, parser, publish, table

from rtsep.estimators import free_atoms
from rtsep.evaluation.report import provenance

COMMAND = "python bench/free_atoms.py -o docs --train FOLDER"
KNOWN = ("arovane_beat_a.flac", "horizons_main_theme_00.ogg")
OTHERS = ("colobot_humanitarian_00.ogg", "ambi_haunted_hum.flac", "arovane_beat_d.flac")
ROUNDS, PIECE = 4, 20 * SR
LITTLE = 1e-6  # a pull that is as good as none, where none would divide by zero
MEMORY_S, PULL = free_atoms.MEMORY_S, free_atoms.PULL
SETTINGS = ((MEMORY_S, LITTLE), (MEMORY_S, PULL), (MEMORY_S, 10 * PULL), (MEMORY_S / 4, PULL), (4 * MEMORY_S, PULL))


def study(train: Path) -> list[dict[str, Any]]:
    music = {name: read(train / "music" / name) for name in KNOWN + OTHERS}
    others = {name: music[name] for name in OTHERS}
    models = [learned(music[name], "kl") for name in KNOWN]
    rows = []
    for memory, pull in SETTINGS:
        free_atoms.MEMORY_S, free_atoms.PULL = memory, pull
        gains = []
        for name, model in zip(KNOWN, models, strict=True):
            found = stream(model, music[name], others, ROUNDS * len(others), PIECE)["gains"]
            gains.append(np.mean(list(found.values()), (0, 2)))
        rows.append({"memory_s": memory, "pull": pull, "gains": np.round(gains, 2).tolist()})
    return rows


def render(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['memory_s']:g}",
            "as good as none" if row["pull"] == LITTLE else f"{row['pull']:g}",
            *(f"{gains[0]:+.1f}, {gains[-1]:+.1f}" for gains in row["gains"]),
        ]
        for row in result["rows"]
    ]
    return "\n".join(
        [
            "# Memory and pull of free atoms",
            "",
            "KL NMF, SI-SDR improvement in dB, mean of the known and the rest (`--with-rest`) and over three sounds",
            "that are not known, in the first and in the fourth round of 20 s each, on training recordings:",
            "",
            *table(["memory, s", "pull", *(Path(name).stem for name in KNOWN)], rows),
            "",
            f"In use: {MEMORY_S:g} s and {PULL:g}.",
            "",
            "On these two the pull in use loses to as good as none, and a shorter memory is better; all values but one",
            "are losses. What speaks for the pull is [the hour](known_soak.md) of a known trumpet.",
            "",
            f"Measured by {measured(result, 'numpy', 'numba')}.",
            "",
        ]
    )


def main() -> None:
    options = parser("free_atoms", __doc__.splitlines()[0])
    options.add_argument("--train", type=Path, required=True, help="folder with music")
    args = options.parse_args()
    with one_core():
        result = {"command": COMMAND, "made": provenance(), "rows": study(args.train)}
    publish(args.output, "free_atoms", result, render)


if __name__ == "__main__":
    main()
