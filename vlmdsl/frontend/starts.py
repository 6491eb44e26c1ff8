"""What numbers are before the first step, as far as constants and the starts of learned numbers tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vlmdsl.ir import Node

__all__ = ["start_value"]

_ARITHMETIC: dict[str, Callable[..., float]] = {
    "negate": lambda x: -x,
    "exp": math.exp,
    "log": math.log,
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "stop": lambda x: x,
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "minimum": min,
    "maximum": max,
}


def start_value(node: Node, inputs: Sequence[float | None]) -> float | None:
    """The number that a node is at the start, given those that its inputs are; None where that is not known."""
    if node.operation == "constant":
        return node.number("value")
    if node.operation == "parameter":
        return node.number("initial")
    known = [value for value in inputs if value is not None]
    if not known or len(known) < len(inputs):
        return None
    if node.operation == "clamp":
        lower, upper = node.attribute("lower"), node.attribute("upper")
        least = lower if isinstance(lower, int | float) else -math.inf
        most = upper if isinstance(upper, int | float) else math.inf
        return min(max(known[0], least), most)
    rule = _ARITHMETIC.get(node.operation)
    try:
        return None if rule is None else rule(*known)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
