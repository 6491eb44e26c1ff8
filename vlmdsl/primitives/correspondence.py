"""Checks that regions, words and boxes belong together: patches that are where boxes say, words of the text that is mapped,
and as many numbers per token as a criterion reads."""

from __future__ import annotations

from collections.abc import Iterator

from vlmdsl.ir import Node, encoder_of, masked_text, walk
from vlmdsl.ir.operations.detection import ASSIGNED_WORDS
from vlmdsl.ir.operations.encoding import ENCODE, source_of
from vlmdsl.ir.operations.grounding import ALIGNMENT, REGIONS
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.ir.operations.views import DROP, FIELD, REPLACE
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.spec import Builder
from vlmdsl.types import AlignmentType, FieldType, TokensType, WordMapType

__all__ = ["check_numbers", "check_patches", "check_regions", "check_text", "check_words", "map_of"]

_WHOLE = "leave its views out: boxes are places in the whole image"


def check_patches(builder: Builder, tokens: Node, argument: str, function: str, expected: str) -> None:
    """Fault unless these are the patches of a whole image, or numbers of each, at their places.

    Boxes are places in the whole image, and patches of a grid that is as large: none of a crop, none without the dropped
    ones, and none of another sample. Replaced patches are at their places, and so are those that a decoder restores.
    """
    if not (isinstance(tokens.type, TokensType) and tokens.type.tokens == "P"):
        raise wrong_type(builder, argument, function, tokens, expected)
    below = list(_until_encoded(tokens))
    if any(node.operation is FETCH for node in below):
        raise bad_value(builder, argument, function, "the patches are those of another sample, and the boxes are not")
    modules = {use_of(node).module.family for node in below if node.operation is APPLY}
    if "pooler" in modules:
        raise bad_value(builder, argument, function, "what a pooler gives of an image is not at any place of it")
    encode = below[-1]
    in_place = (FIELD, REPLACE, DROP) if "decoder" in modules else (FIELD, REPLACE)
    if encode.operation is ENCODE and any(node.operation not in in_place for node in _views(encode.inputs[0])):
        raise bad_value(builder, argument, function, "the boxes are not those of a changed image", _WHOLE)


def check_numbers(builder: Builder, tokens: Node, count: int, argument: str, function: str) -> None:
    """Fault unless a head gives so many numbers of each token."""
    heads = (node for node in _until_encoded(tokens) if node.operation is APPLY)
    head = next((use_of(node).module for node in heads), None)
    numbers = getattr(head.settings, "out", 0) if head is not None and head.family == "token_head" else 0
    if numbers != count:
        reason = f"reads {count} number{'s' * (count > 1)} per token, and there are {numbers or 'the features of a tower'}"
        raise bad_value(builder, argument, function, reason, f'`token_head(tokens, out={count}, name="{argument}")`')


def check_words(builder: Builder, logits: Node, target: Node, argument: str, function: str) -> None:
    """Fault unless `target`, a map of words, is of the words and regions that `logits` are of."""
    own, mapped = logits.type, target.type
    assert isinstance(own, AlignmentType)
    assert isinstance(mapped, WordMapType)
    if (own.regions, own.words) != (mapped.regions, mapped.words):
        raise wrong_type(builder, argument, function, target, str(WordMapType(own.rows, own.regions, own.words)))
    check_text(builder, logits, target, argument, function)


def check_text(builder: Builder, logits: Node, target: Node, argument: str, function: str) -> None:
    """Fault unless the words of `logits` are those of a map of words, and their regions, if boxes, its boxes."""
    own_map = map_of(target)
    mapped, boxes = own_map.inputs
    for alignment in _alignments(logits):
        regions, words = (list(_until_encoded(node)) for node in alignment.inputs)
        if any(node.operation is REGIONS and node.inputs[1] is not boxes for node in regions):
            raise bad_value(builder, argument, function, "it maps the words of other boxes")
        if any(node.operation is FETCH for node in (*regions, *words)):
            reason = "the logits are of another sample, and it maps the sample's own words"
            raise bad_value(builder, argument, function, reason)
        texts = [node for node in words if node.operation is ENCODE]
        if any(_read(node) != _read(mapped) for node in texts):
            help = "give both the same text: `let words = language(text_of(phrases))`, and `words` in both"
            raise bad_value(builder, argument, function, "it maps the words of another text than that of the logits", help)


def check_regions(builder: Builder, logits: Node, boxes: Node, argument: str, function: str) -> None:
    """Fault unless `logits` are of the regions that these boxes are."""
    for alignment in _alignments(logits):
        below = list(_until_encoded(alignment.inputs[0]))
        if not any(node.operation is REGIONS and node.inputs[1] is boxes for node in below):
            expected = "logits of the boxes, `alignment(regions(image, boxes), ...)`"
            raise wrong_type(builder, argument, function, logits, expected)


def map_of(target: Node) -> Node:
    """The map of the words of boxes: itself, or that by which points have the words of their boxes."""
    return target.inputs[0] if target.operation is ASSIGNED_WORDS else target


def _alignments(logits: Node) -> Iterator[Node]:
    return (node for node in walk([logits]) if node.operation is ALIGNMENT)


def _read(encode: Node) -> tuple[Node, str]:
    """The text that was encoded, whether tokens of it are masked or not, and the tower, whose tokenizer its words are of."""
    source = source_of(encode)
    masked = masked_text(source)
    return source if masked is None else masked.inputs[0], encoder_of(encode).tower


def _until_encoded(node: Node) -> Iterator[Node]:
    """The node and its first inputs, down to what was encoded, if anything was."""
    yield node
    while node.operation is not ENCODE and node.inputs:
        node = node.inputs[0]
        yield node


def _views(source: Node) -> Iterator[Node]:
    while isinstance(source.type, FieldType):
        yield source
        if not source.inputs:
            return
        source = source.inputs[0]
