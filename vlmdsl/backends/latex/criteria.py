"""Criteria as mathematics: what sample i loses in a matrix of logits. Those of regions are in `regions.py`."""

from __future__ import annotations

from itertools import zip_longest

from vlmdsl.backends.latex.entries import excluded_of, excludes_pairs
from vlmdsl.backends.latex.interface import Part, Writer
from vlmdsl.backends.latex.notation import (
    Math,
    call,
    equation,
    log,
    negated,
    number,
    product,
    quotient,
    sum_over,
    total,
    under,
    words,
)
from vlmdsl.backends.latex.softmax import Block, parts_of, softmax_loss
from vlmdsl.ir import Node
from vlmdsl.types import SimType

__all__ = ["cross_entropy", "hinge", "row_mean", "row_sum", "sigmoid_loss", "target_entropy"]


def cross_entropy(writer: Writer, node: Node) -> Math:
    """A cross-entropy that is not part of a region."""
    side = node.string("along")
    matrices, targets = _side_by_side(node.inputs[0]), _side_by_side(node.inputs[1])
    blocks = [
        _block(writer, matrix, side, parts_of(target, side) if target is not None else ())
        for matrix, target in zip_longest(matrices, targets[: len(matrices)])
    ]
    return softmax_loss(writer, blocks, node.string("denominator") == "negatives")


def _block(writer: Writer, matrix: Node, side: str, parts: tuple[Part, ...]) -> Block:
    def logit(candidate: str) -> Math:
        row, column = ("i", candidate) if side == "rows" else (candidate, "i")
        return writer.entry(matrix, row, column, side)

    return Block(logit, [_kept(writer, condition) for condition in excluded_of(matrix)], excludes_pairs(matrix), parts)


def _kept(writer: Writer, excluded: Node) -> Math:
    members = writer.members(excluded)
    return Math(rf"\overline{{{members.latex}}}", f"not {members.text}")


def target_entropy(writer: Writer, node: Node) -> Math:
    """The entropy of the target of sample i."""
    entry = writer.target(parts_of(node.inputs[1], node.string("along")))
    return negated(sum_over("j", product(entry, log(entry))))


def sigmoid_loss(writer: Writer, node: Node) -> Math:
    """The sum over candidates of minus the log-sigmoid of each logit with the sign of its target."""
    matrix, target = node.inputs
    writer.names.state("values", Math(r"\sigma(a) = 1 / (1 + e^{-a})", "σ(a) = 1/(1 + e^(-a))"))
    positive = (
        Math("[i = j]", "[i = j]")
        if target.operation == "paired"
        else Math(rf"[{_dense(writer, target).latex} > 0]", f"[{_dense(writer, target).text} > 0]")
    )
    sign = Math("t_{ij}", "t_ij")
    writer.names.state("values", equation(sign, total(product(number(2.0), positive), negated(number(1.0)))))
    inner = call("σ", product(sign, writer.entry(matrix, "i", "j", "rows")), latex=r"\sigma")
    return negated(sum_over("j", Math(rf"\log {inner.latex}", f"log {inner.text}"), _candidates(writer, matrix)))


def _candidates(writer: Writer, matrix: Node, *, but_pairs: bool = False) -> str:
    """The conditions on the candidates j of sample i in a matrix; nothing where all are."""
    conditions = [rf"j \in {_kept(writer, condition).latex}" for condition in excluded_of(matrix)]
    conditions += [r"j \neq i"] if but_pairs or excludes_pairs(matrix) else []
    return ", ".join(conditions)


def row_sum(writer: Writer, node: Node) -> Math:
    """The sum of the entries of row i over its candidates; of columns side by side, of each part in turn."""
    matrices = _side_by_side(node.inputs[0])
    return total(*(sum_over("j", writer.entry(one, "i", "j", "rows"), _columns(writer, one)) for one in matrices))


def row_mean(writer: Writer, node: Node) -> Math:
    """The mean of the entries of row i over its candidates; of columns side by side, of all parts together."""
    matrices = _side_by_side(node.inputs[0])
    if len(matrices) == 1:
        return under(words("mean"), _candidates(writer, matrices[0]) or "j", writer.entry(matrices[0], "i", "j", "rows"))
    columns = [_columns(writer, one) or "j" for one in matrices]
    return quotient(row_sum(writer, node), call("count", *(Math(each, each) for each in columns)))


def _columns(writer: Writer, matrix: Node) -> str:
    """What a sum over the columns runs over: nothing for 1 to B, `j` for the entries of a memory."""
    return _candidates(writer, matrix) or ("" if matrix.type == SimType() else "j")


def _dense(writer: Writer, target: Node) -> Math:
    return writer.target(parts_of(target, "rows"))


def hinge(writer: Writer, node: Node) -> Math:
    """The mean, or the largest, of what the negatives have in excess."""
    matrix, side = node.inputs[0], node.string("along")

    def at(candidate: str) -> Math:
        row, column = ("i", candidate) if side == "rows" else (candidate, "i")
        return writer.entry(matrix, row, column, side)

    excess = call("max", number(0.0), total(number(node.number("margin")), at("j"), negated(at("i"))), latex=r"\max")
    name = {"mean": words("mean"), "hardest": Math(r"\max", "max")}[node.string("negatives")]
    return under(name, _candidates(writer, matrix, but_pairs=True), excess)


def _side_by_side(node: Node) -> list[Node]:
    """The matrices, or targets, whose columns stand side by side; one for a plain one."""
    return [half for part in node.inputs for half in _side_by_side(part)] if node.operation == "unite" else [node]
