"""Mined negatives as mathematics: a letter for the sample that sample i picks, with its rule."""

from __future__ import annotations

from vlmdsl.backends.latex.columns import Columns, columns_of
from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import Math, infix, number, readable, under, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.mining import HARDEST
from vlmdsl.types import PicksType

__all__ = ["is_other", "picks"]


def picks(writer: Writer, node: Node) -> Math:
    """The sample that sample i picks, `ik` its k-th; how is stated."""
    assert isinstance(node.type, PicksType)
    several = node.type.picked != "1"
    pick = writer.names.indexed(writer.names.lettered("picks", node), "ik" if several else "i")
    (kind,) = columns_of(writer, node.inputs[0], node.string("along"))
    writer.names.state("values", (_hardest if node.operation is HARDEST else _drawn)(node, pick, kind, several))
    return pick


def _hardest(node: Node, pick: Math, kind: Columns, several: bool) -> Math:
    among = kind.among("j", but_pair=True)
    if not several:
        return infix("=", "=", pick, under(words("arg max"), among, kind.entry("j")))
    largest = under(Math(r"\max", "max"), among, kind.entry("j"))
    said = f"has the k-th largest of {int(node.number('k'))}:"
    return Math(rf"{pick.latex}\ {words(said).latex}\ {largest.latex}", f"{pick.text} {said} {largest.text}")


def _drawn(node: Node, pick: Math, kind: Columns, several: bool) -> Math:
    floor, softmax = node.number("floor"), words("softmax")
    others = kind.among("j", but_pair=True)
    if floor:
        share = infix("+", "+", under(softmax, kind.among("j") or "j", kind.entry("j")), number(floor))
        latex = rf"{pick.latex} \sim {share.latex}\ {words('over').latex}\ {others}"
        drawn = Math(latex, f"{pick.text} ~ {share.text} over {readable(others)}")
    else:
        drawn = infix(r"\sim", "~", pick, under(softmax, others, kind.entry("j")))
    said = words("without replacement")
    return Math(rf"{drawn.latex},\ {said.latex}", f"{drawn.text}, {said.text}") if several else drawn


def is_other(writer: Writer, node: Node) -> Math:
    """That a sample has picked another one than itself."""
    return infix(r"\neq", "≠", picks(writer, node.inputs[0]), Math("i", "i"))
