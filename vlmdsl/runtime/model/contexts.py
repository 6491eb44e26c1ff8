"""What the tokens of a text attend to, as values that are sliced along the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vlmdsl.ir import Node, encoder_of
from vlmdsl.ir.modules import PoolerSettings
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.runtime.modules.towers import Encoder

__all__ = ["ContextMask", "ContextStates", "context_width"]


class ContextStates(NamedTuple):
    """The last states of the context of a text: `states [b, K, C]`."""

    states: Tensor


class ContextMask(NamedTuple):
    """Which of the states of a context are real: `real [b, K]`."""

    real: Tensor


def context_width(context: Node, tower: Callable[[str], Encoder]) -> int:
    """The length of the vectors of a context: the last states of a `tower`, or what a pooler gives of them."""
    below = context.inputs[0]
    while below.operation not in (ENCODE, APPLY):
        below = below.inputs[0]
    if below.operation is ENCODE:
        return tower(encoder_of(below).tower).states_width
    settings = use_of(below).module.settings
    assert isinstance(settings, PoolerSettings)
    return settings.width or context_width(below.inputs[0], tower)
