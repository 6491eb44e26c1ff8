"""The mask by which patches of an image were dropped or replaced, for criteria about these patches."""

from __future__ import annotations

from vlmdsl.ir import Node
from vlmdsl.ir.operations.modules import APPLY, drops_of, patches_of, replacements_of, use_of
from vlmdsl.ir.operations.views import DROP, REPLACE
from vlmdsl.primitives.faults import bad_value
from vlmdsl.primitives.spec import Builder
from vlmdsl.primitives.values import MaskValue
from vlmdsl.types import TokensType

__all__ = ["check_all_patches", "decodes_states", "mask_of_patches", "without_masks"]


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


def decodes_states(node: Node) -> bool:
    """Whether it is a decoder of dropped patches that gives states."""
    return node.operation is APPLY and use_of(node).module.family == "decoder" and isinstance(node.type, TokensType)


def check_all_patches(builder: Builder, logits: Node, argument: str, function: str) -> None:
    """Fault where there are no logits of some patches of an image: of those that the tower was not shown."""
    if drops_of(patches_of(logits).inputs[0]) and not decodes_states(logits.inputs[0]):
        reason = "some patches of the image are dropped, and of these there are no logits"
        restored = '`linear(decode(drop(image, hidden), output="states"), size=...)`'
        help = (f"replace them, `mask(image, hidden)`, or predict their states: {restored}",)
        raise bad_value(builder, argument, function, reason, *help)
