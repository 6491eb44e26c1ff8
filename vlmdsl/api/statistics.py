"""Means over seeds, and differences paired by seed with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

__all__ = ["Difference", "Spread", "paired_difference", "spread_of"]

_ROUNDING = 1e-12
"""Smaller deviations of fractions are due to rounding."""


@dataclass(frozen=True)
class Spread:
    """The mean of several runs and the standard deviation between them (n - 1 in the denominator); None for a single run."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """A mean difference, and its confidence interval, which needs at least two pairs that differ."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def separable(self) -> bool:
        """Whether the interval excludes zero. Without an interval nothing is separable."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and standard deviation.

    >>> spread_of([1.0, 2.0, 3.0])
    Spread(mean=2.0, deviation=1.0)
    """
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def paired_difference(values: Sequence[float], reference: Sequence[float], confidence: float = 0.95) -> Difference:
    """The mean of `values[i] - reference[i]` with Student's interval.

    Measures are fractions of few samples, so two pairs may have the same difference by chance: equal differences give no
    interval instead of an empty one. ValueError for a confidence that is not between 0 and 1.

    >>> difference = paired_difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    >>> difference.mean, round(difference.low, 3), round(difference.high, 3)
    (2.0, -0.484, 4.484)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    spread = spread_of(differences)
    if spread.deviation is None or spread.deviation < _ROUNDING:
        return Difference(spread.mean)
    from scipy.special import stdtrit  # takes a third of a second; only comparisons need it

    half = float(stdtrit(len(differences) - 1, (1 + confidence) / 2)) * spread.deviation / math.sqrt(len(differences))
    return Difference(spread.mean, spread.mean - half, spread.mean + half)
