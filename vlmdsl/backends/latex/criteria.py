"""Criteria as mathematics: the loss of sample i, from a matrix of logits. Those of regions are in `regions.py`."""

from __future__ import annotations

from itertools import zip_longest

from vlmdsl.backends.latex.columns import Columns, columns_of
from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import (
    Math,
    call,
    equation,
    fraction,
    log,
    negated,
    number,
    product,
    quotient,
    readable,
    sum_over,
    total,
    under,
    words,
)
from vlmdsl.backends.latex.softmax import Block, indicator, parts_of, renormaliser, softmax_loss
from vlmdsl.ir import Node

__all__ = ["cross_entropy", "hinge", "log_sum_exp", "row_mean", "row_sum", "sigmoid_loss", "target_entropy"]


def cross_entropy(writer: Writer, node: Node) -> Math:
    """A cross-entropy that is not part of a region."""
    return softmax_loss(writer, _blocks(writer, node), node.string("denominator") == "negatives")


def _blocks(writer: Writer, node: Node, side: str = "") -> list[Block]:
    """The columns of a matrix, each kind with its part of the target."""
    side = side or node.string("along")
    columns, parts = columns_of(writer, node.inputs[0], side), parts_of(node.inputs[1], side)
    return [Block(kind, of or ()) for kind, of in zip_longest(columns, parts) if kind is not None]


def target_entropy(writer: Writer, node: Node) -> Math:
    """The entropy of the target of sample i over its candidates."""
    blocks = [block for block in _blocks(writer, node) if block.parts]
    factor = renormaliser(writer, blocks) if any(block.columns.restricted for block in blocks) else None
    summed = []
    for block in blocks:
        entry = writer.target(block.parts)
        share = entry if factor is None else product(factor, entry)
        summed.append(sum_over("j", product(share, log(share)), block.columns.among("j")))
    return negated(total(*summed))


def sigmoid_loss(writer: Writer, node: Node) -> Math:
    """The sum over candidates of minus the log-sigmoid of each logit with the sign of its target."""
    writer.names.state("values", Math(r"\sigma(a) = 1 / (1 + e^{-a})", "σ(a) = 1/(1 + e^(-a))"))
    summed = []
    for place, block in enumerate(_blocks(writer, node, "rows")):
        entry = block.columns.entry("j")
        signed = product(_sign(writer, block, place), entry) if block.parts else negated(entry)
        inner = call("σ", signed, latex=r"\sigma")
        body = Math(rf"\log {inner.latex}", f"log {inner.text}")
        summed.append(sum_over("j", body, block.columns.among("j")))
    return negated(total(*summed))


def _sign(writer: Writer, block: Block, place: int) -> Math:
    """1 where the target is positive, else -1; `place` is the kind of columns."""
    if len(block.parts) == 1 and block.parts[0].kind == "paired":
        positive = Math("[i = j]", "[i = j]")
    else:
        target = writer.target(block.parts)
        positive = Math(rf"[{target.latex} > 0]", f"[{target.text} > 0]")
    sign = Math("t" + "'" * place + "_{ij}", "t" + "'" * place + "_ij")
    writer.names.state("values", equation(sign, total(product(number(2.0), positive), negated(number(1.0)))))
    return sign


def log_sum_exp(writer: Writer, node: Node) -> Math:
    """The logarithm of the sum of the exponentials of the candidates of row i."""
    return log(total(*(kind.exponentials("j") for kind in columns_of(writer, node.inputs[0], "rows"))))


def row_sum(writer: Writer, node: Node) -> Math:
    """The sum of the entries of row i over its candidates; of columns side by side, of each kind in turn."""
    kinds = columns_of(writer, node.inputs[0], "rows")
    return total(*(sum_over("j", kind.entry("j"), kind.among("j")) for kind in kinds))


def row_mean(writer: Writer, node: Node) -> Math:
    """The mean of the entries of row i over its candidates; of columns side by side, of all kinds together."""
    first, *others = kinds = columns_of(writer, node.inputs[0], "rows")
    if not others:
        return under(words("mean"), first.among("j") or "j", first.entry("j"))
    return quotient(row_sum(writer, node), _count([kind.among("j") or "j" for kind in kinds]))


def _count(columns: list[str]) -> Math:
    return call("count", *(Math(each, readable(each)) for each in columns))


def hinge(writer: Writer, node: Node) -> Math:
    """The mean, or the largest, of what the negatives have in excess; 0 for a sample whose pair is not a candidate."""
    first, *others = columns_of(writer, node.inputs[0], node.string("along"))
    if first.without_pairs:
        return number(0.0)
    margin = number(node.number("margin"))

    def excess(kind: Columns) -> Math:
        return call("max", number(0.0), total(margin, kind.entry("j"), negated(first.entry("i"))), latex=r"\max")

    among = [first.among("j", but_pair=True), *(kind.among("j") or "j" for kind in others)]
    parts = list(zip([first, *others], among, strict=True))
    if node.string("negatives") == "hardest":
        largest = [under(Math(r"\max", "max"), where, excess(kind)) for kind, where in parts]
        loss = largest[0] if not others else call("max", *largest, latex=r"\max")
    elif not others:
        loss = under(words("mean"), among[0], excess(first))
    else:
        loss = fraction(total(*(sum_over("j", excess(kind), where) for kind, where in parts)), _count(among))
    where_asked = indicator(first.sets)
    return loss if where_asked is None else product(where_asked, loss)
