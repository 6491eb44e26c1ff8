"""How many places hold the tokens that a mask chooses: what a plan counts and a loader packs."""

from __future__ import annotations

import math

__all__ = ["places_asked"]

_RARELY = math.log(1e9)
"""One batch in this many, as a logarithm, has more chosen tokens than there are places for."""


def places_asked(samples: int, length: int, share: float) -> int:
    """Places M a sample, at most `length`, so that M * `samples` hold all chosen tokens of nearly every batch.

    Each of the tokens is chosen with the chance `share`; more are in one batch of 10^9, by Bernstein's inequality.

    >>> places_asked(1024, 32, 0.15)
    6
    """
    tokens = samples * length
    spread = 2.0 * tokens * share * (1.0 - share)
    most = tokens * share + _RARELY / 3.0 + math.sqrt((_RARELY / 3.0) ** 2 + _RARELY * spread)
    return min(math.ceil(most / samples), length)
