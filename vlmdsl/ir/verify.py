"""The verifier: the invariants of the graph, checked between passes.

A violation is a fault of the compiler, never of the recipe.
"""

from __future__ import annotations

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations import SIGNATURES, BrokenError, need
from vlmdsl.ir.program import NAMED, Program
from vlmdsl.ir.updates import faults_of_updates
from vlmdsl.types import LossType, ScalarType

__all__ = ["InternalError", "check_node", "verify"]


class InternalError(Exception):
    """A fault of the compiler itself: the stage that broke an invariant, the node and what is wrong with it."""

    def __init__(self, stage: str, node: Node | None, reason: str) -> None:
        self.stage, self.node, self.reason = stage, node, reason
        place = "" if node is None else f" at {node!r}"
        super().__init__(f"internal error after {stage}{place}: {reason}")


def _check(node: Node) -> None:
    signature = SIGNATURES.get(node.operation)
    if signature is None:
        raise BrokenError(f"{node.operation!r} is no operation")
    names = {name for name, _ in node.attributes}
    wanted_names = set(signature.attributes)
    complete = wanted_names - signature.optional <= names <= wanted_names
    need(complete, f"has the attributes {sorted(names)}, wants {sorted(signature.attributes)}")
    for name, value in node.attributes:
        need(isinstance(value, signature.attributes[name]), f"{name} is {value!r}")
    wanted = signature.yields(node, tuple(parent.type for parent in node.inputs))
    need(wanted is None or node.type == wanted, f"has the type {node.type}, wants {wanted}")


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
        if node.operation in NAMED:
            if node.string("name") in names:
                raise InternalError(stage, node, f"the {node.operation} name {node.string('name')!r} is taken")
            names.add(node.string("name"))
    for term in program.terms:
        if not isinstance(term.node.type, LossType | ScalarType):
            raise InternalError(stage, term.node, f"the term {term.name} is no loss")
    for node, reason in faults_of_updates(program):
        raise InternalError(stage, node, reason)
    for metric in program.metrics:
        if not isinstance(metric.node.type, ScalarType):
            raise InternalError(stage, metric.node, f"the metric {metric.name} is no scalar")
