"""Samples that are excluded everywhere are set to zero before anything is computed with them, so that they cannot change a
gradient.

A matrix product spreads NaN: 0 times NaN is NaN. So features and numbers of samples that no term reads (`relevance`) are
replaced where they enter. A program without exclusions is unchanged.
"""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Graph, Node, Program, Term, is_condition
from vlmdsl.ir.operations.scalars import RETAIN
from vlmdsl.passes.relevance import ALL, NONE, Relevance, Samples, relevant_samples
from vlmdsl.types import ConditionType, ScoreType, TokensType, VecType, as_value

__all__ = ["retain"]


def retain(program: Program) -> Program:
    """The program with `retain` nodes where some samples enter that matter to no term; idempotent."""
    program = _renumbered(_without(program))
    relevant = relevant_samples(program)
    if not any(_needs(node, relevant) for node in relevant):
        return program
    return _Retainer(program, relevant).program()


def _without(program: Program) -> Program:
    """The program without such nodes: they are added again."""

    def rule(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        return inputs[0] if node.operation is RETAIN else None

    if not any(node.operation is RETAIN for node in program.nodes()):
        return program
    return program.mapped(*program.graph.rebuild(program.roots(), rule))


def _renumbered(program: Program) -> Program:
    """The program whose nodes are numbered by its structure alone, not by the nodes that it once had: conditions are joined
    in the order of their numbers."""
    return program.mapped(*program.graph.rebuild(program.roots(), lambda _graph, _node, _inputs: None))


def _needs(node: Node, relevant: dict[Node, Relevance]) -> bool:
    entering = node.operation.enters and isinstance(as_value(node.type), VecType | TokensType | ScoreType)
    return entering and relevant.get(node, ALL) not in (ALL, NONE)


class _Retainer:
    """Copies a program. Each node has two copies: one over what enters as it is, for conditions, updates and metrics, and
    one for the terms over what is retained; they are one node where nothing is left out."""

    def __init__(self, program: Program, relevant: dict[Node, Relevance]) -> None:
        self._program = program
        self._relevant = relevant
        self._graph = Graph()
        self._whole: dict[Node, Node] = {}
        self._retained: dict[Node, Node] = {}

    def program(self) -> Program:
        nodes = self._program.nodes()
        for node in nodes:
            self._whole[node] = self._copy(node, [self._whole[parent] for parent in node.inputs])
        for node in nodes:
            self._retained[node] = self._for_terms(node)
        mapped = self._program.mapped(self._graph, {node.index: copied for node, copied in self._whole.items()})
        return replace(mapped, terms=tuple(Term(term.name, self._retained[term.node]) for term in self._program.terms))

    def _copy(self, node: Node, inputs: list[Node]) -> Node:
        spans = self._program.graph.spans_of(node)
        return self._graph.copy(node, *inputs, span=spans)

    def _for_terms(self, node: Node) -> Node:
        if isinstance(node.type, ConditionType):
            return self._whole[node]
        inputs = [self._whole[parent] if is_condition(parent) else self._retained[parent] for parent in node.inputs]
        self._defined(node, inputs)
        copied = self._copy(node, inputs)
        samples = self._relevant.get(node, ALL)
        if not _needs(node, self._relevant) or not isinstance(samples, frozenset):
            return copied
        return self._only(copied, samples, value=0.0)

    def _defined(self, node: Node, inputs: list[Node]) -> None:
        """Logarithms and divisors are not defined for zeros: there excluded samples are 1."""
        samples = self._relevant.get(node, ALL)
        if not isinstance(node.type, ScoreType) or not isinstance(samples, frozenset) or samples in (ALL, NONE):
            return
        position = {"log": 0, "divide": 1}.get(node.operation)
        if position is not None and isinstance(as_value(inputs[position].type), ScoreType):
            inputs[position] = self._only(inputs[position], samples, value=1.0)

    def _only(self, node: Node, samples: Samples, value: float) -> Node:
        """The node, with `value` for all other samples."""
        clauses = sorted(samples, key=lambda clause: sorted((condition.index, holding) for condition, holding in clause))
        kept: Node | None = None
        for clause in clauses:
            together: Node | None = None
            for condition, holding in sorted(clause, key=lambda literal: (literal[0].index, literal[1])):
                literal_node = self._whole[condition]
                literal_node = literal_node if holding else self._graph.add("not", literal_node)
                together = literal_node if together is None else self._graph.add("and", together, literal_node)
            assert together is not None
            kept = together if kept is None else self._graph.add("or", kept, together)
        assert kept is not None
        return self._graph.add("retain", node, kept, value=value)
