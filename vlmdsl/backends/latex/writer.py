"""Writes the losses of a program: regions and criteria, with the statements that define what they use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import zip_longest

from vlmdsl.backends.latex.entries import SIZE, excluded_of, excludes_pairs, matrix_entry, target_part
from vlmdsl.backends.latex.expressions import ARITHMETIC, EXPRESSIONS, scaled
from vlmdsl.backends.latex.names import Names
from vlmdsl.backends.latex.notation import (
    PRODUCT,
    Math,
    bracketed,
    call,
    equation,
    fraction,
    log,
    negated,
    number,
    product,
    sum_over,
    symbol,
    total,
    words,
)
from vlmdsl.backends.latex.softmax import Block, Part, cross_entropy, part, parts_of
from vlmdsl.ir import Contrast, Direction, Node, Program
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.types import ScoreType, SimType, VecType

__all__ = ["Writer", "share_of"]

_PLACEHOLDERS = ("p", "q")
_LONG = 16
"""A weight with more characters than this, as text, gets a letter of its own."""


class Writer:
    """Turns the nodes of one program into mathematics; `names.statements` collects what has to be said besides."""

    def __init__(self, program: Program) -> None:
        self.names: Names = Names(program, self.expression)
        self._matrices: dict[object, Math] = {}
        self._targets: dict[tuple[Part, ...], Math] = {}
        self._sets: dict[Node, Math] = {}
        self._scores: dict[Node, Math] = {}
        self._weights: dict[Node, Math] = {}
        self._means: dict[Node, Math] = {}
        self._functions: dict[object, Math] = {}
        regions = [node for node in program.nodes() if node.operation == "contrast"]
        self._summing = False
        self._shapes = Counter(_shape(node) for node in regions)

    def expression(self, node: Node) -> Math:
        """A scalar, a loss, or a score or condition of sample i; a long score that is read twice gets a letter."""
        if isinstance(node.type, ScoreType) and node.inputs and node.operation != "score" and self.names.readers(node) > 1:
            if node not in self._scores:
                self._scores[node] = self.names.indexed(self.names.next("scores"), "i")
                self.names.state("values", equation(self._scores[node], self._rule(node)))
            return self._scores[node]
        return self._rule(node)

    def _rule(self, node: Node) -> Math:
        rule = EXPRESSIONS.get(node.operation)
        if rule is not None:
            return rule(self, node)
        inputs = [self.expression(parent) for parent in node.inputs]
        return ARITHMETIC[node.operation](*inputs) if node.operation in ARITHMETIC else call(node.operation, *inputs)

    def entry(self, node: Node, row: str, column: str, direction: str) -> Math:
        """Entry (row, column) of the matrix that `direction` reads."""
        return matrix_entry(self, node, row, column, direction)

    def matrix(self, key: object, side: str, define: Callable[[Math], Math], row: str, column: str) -> Math:
        """An entry of a matrix that has a letter, barred for the columns' one; `define(entry)` is stated once."""
        if key not in self._matrices:
            self._matrices[key] = self.names.next("matrices")
        letter = self._matrices[key]
        if side == "columns":
            head, caret, number_of = letter.latex.partition("^")
            letter = Math(rf"\bar{{{head}}}{caret}{number_of}", f"{letter.text}'")
        self.names.state("values", define(self.names.indexed(letter, "ij")))
        return self.names.indexed(letter, row + column)

    def mean(self, body: Math, coefficient: float, over: Node | None) -> Math:
        """`coefficient` times the mean over all samples, or over those where a condition holds; or times the sum."""
        share = share_of(coefficient) if self._summing else _share(coefficient, self.size(over))
        among = "" if over is None else rf"i \in {self._set(over).latex}"
        return _product_of(share, sum_over("i", body, among))

    def size(self, over: Node | None) -> Math:
        """The number of samples, or of those where a condition holds."""
        if over is None:
            return SIZE
        members = self._set(over)
        return Math(f"|{members.latex}|", f"|{members.text}|")

    def is_mean_over(self, node: Node, size: Node) -> bool:
        """Whether a loss is one mean over just the samples that `size` counts, so that their product is a sum."""
        over = size.inputs[0] if size.inputs else None
        if node.operation == "mean":
            return node.inputs[1:] == size.inputs
        if node.operation != "contrast" or self._is_function(node):
            return False
        contrast = contrast_of(node)
        means = [direction.over for direction in (contrast.rows, contrast.columns) if direction is not None]
        return all((None if mean is None else node.inputs[mean]) is over for mean in means)

    def sum_of(self, node: Node) -> Math:
        """A mean without its division by the number of samples."""
        self._summing = True
        written = self.expression(node)
        self._summing = False
        return written

    def running_mean(self, node: Node) -> Math:
        """A running mean has a letter; what happens to it before it is read is stated."""
        if node not in self._means:
            before, score = node.inputs
            letter = self._means[node] = self.names.next("means")
            momentum = node.number("momentum")
            after = total(product(number(momentum), letter), self.mean(self.expression(score), 1.0 - momentum, None))
            start = number(before.number("initial"))
            latex = rf"{letter.latex} \leftarrow {after.latex}\ {words('before use, initially').latex}\ {start.latex}"
            self.names.state("values", Math(latex, f"{letter.text} ← {after.text} before use, initially {start.text}"))
        return self._means[node]

    def _set(self, condition: Node) -> Math:
        if condition not in self._sets:
            letter = self._sets[condition] = self.names.next("sets")
            inner = self.expression(condition)
            self.names.state(
                "values", Math(rf"{letter.latex} = \{{ i : {inner.latex} \}}", f"{letter.text} = {{i : {inner.text}}}")
            )
        return self._sets[condition]

    def share(self, node: Node) -> float:
        """What a summand of a loss is multiplied with where it is a value of a function that several regions use."""
        return _total_coefficient(contrast_of(node)) if self._is_function(node) else 1.0

    def loss(self, node: Node, factor: float = 1.0) -> Math:
        """A summand of a loss, `factor` times a function where it is a value of one."""
        if not self._is_function(node):
            return self.expression(node)
        shape = _shape(node)
        if shape not in self._functions:
            self._functions[shape] = self._define_function(node, self.share(node))
        features = [self.names.feature(parent, "") for parent in node.inputs[0].inputs]
        bare = [Math(feature.latex.removesuffix("_{}"), feature.text.removesuffix("_")) for feature in features]
        name = self._functions[shape]
        return product(share_of(factor), call(name.text, *bare, latex=name.latex))

    def _is_function(self, node: Node) -> bool:
        return node.operation == "contrast" and _shape(node) is not None and self._shapes[_shape(node)] > 1

    def contrast(self, node: Node) -> Math:
        """A region; regions that differ in their features only are values of one function."""
        return self.loss(node, self.share(node)) if self._is_function(node) else self._region(node, contrast_of(node))

    def _define_function(self, node: Node, factor: float) -> Math:
        name = self.names.next("functions")
        self.names.placeholders = dict(zip(node.inputs[0].inputs, _PLACEHOLDERS, strict=True))
        contrast = contrast_of(node)
        unit = replace(contrast, rows=_divided(contrast.rows, factor), columns=_divided(contrast.columns, factor))
        body = self._region(node, unit)
        self.names.placeholders = {}
        self.names.state("functions", equation(call(name.text, *map(symbol, _PLACEHOLDERS), latex=name.latex), body))
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
            body = product(self._weight(node.inputs[direction.weight]), body)
        over = None if direction.over is None else node.inputs[direction.over]
        return self.mean(body, direction.coefficient, over)

    def _weight(self, node: Node) -> Math:
        if node not in self._weights:
            inner = self.expression(node)
            if len(inner.text) > _LONG:
                name = self.names.indexed(self.names.next("weights"), "i")
                self.names.state("values", equation(name, inner))
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
            found = self.base(node.inputs[0], row, column, side)
            if direction.scale is not None:
                found = scaled(self, found, node.inputs[direction.scale])
            return found if direction.bias is None else total(found, self.expression(node.inputs[direction.bias]))

        kept = [] if direction.keep is None else [self._set(node.inputs[direction.keep])]
        return cross_entropy(self, [Block(logit, kept, False, parts)], direction.without_positive)

    def base(self, matrix: Node, row: str, column: str, side: str) -> Math:
        """An entry of the similarity; a sum of several has a letter."""
        if matrix.operation not in ("add", "subtract"):
            return self.entry(matrix, row, column, side)

        def define(name: Math) -> Math:
            return equation(name, self.entry(matrix, "i", "j", side))

        one = all(node.operation != "similarity" or node.string("by") != "tokenmax" for node in _matrices(matrix))
        return self.matrix(matrix, "rows" if one else side, define, row, column)

    def cross_entropy(self, node: Node) -> Math:
        """A cross-entropy that is not part of a region."""
        side = node.string("along")
        matrices, targets = _side_by_side(node.inputs[0]), _side_by_side(node.inputs[1])
        blocks = [
            self._block(matrix, side, parts_of(target, side) if target is not None else ())
            for matrix, target in zip_longest(matrices, targets[: len(matrices)])
        ]
        return cross_entropy(self, blocks, node.string("denominator") == "negatives")

    def _block(self, matrix: Node, side: str, parts: tuple[Part, ...]) -> Block:
        def logit(candidate: str) -> Math:
            row, column = ("i", candidate) if side == "rows" else (candidate, "i")
            return self.entry(matrix, row, column, side)

        return Block(logit, [self._kept(condition) for condition in excluded_of(matrix)], excludes_pairs(matrix), parts)

    def _kept(self, excluded: Node) -> Math:
        members = self._set(excluded)
        return Math(rf"\overline{{{members.latex}}}", f"not {members.text}")

    def target(self, parts: tuple[Part, ...]) -> Math:
        """Entry (i, j) of a target, which has a letter."""
        if parts not in self._targets:
            name = self.names.indexed(self.names.next("targets"), "ij")
            shares = [target_part(self, p.kind, p.node, p.missing, p.coefficient, p.side) for p in parts]
            self.names.state("values", equation(name, total(*shares)))
            self._targets[parts] = name
        return self._targets[parts]

    def target_entropy(self, node: Node) -> Math:
        """The entropy of the target of sample i."""
        entry = self.target(parts_of(node.inputs[1], node.string("along")))
        return negated(sum_over("j", product(entry, log(entry))))

    def sigmoid_loss(self, node: Node) -> Math:
        """The sum over candidates of minus the log-sigmoid of each logit with the sign of its target."""
        matrix, target = node.inputs
        self.names.state("values", Math(r"\sigma(a) = 1 / (1 + e^{-a})", "σ(a) = 1/(1 + e^(-a))"))
        positive = (
            Math("[i = j]", "[i = j]")
            if target.operation == "paired"
            else Math(rf"[{self._dense(target).latex} > 0]", f"[{self._dense(target).text} > 0]")
        )
        sign = Math("t_{ij}", "t_ij")
        self.names.state("values", equation(sign, total(product(number(2.0), positive), negated(number(1.0)))))
        inner = call("σ", product(sign, self.entry(matrix, "i", "j", "rows")), latex=r"\sigma")
        return negated(sum_over("j", Math(rf"\log {inner.latex}", f"log {inner.text}"), self.candidates(matrix)))

    def candidates(self, matrix: Node, *, but_pairs: bool = False) -> str:
        """The conditions on the candidates j of sample i in a matrix; nothing where all are."""
        conditions = [rf"j \in {self._kept(condition).latex}" for condition in excluded_of(matrix)]
        conditions += [r"j \neq i"] if but_pairs or excludes_pairs(matrix) else []
        return ", ".join(conditions)

    def _dense(self, target: Node) -> Math:
        return self.target(parts_of(target, "rows"))


