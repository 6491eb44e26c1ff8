"""Contrastive regions as mathematics: the mean of each direction, and functions for several similar regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vlmdsl.backends.latex.arithmetic import scaled
from vlmdsl.backends.latex.columns import Columns
from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import Math, bracketed, call, equation, negated, product, share_of, symbol, total
from vlmdsl.backends.latex.softmax import Block, part, softmax_loss
from vlmdsl.ir import Contrast, Direction, Node, Program
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import SIMILARITY
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.types import VecType

__all__ = ["Regions"]

_PLACEHOLDERS = ("p", "q")
_LONG = 16
"""A weight with more characters than this, as text, gets a letter."""


class Regions:
    """The regions of one program, and functions for those that differ only in their features."""

    def __init__(self, program: Program, writer: Writer) -> None:
        self._writer = writer
        self._weights: dict[Node, Math] = {}
        self._functions: dict[object, Math] = {}
        self._shapes = Counter(_shape(node) for node in program.nodes() if node.operation is CONTRAST)

    def contrast(self, node: Node) -> Math:
        """A region; regions that differ in their features only are values of one function."""
        return self.loss(node, self.share(node)) if self.is_function(node) else self._region(node, contrast_of(node))

    def loss(self, node: Node, factor: float = 1.0) -> Math:
        """A summand of a loss, `factor` times a function where it is a value of one."""
        if not self.is_function(node):
            return self._writer.expression(node)
        shape = _shape(node)
        if shape not in self._functions:
            self._functions[shape] = self._define_function(node, self.share(node))
        features = [self._writer.names.feature(parent, "") for parent in node.inputs[0].inputs]
        bare = [Math(feature.latex.removesuffix("_{}"), feature.text.removesuffix("_")) for feature in features]
        name = self._functions[shape]
        return product(share_of(factor), call(name.text, *bare, latex=name.latex))

    def share(self, node: Node) -> float:
        """What a summand of a loss is multiplied with where it is a value of a function that several regions use."""
        return _total_coefficient(contrast_of(node)) if self.is_function(node) else 1.0

    def is_function(self, node: Node) -> bool:
        """Whether a region is written as a value of a function that several regions use."""
        return node.operation is CONTRAST and _shape(node) is not None and self._shapes[_shape(node)] > 1

    def _define_function(self, node: Node, factor: float) -> Math:
        name = self._writer.names.next("functions")
        self._writer.names.placeholders = dict(zip(node.inputs[0].inputs, _PLACEHOLDERS, strict=True))
        contrast = contrast_of(node)
        unit = replace(contrast, rows=_divided(contrast.rows, factor), columns=_divided(contrast.columns, factor))
        body = self._region(node, unit)
        self._writer.names.placeholders = {}
        self._writer.names.state("functions", equation(call(name.text, *map(symbol, _PLACEHOLDERS), latex=name.latex), body))
        return name

    def _region(self, node: Node, contrast: Contrast) -> Math:
        rows, columns = contrast.rows, contrast.columns
        if rows is not None and columns is not None and _outside(rows) == _outside(columns):
            losses = self._per_sample(node, rows, "rows"), self._per_sample(node, columns, "columns")
            inner = bracketed(total(*(negated(loss) for loss in losses)), "[]", "[]")
            return self._direction(node, rows, negated(inner))
        parts = [
            self._direction(node, direction, self._per_sample(node, direction, side))
            for side, direction in (("rows", rows), ("columns", columns))
            if direction is not None
        ]
        return total(*parts)

    def _direction(self, node: Node, direction: Direction, body: Math) -> Math:
        """The mean of a direction: coefficient, weight and condition around each sample's loss."""
        if direction.weight is not None:
            body = product(self.weight(node.inputs[direction.weight]), body)
        over = None if direction.over is None else node.inputs[direction.over]
        return self._writer.mean(body, direction.coefficient, over)

    def weight(self, node: Node) -> Math:
        """The weight of sample i; a long one has a letter."""
        if node not in self._weights:
            inner = self._writer.expression(node)
            if len(inner.text) > _LONG:
                name = self._writer.names.indexed(self._writer.names.next("weights"), "i")
                self._writer.names.state("values", equation(name, inner))
                inner = name
            self._weights[node] = inner
        return self._weights[node]

    def _per_sample(self, node: Node, direction: Direction, side: str) -> Math:
        parts = tuple(
            part(of.kind, of.coefficient, None if of.input is None else node.inputs[of.input], of.missing, side)
            for of in direction.targets
        )

        def logit(candidate: str) -> Math:
            row, column = ("i", candidate) if side == "rows" else (candidate, "i")
            formula = self._writer.base(node.inputs[0], row, column, side)
            if direction.scale is not None:
                formula = scaled(self._writer, formula, node.inputs[direction.scale])
            return (
                formula if direction.bias is None else total(formula, self._writer.expression(node.inputs[direction.bias]))
            )

        kept, over = (
            () if place is None else (self._writer.members(node.inputs[place]),)
            for place in (direction.keep, direction.over)
        )
        return softmax_loss(self._writer, [Block(Columns(logit, kept), parts)], direction.without_positive, asking=over)


def _shape(node: Node) -> object:
    """A region without its features and its weight; None unless it has a single pair of pooled features."""
    matrix = node.inputs[0]
    if (
        matrix.operation is not SIMILARITY
        or not isinstance(matrix.inputs[0].type, VecType)
        or matrix.inputs[0] is matrix.inputs[1]
    ):
        return None
    contrast = contrast_of(node)
    weight = _total_coefficient(contrast)
    unit = replace(contrast, rows=_divided(contrast.rows, weight), columns=_divided(contrast.columns, weight))
    return unit, matrix.attributes, node.inputs[1:]


def _total_coefficient(contrast: Contrast) -> float:
    return sum(direction.coefficient for direction in (contrast.rows, contrast.columns) if direction is not None) or 1.0


def _divided(direction: Direction | None, factor: float) -> Direction | None:
    return None if direction is None else replace(direction, coefficient=round(direction.coefficient / factor, 12))


def _outside(direction: Direction) -> tuple[float, int | None, int | None]:
    return direction.coefficient, direction.weight, direction.over
