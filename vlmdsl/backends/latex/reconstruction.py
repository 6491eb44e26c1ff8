"""Pixels of dropped patches, and their predictions, as mathematics."""

from __future__ import annotations

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, call, words
from vlmdsl.backends.latex.samples import mean_of_parts, stated_parts
from vlmdsl.ir import Node, encoder_of
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.ir.operations.views import DROP

__all__ = ["reconstruct"]


def reconstruct(writer: Writer, node: Node) -> Math:
    """The mean over the dropped patches; which they are is stated."""
    decoded, pixels, _ = of_samples(node).inputs
    encode = pixels.inputs[0]
    seen, tower = writer.names.source(encode.inputs[0]), words(encoder_of(encode).tower)
    features = call(tower.text, seen, latex=tower.latex)
    predicted = call(use_of(decoded).module.name, features)
    if getattr(use_of(decoded).module.settings, "output", None) == "tanh":
        predicted = call("tanh", predicted, latex=r"\tanh")
    image = encode.inputs[0]
    while image.operation is DROP:
        image = image.inputs[0]
    target = writer.names.source(image)
    if pixels.string("normalised") == "patch":
        target = call("unit", target)
        said = "the patches of x, each minus its mean, over its standard deviation"
        writer.names.state("values", Math(rf"{call('unit', Math('x', 'x')).latex}\ {words(said).latex}", f"unit(x): {said}"))
    parts = stated_parts(writer, node, encode.inputs[0], "patches", "that were dropped", "images")
    length = "the numbers of a patch"
    writer.names.state("values", Math(rf"C\ {words(length).latex}", f"C: {length}"))
    difference = rf"\lVert {predicted.latex}[p] - {target.latex}[p] \rVert^{{2}}"
    error = Math(rf"\frac{{1}}{{C}} {difference}", f"1/C ‖{predicted.text}[p] - {target.text}[p]‖²", PRODUCT)
    return mean_of_parts(writer, node, error, "p", parts)
