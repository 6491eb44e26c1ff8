"""What a criterion needs to be about anything, beside what it is a mean of: negatives, or regions with a word.

Without them its value is not 0, and yet there is nothing to learn: every pair of a batch matches, no region is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vlmdsl.ir.node import Node, walk
from vlmdsl.ir.operation import Operation
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.grounding import FOCAL
from vlmdsl.ir.operations.modules import MATCHED
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.ir.program import Program

__all__ = ["COUNTED", "Counted", "counted_in", "read_by_metrics"]


class Counted(NamedTuple):
    """The last part of the name of the metric that says how many there are in a step, what one is in words, and the
    `ops` function that counts them, given every `step`-th input of the criterion from number `first` on."""

    metric: str
    words: str
    function: str
    first: int
    step: int = 1

    def inputs(self, criterion: Node) -> tuple[Node, ...]:
        """What they are counted in."""
        return of_samples(criterion).inputs[self.first :: self.step]


COUNTED: Mapping[Operation, Counted] = {
    MATCHED: Counted("negatives", "sample that has picked another one", "samples_where", first=2, step=2),
    FOCAL: Counted("positives", "region with a word", "regions_with_words", first=1),
}
"""By criterion."""


def counted_in(term: Node) -> dict[Counted, list[Node]]:
    """What is counted in a term: the inputs of its criteria in which it is."""
    counted: dict[Counted, list[Node]] = {}
    for node in walk([term]):
        if node.operation in COUNTED:
            own = COUNTED[node.operation]
            counted.setdefault(own, []).extend(own.inputs(node))
    return counted


def read_by_metrics(program: Program) -> tuple[Node, ...]:
    """What the metrics of terms read beside the terms: contrasts, which have an accuracy, and what criteria count in."""
    terms = [term.node for term in program.terms]
    contrasts = [node for node in walk(terms) if node.operation is CONTRAST]
    counted = (node for term in terms for nodes in counted_in(term).values() for node in nodes)
    return tuple(dict.fromkeys((*contrasts, *counted)))
