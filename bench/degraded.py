"""Where phase recovery stops paying: SI-SDR improvement against the error of the magnitudes and the iterations.

    python bench/degraded.py [--pairs FOLDER] [-o docs/degraded.png]

Magnitudes and mixtures are those of `material.py`; oMISI at 16 ms, 75 % overlap.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from material import add_pairs, independent, mean_gain, pairs, smooth, spectra
from study import pyplot, save, table

from rtsep.phase import OMISI

ERRORS_DB = (0, 1, 2, 3, 4.5, 6, 8)
ITERATIONS = (1, 5, 15)
PHASES = {"amplitude mask": "mixture"}
PHASES |= {f"{n} iterations, no gate": OMISI(n, gate=False) for n in ITERATIONS}
PHASES |= {f"{n} iterations": OMISI(n) for n in ITERATIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description="SI-SDR improvement against the error of the magnitudes")
    add_pairs(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("degraded.png"), help="figure")
    args = parser.parse_args()
    scenes = list(pairs(args.pairs).values())
    true = [spectra(sources) for sources in scenes]
    print(f"SI-SDRi in dB, mean of {len(scenes)} mixtures")
    figure, axes = pyplot().subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, (title, degrade) in zip(
        axes, {"independent errors": independent, "smooth errors": smooth}.items(), strict=True
    ):
        curves = {
            name: [mean_gain(scenes, [degrade(t, error) for t in true], phase) for error in ERRORS_DB]
            for name, phase in PHASES.items()
        }
        rows = ([name, *(f"{value:.1f}" for value in row)] for name, row in curves.items())
        print("", *table([f"{title}, dB rms", *(f"{e:g}" for e in ERRORS_DB)], rows), sep="\n")
        for number, (name, row) in enumerate(curves.items()):
            colour = "black" if number == 0 else f"C{(number - 1) % len(ITERATIONS)}"
            axis.plot(ERRORS_DB, row, ":" if "no gate" in name else "-", color=colour, marker=".", label=name)
        axis.set(title=title, xlabel="error of the magnitudes in dB rms")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("SI-SDR improvement in dB")
    axes[1].legend(fontsize=8)
    save(figure, args.output)


if __name__ == "__main__":
    main()
