"""Means over seeds, and differences paired by seed with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

__all__ = ["Difference", "Spread", "paired_difference", "spread_of", "t_quantile"]

_LARGEST_T = 1e9
"""Bounds the search; the quantile of 1 degree of freedom reaches it at a confidence of 1 - 1e-9."""
_ROUNDING = 1e-12
"""Below this a deviation of fractions is none."""


@dataclass(frozen=True)
class Spread:
    """The mean of several runs and the standard deviation between them (n - 1 in the denominator); None of a single run."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """A mean difference, and its confidence interval where there is one: it takes two pairs and a spread between them."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def separable(self) -> bool:
        """Whether the interval leaves out zero. Without an interval nothing can be told apart."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and standard deviation.

    >>> spread_of([1.0, 2.0, 3.0])
    Spread(mean=2.0, deviation=1.0)
    """
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def paired_difference(values: Sequence[float], reference: Sequence[float], confidence: float = 0.95) -> Difference:
    """The mean of `values[i] - reference[i]` with Student's interval.

    Measures are fractions of few samples, so two runs may differ by the same amount by chance: equal differences give no
    interval instead of one of no width.
    """
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    spread = spread_of(differences)
    if spread.deviation is None or spread.deviation < _ROUNDING:
        return Difference(spread.mean)
    half = t_quantile(confidence, len(differences) - 1) * spread.deviation / math.sqrt(len(differences))
    return Difference(spread.mean, spread.mean - half, spread.mean + half)


def t_quantile(confidence: float, degrees: int) -> float:
    """The t that Student's distribution of `degrees` degrees of freedom stays within, on both sides, with this probability.

    >>> round(t_quantile(0.95, 2), 3)
    4.303
    """
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError("Student's t needs a degree of freedom and a confidence between 0 and 1")
    low, high = 0.0, _LARGEST_T
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if _probability_within(middle, degrees) < confidence else (low, middle)


def _probability_within(t: float, degrees: int) -> float:
    """P(|T| <= t): the finite sums of Abramowitz and Stegun, 26.7.3 (odd degrees) and 26.7.4 (even)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
