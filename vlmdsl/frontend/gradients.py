"""Where a gradient can reach, and which values are zero whatever the data: what an objective could teach at all."""

from __future__ import annotations

from collections.abc import Iterable

from vlmdsl.ir import Node, encoder_of, walk

__all__ = ["learns", "zeros"]

_NO_GRADIENT = frozenset(
    {
        "stop",
        "less",
        "less_equal",
        "greater",
        "greater_equal",
        "equal",
        "not_equal",
        "not",
        "same",
        "running_mean",
        "nearest",
    }
    | {"memory", "reference", "retrieve", "take", "state", "samples", "constant", "draw", "field"}
)
"""Operations that pass no gradient on."""
_OF_THE_FIRST = frozenset({"mean", "exclude"})
"""Operations whose further inputs are conditions."""
_ZERO_OF_ZERO = frozenset({"negate", "stop", "mean", "transpose", "reuse", "exclude", "exclude_pairs", "add", "subtract"})
"""Operations that are zero where all their inputs are, conditions apart."""


def zeros(roots: Iterable[Node]) -> set[Node]:
    """The nodes below `roots` that are zero for any data: 0, what is multiplied by it, and sums and means of such."""
    found: set[Node] = set()
    for node in walk(roots):
        values = node.inputs[:1] if node.operation in _OF_THE_FIRST else node.inputs
        if node.operation == "constant":
            is_zero = node.number("value") == 0.0
        elif node.operation in ("multiply", "gate"):
            is_zero = any(value in found for value in values)
        elif node.operation == "divide":
            is_zero = values[0] in found
        elif node.operation == "subtract" and node.inputs[0] is node.inputs[1]:
            is_zero = True
        elif node.operation == "where":
            is_zero = all(value in found for value in node.inputs[1:])
        else:
            is_zero = node.operation in _ZERO_OF_ZERO and all(value in found for value in values)
        if is_zero:
            found.add(node)
    return found


def learns(roots: Iterable[Node], zero: set[Node]) -> bool:
    """Whether a gradient of one of `roots` reaches a tower, a learned number, or a number that comes from outside."""
    stack, seen = [root for root in roots if root not in zero], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or node.operation in _NO_GRADIENT:
            continue
        seen.add(node)
        if node.operation in ("parameter", "scalar") or (node.operation == "encode" and encoder_of(node).learns):
            return True
        stack.extend(_reached(node, zero))
    return False


def _reached(node: Node, zero: set[Node]) -> Iterable[Node]:
    """The inputs that a gradient goes on to: of a product only those whose other factor is not zero."""
    if node.operation == "multiply":
        left, right = node.inputs
        return [own for own, other in ((left, right), (right, left)) if other not in zero]
    if node.operation == "gate":
        return node.inputs if node.inputs[1] not in zero else node.inputs[1:]
    if node.operation == "divide" and node.inputs[0] in zero:
        return node.inputs[:1]
    if node.operation == "where":
        return node.inputs[1:]
    if node.operation == "clamp" and node.attribute("lower") == node.attribute("upper"):
        return ()
    return node.inputs[:1] if node.operation in _OF_THE_FIRST else node.inputs
