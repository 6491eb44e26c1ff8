"""The features that several operations compare with: each is gathered from all processes once, for all of them."""

from __future__ import annotations

from collections import Counter

from vlmdsl.ir import Node, Program
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import SIMILARITY
from vlmdsl.ir.operations.state import MEMORY
from vlmdsl.passes.fuse import contrast_of

__all__ = ["gathered_by", "gathered_once"]


def gathered_by(node: Node) -> Node | None:
    """The features that an operation needs from all processes: those of its columns; None if there are none."""
    gathers = node.operation is SIMILARITY or (node.operation is CONTRAST and contrast_of(node).fused)
    return node.inputs[1] if gathers and node.inputs[1].operation is not MEMORY else None


def gathered_once(program: Program) -> frozenset[Node]:
    """The features that more than one operation gathers."""
    counts = Counter(features for node in program.nodes() if (features := gathered_by(node)) is not None)
    return frozenset(features for features, count in counts.items() if count > 1)
