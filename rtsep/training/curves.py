"""A picture of a training, drawn anew at each validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rtsep.staging import replacing

PANELS = (  # what is in each, top down, and its unit
    (("loss",), "loss"),
    (("mask", "omisi"), "SI-SDR gain, dB"),
    (("pesq",), "PESQ gain"),
    (("estoi",), "ESTOI gain"),
    (("silence",), "left in silences, dB"),
)
LABELS = {"mask": "masks", "omisi": "online MISI"}


def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what was measured over the hours of mixtures; the model that was kept last is marked.

    Parameters
    ----------
    history : list of dict
        `rtsep.training.train.Progress.history`.
    path : Path
        The picture, PNG; replaced at once, so that a viewer never sees half of it.
    """
    panels = [panel for panel in PANELS if any(panel[0][0] in entry for entry in history)]
    with mpl.rc_context({"font.size": 9, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(8, 0.7 + 1.9 * len(panels)), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        best = [entry for entry in history if entry.get("best")][-1:]
        for axis, (names, unit) in zip(axes, panels, strict=True):
            for name in names:
                entries = [entry for entry in history if name in entry]
                axis.plot(
                    [entry["audio_h"] for entry in entries],
                    [entry[name] for entry in entries],
                    ".-",
                    linewidth=1,
                    markersize=4,
                    label=LABELS.get(name, name),
                )
            for entry in best:
                axis.axvline(entry["audio_h"], color="0.6", linewidth=0.8, linestyle="--")
            axis.set_ylabel(unit)
            axis.grid(linewidth=0.3)
            if len(names) > 1:
                axis.legend(frameon=False)
        for entry in best:
            axes[0].set_title(f"kept: step {entry['step']}", loc="right")
        axes[-1].set_xlabel("mixtures, h")
        with replacing(path) as part:
            figure.savefig(part, format="png")
