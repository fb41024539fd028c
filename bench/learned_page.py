"""Page and figure of `learned.py`: means of what was measured, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from study import measured, pyplot, save, table

NAMES = {
    "unprocessed": "unprocessed",
    "denoise": "`denoise`",
    "mask": "mask, mixture's phase",
    "magnitudes": "magnitudes, mixture's phase",
    "oMISI": "magnitudes, oMISI 3",
    "mask_8ms": "mask, hop 8 ms",
    "small": "`speech_small`",
}
SCORES = {"si_sdr": ("SI-SDR", " dB", 2), "pesq": ("PESQ", "", 2), "estoi": ("ESTOI", "", 3)}
UNKNOWN, KNOWN = "unknown", "known"


def columns(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    for name in rows[0]:
        yield name, [row[name] for row in rows]


def summarise_noise(found: dict[int, list[dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Means, and for each setup the difference from the masks, whose standard error is over pieces, not ratios."""
    first = next(iter(found.values()))[0]
    names, keys = list(first), list(first["unprocessed"])
    # (n_snrs, n_mixtures, n_setups, n_scores)
    table = np.array([[[list(row[name].values()) for name in names] for row in rows] for rows in found.values()])
    table = table[:, np.isfinite(table).all((0, 2, 3))]  # a piece that one score cannot take counts nowhere
    means = dict(zip([*map(str, found), "mean"], [*table.mean(1), table.mean((0, 1))], strict=True))
    gain = (table - table[:, :, names.index("mask"), None]).mean(0)
    error = gain.std(0, ddof=1) / np.sqrt(len(gain))
    return {
        "n_pieces": len(gain),
        "means": {
            snr: {name: dict(zip(keys, map(float, row), strict=True)) for name, row in zip(names, rows, strict=True)}
            for snr, rows in means.items()
        },
        "against_mask": {
            name: {
                key: {"mean": float(gain[:, i, j].mean()), "error": float(error[i, j])} for j, key in enumerate(keys)
            }
            for i, name in enumerate(names)
            if name not in ("unprocessed", "mask")
        },
    }


def summarise_pairs(found: dict[str, list[dict[str, dict[str, float]]]]) -> dict[str, Any]:
    found = found | {"all": [row for rows in found.values() for row in rows]}
    return {
        kind: {
            name: {
                "improvement": float(np.mean([value["improvement"] for value in values])),
                "seconds": sum(value["seconds"] for value in values),
                "swapped": sum(value["swapped"] for value in values),
                "files": len(values),
                "files_swapped": sum(value["swapped"] > 0 for value in values),
            }
            for name, values in columns(rows)
        }
        for kind, rows in found.items()
    }


def render(result: dict[str, Any]) -> str:
    """The page learned.md."""
    noise, hours = result["noise"], result["hours"]
    lines = [
        "# Learned estimators: what they are worth",
        "",
        f"{measured(result, 'numba')}.",
        "",
        "Models: "
        + "; ".join(
            f"`{kind}`, {model['parameters']:,} parameters, SHA-256 {model['sha256'][:12]}"
            for kind, model in result["models"].items()
        )
        + ". 16 kHz, window 16 ms, 75 % overlap where no hop is named, latency 16 ms, weights as they are by "
        "default (of 32 bits; of eight for `talkers` and `target`). `speech` and `talkers` are heard three ways: masks "
        "with the phase of the mixture, magnitudes with that phase, magnitudes with three iterations of oMISI.",
        "",
        *in_short(result),
        "",
        "## Speech in noise",
        "",
        f"{noise['n_pieces']} pieces of 5 s, each at every ratio of speech to noise. Means; in brackets the difference "
        "from unprocessed.",
    ]
    for key, (title, _, places) in SCORES.items():
        rows = []
        for snr, row in noise["means"].items():
            before = row["unprocessed"][key]
            fields = [
                f"{values[key]:.{places}f}"
                + ("" if name == "unprocessed" else f" ({values[key] - before:+.{places}f})")
                for name, values in row.items()
            ]
            rows.append(["mean" if snr == "mean" else f"{snr} dB", *fields])
        lines += ["", *table([f"{title} at", *(NAMES[name] for name in noise["means"]["mean"])], rows)]
    lines += [
        "",
        "## Clean speech, level",
        "",
        "SI-SDR of `speech` for speech alone, mean and worst of the same pieces; largest change of its output between "
        "input at -50 and at -10 dBFS (RMS), both scaled to the same level, against the peak of the output.",
        "",
        *table(
            ["", "clean, mean", "clean, worst", "change with level"],
            (
                [NAMES[name], f"{clean['mean']:.1f} dB", f"{clean['worst']:.1f} dB", f"{result['level'][name]:.0f} dB"]
                for name, clean in result["clean"].items()
            ),
        ),
    ]
    lines += ["", "## Two talkers", "", *talkers(result["talkers"], result["count"])]
    lines += [
        "",
        "## Two hours",
        "",
        f"One stream through {NAMES['oMISI']}, speech in noise at 5 dB: the same sixty pieces in each five minutes, in "
        f"another order each time. SI-SDR improvement in the first five minutes {hours[0]:.2f} dB, in the last "
        f"{hours[-1]:.2f} dB; least {min(hours):.2f}, most {max(hours):.2f} dB.",
        "",
        "## Cost",
        "",
        "Microseconds per hop of 4 ms on one core, medians: features and network alone; a whole hop of "
        "`Separator.process` with three iterations of oMISI, called from Python.",
        "",
    ]
    rows = [
        [f"`{name}`, {int(sr) // 1000} kHz", f"{us['network']:.0f}", f"{us['hop']:.0f}", f"{us['hop'] / 40:.1f} %"]
        for name, rates in result["cost"].items()
        for sr, us in rates.items()
    ]
    lines += table(["", "features and network", "whole hop", "share of the hop"], rows)
    return "\n".join([*lines, "", "![Differences from unprocessed](learned.png)", ""])


