"""Mined negatives as mathematics: a letter for the sample that sample i picks, with its rule."""

from __future__ import annotations

from vlmdsl.backends.latex.columns import Columns, columns_of
from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import Math, call, infix, number, readable, under, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.mining import HARDEST
from vlmdsl.types import PicksType

__all__ = ["is_other", "picks"]


def picks(writer: Writer, node: Node) -> Math:
    """The sample that sample i picks, `ik` its k-th; how is stated."""
    assert isinstance(node.type, PicksType)
    several = node.type.picked != "1"
    pick = writer.names.indexed(writer.names.lettered("picks", node), "ik" if several else "i")
    kinds = columns_of(writer, node.inputs[0], node.string("along"))
    if len(kinds) > 1:
        writer.names.state("values", _of_both(node, pick, kinds))
    else:
        writer.names.state("values", (_hardest if node.operation is HARDEST else _drawn)(node, pick, kinds[0], several))
    return pick


def _of_both(node: Node, pick: Math, kinds: list[Columns]) -> Math:
    """A pick of the batch, except the pair, and the entries of a queue."""
    hardest = node.operation is HARDEST
    rule = call("arg max" if hardest else "softmax", *(kind.entry("j") for kind in kinds))
    if not hardest and node.number("floor"):
        rule = infix("+", "+", rule, number(node.number("floor")))
    equals = infix("=", "=", pick, rule) if hardest else infix(r"\sim", "~", pick, rule)
    others = " but of sample i" if kinds[1].key else ""
    said = words(f"of the batch but i, and of the queue{others}")
    return Math(rf"{equals.latex},\ j\ {said.latex}", f"{equals.text}, j {said.text}")


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
