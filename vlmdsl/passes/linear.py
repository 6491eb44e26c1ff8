"""Linear forms: an expression as a sum of products `coefficient * scalars * weights * atom`.

Coefficients are rational, so a form does not depend on the order in which a recipe adds and scales.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from vlmdsl.ir import Node
from vlmdsl.ir.operations.reductions import CROSS_ENTROPY, MEAN
from vlmdsl.ir.operations.scalars import MULTIPLY, NEGATE
from vlmdsl.passes.rewriting import constant_value
from vlmdsl.types import LossType, ScalarType, ScoreType

__all__ = ["MAXIMUM_SUMMANDS", "Factors", "expand", "loss_form", "reaching", "scalar_factor"]

MAXIMUM_SUMMANDS = 10_000
"""A form with more summands than this is not expanded."""

Key = TypeVar("Key", bound=Hashable)


def expand(
    root: Node, start: Key, steps: Callable[[Node, Key], list[tuple[Node, Key, Fraction]] | None]
) -> list[tuple[Node, Key, Fraction]] | None:
    """The leaves of a linear expression with their coefficients, in the order of their nodes.

    `steps(node, key)` gives what a node is made of, or None for a leaf; equal (node, key) meet before they are expanded, so
    shared parts cost nothing. None if there are more than MAXIMUM_SUMMANDS.
    """
    waiting: dict[int, tuple[Node, dict[Key, Fraction]]] = {root.index: (root, {start: Fraction(1)})}
    queue = [-root.index]
    leaves: list[tuple[Node, Key, Fraction]] = []
    work = 0
    while queue:
        node, coefficients = waiting.pop(-heapq.heappop(queue))
        for key, coefficient in coefficients.items():
            parts = steps(node, key)
            work += 1 if parts is None else len(parts)
            if work > MAXIMUM_SUMMANDS:
                return None
            if parts is None:
                leaves.append((node, key, coefficient))
                continue
            for part, part_key, factor in parts:
                if part.index not in waiting:
                    waiting[part.index] = (part, {})
                    heapq.heappush(queue, -part.index)
                summed = waiting[part.index][1]
                summed[part_key] = summed.get(part_key, Fraction(0)) + coefficient * factor
    return sorted((leaf for leaf in leaves if leaf[2] != 0), key=lambda leaf: leaf[0].index)


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of an atom besides its coefficient, and the condition of its mean."""

    scalars: tuple[Node, ...] = ()
    weights: tuple[Node, ...] = ()
    over: Node | None = None

    def times(self, factor: Node) -> Factors:
        if isinstance(factor.type, ScalarType):
            return Factors(_sorted(*self.scalars, factor), self.weights, self.over)
        return Factors(self.scalars, _sorted(*self.weights, factor), self.over)


def _sorted(*nodes: Node) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=lambda node: node.index))


def scalar_factor(node: Node) -> tuple[Fraction, Node | None]:
    """A factor as a rational number times what is not constant (None: nothing is)."""
    value = constant_value(node)
    if value is not None and math.isfinite(value):
        return Fraction(value), None
    if node.operation is NEGATE and isinstance(node.type, ScalarType):
        return Fraction(-1), node.inputs[0]
    if node.operation is MULTIPLY and isinstance(node.type, ScalarType):
        value = constant_value(node.inputs[1])
        if value is not None and math.isfinite(value):
            return Fraction(value), node.inputs[0]
    return Fraction(1), node


def reaching(nodes: Iterable[Node], is_atom: Callable[[Node], bool]) -> set[Node]:
    """The losses and scores that are linear in a cross-entropy that `is_atom` accepts; `nodes` come inputs first.

    A weight that is itself made of cross-entropies (a focal loss) is not a plain weight: those would be computed twice.
    """
    linear: set[Node] = set()
    touched: set[Node] = set()
    for node in nodes:
        accepted = node.operation is CROSS_ENTROPY and is_atom(node)
        if accepted or not touched.isdisjoint(node.inputs):
            touched.add(node)
        if accepted or (isinstance(node.type, LossType | ScoreType) and _is_linear(node, linear, touched)):
            linear.add(node)
    return linear


def _is_linear(node: Node, linear: set[Node], touched: set[Node]) -> bool:
    reached = [parent for parent in node.inputs if parent in linear]
    if node.operation is MEAN:
        return node.inputs[0] in linear
    if node.operation.signs:
        # A scalar added to scores has no separate mean, so such a sum is not expanded.
        return bool(reached) and (isinstance(node.type, LossType) or all(p.type == node.type for p in node.inputs))
    return node.operation is MULTIPLY and len(reached) == 1 and sum(p in touched for p in node.inputs) == 1


def loss_form(root: Node, linear: set[Node]) -> list[tuple[Node, Factors, Fraction]] | None:
    """A loss as atoms with their factors: cross-entropies, and whatever else is added to them."""

    def steps(node: Node, factors: Factors) -> list[tuple[Node, Factors, Fraction]] | None:
        if node not in linear or node.operation is CROSS_ENTROPY:
            return None
        if node.operation is MEAN:
            over = node.inputs[1] if len(node.inputs) == 2 else None
            return [(node.inputs[0], Factors(factors.scalars, (), over), Fraction(1))]
        if node.operation is MULTIPLY:
            inner, factor = sorted(node.inputs, key=lambda parent: parent not in linear)
            number, rest = scalar_factor(factor)
            return [(inner, factors if rest is None else factors.times(rest), number)]
        signs = node.operation.signs
        return [(parent, factors, Fraction(sign)) for parent, sign in zip(node.inputs, signs, strict=True)]

    return expand(root, Factors(), steps)
