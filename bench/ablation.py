"""Ablation of the learned estimator: what each choice of the network `speech` and of its training is worth.

    python bench/ablation.py -o docs --speech DIR --noise DIR --music DIR [--steps 600] [--jobs 2]

Writes ablation.json, ablation.md and ablation.png after each variant, of which `ablation_variants.py` has the list. A
run takes long; started again after an interruption it goes on with the first variant that is not in
ablation.json with these settings and recordings. Remove the file after a change of the code. Needs `.[dev,train]`.

All variants are trained with one stage of the shipped recipe, on the same mixtures, and scored on the validation
mixtures of the recipe by the running mean of their weights: means of the SI-SDR improvement of the speech.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from hop_time import run_estimates, scene

from rtsep import ConfigError, StreamConfig
from rtsep.cli.progress import progress_bar
from rtsep.estimators import Speech
from rtsep.evaluation.report import provenance

if TYPE_CHECKING:
    from ablation_variants import Variant

    from rtsep.training.corpus import Split
    from rtsep.training.recipe import Recipe

ROUNDS = 200  # of 200 hops
MOST_KB = 1500  # of a model in the wheel
SCORES = {
    "mask": "masks, phase of the mixture",
    "magnitudes": "magnitudes, phase of the mixture",
    "misi": "magnitudes, MISI",
}


def load(recipe: Recipe, folders: dict[str, Path]) -> dict[str, Split]:
    """The recordings of the recipe."""
    from rtsep.training.corpus import load_corpora

    splits = {}
    for kind, corpora in recipe.corpora.items():
        places = [(corpus, folders[kind] / corpus.folder) for corpus in corpora]
        with progress_bar(f"reading {kind}") as progress:
            splits[kind] = load_corpora(places, kind, lambda path, why: say(f"{path}: {why}; skipped"), progress)
    return splits


def digest_of(variant: Variant, data: dict[str, Any]) -> str:
    """Of all settings and recordings that the result of a variant depends on."""
    settings = [variant.recipe.as_dict(), variant.training.__name__, data]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def us_per_hop(model: Path) -> float:
    """Features, network and expansion to bins: median time of the processor over rounds of 200 hops."""
    config = StreamConfig(16_000)
    state = Speech(model).prepare(config)
    powers = scene(config)[1][:, 0] ** 2
    mixture = np.random.default_rng(0).normal(size=(1, 2, config.n_bins)).astype(np.float32)
    magnitudes = np.zeros((2, config.n_bins), np.float32)
    taken = []
    for _ in range(1 + ROUNDS):
        start = time.thread_time()
        run_estimates(state, mixture, powers, magnitudes)
        taken.append((time.thread_time() - start) / len(powers))
    return 1e6 * float(np.median(taken[1:]))  # the first compiles


def train(variant: Variant, splits: dict[str, Split], data: dict[str, Any], jobs: int, label: str) -> dict[str, Any]:
    """Train a variant and measure it."""
    from rtsep.training.mixer import Mixer
    from rtsep.training.recipe import KINDS, read_recipe

    recipe = variant.recipe

    def mixer(side: str, seed: int) -> Mixer:
        return Mixer(recipe.mixtures, *(getattr(splits[kind], side) for kind in KINDS), seed)

    # As `rtsep train speech` has it, also for another seed.
    validation = mixer("validation", read_recipe(Path("speech")).seed + 1)
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model.npz"
        training = variant.training(recipe, mixer("training", recipe.seed), validation, model, data, jobs)
        start = time.process_time()
        with progress_bar(label) as progress:
            training.run(progress=progress)
        core_s = time.process_time() - start
        scores = training.progress.history[-1]
        return {
            "name": variant.name,
            "group": variant.group,
            "digest": digest_of(variant, data),
            "si_sdri": {name: scores[name] if name in variant.scored else None for name in SCORES},
            "weights": recipe.network.n_parameters,
            "file_kb": model.stat().st_size / 1000,
            "us_per_hop": us_per_hop(model),
            "training_s": training.progress.elapsed_s,
            "core_s": core_s,
            "note": variant.note,
        }


def measure(args: argparse.Namespace) -> None:
    """Train what is not in the results yet, and write them after each variant."""
    from rtsep.training.recipe import KINDS  # isort: skip  # First, for the error without PyTorch.
    from ablation_variants import variants

    table = variants(args.steps)
    recipe = table[0].recipe
    folders = {kind: getattr(args, kind) for kind in KINDS}
    splits = load(recipe, folders)
    data = {kind: split.as_dict() for kind, split in splits.items()}
    kept = args.output / "ablation.json"
    former = json.loads(kept.read_text())["variants"] if kept.exists() else []
    wanted = [digest_of(variant, data) for variant in table]
    entries = {entry["digest"]: entry for entry in former if entry["digest"] in wanted}
    if len(former) > len(entries):
        say(f"{kept}: {len(former) - len(entries)} of {len(former)} results have other settings, and are replaced")
    made = provenance()
    made["versions"]["torch"] = version("torch")
    stage = recipe.stages[0]
    result = {
        "made": made,
        "command": f"python bench/ablation.py -o docs {' '.join(f'--{k} {f.name}' for k, f in folders.items())} "
        f"--steps {args.steps} --jobs {args.jobs}",
        "stage": {"steps": stage.steps, "batch": stage.batch, "seconds": stage.seconds, "lr": stage.lr},
        "validation": {"mixtures": recipe.validation, "seconds": recipe.validation_s},
        "recordings": data,
    }
    for number, (variant, digest) in enumerate(zip(table, wanted, strict=True), 1):
        if digest not in entries:
            entries[digest] = train(variant, splits, data, args.jobs, f"{number} of {len(table)}: {variant.name}")
            write(result | {"variants": [entries[d] for d in wanted if d in entries]}, args.output)
        scores = ", ".join(f"{name} {db(value)}" for name, value in entries[digest]["si_sdri"].items())
        say(f"{number} of {len(table)}: {variant.name}: {scores} dB, {entries[digest]['training_s']:.0f} s")


def write(result: dict[str, Any], folder: Path) -> None:
    """All three files."""
    part = folder / ".ablation.json.part"
    part.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(part, folder / "ablation.json")
    (folder / "ablation.md").write_text(render(result))
    draw(result, folder / "ablation.png")


def db(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def changes(entry: dict[str, Any], shipped: dict[str, Any]) -> dict[str, float]:
    """What a variant has more than the shipped one, in dB, for each score that it has."""
    return {name: value - shipped["si_sdri"][name] for name, value in entry["si_sdri"].items() if value is not None}


def noise_of(entries: list[dict[str, Any]]) -> float | None:
    """Largest change of a score by another seed; None before there is one."""
    seeds = [entry for entry in entries if entry["group"] == "shipped"]
    return max(map(abs, changes(seeds[1], seeds[0]).values())) if len(seeds) > 1 else None


def render(result: dict[str, Any]) -> str:
    """The page ablation.md."""
    made, stage, validation, entries = (result[name] for name in ("made", "stage", "validation", "variants"))
    shipped, noise = entries[0], noise_of(entries)
    heads = ["variant", *(f"{label}, dB" for label in SCORES.values())]
    heads += ["weights", "file, kB", "us per hop", "training, s", "s of the processor"]
    lines = [
        "# Ablation of the learned estimator",
        "",
        f"`{result['command']}`, {made['date']}, {made['machine']}, Python {made['python']}, "
        f"numba {made['versions']['numba']}, torch {made['versions']['torch']}.",
        "",
        "Each variant is the shipped network `speech` with one change, trained anew by one stage of its recipe: "
        f"{stage['steps']} steps of {stage['batch']} mixtures of {stage['seconds']:g} s, the same for all. In dB: "
        f"SI-SDR improvement of the speech, mean over the {validation['mixtures']} validation mixtures of "
        f"{validation['seconds']:g} s of the recipe, by what is made of the network; MISI is offline, 3 iterations. In "
        "brackets: the difference from the shipped one. The file has float16 weights. Microseconds: features, network "
        "and expansion to bins in the compiled kernel, once in 4 ms, on one core, median.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    notes = []
    for entry in entries:
        difference = {} if entry is shipped else changes(entry, shipped)
        scores = (
            db(value) + (f" ({difference[name]:+.2f})" if name in difference else "")
            for name, value in entry["si_sdri"].items()
        )
        is_shipped = entry["group"] == "shipped"
        fields = [
            f"**{entry['name']}**" if is_shipped else f"{entry['group']}: {entry['name']}",
            *scores,
            f"{entry['weights'] / 1000:.0f} k",
            f"{entry['file_kb']:.0f}",
            f"{entry['us_per_hop']:.1f}",
            f"{entry['training_s']:.0f}",
            f"{entry['core_s']:.0f}",
        ]
        lines.append(f"| {' | '.join(fields)} |")
        if entry["note"]:
            notes.append(f"- {entry['name']}: {entry['note']}")
        if entry["file_kb"] > MOST_KB:
            notes.append(f"- {entry['name']}: a file of more than {MOST_KB} kB is too large for the wheel.")
    limits = (
        "These are short trainings, of one seed each, and validation mixtures of the same corpora (but of other "
        "speakers and noises): they say what is learned soon, not what a full training ends with. What may pay late, "
        "as a larger network or a loss through phase recovery, is undervalued."
    )
    if noise is not None:
        limits += (
            " Another seed, that is other first weights and other training mixtures, changes the figures of the shipped"
            f" variant by up to {noise:.2f} dB: smaller differences say nothing."
        )
    if notes:
        lines += ["", *notes]
    return "\n".join([*lines, "", limits, "", "![Quality of the variants](ablation.png)", ""])


def draw(result: dict[str, Any], path: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    entries = result["variants"]
    shipped, noise = entries[0], noise_of(entries)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=(2, 3), layout="constrained")
    sizes = sorted((e for e in entries if e["group"] == "size" or e is shipped), key=lambda e: e["weights"])
    weights = [e["weights"] for e in sizes]
    for name, label in SCORES.items():
        left.plot(weights, [e["si_sdri"][name] for e in sizes], marker="o", ms=5, label=label)
    left.axvline(shipped["weights"], color="0.6", lw=1, ls=":")
    left.annotate(
        "shipped", (shipped["weights"], 0), (-4, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
        fontsize=9, color="0.4", ha="right",
    )  # fmt: skip
    left.set(xscale="log", xlabel="weights", ylabel="SI-SDR improvement in dB", title="size")
    left.set_xticks(weights, [f"{n / 1000:.0f} k" for n in weights], rotation=45)
    left.minorticks_off()
    left.margins(y=0.15)
    left.legend(fontsize=8)
    left.grid(alpha=0.3)

    others = [e for e in entries[1:] if e["group"] != "size"]
    for row, entry in enumerate(others):
        for name, change in changes(entry, shipped).items():
            k = list(SCORES).index(name)
            right.plot(change, row + 0.22 * (k - 1), "o", ms=5, color=f"C{k}")
    if noise is not None:
        right.axvspan(-noise, noise, color="0.9", zorder=0)
    right.axvline(0, color="0.6", lw=1, ls=":")
    right.set_yticks(range(len(others)), [e["name"] for e in others], fontsize=9)
    right.set_ylim(max(1, len(others)) - 0.5, -0.5)
    right.set(xlabel="difference from the shipped one in dB", title="other changes (grey: another seed)")
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each choice of the learned estimator is worth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for ablation.json, .md and .png")
    for kind in ("speech", "noise", "music"):
        parser.add_argument(f"--{kind}", type=Path, required=True, metavar="DIR", help="as for `rtsep train speech`")
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: 600)")
    parser.add_argument("--jobs", type=int, default=2, help="threads (default: 2)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        measure(args)
    except ConfigError as problem:
        sys.exit(f"ablation: {problem}")
    except KeyboardInterrupt:
        sys.exit("ablation: interrupted; the same command goes on")
    print((args.output / "ablation.md").read_text())


if __name__ == "__main__":
    main()
