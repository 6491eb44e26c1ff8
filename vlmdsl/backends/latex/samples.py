"""Means over the tokens, patches or pairs of samples of which some do not count, or each as much as its weight."""

from __future__ import annotations

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, bracketed, product
from vlmdsl.ir import Node
from vlmdsl.ir.operations.rules import of_samples

__all__ = ["in_samples", "mean_of_parts", "mean_of_samples"]


def in_samples(writer: Writer, node: Node) -> str:
    """Which samples count, in words after `of all samples`; nothing where all do."""
    where = of_samples(node).where
    return "" if where is None else f" in {writer.members(where).text}"


def mean_of_parts(writer: Writer, node: Node, loss: Math, place: str, reduction: str = "token") -> Math:
    """The mean of the loss of part `place` of sample i over the parts in M, which is stated, by the reduction."""
    if reduction == "token":
        among = Math(rf"(i,{place}) \in M", f"(i,{place})∈M")
        return _mean(writer, node, loss, among, Math("|M|", "|M|"))
    inner = Math(rf"\sum_{{{place} \in M_i}} {loss.latex}", f"Σ_{place}∈M_i {loss.text}", PRODUCT)
    if reduction == "sample":
        inner = Math(rf"\frac{{1}}{{|M_i|}} {inner.latex}", f"1/|M_i| {inner.text}", PRODUCT)
    return mean_of_samples(writer, node, inner)


def mean_of_samples(writer: Writer, node: Node, loss: Math) -> Math:
    """The mean of the loss of sample i over the samples that count."""
    where = of_samples(node).where
    among = Math("i", "i")
    if where is not None:
        members = writer.members(where)
        among = Math(rf"i \in {members.latex}", f"i∈{members.text}")
    return _mean(writer, node, loss, among, writer.size(where))


def _mean(writer: Writer, node: Node, loss: Math, among: Math, count: Math) -> Math:
    """The sum `among` these over their count, or the weighted sum over that of the weights."""
    weight, below = of_samples(node).weight, among.latex if among.latex == "i" else f"{{{among.latex}}}"
    if weight is not None:
        amount = writer.weight(weight)
        count = Math(rf"\sum_{below} {amount.latex}", f"(Σ_{among.text} {amount.text})")
        loss = product(amount, bracketed(loss) if loss.latex.startswith("-") else loss)
    return Math(
        rf"\frac{{1}}{{{count.latex}}} \sum_{below} {loss.latex}",
        f"1/{count.text} Σ_{among.text} {loss.text}",
        PRODUCT,
    )
