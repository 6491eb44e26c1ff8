"""Tables of local rewrites, and the engine that applies them bottom up until none fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmdsl.ir import Graph, Node, Program, walk
from vlmdsl.ir.graph import Attribute, infer
from vlmdsl.ir.operation import Operation, operation_named
from vlmdsl.ir.operations.scalars import CONSTANT
from vlmdsl.source import Span
from vlmdsl.types import Type

__all__ = ["Candidate", "Maker", "Rule", "constant_value", "rewrite"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node about to be made, over inputs that are already rewritten."""

    operation: Operation
    inputs: tuple[Node, ...]
    type: Type
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite: `apply` returns the node that replaces the candidate, or None if it does not apply.

    `law` states the equality for readers. An exact rule keeps every bit of value and gradient (for finite values);
    the others keep them up to rounding.
    """

    name: str
    operations: tuple[str, ...]
    law: str
    apply: Callable[[Maker, Candidate], Node | None]
    exact: bool = True


def constant_value(node: Node) -> float | None:
    """The number of a `constant` node; None for any other."""
    return node.number("value") if node.operation is CONSTANT else None


class Maker:
    """Adds nodes to a new graph, each rewritten as far as the rules go; the results of rules are rewritten again."""

    def __init__(self, graph: Graph, rules: Sequence[Rule]) -> None:
        self.graph = graph
        self.spans: tuple[Span, ...] = ()
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            for operation in rule.operations:
                self._rules.setdefault(operation, []).append(rule)

    def add(self, operation: str, *inputs: Node, **attributes: Attribute) -> Node:
        """Add a node, rewritten by the rules."""
        return self._make(operation_named(operation), inputs, attributes)

    def copy(self, node: Node | Candidate, *inputs: Node, **changed: Attribute) -> Node:
        """The node of the same operation on other inputs, with its attributes but for those that are `changed`, or what the
        rules make of it.

        Its type may change: a loss times 0 has become the Scalar 0, and what it is part of may now be a Scalar as well.
        """
        declared = node.type if node.operation.declares_type else None
        return self._make(node.operation, inputs, {**dict(node.attributes), **changed}, declared)

    def _make(
        self, operation: Operation, inputs: tuple[Node, ...], attributes: dict[str, Attribute], declared: Type | None = None
    ) -> Node:
        rules = self._rules.get(operation, ())
        if rules:
            kind = declared or infer(operation, inputs, tuple(attributes.items()))
            candidate = Candidate(operation, inputs, kind, attributes)
            for rule in rules:
                rewritten = rule.apply(self, candidate)
                if rewritten is not None:
                    return rewritten
        return self.graph.add(operation, *inputs, type=declared, span=self.spans, **attributes)

    def constant(self, value: float) -> Node:
        return self.add(CONSTANT, value=float(value))


def rewrite(program: Program, rules: Sequence[Rule]) -> Program:
    """The program with every rule of the table applied wherever it fits."""
    maker = Maker(Graph(), rules)
    moved: dict[int, Node] = {}
    for node in walk(program.roots()):
        maker.spans = program.graph.spans_of(node)
        inputs = tuple(moved[parent.index] for parent in node.inputs)
        rewritten = maker.copy(node, *inputs)
        maker.graph.answer_for(rewritten, maker.spans)
        moved[node.index] = rewritten
    return program.mapped(maker.graph, moved)
