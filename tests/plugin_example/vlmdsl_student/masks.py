"""A mask rule: one run of neighbouring tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vlmdsl

if TYPE_CHECKING:
    import numpy as np


@vlmdsl.primitive(kind="mask", formula=r"M_i = \{ k_0, \ldots, k_0 + n \}")
def one_run(selectable: np.ndarray, random: np.random.Generator, *, share: float = 0.15) -> np.ndarray:
    """One run of neighbouring tokens, of the share of them, that begins anywhere."""
    places = selectable.nonzero()[0]
    length = max(round(share * len(places)), 1)
    start = random.integers(max(len(places) - length + 1, 1))
    selected = selectable & False
    selected[places[start : start + length]] = True
    return selected
