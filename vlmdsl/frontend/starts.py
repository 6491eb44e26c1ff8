"""The values of numbers before the first step, from constants and initial values of learned parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vlmdsl.ir import Node, Ramp
from vlmdsl.ir.operations.scalars import CLAMP, CONSTANT, PARAMETER, RAMP

__all__ = ["start_value"]


def start_value(node: Node, inputs: Sequence[float | None]) -> float | None:
    """The initial value of a node, from those of its inputs; None if unknown."""
    if node.operation in _LEAVES:
        return _LEAVES[node.operation](node)
    starts = [value for value in inputs if value is not None]
    if not starts or len(starts) < len(inputs):
        return None
    if node.operation is CLAMP:
        lower, upper = node.attribute("lower"), node.attribute("upper")
        least = lower if isinstance(lower, int | float) else -math.inf
        most = upper if isinstance(upper, int | float) else math.inf
        return min(max(starts[0], least), most)
    rule = node.operation.number
    try:
        return None if rule is None else rule(*starts)
    except (ValueError, ArithmeticError):
        return None


def _least(node: Node) -> float:
    """The minimum of a schedule: a temperature that is positive there is always positive."""
    ramp = node.attribute("ramp")
    assert isinstance(ramp, Ramp)
    return min(ramp.start, ramp.end)


_LEAVES: dict[str, Callable[[Node], float]] = {
    CONSTANT: lambda node: node.number("value"),
    PARAMETER: lambda node: node.number("initial"),
    RAMP: _least,
}
