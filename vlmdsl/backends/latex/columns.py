"""The columns that sample i chooses among in a matrix, of one kind or of several side by side, and which are candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import Math, call, sum_over, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.matrices import EXCLUDE, EXCLUDE_OWN, EXCLUDE_PAIRS, UNITE
from vlmdsl.ir.operations.scalars import NOT, STOP
from vlmdsl.types import SimType, holds_memory

__all__ = ["Columns", "columns_of", "side_by_side"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of one kind: `entry(candidate)` of sample i, the sets that candidates belong to, whether its pair is left out,
    and whether they are the entries of a memory, all of which have been written; and the `key` by which those of sample i
    itself are left out of these."""

    entry: Callable[[str], Math]
    sets: tuple[Math, ...] = ()
    without_pairs: bool = False
    memory: bool = False
    key: str = ""

    @property
    def restricted(self) -> bool:
        """Whether some columns are not candidates, and those are of the batch."""
        return bool(self.sets) or self.without_pairs

    def among(self, index: str, *, but_pair: bool = False, besides: tuple[Math, ...] = ()) -> str:
        """The conditions on a candidate, in LaTeX; None if it is any sample of the batch."""
        conditions = [rf"{index} \in {members.latex}" for members in (*besides, *self.sets)]
        conditions += [rf"{index} \neq i"] if but_pair or self.without_pairs else []
        conditions += [rf"{self.key}_{{{index}}} \neq {self.key}_{{i}}"] if self.key else []
        return ", ".join(conditions) or (index if self.memory else "")

    def exponentials(self, index: str, *, but_pair: bool = False) -> Math:
        """The sum over the candidates of the exponentials of their entries."""
        return sum_over(index, call("exp", self.entry(index), latex=r"\exp"), self.among(index, but_pair=but_pair))


def columns_of(writer: Writer, matrix: Node, side: str, *, stopped: bool = False) -> list[Columns]:
    """The candidates of sample i in the row or column direction; several kinds if matrices are side by side.

    With `stopped` there is no gradient, and a sum of similarities has a letter.
    """
    return [_columns(writer, part, side, stopped) for part in side_by_side(matrix)]


def side_by_side(node: Node) -> list[Node]:
    """The matrices, or targets, whose columns are side by side; a plain one is alone."""
    return [half for part in node.inputs for half in side_by_side(part)] if node.operation is UNITE else [node]


def _columns(writer: Writer, matrix: Node, side: str, stopped: bool) -> Columns:
    bare = matrix
    while stopped and (bare.operation is STOP or bare.operation.excludes):
        bare = bare.inputs[0]

    def entry(candidate: str) -> Math:
        row, column = ("i", candidate) if side == "rows" else (candidate, "i")
        return call("sg", writer.base(bare, row, column, side)) if stopped else writer.entry(bare, row, column, side)

    assert isinstance(matrix.type, SimType)
    made_of = _made_of(matrix)
    sets = tuple(_kept(writer, node.inputs[1]) for node in made_of if node.operation is EXCLUDE)
    without_pairs = any(node.operation is EXCLUDE_PAIRS for node in made_of)
    own = next((words(node.inputs[1].string("name")).latex for node in made_of if node.operation is EXCLUDE_OWN), "")
    return Columns(entry, sets, without_pairs, holds_memory(matrix.type.columns), own)


def _kept(writer: Writer, excluded: Node) -> Math:
    """The samples for which a condition fails."""
    if excluded.operation is NOT:
        return writer.members(excluded.inputs[0])
    members = writer.members(excluded)
    return Math(rf"\overline{{{members.latex}}}", f"not {members.text}")


def _made_of(matrix: Node) -> list[Node]:
    """A matrix and the matrices that it is computed from elementwise, the outer ones first."""
    matrices: dict[Node, None] = {}
    waiting = [matrix]
    while waiting:
        node = waiting.pop()
        if isinstance(node.type, SimType) and node not in matrices:
            matrices[node] = None
            waiting += reversed(node.inputs)
    return list(matrices)
