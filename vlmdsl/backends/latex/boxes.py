"""Boxes that patches predict, as mathematics."""

from __future__ import annotations

from collections.abc import Callable

from vlmdsl.backends.latex.notation import Math, total, words
from vlmdsl.ir import Node

__all__ = ["around_patches"]


def around_patches(
    written_out: Callable[[Node, str], Math], state: Callable[[str, Math], None], node: Node, index: str
) -> Math:
    """The numbers of a patch (`index` ends with its letter) and the logits of a box around it, which is stated."""
    patch, size = index[1:], f"{100 * node.number('size'):g}"
    said = f"centre and size of the box of {size} % of the image around patch {patch}"
    state("values", Math(rf"b_{{{patch}}}\ {words(said).latex}", f"b_{patch}: {said}"))
    return total(written_out(node.inputs[0], index), Math(rf"\sigma^{{-1}}(b_{{{patch}}})", f"logit(b_{patch})"))
