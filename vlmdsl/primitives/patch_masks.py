"""The mask by which patches of an image were dropped or replaced, for criteria about these patches."""

from __future__ import annotations

from vlmdsl.ir import Node
from vlmdsl.ir.operations.modules import drops_of, replacements_of
from vlmdsl.ir.operations.views import DROP, REPLACE
from vlmdsl.primitives.faults import bad_value
from vlmdsl.primitives.spec import Builder
from vlmdsl.primitives.values import MaskValue

__all__ = ["mask_of_patches", "without_masks"]


def without_masks(source: Node) -> Node:
    """The image before patches of it were dropped or replaced."""
    while source.operation in (DROP, REPLACE):
        source = source.inputs[0]
    return source


def mask_of_patches(builder: Builder, encode: Node, at: MaskValue, argument: str, function: str) -> Node:
    """Which patches of an encoded image are missing; Fault where `at` is not the mask by which they are."""
    source = encode.inputs[0]
    dropped = drops_of(source)
    masks = [dict(node.attributes) for node in dropped or replacements_of(source)]
    if masks != [{"share": float(at.share), "draw": at.draw, **at.attributes}]:
        example, done = ("drop", "dropped") if dropped else ("mask", "replaced")
        help = (f"name the mask, `let hidden = random(75%)`, and use it in both: `{example}(image, hidden)`, `at=hidden`",)
        raise bad_value(builder, argument, function, f"it is not the mask by which patches of the image were {done}", *help)
    return builder.add("dropped" if dropped else "replaced", encode)
