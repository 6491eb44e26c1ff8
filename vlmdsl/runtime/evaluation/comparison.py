"""How a recipe compares an image with a text: the towers, the features, the similarity that its objective trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.normalize import normalize
from vlmdsl.backends.torch.ops.similarities import similarity_to
from vlmdsl.backends.torch.values import Similarities, TokenFeatures
from vlmdsl.ir import Contrast, Node, Program, encoder_of, root_field
from vlmdsl.runtime.encoders import EncodedFeatures

__all__ = ["Comparison", "comparison_of"]


@dataclass(frozen=True)
class Comparison:
    """One image-text similarity of a recipe.

    `image_tower` and `text_tower` encode the fields `image_field` and `text_field`. `level` is the output that is compared,
    `pooled` or `tokens`, scaled to unit length first if `normalized`; `by` and `arguments` name the similarity.
    `text_first`: the recipe compares the text with the image, which tells the two directions of a token-wise one apart.
    """

    image_tower: str
    text_tower: str
    image_field: str = "image"
    text_field: str = "text"
    level: str = "pooled"
    normalized: bool = True
    by: str = "dot"
    arguments: tuple[tuple[str, Any], ...] = ()
    text_first: bool = False
    device: torch.device | str = "cpu"
    """Where similarities are computed; features may be kept elsewhere."""

    def __call__(self, images: EncodedFeatures, texts: EncodedFeatures) -> Similarities:
        """`[n, m]` similarities of n images and m texts: `rows` rank texts for an image, `columns` images for a text."""
        image, text = self._compared(images), self._compared(texts)
        if not self.text_first:
            return similarity_to(image, text, self.by, **dict(self.arguments))
        found = similarity_to(text, image, self.by, **dict(self.arguments))
        return Similarities(found.columns.T, found.rows.T)

    def _compared(self, features: EncodedFeatures) -> Tensor | TokenFeatures:
        if self.level == "tokens":
            assert features.tokens is not None
            mask = None if features.mask is None else features.mask.to(self.device)
            tokens = TokenFeatures(features.tokens.to(self.device), mask)
            return normalize(tokens) if self.normalized else tokens
        assert features.pooled is not None
        pooled = features.pooled.to(self.device)
        return normalize(pooled) if self.normalized else pooled


def comparison_of(program: Program) -> Comparison | None:
    """The first comparison of an image with a text in the objective; None if it makes none (a recipe of images alone)."""
    for node, by, arguments in _comparisons(program):
        sides = [_side(features) for features in node.inputs[:2]]
        if None in sides or {side.kind for side in sides if side} != {"Image", "Text"}:
            continue
        image, text = sorted((side for side in sides if side), key=lambda side: side.kind)
        return Comparison(
            image_tower=image.tower,
            text_tower=text.tower,
            image_field=image.field,
            text_field=text.field,
            level=image.level,
            normalized=image.normalized and text.normalized,
            by=by,
            arguments=arguments,
            text_first=sides[0] is text,
        )
    return None


def _comparisons(program: Program) -> Iterator[tuple[Node, str, tuple[tuple[str, Any], ...]]]:
    """Every node that compares two streams of features, with the name and the arguments of its similarity."""
    for node in program.nodes():
        if node.operation == "similarity":
            arguments: Any = dict(node.attributes).get("arguments", ())
            yield node, node.string("by"), arguments
        elif node.operation == "contrast":
            contrast = node.attribute("contrast")
            if isinstance(contrast, Contrast) and contrast.fused:
                yield node, "dot", ()


@dataclass(frozen=True)
class _Side:
    """One side of a comparison, read off the chain of nodes above the encoder."""

    kind: str
    tower: str
    field: str
    level: str
    normalized: bool


def _side(node: Node) -> _Side | None:
    """None if the features are more than those of one stream."""
    normalized = False
    while node.operation in ("normalize", "stop"):
        normalized |= node.operation == "normalize"
        node = node.inputs[0]
    if node.operation not in ("pooled", "tokens"):
        return None
    encode = node.inputs[0]
    encoder = encoder_of(encode)
    return _Side(encoder.kind, encoder.tower, root_field(encode.inputs[0]).string("name"), node.operation, normalized)
