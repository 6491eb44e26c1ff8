"""The verifier: the invariants of the graph, checked between passes.

A violation is an internal error of the compiler, never an error of the recipe.
"""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import OPERATIONS, BrokenError, InternalError
from vlmdsl.ir.operations.rules import need
from vlmdsl.ir.program import Program
from vlmdsl.ir.updates import faults_of_updates
from vlmdsl.types import LossType, ScalarType

__all__ = ["InternalError", "check_node", "verify"]


def _check(node: Node) -> None:
    operation = node.operation
    if OPERATIONS.get(operation) is not operation:
        raise BrokenError(f"{operation!r} is not an operation")
    names = {name for name, _ in node.attributes}
    complete = operation.attributes.keys() - operation.defaults.keys() <= names <= operation.attributes.keys()
    need(complete, f"has the attributes {sorted(names)}, wants {sorted(operation.attributes)}")
    for name, value in node.attributes:
        need(isinstance(value, operation.attributes[name]), f"{name} is {value!r}")
    expected = operation.yields(node, tuple(parent.type for parent in node.inputs))
    need(node.type == expected, f"has the type {node.type}, wants {expected}")


def check_node(node: Node, stage: str = "the front end") -> None:
    """Check one node against the table; InternalError names `stage` and the node."""
    try:
        _check(node)
    except BrokenError as broken:
        raise InternalError(stage, node, str(broken)) from None


def verify(program: Program, stage: str = "the front end") -> None:
    """Check every live node and the program itself; InternalError names `stage`, the pass that ran last."""
    names: set[str] = set()
    for node in program.nodes():
        if node.index >= len(program.graph.nodes) or program.graph.nodes[node.index] is not node:
            raise InternalError(stage, node, "belongs to another graph")
        check_node(node, stage)
        if node.operation.named:
            if node.string("name") in names:
                raise InternalError(stage, node, f"the {node.operation} name {node.string('name')!r} is taken")
            names.add(node.string("name"))
    for term in program.terms:
        if not isinstance(term.node.type, LossType | ScalarType):
            raise InternalError(stage, term.node, f"the term {term.name} is not a loss")
    for node, reason in faults_of_updates(program):
        raise InternalError(stage, node, reason)
    for metric in program.metrics:
        if not isinstance(metric.node.type, ScalarType):
            raise InternalError(stage, metric.node, f"the metric {metric.name} is not a scalar")
