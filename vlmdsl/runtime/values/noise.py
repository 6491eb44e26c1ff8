"""Numbers that a tower draws in training, which come with the batch, so that the tower has no random state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from vlmdsl.runtime.draws import generator

__all__ = ["Noise", "gumbel_noise"]


class Noise(NamedTuple):
    """`numbers [b, N]`, float32: standard Gumbel noise of each sample."""

    numbers: Tensor


def gumbel_noise(seed: int, epoch: int, key: str, name: str, length: int) -> np.ndarray:
    """The N = `length` numbers of one sample for the value of this name, float32."""
    return generator(seed, "noise", epoch, key, name).gumbel(size=length).astype(np.float32)
