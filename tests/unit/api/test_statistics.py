"""Intervals against tables of Student's distribution and by hand."""

from __future__ import annotations

import math
from statistics import stdev

import pytest

from vlmdsl.api.statistics import Difference, paired_difference, spread_of

# Two-sided, from printed tables.
TABLE = {
    (0.95, 1): 12.706, (0.95, 2): 4.303, (0.95, 3): 3.182, (0.95, 4): 2.776, (0.95, 5): 2.571, (0.95, 9): 2.262,
    (0.95, 30): 2.042, (0.99, 1): 63.657, (0.99, 2): 9.925, (0.99, 7): 3.499, (0.90, 10): 1.812, (0.5, 6): 0.718,
}  # fmt: skip


@pytest.mark.parametrize(("confidence", "degrees"), TABLE)
def test_intervals_are_as_wide_as_the_tables_say(confidence: float, degrees: int) -> None:
    """Differences of deviation d: the interval reaches t d / sqrt(n) to both sides."""
    values = [float(index) for index in range(degrees + 1)]
    difference = paired_difference(values, [0.0] * len(values), confidence)
    assert difference.low is not None
    error = stdev(values) / math.sqrt(len(values))
    assert (difference.mean - difference.low) / error == pytest.approx(TABLE[confidence, degrees], abs=6e-4)


def test_an_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, so 2 +- 4.3027 / sqrt(3)."""
    difference = paired_difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert difference.mean == 2.0
    assert (difference.low, difference.high) == (pytest.approx(2 - 2.48414, abs=1e-4), pytest.approx(2 + 2.48414, abs=1e-4))
    assert not difference.separable


def test_pairing_takes_away_what_the_seeds_share() -> None:
    """The seeds differ by tens, the recipes by about one: paired, they are separable."""
    assert paired_difference([11.0, 41.1, 70.9], [10.0, 40.0, 70.0]).separable
    assert paired_difference([9.0, 38.9, 69.1], [10.0, 40.0, 70.0]).separable


@pytest.mark.parametrize("values", [[0.5], [0.3, 0.7, 0.9]])
def test_without_a_spread_nothing_is_claimed(values: list[float]) -> None:
    difference = paired_difference(values, [value - 0.1 for value in values])
    assert difference == Difference(pytest.approx(0.1))
    assert not difference.separable


def test_a_single_run_has_no_deviation() -> None:
    assert spread_of([3.0]).deviation is None


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_an_impossible_confidence_is_an_error(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired_difference([1.0, 2.0], [0.0, 0.0], confidence)
