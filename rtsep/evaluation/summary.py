"""What a table of scores says: medians, means, confidence intervals, differences."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from rtsep.errors import ConfigError
from rtsep.plain import plain

CONFIDENCE = 0.95
RESAMPLES = 2_000
MAX_DRAWN = 1_000_000  # indices at a time
SNR_STEP_DB = 5.0

Row = dict[str, Any]


def bootstrap_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Confidence interval of the mean, by the bootstrap.

    Parameters
    ----------
    values : ndarray, real, (n,)
        Finite.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : float
        Percentiles of the means of 2000 samples that are drawn with replacement, always the same ones; NaN for fewer
        than two values.

    References
    ----------
    B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentile interval).
    """
    n = values.size
    if n < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    at_once = max(1, min(RESAMPLES, MAX_DRAWN // n))
    draws = (rng.integers(n, size=(min(at_once, RESAMPLES - k), n)) for k in range(0, RESAMPLES, at_once))
    means = np.concatenate([values[drawn].mean(1) for drawn in draws])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def describe_values(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Count, missing ones, median, mean, and the confidence interval of the mean."""
    everything = np.asarray(values, np.float64)
    there = everything[np.isfinite(everything)]
    low, high = bootstrap_interval(there)
    return {
        "n": int(there.size),
        "missing": int(everything.size - there.size),
        "median": float(np.median(there)) if there.size else np.nan,
        "mean": float(there.mean()) if there.size else np.nan,
        "ci_low": low,
        "ci_high": high,
    }


def summarise(rows: Sequence[Row], columns: Sequence[str], by: Callable[[Row], Hashable]) -> list[dict[str, Any]]:
    """One entry for each setup, source, group and column.

    Parameters
    ----------
    rows : sequence of dict
        Of the table.
    columns : sequence of str
        To summarise.
    by : callable
        Group of a row; rows of which it is None are left out.

    Returns
    -------
    list of dict
        `setup`, `source`, `group`, `column` and what `describe_values` gives; without those that have no values.
    """
    groups: dict[tuple[Any, Any, Any], list[Row]] = {}
    for row in rows:
        group = by(row)
        if group is not None:
            groups.setdefault((row["setup"], row["source"], group), []).append(row)
    entries = []
    for (setup, source, group), members in groups.items():
        for column in columns:
            found = describe_values([row.get(column, np.nan) for row in members])
            if found["n"]:
                entries.append({"setup": setup, "source": source, "group": group, "column": column} | found)
    return entries


def compare(rows: Sequence[Row], columns: Sequence[str], setups: Sequence[str]) -> list[dict[str, Any]]:
    """Paired differences of every setup from each before it, over the mixtures that both have.

    Returns
    -------
    list of dict
        `setup`, `baseline`, `source`, `column`, what `describe_values` gives of the differences, and `higher`, the
        share of mixtures with a higher value than the baseline; those from the first setup first.
    """
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        for column in columns:
            values.setdefault((row["setup"], row["source"], column), {})[row["id"]] = row.get(column, np.nan)
    entries = []
    for k, baseline in enumerate(setups):
        for (setup, source, column), ours in values.items():
            theirs = values.get((baseline, source, column), {})
            if setup not in setups[k + 1 :] or not theirs:
                continue
            differences = np.array([ours[key] - theirs[key] for key in ours if key in theirs])
            found = describe_values(differences)
            if found["n"]:
                higher = float((differences[np.isfinite(differences)] > 0).mean())
                head = {"setup": setup, "baseline": baseline, "source": source, "column": column}
                entries.append(head | found | {"higher": higher})
    return entries


def count_reasons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Why values are missing: `setup`, `source`, `column`, `reason` and `n`, the mixtures that it is so for."""
    counts: dict[tuple[str, str, str, str], int] = {}
    for row in rows:
        for column, reason in row["reasons"].items():
            key = (row["setup"], row["source"], column, reason)
            counts[key] = counts.get(key, 0) + 1
    names = ("setup", "source", "column", "reason")
    return [dict(zip(names, key, strict=True)) | {"n": n} for key, n in counts.items()]


def snr_group(row: Row) -> str | None:
    """Steps of 5 dB, such as "-5 to 0 dB"."""
    if row["snr_db"] is None:
        return None
    low = SNR_STEP_DB * np.floor(row["snr_db"] / SNR_STEP_DB)
    return f"{low:g} to {low + SNR_STEP_DB:g} dB"


def full_summary(
    rows: Sequence[Row], columns: Sequence[str], compared: Sequence[str], setups: Sequence[str]
) -> dict[str, Any]:
    """All summaries, as plain values for JSON; differences of the columns in `compared` alone.

    Raises
    ------
    ConfigError
        If there are no rows.
    """
    if not rows:
        raise ConfigError("nothing to summarise: no mixture was separated and scored")
    in_order = sorted(rows, key=lambda row: -np.inf if row["snr_db"] is None else row["snr_db"])
    found: dict[str, Any] = plain(
        {
            "all": summarise(rows, columns, lambda row: "all"),
            "by_snr": summarise(in_order, columns, snr_group),
            "by_class": summarise(
                sorted(rows, key=lambda row: str(row["class"])), columns, lambda row: row["class"] or None
            ),
            "differences": compare(rows, compared, setups),
            "missing": count_reasons(rows),
            "confidence": CONFIDENCE,
        }
    )
    return found
