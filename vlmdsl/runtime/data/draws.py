"""Random draws as a function of what they are for: no global state, so processes, workers and resumes agree."""

from __future__ import annotations

import hashlib
import json

import numpy as np

__all__ = ["generator"]


def generator(*purpose: int | str) -> np.random.Generator:
    """A counter-based generator keyed by `purpose`, such as (seed, epoch, sample key, view).

    >>> float(generator(0, "order").random()) == float(generator(0, "order").random())
    True
    """
    # JSON keeps (1, "2") and ("1", 2) apart, and refuses numpy integers, whose text is not that of an int.
    digest = hashlib.blake2b(json.dumps(purpose).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
