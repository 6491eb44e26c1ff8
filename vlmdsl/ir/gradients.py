"""How gradients flow in a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vlmdsl.ir.encoders import encoder_of
from vlmdsl.ir.node import Node
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import APPLY, use_of

__all__ = ["learns"]


def learns(roots: Iterable[Node], reached: Callable[[Node], Iterable[Node]] = lambda node: node.operands) -> bool:
    """Whether a gradient of one of `roots` reaches a learning encoder, a learned parameter, or a number from the caller.

    `reached(node)` are the inputs of a node that its gradient reaches.
    """
    stack, seen = list(roots), set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or node.operation.stops_gradient:
            continue
        seen.add(node)
        applied = node.operation is APPLY and use_of(node).gradient
        if node.operation.learned or applied or (node.operation is ENCODE and encoder_of(node).learns):
            return True
        stack.extend(reached(node))
    return False
