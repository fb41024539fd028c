"""Oracle study: what iterations of oMISI add to masks that know the sources.

    python bench/oracle.py -o docs [--pairs FOLDER]

Writes oracle.json, oracle.md and oracle.png. For four synthetic two-voice mixtures and, with a folder, for its pairs,
both as in `material.py`: magnitudes are those of the sources or what an ideal mask leaves of the mixture's, then 0 to
15 iterations of oMISI at 16 ms and 75 % overlap, with its gate and without. No iterations are `mixture`: the
amplitude mask, made to sum to the mixture.

Masks, for sources S_j with sum X (H. Erdogan et al., "Phase-sensitive and recognition-boosted speech separation using
deep recurrent neural networks", ICASSP 2015, table 1): binary, 1 where abs(S_j) is largest; ratio, abs(S_j) over the
sum of all; Wiener-like, the same of the squares; phase-sensitive, Re(S_j / X) clipped to 0 to 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from material import add_pairs, mean_gain, pairs, ratio_mask, spectra
from study import measured, parser, publish, pyplot, save, table

from rtsep.evaluation.report import provenance
from rtsep.phase import OMISI

ITERATIONS = (0, 1, 2, 3, 5, 10, 15)


def binary_mask(true: np.ndarray) -> np.ndarray:
    largest = np.abs(true).argmax(1)[:, None] == np.arange(true.shape[1])[:, None]
    return largest * np.abs(true.sum(1, keepdims=True))


def phase_sensitive_mask(true: np.ndarray) -> np.ndarray:
    mixture = true.sum(1, keepdims=True)
    along = (true * mixture.conj()).real / (np.abs(mixture) ** 2 + 1e-12)
    return np.clip(along, 0, 1) * np.abs(mixture)


# Magnitudes (n_frames, n_src, n_bins) from the spectra of the sources.
MAGNITUDES = {
    "true magnitudes": np.abs,
    "phase-sensitive mask": phase_sensitive_mask,
    "Wiener-like mask": lambda true: ratio_mask(true, 2),
    "ratio mask": lambda true: ratio_mask(true, 1),
    "binary mask": binary_mask,
}


def study(scenes: list[np.ndarray]) -> dict[str, Any]:
    """SI-SDR improvement in dB for every number of iterations; without any there is nothing to gate."""
    true = [spectra(sources) for sources in scenes]
    found = {}
    for name, degrade in MAGNITUDES.items():
        magnitudes = [degrade(t) for t in true]
        without = mean_gain(scenes, magnitudes, "mixture")
        found[name] = {
            key: [without, *(mean_gain(scenes, magnitudes, OMISI(n, gate=gate)) for n in ITERATIONS[1:])]
            for key, gate in (("gate", True), ("no gate", False))
        }
        print(name, found[name], file=sys.stderr)
    return found


def measure(folder: Path | None) -> dict[str, Any]:
    sets = {"synthetic voices": pairs(None)} | ({"recorded voices": pairs(folder)} if folder else {})
    return {
        "made": provenance(),
        "command": "python bench/oracle.py -o docs" + (f" --pairs {folder.name}" if folder else ""),
        "iterations": ITERATIONS,
        "n_mixtures": {title: len(scenes) for title, scenes in sets.items()},
        "si_sdri": {title: study(list(scenes.values())) for title, scenes in sets.items()},
    }


def render(result: dict[str, Any]) -> str:
    """The page oracle.md."""
    lines = [
        "# Oracle study: masks that know the sources, and iterations of oMISI",
        "",
        f"{measured(result, 'numba')}.",
        "",
        "SI-SDR improvement in dB, mean over both sources of all mixtures; 16 kHz, window 16 ms, 75 % overlap, no "
        "look-ahead. Columns: iterations; 0 is the amplitude mask. The last: what the gate takes or gives, "
        "largest change in its row if it is off. `bench/oracle.py` defines the masks.",
    ]
    for title, curves in result["si_sdri"].items():
        lines += ["", f"## {title.capitalize()}, {result['n_mixtures'][title]} mixtures", ""]
        rows = []
        for name, curve in curves.items():
            change = max(np.subtract(curve["no gate"], curve["gate"]), key=abs)
            rows.append([name, *(f"{value:.1f}" for value in curve["gate"]), f"{change:+.1f}"])
        lines += table(["", *map(str, result["iterations"]), "without the gate"], rows)
    return "\n".join([*lines, "", "![SI-SDR improvement against iterations](oracle.png)", ""])


def draw(result: dict[str, Any], path: Path) -> None:
    sets, places = result["si_sdri"], range(len(result["iterations"]))
    # The masks stay so far below the true magnitudes that they get a scale of their own.
    figure, axes = pyplot().subplots(
        2, len(sets), figsize=(1 + 4.5 * len(sets), 7), sharex=True, sharey="row", layout="constrained", squeeze=False
    )
    for (above, below), (title, rows) in zip(axes.T, sets.items(), strict=True):
        for number, (name, curves) in enumerate(rows.items()):
            exact = number == 0
            colour, values = "black" if exact else f"C{number - 1}", curves["gate"]
            above.plot(places, values, color=colour, marker=".")
            if not exact:
                below.plot(places, values, color=colour, marker=".")
            lowest = values[-1] == min(other["gate"][-1] for other in rows.values())
            (above if exact else below).annotate(
                name, (places[-1], values[-1]), (0, -14 if lowest else 6), textcoords="offset points", ha="right",
                fontsize=9, color=colour,
            )  # fmt: skip
        above.set_title(f"{title}, {result['n_mixtures'][title]} mixtures")
        above.text(places[-1], 12, "masks: see below", ha="right", fontsize=9, color="0.4")
        below.set_xlabel("iterations of oMISI (0: amplitude mask)")
        below.set_xticks(places, map(str, result["iterations"]))
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.margins(y=0.1)
    for axis in axes[:, 0]:
        axis.set_ylabel("SI-SDR improvement in dB")
    save(figure, path)


def main() -> None:
    options = parser("oracle", "Ideal masks and iterations of oMISI")
    add_pairs(options)
    args = options.parse_args()
    publish(args.output, "oracle", measure(args.pairs), render, draw)


if __name__ == "__main__":
    main()
