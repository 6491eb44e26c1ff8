"""Boxes predicted at the points of a grid of patches: which box each point is for, and losses of predicted boxes."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import NUMBER, need, take
from vlmdsl.types import AlignmentType, BoxAssignmentType, FieldType, LossType, TokensType, Type, WordMapType

__all__ = [
    "AROUND_PATCHES", "ASSIGNED_WORDS", "ATSS", "BOX_ERROR", "CENTRENESS", "GIOU", "MATCHED_IOU", "MATCH_BOXES",
    "SOFT_TOKEN_LOSS", "TOKEN_CONTRAST_LOSS", "WORD_BIAS",
]  # fmt: skip


def atss(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType, FieldType)
    need(isinstance(types[0], TokensType) and types[0].tokens == "P", f"takes the patches of an image, got {types[0]}")
    need(types[1] == FieldType("Boxes"), f"takes Boxes, got {types[1]}")
    need(node.number("topk") >= 1 and node.number("scale") > 0, "has no anchor")
    return BoxAssignmentType()


def around_patches(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType)
    need(types[0] == TokensType(tokens="P"), f"takes numbers of the patches of an image, got {types[0]}")
    need(0 < node.number("size") < 1, f"is of boxes of a share of the image, got {node.number('size')}")
    return types[0]


def assigned_words(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, WordMapType, BoxAssignmentType)
    words = types[0]
    assert isinstance(words, WordMapType)
    need(words.regions == "R", f"takes the words of boxes, got {words}")
    return WordMapType(regions="P", words=words.words)


def of_points(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType, FieldType, BoxAssignmentType)
    need(isinstance(types[0], TokensType) and types[0].tokens == "P", f"is predicted at patches, got {types[0]}")
    need(types[1] == FieldType("Boxes"), f"takes Boxes, got {types[1]}")
    return LossType()


def of_matched(node: Node, types: tuple[Type, ...]) -> Type:
    return of_points(node, types)


def word_bias(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, AlignmentType, TokensType)
    logits, numbers = types
    assert isinstance(logits, AlignmentType)
    assert isinstance(numbers, TokensType)
    need(logits.words == numbers.tokens, f"adds a number per word to {logits}, got {numbers}")
    return logits


def match_boxes(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 4, f"has {len(types)} inputs, wants 4")
    scores = types[0]
    need(isinstance(scores, TokensType | AlignmentType), f"matches by logits of patches, got {scores}")
    take(types[1:], TokensType, WordMapType, FieldType)
    return BoxAssignmentType()


def soft_token_loss(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType, WordMapType, FieldType, BoxAssignmentType)
    return LossType()


def token_contrast_loss(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, AlignmentType, WordMapType, FieldType)
    assert isinstance(types[0], AlignmentType)
    need(types[1] == WordMapType(regions="P", words=types[0].words), f"takes the words of matched patches, got {types[1]}")
    return LossType()


ATSS = define(
    Operation(
        "atss",
        atss,
        {"topk": (int,), "scale": NUMBER},
        stops_gradient=True,
        takes="Tokens of the patches of an image, Boxes",
        carries="`topk` candidates per box, `scale` of anchors, in patches",
        gives="BoxAssignment: the box that each patch is for, by the overlap of its anchor with the box",
    )
)
ASSIGNED_WORDS = define(
    Operation(
        "assigned_words",
        assigned_words,
        stops_gradient=True,
        takes="WordMap of boxes, BoxAssignment",
        gives="WordMap of points: the words of the box that each is for; all points count",
    )
)
GIOU = define(
    Operation(
        "giou",
        of_points,
        {"scale": NUMBER},
        counts="patch that is assigned to a box",
        takes="Tokens of four numbers per patch, Boxes, BoxAssignment",
        carries="`scale` of anchors",
        gives="Loss: 1 - GIoU of predicted boxes, weighted by centreness, over the positives of the global batch; none: 0",
    )
)
CENTRENESS = define(
    Operation(
        "centreness",
        of_points,
        {"scale": NUMBER},
        counts="patch that is assigned to a box",
        takes="Tokens of one number per patch, Boxes, BoxAssignment",
        carries="`scale` of anchors",
        gives="Loss: binary cross-entropy with the centreness of each patch, over the positives of the batch; none: 0",
    )
)
WORD_BIAS = define(
    Operation(
        "word_bias",
        word_bias,
        per_sample=True,
        takes="Alignment, Tokens of one number per word",
        gives="Alignment: the number of each word added to the logits of all regions",
    )
)
AROUND_PATCHES = define(
    Operation(
        "around_patches",
        around_patches,
        {"size": NUMBER},
        per_sample=True,
        takes="Tokens of four numbers per patch",
        carries="`size` of the box that is added, as a share of the image",
        gives="Tokens: logits of centre and size, those of a box of this size around each patch added to the numbers",
    )
)
MATCH_BOXES = define(
    Operation(
        "match_boxes",
        match_boxes,
        {"affinity": NUMBER, "l1": NUMBER, "giou": NUMBER},
        stops_gradient=True,
        takes="Tokens of logits over positions and no object, or Alignment; Tokens of four numbers, WordMap of boxes, Boxes",
        carries="weights of the `affinity` with the words of a box, of the absolute error, `l1`, and of `giou`",
        gives="BoxAssignment: the box that each patch is matched with, one to one, at the least cost (Hungarian)",
    )
)
SOFT_TOKEN_LOSS = define(
    Operation(
        "soft_token_loss",
        soft_token_loss,
        {"without": NUMBER},
        takes="Tokens of logits over positions and no object, WordMap of boxes, Boxes, BoxAssignment",
        carries="`without`: the weight of patches without a box",
        gives="Loss: the cross-entropy with the words of each patch's box, or no object, over the boxes of the global batch",
    )
)
TOKEN_CONTRAST_LOSS = define(
    Operation(
        "token_contrast_loss",
        token_contrast_loss,
        takes="Alignment of patches, WordMap of matched patches, Boxes",
        gives="Loss: patches against words and words against patches, half of both, over the boxes of the global batch",
    )
)
BOX_ERROR = define(
    Operation(
        "box_error",
        of_matched,
        takes="Tokens of four numbers per patch, Boxes, BoxAssignment",
        gives="Loss: the absolute error of centre and size of matched patches, over the boxes of the global batch",
    )
)
MATCHED_IOU = define(
    Operation(
        "matched_iou",
        of_matched,
        takes="Tokens of four numbers per patch, Boxes, BoxAssignment",
        gives="Loss: 1 - GIoU of matched patches, over the boxes of the global batch",
    )
)