def _side_by_side(node: Node) -> list[Node]:
    """The matrices, or targets, whose columns stand side by side; one for a plain one."""
    return [half for part in node.inputs for half in _side_by_side(part)] if node.operation == "unite" else [node]


def _matrices(root: Node) -> list[Node]:
    found, stack = [], [root]
    while stack:
        node = stack.pop()
        if isinstance(node.type, SimType):
            found.append(node)
            stack.extend(node.inputs)
    return found


def _shape(node: Node) -> object:
    """What a region is but for its features and its weight; None if it has no single pair of pooled features."""
    matrix = node.inputs[0]
    if (
        matrix.operation != "similarity"
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


def share_of(coefficient: float) -> Math:
    """A coefficient as a simple fraction where it is one."""
    exact = Fraction(coefficient).limit_denominator(1000)
    if abs(float(exact) - coefficient) > 1e-12 or exact.denominator == 1:
        return number(coefficient)
    return fraction(number(float(exact.numerator)), number(float(exact.denominator)))


def _share(coefficient: float, size: Math) -> Math:
    """coefficient / size as one fraction."""
    exact = Fraction(coefficient).limit_denominator(1000)
    if abs(float(exact) - coefficient) > 1e-12:
        return fraction(number(coefficient), size)
    above, below = number(float(exact.numerator)), exact.denominator
    return fraction(above, size if below == 1 else Math(f"{below} {size.latex}", f"{below}{size.text}", PRODUCT))


def _product_of(share: Math, body: Math) -> Math:
    return replace(product(share, body), level=PRODUCT)
