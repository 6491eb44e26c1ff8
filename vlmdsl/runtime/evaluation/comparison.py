"""How a recipe compares an image with a text: the towers, the features, the similarity that its objective trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.normalize import normalize
from vlmdsl.backends.torch.ops.similarities import similarity_to
from vlmdsl.backends.torch.values import Similarities, TokenFeatures
from vlmdsl.ir import Contrast, Head, Node, Program, encoder_of, root_field, walk
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import ENCODE, NORMALIZE, POOLED, REDUCE_TOKENS
from vlmdsl.ir.operations.grounding import REGIONS
from vlmdsl.ir.operations.matrices import SIMILARITY, UNITE
from vlmdsl.ir.operations.modules import APPLY, pooler_of
from vlmdsl.ir.operations.reference import ATTEND
from vlmdsl.ir.operations.scalars import CONSTANT, MULTIPLY
from vlmdsl.passes.linear import expand
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.types import EncodedType, FieldType, SimType

__all__ = ["Comparison", "Part", "comparison_of"]


@dataclass(frozen=True)
class Part:
    """One summand: `coefficient` times the similarity `by` of the outputs `level` (`pooled` or `tokens`) of both streams.

    They are scaled to unit length first if `normalized`. `text_first`: the recipe compares the text with the image, which
    matters for the directions of a token-wise similarity.
    """

    by: str = "dot"
    level: str = "pooled"
    normalized: bool = True
    arguments: tuple[tuple[str, Any], ...] = ()
    text_first: bool = False
    coefficient: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """The image-text similarity of a recipe: the sum of its `parts`.

    `image_tower` and `text_tower` encode the fields `image_field` and `text_field`.
    """

    image_tower: str
    text_tower: str
    image_field: str = "image"
    text_field: str = "text"
    parts: tuple[Part, ...] = (Part(),)
    text_source: Node | None = None
    """The view of the text that the recipe compares, such as `render(text)`; None for the text itself."""
    image_features: Node | None = None
    """The node of the image's features, if they are more than its encoded features, such as with retrieval."""
    image_heads: tuple[Head, ...] = ()
    text_heads: tuple[Head, ...] = ()
    """The heads through which the recipe compares, each behind the one before."""
    device: torch.device | str = "cpu"
    """The device on which similarities are computed; features may be on another one."""

    @property
    def pooled(self) -> bool:
        """Whether only pooled features are compared."""
        return all(part.level == "pooled" for part in self.parts)

    @property
    def normalized(self) -> bool:
        """Whether only unit vectors are compared."""
        return all(part.normalized for part in self.parts)

    def __call__(self, images: EncodedFeatures, texts: EncodedFeatures) -> Similarities:
        """`[n, m]` similarities of n images and m texts: `rows` rank texts for an image, `columns` images for a text."""
        parts = [self._part(part, images, texts) for part in self.parts]
        if len(parts) == 1 and self.parts[0].coefficient == 1.0:
            return parts[0]
        weights = [part.coefficient for part in self.parts]
        rows = sum((weight * one.rows for weight, one in zip(weights, parts, strict=True)), start=torch.zeros(()))
        columns = sum((weight * one.columns for weight, one in zip(weights, parts, strict=True)), start=torch.zeros(()))
        return Similarities(rows, columns)

    def _part(self, part: Part, images: EncodedFeatures, texts: EncodedFeatures) -> Similarities:
        image, text = self._compared(images, part), self._compared(texts, part)
        if not part.text_first:
            return similarity_to(image, text, part.by, **dict(part.arguments))
        reversed_pair = similarity_to(text, image, part.by, **dict(part.arguments))
        return Similarities(reversed_pair.columns.T, reversed_pair.rows.T)

    def _compared(self, features: EncodedFeatures, part: Part) -> Tensor | TokenFeatures:
        if part.level == "tokens":
            assert features.tokens is not None
            mask = None if features.mask is None else features.mask.to(self.device)
            tokens = TokenFeatures(features.tokens.to(self.device), mask)
            return normalize(tokens) if part.normalized else tokens
        assert features.pooled is not None
        pooled = features.pooled.to(self.device)
        return normalize(pooled) if part.normalized else pooled


def comparison_of(program: Program) -> Comparison | None:
    """The image-text comparison of an objective; None if it has none (a recipe of images alone).

    Of several comparisons it is that of the text which the recipe's signature names first, which is the whole caption, and
    then that of the image named first; of these the first one.
    """
    places = {name: place for place, (name, _) in enumerate(program.fields)}
    last = len(places)
    return min(
        _comparisons(program),
        key=lambda comparison: (places.get(comparison.text_field, last), places.get(comparison.image_field, last)),
        default=None,
    )


def _comparisons(program: Program) -> Iterator[Comparison]:
    """Every comparison of an image with a text."""
    for summands in _matrices(program):
        sides = [tuple(_side(features) for features in node.inputs[:2]) for _, node in summands]
        pairs = [_image_and_text(pair) for pair in sides]
        if not pairs or None in pairs:
            continue
        image, text = next(pair for pair in pairs if pair is not None)
        parts = tuple(
            Part(
                by=_similarity_name(node),
                level=pair[0].level,
                normalized=pair[0].normalized and pair[1].normalized,
                arguments=_arguments(node),
                text_first=first[0] is pair[1],
                coefficient=coefficient,
            )
            for (coefficient, node), pair, first in zip(summands, pairs, sides, strict=True)
            if pair is not None
        )
        yield Comparison(
            image.tower, text.tower, image.field, text.field, parts, text.view, image.composite, image.heads, text.heads
        )


