"""Boxes that patches predict, matched one to one with those of the image (DETR), and criteria over matched patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.ir.operations.detection import MATCH_BOXES
from vlmdsl.primitives.correspondence import check_numbers, check_patches, check_text, check_words, map_of
from vlmdsl.primitives.detection import PATCHES
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import AlignmentType

_BOXES = Subject("boxes", ("Boxes",), "the boxes of the image")
_PREDICTED = Subject("predicted", ("Tokens",), "four numbers per patch, `token_head(points, out=4)`")
_WORDS = Subject("words", ("WordMap",), "the words of each box, `word_map(text, boxes)`")
_AT = Subject("at", ("BoxAssignment",), "the box that each patch is matched with, `match_boxes(...)`", keyword=True)
_MATCHED = (
    "recipe matched_boxes(image: Image, boxes: Boxes, phrases: Phrases)\nlet text = language(text_of(phrases))\n"
    'let points = vision(image).tokens\nlet places = token_head(points, out=4, name="boxes")\n'
    'let classes = token_head(points, out=33, name="positions")\n'
    "let words = word_map(text, boxes)\nlet at = match_boxes(classes, places, words, boxes)\n"
)


class MatchParameters(Parameters):
    """Arguments of `match_boxes`; the defaults are those of MDETR."""

    affinity: float = Field(default=1.0, ge=0.0, le=1000.0, description="weight of how well a patch fits the words of a box")
    l1: float = Field(default=5.0, ge=0.0, le=1000.0, description="weight of the absolute error of centre and size")
    giou: float = Field(default=2.0, ge=0.0, le=1000.0, description="weight of the GIoU")


def _match_boxes(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    scores, words, boxes = subjects["scores"], subjects["words"], subjects["boxes"]
    predicted = builder.tokens(subjects["predicted"], "predicted", "match_boxes")
    assert isinstance(scores, Node)
    assert isinstance(words, Node)
    assert isinstance(boxes, Node)
    assert isinstance(parameters, MatchParameters)
    _check_predicted(builder, predicted, "match_boxes")
    _check_map(builder, words, boxes, "match_boxes")
    if not isinstance(scores.type, AlignmentType):
        scores = builder.tokens(scores, "scores", "match_boxes")
        check_patches(builder, scores, "scores", "match_boxes", PATCHES)
    elif scores.type.regions != "P":
        raise wrong_type(builder, "scores", "match_boxes", scores, "logits of the patches of an image")
    else:
        check_text(builder, scores, words, "words", "match_boxes")
    values = {name: float(value) for name, value in parameters.model_dump().items()}
    return builder.add("match_boxes", builder.add("stop", scores), builder.add("stop", predicted), words, boxes, **values)


def _check_predicted(builder: Builder, predicted: Node, function: str) -> None:
    """Fault unless these are four numbers of each patch of a whole image."""
    check_patches(builder, predicted, "predicted", function, PATCHES)
    check_numbers(builder, predicted, 4, "predicted", function)


def _check_map(builder: Builder, words: Node, boxes: Node, function: str) -> None:
    """Fault unless these are the words of these boxes."""
    if map_of(words) is not words or words.inputs[1] is not boxes:
        raise wrong_type(builder, "words", function, words, "the words of the same boxes, `word_map(text, boxes)`")


register(
    Primitive(
        name="match_boxes",
        family="detection",
        summary=(
            "The box that each patch of an image is matched with, one to one, so that the total cost is least (the "
            "Hungarian algorithm): minus how well its logits fit the words of the box, plus the absolute error of its box, "
            "minus their GIoU, each with a weight (DETR, MDETR). Boxes are predicted as the sigmoid of centre and size."
        ),
        meaning=_match_boxes,
        subjects=(
            Subject("scores", ("Tokens", "Alignment"), "logits over positions and no object, or against the words"),
            _PREDICTED,
            _WORDS,
            _BOXES,
        ),
        parameters=MatchParameters,
        formula=r"a_{ip} \in \{1, \ldots, R_i\} \cup \{\varnothing\}",
        cost="P R costs per sample, matched on the CPU",
        example=_MATCHED + "minimize box_error(places, boxes, at=at)",
    )
)


class SoftTokenParameters(Parameters):
    """Arguments of `soft_token_loss`."""

    without: float = Field(default=0.1, ge=0.0, le=1.0, description="weight of patches that are matched with no box")


def _soft_token_loss(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits, words = builder.tokens(subjects["logits"], "logits", "soft_token_loss"), subjects["words"]
    assert isinstance(words, Node)
    assert isinstance(parameters, SoftTokenParameters)
    check_patches(builder, logits, "logits", "soft_token_loss", PATCHES)
    boxes, at = _matched_with(builder, subjects, "soft_token_loss")
    _check_map(builder, words, boxes, "soft_token_loss")
    return builder.add("soft_token_loss", logits, words, boxes, at, without=float(parameters.without))


def _matched_with(builder: Builder, subjects: Mapping[str, Value], function: str) -> tuple[Node, Node]:
    """The boxes, and which of them each patch is matched with."""
    boxes, at = subjects["boxes"], subjects["at"]
    assert isinstance(boxes, Node)
    assert isinstance(at, Node)
    if at.operation is not MATCH_BOXES or at.inputs[3] is not boxes:
        help = ("name it, `let at = match_boxes(...)`, with the same boxes",)
        raise bad_value(builder, "at", function, "it does not say which of these boxes each patch is matched with", *help)
    return boxes, at


register(
    Primitive(
        name="soft_token_loss",
        family="detection",
        summary=(
            "The cross-entropy of each patch's softmax over the positions of a text and no object (the last) with the "
            "words of the box that it is matched with, spread evenly; divided by the boxes of the global batch, at least 1 "
            "(MDETR)."
        ),
        meaning=_soft_token_loss,
        subjects=(Subject("logits", ("Tokens",), "logits over positions and no object"), _WORDS, _BOXES, _AT),
        parameters=SoftTokenParameters,
        laws=("permutation", "non_negative"),
        formula=r"-\frac{1}{N} \sum_{i,p} w_{ip} \sum_l y_{ipl} \log p_{ipl}",
        cost="P T numbers per sample",
        example=_MATCHED + "minimize soft_token_loss(classes, words, boxes, at=at)",
    )
)


def _token_contrast_loss(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits, words, boxes = subjects["logits"], subjects["words"], subjects["boxes"]
    assert isinstance(logits, Node)
    assert isinstance(words, Node)
    assert isinstance(boxes, Node)
    if map_of(words) is words:
        raise wrong_type(builder, "words", "token_contrast_loss", words, "the words of patches, `word_map(..., at=at)`")
    check_words(builder, logits, words, "words", "token_contrast_loss")
    return builder.add("token_contrast_loss", logits, words, boxes)


register(
    Primitive(
        name="token_contrast_loss",
        family="detection",
        summary=(
            "Each matched patch against the words of its text, and each named word against the patches: log-sum-exp minus "
            "the mean of the positives; half of both, divided by the boxes of the global batch, at least 1 (MDETR)."
        ),
        meaning=_token_contrast_loss,
        subjects=(
            Subject("logits", ("Alignment",), "logits of patches and words"),
            Subject("words", ("WordMap",), "the words of matched patches, `word_map(text, boxes, at=at)`"),
            _BOXES,
        ),
        laws=("permutation",),
        formula=r"\frac{1}{2N} \sum_{i,p} \left(\log \sum_l e^{z_{ipl}} - \bar{z}_{ip}\right) + \ldots",
        cost="P L numbers per sample",
        example=_MATCHED
        + "minimize token_contrast_loss(alignment(points, text) / 0.07, word_map(text, boxes, at=at), boxes)",
    )
)


def _of_matched(operation: str) -> Callable[[Builder, Mapping[str, Value], Parameters], Value]:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        predicted = builder.tokens(subjects["predicted"], "predicted", operation)
        _check_predicted(builder, predicted, operation)
        boxes, at = _matched_with(builder, subjects, operation)
        return builder.add(operation, predicted, boxes, at)

    return meaning


for _name, _summary, _formula in (
    (
        "box_error",
        "The absolute errors of centre and size of the boxes that matched patches predict",
        r"\frac{1}{N} \sum_{i,p} \| \hat{b}_{ip} - b_{i a_{ip}} \|_1",
    ),
    (
        "matched_iou",
        "1 - GIoU of the boxes that matched patches predict",
        r"\frac{1}{N} \sum_{i,p} 1 - \mathrm{GIoU}(\hat{b}_{ip}, b_{i a_{ip}})",
    ),
):
    register(
        Primitive(
            name=_name,
            family="detection",
            summary=f"{_summary}, summed and divided by the boxes of the global batch, at least 1 (DETR).",
            meaning=_of_matched(_name),
            subjects=(_PREDICTED, _BOXES, _AT),
            laws=("permutation", "non_negative"),
            formula=_formula,
            cost="none",
            example=_MATCHED + f"minimize {_name}(places, boxes, at=at)",
        )
    )
