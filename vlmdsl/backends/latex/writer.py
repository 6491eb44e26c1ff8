"""Writes the values of a program, with letters for some of them and their definitions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from vlmdsl.backends.latex.arithmetic import ARITHMETIC
from vlmdsl.backends.latex.entries import SIZE, dense_entry, matrix_entry, settings_of, target_part
from vlmdsl.backends.latex.expressions import EXPRESSIONS
from vlmdsl.backends.latex.interface import Part, Writer
from vlmdsl.backends.latex.names import Names
from vlmdsl.backends.latex.notation import (
    PRODUCT,
    Math,
    call,
    equation,
    negated,
    number,
    product,
    share_of,
    share_over,
    sum_over,
    total,
    words,
)
from vlmdsl.backends.latex.prediction import token_criterion
from vlmdsl.backends.latex.regions import Regions
from vlmdsl.ir import Node, Program, walk
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import SCORE, SIMILARITY
from vlmdsl.ir.operations.per_sample import LOOKUP, RUNNING_MEANS
from vlmdsl.ir.operations.reductions import MEAN
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.types import LossType, ScoreType, SimType, TargetType, TokensType, VectorType, VecType

__all__ = ["FormulaWriter"]


class FormulaWriter(Writer):
    """Turns the nodes of one program into mathematics; `names.statements` collects definitions."""

    def __init__(self, program: Program) -> None:
        self.names: Names = Names(program, self.expression)
        self._matrices: dict[object, Math] = {}
        self._targets: dict[tuple[Part, ...], Math] = {}
        self._masses: dict[Math, Math] = {}
        self._sets: dict[Node, Math] = {}
        self._scores: dict[Node, Math] = {}
        self._means: dict[Node, Math] = {}
        self.tables: dict[Node, Math] = {}
        self._summing = False
        self.regions = Regions(program, self)

    def expression(self, node: Node) -> Math:
        """A scalar, a loss, or a score or condition of sample i; a long score that is read twice gets a letter."""
        long = isinstance(node.type, ScoreType) and node.inputs and node.operation not in (SCORE, LOOKUP, RUNNING_MEANS)
        if long and self.names.readers(node) > 1:
            if node not in self._scores:
                self._scores[node] = self.names.indexed(self.names.next("scores"), "i")
                self.names.state("values", equation(self._scores[node], self._rule(node)))
            return self._scores[node]
        return self._rule(node)

    def _rule(self, node: Node) -> Math:
        rule = EXPRESSIONS.get(node.operation)
        if rule is not None:
            return rule(self, node)
        if node.operation.module and isinstance(node.type, LossType):
            return token_criterion(self, node)
        if node.operation.module:
            return call(node.operation, *(self.argument(parent, "i") for parent in node.inputs), *settings_of(node))
        inputs = [self.expression(parent) for parent in node.inputs]
        return ARITHMETIC[node.operation](*inputs) if node.operation in ARITHMETIC else call(node.operation, *inputs)

    def argument(self, node: Node, index: str) -> Math:
        """What a function of a plug-in is given of sample `index`: its features, its row of a matrix, its number."""
        if isinstance(node.type, VecType | TokensType):
            return self.names.feature(node, index)
        if isinstance(node.type, SimType):
            return self.entry(node, index, ":", "rows")
        if isinstance(node.type, TargetType):
            return dense_entry(self, node)
        inner = self.expression(node)
        return Math(re.sub("_i$", f"_{index}", inner.latex), re.sub("_i$", f"_{index}", inner.text))

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
        share = share_of(coefficient) if self._summing else share_over(coefficient, self.size(over))
        among = "" if over is None else rf"i \in {self.members(over).latex}"
        return replace(product(share, sum_over("i", body, among)), level=PRODUCT)

    def weight(self, node: Node) -> Math:
        """The weight of sample i; a long one has a letter."""
        return self.regions.weight(node)

    def size(self, over: Node | None) -> Math:
        """The number of samples, or of those where a condition holds."""
        if over is None:
            return SIZE
        members = self.members(over)
        return Math(f"|{members.latex}|", f"|{members.text}|")

    def is_mean_over(self, node: Node, size: Node) -> bool:
        """Whether a loss is one mean over just the samples that `size` counts, so that their product is a sum."""
        over = size.inputs[0] if size.inputs else None
        if node.operation is MEAN:
            return node.inputs[1:] == size.inputs
        if node.operation is not CONTRAST or self.regions.is_function(node):
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
        """A running mean has a letter; what happens to it before it is read, or after, is stated."""
        if node not in self._means:
            before, averaged, *momentum = node.inputs
            letter = self._means[node] = self.names.next("means")
            body = self.names.feature(averaged, "i") if isinstance(node.type, VectorType) else self.expression(averaged)
            if momentum:
                share = self.expression(momentum[0])
                entering = product(total(number(1.0), negated(share)), self.mean(body, 1.0, None))
            else:
                share = number(node.number("momentum"))
                entering = self.mean(body, 1.0 - node.number("momentum"), None)
            after = total(product(share, letter), entering)
            start = number(before.number("initial"))
            when = f"{'after' if self.names.readers(before) > 1 else 'before'} use, initially"
            latex = rf"{letter.latex} \leftarrow {after.latex}\ {words(when).latex}\ {start.latex}"
            self.names.state("values", Math(latex, f"{letter.text} ← {after.text} {when} {start.text}"))
        return self._means[node]

    def mass(self, left: Math) -> Math:
        """What is left of the target of sample i on its candidates, which has a letter; `left` is what it is."""
        if left not in self._masses:
            letter = self._masses[left] = self.names.indexed(self.names.next("masses"), "i")
            said = words("the loss of a sample without any is 0")
            stated = equation(letter, left)
            self.names.state("values", Math(rf"{stated.latex},\ {said.latex}", f"{stated.text}, {said.text}"))
        return self._masses[left]

    def members(self, condition: Node) -> Math:
        """The set of the samples for which a condition holds, which has a letter."""
        if condition not in self._sets:
            letter = self._sets[condition] = self.names.next("sets")
            inner = self.expression(condition)
            self.names.state(
                "values", Math(rf"{letter.latex} = \{{ i : {inner.latex} \}}", f"{letter.text} = {{i : {inner.text}}}")
            )
        return self._sets[condition]

    def base(self, matrix: Node, row: str, column: str, side: str) -> Math:
        """An entry of the similarity; a sum of several has a letter."""
        if len(matrix.operation.signs) < 2:
            return self.entry(matrix, row, column, side)

        def define(name: Math) -> Math:
            return equation(name, self.entry(matrix, "i", "j", side))

        one = all(node.operation is not SIMILARITY or node.string("by") != "tokenmax" for node in walk([matrix]))
        return self.matrix(matrix, "rows" if one else side, define, row, column)

    def target(self, parts: tuple[Part, ...]) -> Math:
        """Entry (i, j) of a target, which has a letter."""
        if parts not in self._targets:
            name = self.names.indexed(self.names.next("targets"), "ij")
            shares = [target_part(self, part) for part in parts]
            self.names.state("values", equation(name, total(*shares)))
            self._targets[parts] = name
        return self._targets[parts]

    def contrast(self, node: Node) -> Math:
        """A region; regions that differ in their features only are values of one function."""
        return self.regions.contrast(node)