def _image_and_text(sides: tuple[_Side | None, ...]) -> tuple[_Side, _Side] | None:
    both = sorted((side for side in sides if side), key=lambda side: side.kind)
    return (both[0], both[1]) if [side.kind for side in both] == ["Image", "Text"] else None


def _matrices(program: Program) -> Iterator[list[tuple[float, Node]]]:
    """What each matrix that a loss reads is made of: (coefficient, node that compares two streams)."""
    for node in program.nodes():
        contrast = dict(node.attributes).get("contrast")
        if isinstance(contrast, Contrast) and contrast.fused:
            yield [(1.0, node)]
        elif node.operation is CONTRAST or node.operation.criterion:
            yield from (_summands(matrix) for matrix in _side_by_side(node.inputs[0]))


def _side_by_side(matrix: Node) -> list[Node]:
    """The matrices whose columns stand side by side; one for a plain one."""
    return [part for half in matrix.inputs for part in _side_by_side(half)] if matrix.operation is UNITE else [matrix]


def _summands(matrix: Node) -> list[tuple[float, Node]]:
    """A matrix as a sum of similarities; what scales or moves all its entries alike changes no ranking and is left out."""
    return [(float(coefficient), leaf) for leaf, _, coefficient in expand(matrix, "", _parts) or []]


def _parts(matrix: Node, _key: str) -> list[tuple[Node, str, Fraction]] | None:
    """What a matrix is made of, each with its coefficient; None for a similarity, and for anything but a sum."""
    matrices = [parent for parent in matrix.inputs if isinstance(parent.type, SimType)]
    signs = matrix.operation.signs
    if matrix.operation is SIMILARITY or (len(matrices) > 1 and not signs):
        return None
    shares = [Fraction(1)] * len(matrices)
    if matrix.operation is MULTIPLY and len(matrices) == 1:
        shares = [Fraction(next((parent.number("value") for parent in matrix.inputs if parent.operation is CONSTANT), 1.0))]
    elif signs:
        shares = [
            Fraction(sign) for parent, sign in zip(matrix.inputs, signs, strict=True) if isinstance(parent.type, SimType)
        ]
    return [(parent, "", share) for parent, share in zip(matrices, shares, strict=True)]


def _similarity_name(node: Node) -> str:
    return node.string("by") if node.operation is SIMILARITY else "dot"


def _arguments(node: Node) -> Any:
    return dict(node.attributes).get("arguments", ())


@dataclass(frozen=True)
class _Side:
    """One side of a comparison, read off the chain of nodes above the encoder."""

    kind: str
    """Of the field: a text that is rendered as an image is a text."""
    tower: str
    field: str
    level: str
    normalized: bool
    view: Node | None
    """The view that is encoded; None for the field itself."""
    heads: tuple[Head, ...] = ()
    composite: Node | None = None
    """The features, where more than an encoder makes them."""


def _pooled_side(node: Node, normalized: bool) -> _Side | None:
    """An image, pooled by a module; None for a text given its image, which is not compared with other images."""
    if node.operation is not POOLED or pooler_of(node.inputs[0]) is None:
        return None
    encode = next(below for below in walk([node]) if below.operation is ENCODE)
    field = root_field(encode.inputs[0])
    if field.type != FieldType("Image"):
        return None  # a text that is rendered: evaluation encodes it to the features of its tower
    return _Side("Image", encoder_of(encode).tower, field.string("name"), "pooled", normalized, None, (), composite=node)


def _side(node: Node) -> _Side | None:
    """None if the features are more than those of one stream."""
    normalized = False
    # What is mixed, gated or left out in training is compared as it is.
    while node.operation.passes_features and node.operation not in (REDUCE_TOKENS, REGIONS):
        normalized |= node.operation is NORMALIZE
        node = node.inputs[0]
    if node.operation is REDUCE_TOKENS:
        tokens = _side(node.inputs[0])
        if tokens is None or tokens.kind != "Image":
            return None  # evaluation encodes a text to the features of its tower
        return replace(tokens, level="pooled", normalized=normalized, composite=node)
    if node.operation is ATTEND or node.operation.signs:
        sides = [_side(parent) for parent in (node.inputs[:1] if node.operation is ATTEND else node.inputs)]
        own = sides[0]
        if any(side is None or own is None or replace(side, composite=own.composite) != own for side in sides):
            return None  # features of several streams, or of several views or heads
        return (
            None
            if own is None or own.kind != "Image"
            else replace(own, level="pooled", normalized=normalized, composite=node)
        )
    if not node.operation.reads_encoder_output or node.inputs[0].operation is APPLY:
        return _pooled_side(node, normalized)
    encode = node.inputs[0]
    assert isinstance(encode.type, EncodedType)
    source = encode.inputs[0]
    field = root_field(source)
    joined = source.operation.pairs_fields
    kind = encode.type.kind if joined or not isinstance(field.type, FieldType) else field.type.kind
    view = None if source is field else source
    encoder = encoder_of(encode)
    return _Side(kind, encoder.tower, field.string("name"), node.operation, normalized, view, encoder.heads)
