"""The number of places for selected tokens, which a plan counts and the loader packs."""

from __future__ import annotations

import math

__all__ = ["places_asked"]

_RARELY = math.log(1e9)
"""The log of the number of batches among which one has more selected tokens than places."""


def places_asked(samples: int, length: int, share: float) -> int:
    """Places M per sample, at most `length`, so that M * `samples` hold all selected tokens of nearly every batch.

    Each token is selected with probability `share`; one batch in 10^9 has more, by Bernstein's inequality.

    >>> places_asked(1024, 32, 0.15)
    6
    """
    tokens = samples * length
    spread = 2.0 * tokens * share * (1.0 - share)
    most = tokens * share + _RARELY / 3.0 + math.sqrt((_RARELY / 3.0) ** 2 + _RARELY * spread)
    return min(math.ceil(most / samples), length)
