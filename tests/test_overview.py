"""What an evaluation says to people is what its figures support."""

from __future__ import annotations

import numpy as np
import pytest

from rtsep.evaluation.overview import BEST, SAME, finding, make_overview, missing_lines, overview_text
from rtsep.evaluation.scores import SCORES, columns_of
from rtsep.evaluation.summary import full_summary

NAN = float("nan")


def summarise(gains: dict[str, list[float]], source: str = "speech", **more: object) -> dict:
    """The summary of an evaluation with these gains of SI-SDR, over mixtures of 3 dB."""
    rows = [
        {"setup": setup, "id": str(i), "source": source, "class": "", "snr_db": None, "reasons": {}}
        | {"si_sdr": 3 + gain, "si_sdr_input": 3.0, "si_sdr_gain": gain, "real_time_factor": 0.02}
        | {"reasons": {"si_sdr": "why", "si_sdr_gain": "why"} if np.isnan(gain) else {}}
        for setup, values in gains.items()
        for i, gain in enumerate(values)
    ]
    columns = ["real_time_factor", *columns_of(["si-sdr"], True)]
    compared = ["real_time_factor", "si_sdr"]
    evaluation = {"scores": ["si-sdr"], "setups": [{"label": label, "latency": "16 ms"} for label in gains]}
    return full_summary(rows, columns, compared, list(gains)) | {"evaluation": evaluation, "failed": []} | more


def rng_gains(mean: float, seed: int, n: int = 12) -> list[float]:
    return list(mean + np.random.default_rng(seed).normal(size=n))


def test_the_sentence_says_what_is_gained_and_how_much_more_than_others():
    a, b = rng_gains(5, 1), rng_gains(2, 2)
    summary = summarise({"speech": a, "denoise": b})
    (entry,) = [e for e in summary["all"] if (e["setup"], e["column"]) == ("speech", "si_sdr_gain")]
    (less,) = summary["differences"][1:]
    assert less["mean"] == pytest.approx(np.mean(b) - np.mean(a))
    assert finding(summary) == (
        f"`speech` gains {np.mean(a):.1f} dB SI-SDR (95 %: {entry['ci_low']:.1f} to {entry['ci_high']:.1f}), "
        f"{-less['mean']:.1f} dB more than `denoise` ({-less['ci_high']:.1f} to {-less['ci_low']:.1f}); 12 mixtures."
    )


def test_the_best_is_named_whatever_stands_first():
    assert finding(summarise({"a": rng_gains(1, 1), "b": rng_gains(6, 2)})).startswith("`b` gains 6.")


def test_what_no_interval_tells_apart_is_no_difference():
    noise = rng_gains(0, 3)
    base = rng_gains(5, 1)
    summary = summarise({"a": base, "b": [x + y for x, y in zip(base, noise, strict=True)], "c": [0.1] * 12})
    said = finding(summary)
    assert "no different from" in said
    assert "dB more than `c`" in said
    (part,) = make_overview(summary).parts
    remarks = {label: cells[0].remark for label, cells in part.rows}
    assert sorted([remarks["a"], remarks["b"]]) == [BEST, SAME]
    assert remarks["c"] == ""


def test_a_gain_that_may_be_none_a_loss_and_a_single_mixture_are_said_as_such():
    assert "which may be nothing" in finding(summarise({"a": [1.0, -1.0, 2.0, -2.2]}))
    assert finding(summarise({"a": [-1.0, -2.0, -1.5]})).startswith("`a` loses 1.5 dB SI-SDR (95 %: ")
    assert finding(summarise({"a": [4.0], "b": [1.0]})) == (
        "`a` gains 4.0 dB SI-SDR, 3.0 dB more than `b`; one mixture, too little to know more."
    )
    assert "SI-SDR of hum" in finding(summarise({"a": [4.0, 5.0]}, source="hum"))


def test_the_table_has_a_row_for_each_setup_with_units_and_what_is_missing():
    summary = summarise({"speech": [1.0, 2.0, NAN, 3.0], "denoise": [0.0, 1.0, 2.0, 2.5]})
    lines = overview_text(summary).splitlines()
    assert lines[2].split() == ["SI-SDR", "gain", "time"]
    assert lines[3].split() == ["dB", "%", "of", "the", "sound"]
    (row,) = [line for line in lines if line.strip().startswith("speech ")]
    assert row.split()[:2] == ["speech", "+2.0"]
    assert "3 of 4" in row
    assert row.split()[-4:] == ["2.0", "(2.0", "to", "2.0)"]
    assert missing_lines(summary) == ["`speech`, speech: no SI-SDR of 1 mixture: why"]
    assert lines[-1] == "`speech`, speech: no SI-SDR of 1 mixture: why"


def test_a_narrow_terminal_gets_more_tables_and_no_longer_lines():
    summary = summarise({"speech": [1.0, 2.0, 4.0], "denoise": [0.0, 1.0, 2.0]})
    wide, narrow = overview_text(summary), overview_text(summary, 46)
    assert wide.count("SI-SDR gain") == narrow.count("SI-SDR gain") == 1
    assert max(map(len, narrow.splitlines()[1:])) <= 46 < max(map(len, wide.splitlines()[1:]))
    assert narrow.count("  denoise") == 2 * wide.count("  denoise")


def test_every_score_has_a_label_for_each_column():
    for score in SCORES.values():
        assert len(score.labels) == len(score.columns)
        assert score.better in (-1, 0, 1)
