"""The interface between the rules of formulas and the writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vlmdsl.backends.latex.names import Names
from vlmdsl.backends.latex.notation import Math
from vlmdsl.ir import Node

__all__ = ["Part", "Writer"]


@dataclass(frozen=True, slots=True)
class Part:
    """One summand of a target with its coefficient."""

    kind: str
    coefficient: float
    node: Node | None
    missing: int
    side: str = "rows"
    """The direction, if the target has two different ones."""
    block: int = 0
    """The kind of columns, if the target covers several."""


class Writer(Protocol):
    """Values as mathematics; definitions are collected in `names`."""

    names: Names
    tables: dict[Node, Math]
    """The letters of numbers per sample, by the table."""

    def expression(self, node: Node) -> Math:
        """A scalar, a loss, or a score or condition of sample i."""

    def argument(self, node: Node, index: str) -> Math:
        """The argument of a plug-in's function for sample `index`."""

    def entry(self, node: Node, row: str, column: str, direction: str) -> Math:
        """Entry (row, column) of the matrix that `direction` reads."""

    def base(self, matrix: Node, row: str, column: str, side: str) -> Math:
        """An entry of the similarity; a sum of several has a letter."""

    def matrix(self, key: object, side: str, define: Callable[[Math], Math], row: str, column: str) -> Math:
        """An entry of a matrix that has a letter, barred for the columns' one; `define(entry)` is stated once."""

    def target(self, parts: tuple[Part, ...]) -> Math:
        """Entry (i, j) of a target, which has a letter."""

    def mass(self, left: Math) -> Math:
        """What is left of the target of sample i on its candidates, which has a letter; `left` is what it is."""

    def members(self, condition: Node) -> Math:
        """The set of the samples for which a condition holds, which has a letter."""

    def weight(self, node: Node) -> Math:
        """The weight of sample i; a long one has a letter."""

    def size(self, over: Node | None) -> Math:
        """The number of samples, or of those where a condition holds."""

    def mean(self, body: Math, coefficient: float, over: Node | None) -> Math:
        """`coefficient` times the mean over all samples, or over those where a condition holds; or times the sum."""

    def sum_of(self, node: Node) -> Math:
        """A mean without its division by the number of samples."""

    def is_mean_over(self, node: Node, size: Node) -> bool:
        """Whether a loss is one mean over just the samples that `size` counts, so that their product is a sum."""

    def running_mean(self, node: Node) -> Math:
        """A running mean has a letter; what happens to it before it is read is stated."""

    def contrast(self, node: Node) -> Math:
        """A region; regions that differ in their features only are values of one function."""
