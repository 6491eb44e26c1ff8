"""What the tokens of a text attend to, as values that are sliced along the samples."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["ContextMask", "ContextStates"]


class ContextStates(NamedTuple):
    """The last states of the context of a text: `states [b, K, C]`."""

    states: Tensor


class ContextMask(NamedTuple):
    """Which of the states of a context are real: `real [b, K]`."""

    real: Tensor
