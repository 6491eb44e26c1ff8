"""Tables of local rewrites and the machine that applies them, bottom up, until none fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmdsl.ir import Graph, Node, Program, walk
from vlmdsl.ir.graph import Attribute
from vlmdsl.ir.operations import ELEMENTWISE, broadcast
from vlmdsl.source import Span
from vlmdsl.types import ScalarType, Type

__all__ = ["Candidate", "Maker", "Rule", "constant_value", "rewrite"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node about to be made, over inputs that are already rewritten."""

    operation: str
    inputs: tuple[Node, ...]
    type: Type
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite: `apply` gives the node to make instead of the candidate, or None where it does not fit.

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
    return node.number("value") if node.operation == "constant" else None


class Maker:
    """Adds nodes to a new graph, each rewritten as far as the rules go; what a rule makes goes through it again."""

    def __init__(self, graph: Graph, rules: Sequence[Rule]) -> None:
        self.graph = graph
        self.spans: tuple[Span, ...] = ()
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            for operation in rule.operations:
                self._rules.setdefault(operation, []).append(rule)

    def add(self, operation: str, *inputs: Node, type: Type, **attributes: Attribute) -> Node:
        if operation in ELEMENTWISE:
            # A loss times 0 has become the Scalar 0, and what it is part of may now be a Scalar as well.
            type = broadcast(tuple(node.type for node in inputs)) or type
        candidate = Candidate(operation, inputs, type, attributes)
        for rule in self._rules.get(operation, ()):
            made = rule.apply(self, candidate)
            if made is not None:
                return made
        return self.graph.add(operation, *inputs, type=type, span=self.spans, **attributes)

    def constant(self, value: float) -> Node:
        return self.add("constant", type=ScalarType(), value=float(value))

    def elementwise(self, operation: str, *inputs: Node) -> Node:
        """An arithmetic node; its type follows from the inputs."""
        return self.add(operation, *inputs, type=inputs[0].type)


def rewrite(program: Program, rules: Sequence[Rule]) -> Program:
    """The program with every rule of the table applied wherever it fits."""
    maker = Maker(Graph(), rules)
    moved: dict[int, Node] = {}
    for node in walk(program.roots()):
        maker.spans = program.graph.spans_of(node)
        inputs = tuple(moved[parent.index] for parent in node.inputs)
        made = maker.add(node.operation, *inputs, type=node.type, **dict(node.attributes))
        maker.graph.answer_for(made, maker.spans)
        moved[node.index] = made
    return program.mapped(maker.graph, moved)
