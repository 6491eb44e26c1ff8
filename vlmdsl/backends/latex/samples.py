"""Means over the tokens, patches or pairs of samples of which some do not count, or each as much as its weight."""

from __future__ import annotations

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, bracketed, product, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.rules import of_samples

__all__ = ["in_samples", "mean_of_parts", "mean_of_samples", "stated_parts"]


def in_samples(writer: Writer, node: Node) -> str:
    """Which samples count, in words after `of all samples`; nothing where all do."""
    where = of_samples(node).where
    return "" if where is None else f" in {writer.members(where).text}"


def stated_parts(writer: Writer, node: Node, view: Node, what: str, which: str, whose: str = "samples") -> Math:
    """The letter of the parts that a mean is over, `what` (tokens, patches) of a view and `which` of these, as it is stated.

    Those of another view, or of other samples, have another letter.
    """
    letter = writer.names.lettered("parts", (view, what, which, of_samples(node).where))
    seen, of = writer.names.source(view), f"the {what} of"
    rest = f"{which + ', ' if which else ''}of all {whose}{in_samples(writer, node)}"
    joint, gap = (" ", r"\ ") if which else (", ", r",\ ")
    latex = rf"{letter.latex}\ {words(of).latex}\ {seen.latex}{gap}{words(rest).latex}"
    writer.names.state("values", Math(latex, f"{letter.text}: {of} {seen.text}{joint}{rest}"))
    return letter


def mean_of_parts(writer: Writer, node: Node, loss: Math, place: str, parts: Math, reduction: str = "token") -> Math:
    """The mean of the loss of part `place` of sample i over the `parts` of a letter (`stated_parts`), by the reduction."""
    if reduction == "token":
        among = Math(rf"(i,{place}) \in {parts.latex}", f"(i,{place})∈{parts.text}")
        return _mean(writer, node, loss, among, Math(f"|{parts.latex}|", f"|{parts.text}|"))
    own = Math(f"{parts.latex}_i", f"{parts.text}_i")
    inner = Math(rf"\sum_{{{place} \in {own.latex}}} {loss.latex}", f"Σ_{place}∈{own.text} {loss.text}", PRODUCT)
    if reduction == "sample":
        inner = Math(rf"\frac{{1}}{{|{own.latex}|}} {inner.latex}", f"1/|{own.text}| {inner.text}", PRODUCT)
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