def in_short(result: dict[str, Any]) -> list[str]:
    """What won and what lost, from the numbers alone."""
    means, against = result["noise"]["means"], result["noise"]["against_mask"]
    lines = []
    for key, (title, unit, places) in SCORES.items():
        gains = {name: row[key] - means["mean"]["unprocessed"][key] for name, row in means["mean"].items()}
        ranked = sorted((name for name in gains if name != "unprocessed"), key=gains.get, reverse=True)
        losses = [
            f"{NAMES[name]} at {snr} dB ({values[key] - row['unprocessed'][key]:+.{places}f})"
            for snr, row in means.items()
            for name, values in row.items()
            if snr != "mean" and values[key] < row["unprocessed"][key]
        ]
        ours = against["oMISI"][key]
        lines.append(
            f"- {title}, mean over all ratios, against unprocessed: "
            + "; ".join(f"{NAMES[name]} {gains[name]:+.{places}f}{unit}" for name in ranked)
            + f". Below unprocessed: {', '.join(losses) or 'nowhere'}. oMISI against the mask: "
            f"{ours['mean']:+.{places + 1}f}{unit}, standard error {ours['error']:.{places + 1}f}."
        )
    for title, kinds in result["talkers"].items():
        ranked = sorted(kinds["all"].items(), key=lambda item: item[1]["improvement"], reverse=True)
        lines.append(
            f"- Two {title} {'voices' if title == KNOWN else 'talkers'}, SI-SDR improvement: "
            + "; ".join(
                f"{NAMES[name]} {value['improvement']:+.1f} dB, swapped in {value['swapped']} of {value['seconds']} s "
                f"and {value['files_swapped']} of {value['files']} files"
                for name, value in ranked
            )
            + "."
        )
    return lines


def talkers(found: dict[str, Any], count: int) -> list[str]:
    figures = list(found[UNKNOWN]["all"])
    lines = [
        f"SI-SDR improvement in dB, mean over both talkers, with the order of the two outputs that is best over the "
        f"file; {count} mixtures of 5 s of each kind, talkers at 0 to 5 dB. Seconds: those (1 s, from the start of the "
        "file) in which both talkers are within 20 dB of their level in the file. Swapped: the share of them in which "
        "the other order has the larger sum of SI-SDR, and the files with any; each for the three ways in turn.",
        "",
    ]
    rows = []
    for title, kinds in found.items():
        for kind, row in kinds.items():
            fields = [f"{value['improvement']:.1f}" for value in row.values()]
            shares = [f"{100 * value['swapped'] / max(value['seconds'], 1):.0f}" for value in row.values()]
            first = row[figures[0]]
            files = [str(value["files_swapped"]) for value in row.values()]
            fields += [str(first["seconds"]), " / ".join(shares), f"{' / '.join(files)} of {first['files']}"]
            rows.append([f"{title}, {kind}", *fields])
    heads = ["", *(NAMES[name] for name in figures), "seconds", "swapped, %", "files with any"]
    return [*lines, *table(heads, rows)]


def draw(result: dict[str, Any], path: Path) -> None:
    means, pairs = result["noise"]["means"], result["talkers"]
    snrs = [snr for snr in means if snr != "mean"]
    names = [name for name in means["mean"] if name != "unprocessed"]
    colours = {"denoise": "0.5", "mask": "C0", "magnitudes": "C1", "oMISI": "C3", "mask_8ms": "C2", "small": "C4"}
    figure, axes = pyplot().subplots(2, 3, figsize=(13, 7), layout="constrained")
    for axis, (key, (title, unit, _)) in zip(axes.flat, SCORES.items(), strict=False):
        for name in names:
            gains = [means[snr][name][key] - means[snr]["unprocessed"][key] for snr in snrs]
            axis.plot([int(snr) for snr in snrs], gains, marker=".", color=colours[name], label=NAMES[name].strip("`"))
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{title} against unprocessed", xlabel="speech to noise in dB", xticks=[int(s) for s in snrs])
        axis.set_ylabel(f"difference{' in' + unit if unit else ''}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    for axis, (title, kinds) in zip(axes.flat[3:], pairs.items(), strict=False):
        for j, name in enumerate(kinds["all"]):
            values = [row[name]["improvement"] for row in kinds.values()]
            axis.bar(np.arange(len(kinds)) + 0.27 * (j - 1), values, 0.25, color=colours[name])
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(f"two {title} {'voices' if title == KNOWN else 'talkers'}")
        axis.set_xticks(range(len(kinds)), kinds)
        axis.set_ylabel("SI-SDR improvement in dB")
    hours, last = result["hours"], axes.flat[-1]
    last.plot(5 * np.arange(1, len(hours) + 1), hours, marker=".", color=colours["oMISI"])
    last.set(title="two hours, five minutes at a time", xlabel="minutes", ylim=(0, 1.2 * max(*hours, 0.1)))
    last.set_ylabel("SI-SDR improvement in dB")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    save(figure, path)
