"""Reads the logits and the targets of a cross-entropy into the pieces of the canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from vlmdsl.ir import Node
from vlmdsl.ir.operations.matrices import EXCLUDE
from vlmdsl.ir.operations.scalars import MULTIPLY, NEGATE
from vlmdsl.ir.operations.targets import PAIRED, SAME, SMOOTH
from vlmdsl.passes.linear import expand, scalar_factor
from vlmdsl.passes.rewriting import Maker, constant_value
from vlmdsl.types import ScalarType, SimType

__all__ = ["Logits", "TargetKey", "has_canonical_form", "logits_of", "target_form"]

Factor = tuple[Fraction, tuple[Node, ...]]
"""A rational number times scalar nodes."""


@dataclass(frozen=True, slots=True)
class Logits:
    """Logits as `scale * base + bias`, some candidates excluded, read along `rows` or `columns` of the base matrix."""

    base: Node
    along: str
    scale: Factor
    bias: tuple[Factor, ...]
    excluded: tuple[Node, ...]

    def scale_node(self, maker: Maker, moved: Mapping[int, Node]) -> Node | None:
        return _product(maker, moved, self.scale) if self.scale[1] or self.scale[0] != 1 else None

    def bias_node(self, maker: Maker, moved: Mapping[int, Node]) -> Node | None:
        total: Node | None = None
        for factor in self.bias:
            product = _product(maker, moved, factor)
            total = product if total is None else maker.add("add", total, product)
        return total

    def keep_node(self, maker: Maker, moved: Mapping[int, Node]) -> Node | None:
        """The condition under which a sample is a candidate: none of `excluded` holds."""
        if not self.excluded:
            return None
        kept: Node | None = None
        for condition in self.excluded:
            holds = maker.add("not", moved[condition.index])
            kept = holds if kept is None else maker.add("and", kept, holds)
        return kept


def _product(maker: Maker, moved: Mapping[int, Node], factor: Factor) -> Node:
    node = maker.constant(float(factor[0]))
    for scalar in factor[1]:
        node = maker.add("multiply", node, moved[scalar.index])
    return node


def logits_of(cross_entropy: Node) -> Logits:
    """Peels scales, biases and exclusions off the matrix of a `cross_entropy` node; `share` has moved transposes out."""
    node = cross_entropy.inputs[0]
    scale: Factor = (Fraction(1), ())
    bias: list[Factor] = []
    excluded: set[Node] = set()
    while True:
        operation = node.operation
        if operation is EXCLUDE:
            excluded.add(node.inputs[1])
        elif operation is NEGATE:
            scale = (-scale[0], scale[1])
        elif operation is MULTIPLY and _by_scalar(node):
            scale = _times(scale, node.inputs[1])
        elif operation.signs and _by_scalar(node):
            bias.append(_times((operation.signs[1] * scale[0], scale[1]), node.inputs[1]))
        else:
            break
        node = node.inputs[0]
    bias.sort(key=lambda factor: [scalar.index for scalar in factor[1]])
    return Logits(
        node,
        cross_entropy.string("along"),
        scale,
        tuple(bias),
        tuple(sorted(excluded, key=lambda condition: condition.index)),
    )


def has_canonical_form(cross_entropy: Node) -> bool:
    """Whether it has the canonical form: one square matrix in which every pair is a candidate."""
    base = logits_of(cross_entropy).base
    return base.type == SimType() and not _excludes(base)


def _excludes(matrix: Node) -> bool:
    """Whether any part of a matrix leaves candidates out, as `exclude(a, c)` does in `add(exclude(a, c), b)`."""
    made_of, seen = [matrix], {matrix}
    while made_of:
        node = made_of.pop()
        if node.operation.excludes:
            return True
        parts = {parent for parent in node.inputs if isinstance(parent.type, SimType)} - seen
        seen |= parts
        made_of.extend(parts)
    return False


def _by_scalar(node: Node) -> bool:
    return isinstance(node.inputs[0].type, SimType) and isinstance(node.inputs[1].type, ScalarType)


def _times(factor: Factor, scalar: Node) -> Factor:
    number, rest = scalar_factor(scalar)
    scalars = factor[1] if rest is None else tuple(sorted((*factor[1], rest), key=lambda node: node.index))
    return factor[0] * number, scalars


@dataclass(frozen=True, slots=True)
class TargetKey:
    """A kind of target with its input, see `ir.TargetPart`."""

    kind: Literal["paired", "same", "uniform", "others", "dense"]
    node: Node | None = None
    missing: int = -1


def target_form(target: Node) -> dict[TargetKey, Fraction]:
    """A target as a linear combination of the kinds that have a cheap form; what has none is `dense`.

    A mixture with shares that change from step to step is one dense target, so that each part of a form sums to 1.
    """
    whole = [(target, "", Fraction(1))]
    leaves = expand(target, "", _target_steps) or whole
    if any(node.operation is MULTIPLY for node, _, _ in leaves):
        leaves = whole
    form: dict[TargetKey, Fraction] = {}
    for node, smoothing, coefficient in leaves:
        key = _target_key(node, smoothing)
        form[key] = form.get(key, Fraction(0)) + coefficient
    return form


def _target_steps(node: Node, smoothing: str) -> list[tuple[Node, str, Fraction]] | None:
    if smoothing:
        return None
    if node.operation is SMOOTH and node.attribute("epsilon") is not None:
        epsilon = Fraction(node.number("epsilon"))
        return [(node.inputs[0], "", 1 - epsilon), (node, node.string("over"), epsilon)]
    if node.operation is MULTIPLY:
        value = constant_value(node.inputs[1])
        return None if value is None else [(node.inputs[0], "", Fraction(value))]
    signs = node.operation.signs
    if not signs or not all(parent.type == node.type for parent in node.inputs):
        return None
    return [(parent, "", Fraction(sign)) for parent, sign in zip(node.inputs, signs, strict=True)]


def _target_key(node: Node, smoothing: str) -> TargetKey:
    if smoothing:
        return TargetKey("uniform" if smoothing == "all" else "others")
    if node.operation is PAIRED:
        return TargetKey("paired")
    if node.operation is SAME and len(node.inputs) == 1:
        missing = node.attribute("missing")
        assert isinstance(missing, int)
        return TargetKey("same", node.inputs[0], missing)
    return TargetKey("dense", node)
