"""Random draws as a function of their purpose: no global state, so processes, workers and resumed runs agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor

from vlmdsl.ir import Node

__all__ = ["generator", "sample_draws", "step_draws"]

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
    return np.random.Generator(np.random.Philox(_Key(digest)))  # type: ignore[arg-type]  # its stub knows fewer seeds


class _Key(ISeedSequence):
    """The key of a Philox generator. `Philox(key=...)` has the same one, but asks the system for entropy first and then does
    not use it, which takes ten times as long as all the rest."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The 128 bits of the key as two words."""
        return np.frombuffer(self._digest, "<u8").astype(np.uint64)


def step_draws(draws: Iterable[Node], seed: int, step: int) -> dict[str, Tensor]:
    """The numbers drawn for `step`, by name: 0-d, float32, the same on every process and after a resume.

    `draws` are the `draw` nodes of a program (`ir.draws`); those of each sample are left to `sample_draws`.
    """
    drawn = {}
    for node in (node for node in draws if "count" not in dict(node.attributes)):
        arguments = node.attribute("arguments")
        assert isinstance(arguments, tuple)
        random = generator(seed, "draw", step, node.string("name"))
        drawn[node.string("name")] = torch.tensor(_DISTRIBUTIONS[node.string("distribution")](random, *arguments)).float()
    return drawn


def sample_draws(draws: Iterable[Node], seed: int, epoch: int, keys: Sequence[str]) -> dict[str, Tensor]:
    """The numbers that each of `keys`' samples draws in `epoch`, by name: [b], or [b, K] where there are several; float32.

    `draws` are the `draw` nodes of a program (`ir.draws`); those of the step are left to `step_draws`.
    """
    draws_of_samples = {}
    for node in (node for node in draws if "count" in dict(node.attributes)):
        name, count = node.string("name"), int(node.number("count"))
        rows = [generator(seed, "sample", epoch, key, name).random(count) for key in keys]
        numbers = torch.from_numpy(np.stack(rows)).float()
        draws_of_samples[name] = numbers[:, 0] if count == 1 else numbers
    return draws_of_samples
