"""Random draws as a function of what they are for: no global state, so processes, workers and resumes agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from vlmdsl.ir import Node

__all__ = ["generator", "step_draws"]

_DISTRIBUTIONS: dict[str, Callable[..., float]] = {
    "beta": np.random.Generator.beta,
    "uniform": np.random.Generator.uniform,
}


def generator(*purpose: int | str) -> np.random.Generator:
    """A counter-based generator keyed by `purpose`, such as (seed, epoch, sample key, view).

    >>> float(generator(0, "order").random()) == float(generator(0, "order").random())
    True
    """
    # JSON keeps (1, "2") and ("1", 2) apart, and refuses numpy integers, whose text is not that of an int.
    digest = hashlib.blake2b(json.dumps(purpose).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def step_draws(draws: Iterable[Node], seed: int, step: int) -> dict[str, Tensor]:
    """The numbers drawn for `step`, by name: 0-d, float32, the same on every process and after a resume.

    `draws` are the `draw` nodes of a program (`ir.draws`).
    """
    found = {}
    for node in draws:
        arguments = node.attribute("arguments")
        assert isinstance(arguments, tuple)
        random = generator(seed, "draw", step, node.string("name"))
        found[node.string("name")] = torch.tensor(_DISTRIBUTIONS[node.string("distribution")](random, *arguments)).float()
    return found
