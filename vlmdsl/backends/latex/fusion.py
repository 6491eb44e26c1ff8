"""Texts given an image, and image-text matching, as mathematics."""

from __future__ import annotations

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.mining import picks
from vlmdsl.backends.latex.notation import Math, call, words
from vlmdsl.backends.latex.samples import in_samples, mean_of_samples
from vlmdsl.ir import Node
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.ir.operations.rules import of_samples

__all__ = ["fused", "matched", "matching", "module_of", "own"]


def fused(writer: Writer, apply: Node) -> Math:
    """The text and its image, either of which may be that of a picked sample: t_i | x_i; or a text alone."""
    text, *images = (_sample(writer, parent) for parent in apply.inputs)
    if not images:
        return text
    (image,) = images
    return Math(rf"{text.latex} \mid {image.latex}", f"{text.text} | {image.text}")


def module_of(writer: Writer, apply: Node) -> Math:
    """The name of the module that encodes a text given an image, or of its teacher."""
    use = use_of(apply)
    return writer.names.taught(words(use.module.name), use.follows)


def matched(writer: Writer, node: Node) -> Math:
    """The mean over pairs and over others."""
    pairs, *others = (_fusion(parent) for parent in node.inputs if parent.operation is APPLY)
    summands = [_log(writer, pairs, "1"), *(_log(writer, other, "0") for other in others)]
    said = f"over all samples{in_samples(writer, node)}, of others those that have picked another one"
    mean, weight = words(f"mean: {said}"), of_samples(node).weight
    if weight is not None:
        amount, each = writer.weight(weight), words(", each sample with the weight ")
        mean = Math(f"{mean.latex}{each.latex}{amount.latex}", f"{mean.text}{each.text}{amount.text}")
    writer.names.state("values", mean)
    return call("mean", *summands)


def matching(writer: Writer, node: Node) -> Math:
    """The mean over all samples of the surprise at whether they match."""
    apply, truth = _fusion(node.inputs[0]), writer.expression(node.inputs[1])
    inner, name = fused(writer, apply), module_of(writer, apply)
    latex = rf"-\log p_{{{name.latex}}}({truth.latex} ; {inner.latex})"
    surprise, (_, where, weight) = Math(latex, f"-log p_{name.text}({truth.text}; {inner.text})"), of_samples(node)
    return call("mean", surprise) if where is weight is None else mean_of_samples(writer, node, surprise)


def own(writer: Writer, node: Node) -> Math:
    """Whether the text of sample i is its own."""
    text = writer.names.source(node.inputs[0])
    return call("own", text)


def _log(writer: Writer, apply: Node, match: str) -> Math:
    inner, name = fused(writer, apply), module_of(writer, apply)
    latex = rf"-\log p_{{{name.latex}}}({match} ; {inner.latex})"
    return Math(latex, f"-log p_{name.text}({match}; {inner.text})")


def _fusion(head: Node) -> Node:
    """The fusion below a head."""
    return head.inputs[0].inputs[0]


def _sample(writer: Writer, states: Node) -> Math:
    """Sample i of what was encoded, or the one that it has picked."""
    pick: Math | None = None
    while states.operation is not ENCODE:
        if states.operation is FETCH:
            pick = picks(writer, states.inputs[1])
        states = states.inputs[0]
    source = writer.names.source(states.inputs[0])
    if pick is None:
        return source
    return Math(f"{source.latex.removesuffix('_i')}_{{{pick.latex}}}", f"{source.text.removesuffix('_i')}_{pick.text}")
