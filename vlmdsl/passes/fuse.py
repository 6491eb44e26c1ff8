"""Moves a matrix product into its only reader: a region, or a search of neighbours."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

from vlmdsl.ir import Contrast, Direction, Graph, Node, Program
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import SIMILARITY
from vlmdsl.ir.operations.state import NEAREST
from vlmdsl.types import VecType

__all__ = ["contrast_of", "fuse"]


def contrast_of(node: Node) -> Contrast:
    """The canonical form that a `contrast` node carries."""
    attribute = node.attribute("contrast")
    assert isinstance(attribute, Contrast)
    return attribute


def fuse(program: Program) -> Program:
    """The program with `dot` similarities that only one region, or one search of neighbours, reads moved into that."""
    nodes = program.nodes()
    uses = Counter(parent for node in nodes for parent in node.inputs)

    def rule(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        if node.operation not in (CONTRAST, NEAREST):
            return None
        matrix = node.inputs[0]
        if not _is_product(matrix) or uses[matrix] > 1:
            return None
        if node.operation is NEAREST:
            return graph.add("nearest", inputs[0].inputs[0], *inputs[1:])
        contrast = contrast_of(node)
        rows, columns = _shifted(contrast.rows), _shifted(contrast.columns)
        fused = Contrast(fused=True, rows=rows, columns=columns)
        return graph.add("contrast", *inputs[0].inputs, *inputs[1:], contrast=fused)

    return program.mapped(*program.graph.rebuild(program.roots(), rule))


def _is_product(node: Node) -> bool:
    return node.operation is SIMILARITY and node.string("by") == "dot" and isinstance(node.inputs[0].type, VecType)


def _shifted(direction: Direction | None) -> Direction | None:
    """The direction with every input shifted by one position: two features replace the matrix."""
    if direction is None:
        return None
    positions = {
        field.name: getattr(direction, field.name) + 1
        for field in fields(direction)
        if field.name in ("scale", "bias", "weight", "over", "keep") and getattr(direction, field.name) is not None
    }
    targets = tuple(part if part.input is None else replace(part, input=part.input + 1) for part in direction.targets)
    return replace(direction, targets=targets, **positions)
