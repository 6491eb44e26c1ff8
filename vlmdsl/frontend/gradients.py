"""Which values a gradient can reach and which are always zero: whether an objective can learn anything."""

from __future__ import annotations

from collections.abc import Iterable

from vlmdsl.ir import Node, learns, walk
from vlmdsl.ir.operations.encoding import GATE
from vlmdsl.ir.operations.scalars import CLAMP, CONSTANT, DIVIDE, MULTIPLY, SUBTRACT

__all__ = ["teaches", "zeros"]


def zeros(roots: Iterable[Node]) -> set[Node]:
    """The nodes below `roots` that are zero for any data: 0, its products, and sums and means of these."""
    zero: set[Node] = set()
    for node in walk(roots):
        values = node.operands
        if node.operation is CONSTANT:
            is_zero = node.number("value") == 0.0
        elif node.operation in (MULTIPLY, GATE):
            is_zero = any(value in zero for value in values)
        elif node.operation is DIVIDE:
            is_zero = values[0] in zero
        elif node.operation is SUBTRACT and node.inputs[0] is node.inputs[1]:
            is_zero = True
        else:
            is_zero = node.operation.keeps_zero and all(value in zero for value in values)
        if is_zero:
            zero.add(node)
    return zero


def teaches(roots: Iterable[Node], zero: set[Node]) -> bool:
    """Whether a gradient of one of `roots` reaches a tower, a learned parameter, or a number from the caller."""
    return learns((root for root in roots if root not in zero), lambda node: _reached(node, zero))


def _reached(node: Node, zero: set[Node]) -> Iterable[Node]:
    """The inputs that a gradient reaches: of a product only those whose other factor is not zero."""
    if node.operation is MULTIPLY:
        left, right = node.inputs
        return [own for own, other in ((left, right), (right, left)) if other not in zero]
    if node.operation is GATE:
        return node.inputs if node.inputs[1] not in zero else node.inputs[1:]
    if node.operation is DIVIDE and node.inputs[0] in zero:
        return node.inputs[:1]
    if node.operation is CLAMP and node.attribute("lower") == node.attribute("upper"):
        return ()
    return node.operands
