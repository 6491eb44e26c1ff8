"""Assignments of patches to groups, and their divergence, as mathematics."""

from __future__ import annotations

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, call, words
from vlmdsl.ir import Node, encoder_of

__all__ = ["assignment", "assignment_divergence", "segment_mean"]


def assignment(writer: Writer, node: Node) -> Math:
    """The groups that a tower assigns the patches of an image to."""
    encode = node.inputs[0]
    name = f"{encoder_of(encode).tower} groups"
    return call(name, writer.names.source(encode.inputs[0]), latex=words(name).latex)


def segment_mean(writer: Writer, node: Node) -> Math:
    """The mean over segments, which are named."""
    groups, segments = node.inputs
    field = segments.inputs[1].string("name")
    said = f"the mean over the patches of the same {field}"
    writer.names.state("values", Math(rf"\mathrm{{mean}}_S\ {words(said).latex}", f"mean_S: {said}"))
    return call("mean_S", writer.expression(groups), latex=r"\mathrm{mean}_S")


def assignment_divergence(writer: Writer, node: Node) -> Math:
    """The mean over samples, patches and groups of the symmetric divergence."""
    p, q = (writer.expression(parent) for parent in node.inputs)
    said = "the softmax over the G groups of each of the P patches"
    writer.names.state("values", Math(rf"\sigma\ {words(said).latex}", f"σ: {said}"))

    def divergence(one: Math, other: Math) -> tuple[str, str]:
        latex = rf"\mathrm{{KL}}\left( \sigma({one.latex})_{{ip}} \,\|\, \sigma({other.latex})_{{ip}} \right)"
        return latex, f"KL(σ({one.text})_ip ‖ σ({other.text})_ip)"

    (first, first_text), (second, second_text) = divergence(p, q), divergence(q, p)
    return Math(
        rf"\frac{{1}}{{2 B P G}} \sum_{{i,p}} \left[ {first} + {second} \right]",
        f"1/(2 B P G) Σ_i,p [{first_text} + {second_text}]",
        PRODUCT,
    )
