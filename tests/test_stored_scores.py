"""Quality does not change unnoticed."""

from __future__ import annotations

import pytest
import stored_scores


@pytest.mark.timeout(900)  # a minute and a half on an idle machine
def test_scores_of_the_fixed_set_are_the_stored_ones():
    changed = stored_scores.compare(stored_scores.load(), stored_scores.measure())
    assert not changed, "\n".join(
        [f"{len(changed)} scores changed; if they should, `python tests/stored_scores.py` stores them:", *changed]
    )


def test_a_hundredth_of_a_decibel_and_what_is_missing_are_seen():
    stored = {"scene, denoise+omisi, si_sdr of speech": 10.0, "scene, denoise+misi, si_sdr of speech": 10.0}
    first, second = sorted(stored, reverse=True)
    assert stored_scores.compare(stored, {first: 10.009, second: 9.991}) == []
    assert stored_scores.compare(stored, {first: 9.989}) == [
        f"{second}: stored 10.0, now None",
        f"{first}: stored 10.000, now 9.989 (-0.011)",
    ]
    assert len(stored_scores.compare(stored, {first: float("nan"), second: 10.0})) == 1
