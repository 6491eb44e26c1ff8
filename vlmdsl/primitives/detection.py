"""Boxes predicted at the patches of an image: heads on tokens, the box that each is for, and losses of boxes (ATSS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Module, Node, Use
from vlmdsl.ir.operations.detection import ATSS
from vlmdsl.primitives.correspondence import check_numbers, check_patches
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.source.limits import MAXIMUM_LAYERS, MAXIMUM_WIDTH
from vlmdsl.types import AlignmentType, TokensType

PATCHES = "the patches of an image, or numbers of each"
_BOXES = Subject("boxes", ("Boxes",), "the boxes of the image")
_DETECTED = (
    "recipe detected(image: Image, boxes: Boxes, phrases: Phrases)\nlet points = vision(image).tokens\n"
    "let at = atss(points, boxes, scale=3)\n"
)


class TokenHeadParameters(Parameters):
    """Arguments of `token_head`."""

    out: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="numbers per token; 0: the input dimension")
    layers: int = Field(default=1, ge=1, le=MAXIMUM_LAYERS, description="number of linear layers, GELU between them")
    hidden: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="hidden dimension; 0: the input dimension")
    bias: Literal["learned", "none"] = Field(
        default="learned", description="whether the last layer has a bias, which starts at 0"
    )
    start: float = Field(
        default=1.0, ge=0.0, le=10.0, description="what the weight of the last layer is multiplied by at the start"
    )
    name: GivenName = Field(description="its name in checkpoints; heads with one name share weights")


def _token_head(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    from vlmdsl.ir.modules import TokenHeadSettings  # few recipes apply modules, and classes take time to make

    assert isinstance(parameters, TokenHeadParameters)
    tokens = builder.tokens(subjects["tokens"], "tokens", "token_head")
    values = parameters.model_dump()
    name, start, bias = values.pop("name"), float(values.pop("start")), values.pop("bias") == "learned"
    settings = TokenHeadSettings(**values, start=start, bias=bias)
    return builder.add("apply", tokens, use=Use(Module(name, "token_head", settings)))


register(
    Primitive(
        name="token_head",
        family="detection",
        summary="Numbers of each token by itself: linear maps with a GELU between them.",
        meaning=_token_head,
        subjects=(Subject("tokens", ("Tokens", "Encoded", "Image", "Text"), "token features"),),
        parameters=TokenHeadParameters,
        formula=r"g(x_{ik})",
        cost="its weights, for every token",
        example=(_DETECTED + 'minimize giou(token_head(points, out=4, name="boxes"), boxes, at=at)'),
    )
)


class AtssParameters(Parameters):
    """Arguments of `atss`; the defaults are those of ATSS and GLIP."""

    topk: int = Field(default=9, ge=1, le=1000, description="number of nearest patches that are candidates for a box")
    scale: float = Field(default=8.0, gt=0.0, le=1000.0, description="side of the anchor of a patch, in patches")


def _atss(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    points, boxes = builder.tokens(subjects["points"], "points", "atss"), subjects["boxes"]
    assert isinstance(boxes, Node)
    assert isinstance(parameters, AtssParameters)
    check_patches(builder, points, "points", "atss", PATCHES)
    return builder.add("atss", builder.add("stop", points), boxes, topk=parameters.topk, scale=float(parameters.scale))


register(
    Primitive(
        name="atss",
        family="detection",
        summary=(
            "Which box each patch of an image is for: of the patches nearest to the centre of a box those whose anchors "
            "overlap it by at least the mean plus the standard deviation of their overlaps, with centres inside (ATSS). "
            "Each patch has one square anchor."
        ),
        meaning=_atss,
        subjects=(Subject("points", ("Tokens", "Encoded", "Image"), "the patches of the image"), _BOXES),
        parameters=AtssParameters,
        formula=r"a_{ip} \in \{1, \ldots, R_i\} \cup \{\varnothing\}",
        cost="P R overlaps per sample",
        example=_DETECTED + 'minimize centreness(token_head(points, out=1, name="centreness"), boxes, at=at)',
    )
)


def _of_points(operation: str, count: int) -> Callable[[Builder, Mapping[str, Value], Parameters], Value]:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        numbers, boxes, at = builder.tokens(subjects["predicted"], "predicted", operation), subjects["boxes"], subjects["at"]
        assert isinstance(boxes, Node)
        assert isinstance(at, Node)
        check_patches(builder, numbers, "predicted", operation, PATCHES)
        check_numbers(builder, numbers, count, "predicted", operation)
        if at.operation is not ATSS or at.inputs[1] is not boxes:
            help = ("name it, `let at = atss(points, boxes)`, with the same boxes",)
            raise bad_value(builder, "at", operation, "it does not say which of these boxes each patch is for", *help)
        return builder.add(operation, numbers, boxes, at, scale=at.number("scale"))

    return meaning


_AT = Subject("at", ("BoxAssignment",), "the box that each patch is for", keyword=True)
register(
    Primitive(
        name="giou",
        family="detection",
        summary=(
            "1 - GIoU of the boxes that patches predict and those that they are for, weighted by the centreness of the "
            "patches; a mean over the positives of the global batch, 0 without any. Four numbers per patch are offsets of "
            "the centre and logarithms of the size, relative to its anchor."
        ),
        meaning=_of_points("giou", 4),
        subjects=(Subject("predicted", ("Tokens",), "four numbers per patch, `token_head(points, out=4)`"), _BOXES, _AT),
        laws=("permutation", "non_negative"),
        formula=r"\frac{\sum_{i,p} c_{ip} (1 - \mathrm{GIoU}(\hat{b}_{ip}, b_{i a_{ip}}))}{\sum_{i,p} c_{ip}}",
        cost="none",
        example=_DETECTED + 'minimize giou(token_head(points, out=4, name="boxes"), boxes, at=at)',
    )
)
register(
    Primitive(
        name="centreness",
        family="detection",
        summary=(
            "The binary cross-entropy of a number per patch with how central the patch is in its box (FCOS), divided by the "
            "positives of the global batch, at least 1."
        ),
        meaning=_of_points("centreness", 1),
        subjects=(Subject("predicted", ("Tokens",), "a number per patch, `token_head(points, out=1)`"), _BOXES, _AT),
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{N_+} \sum_{i,p} \mathrm{BCE}(z_{ip}, c_{ip})",
        cost="none",
        example=_DETECTED + 'minimize centreness(token_head(points, out=1, name="centreness"), boxes, at=at)',
    )
)


def _word_bias(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits, numbers = subjects["logits"], builder.tokens(subjects["numbers"], "numbers", "word_bias")
    assert isinstance(logits, Node)
    assert isinstance(logits.type, AlignmentType)
    if not (isinstance(numbers.type, TokensType) and numbers.type.tokens == logits.type.words):
        raise wrong_type(builder, "numbers", "word_bias", numbers, "a number per word of the logits")
    check_numbers(builder, numbers, 1, "numbers", "word_bias")
    return builder.add("word_bias", logits, numbers)


register(
    Primitive(
        name="word_bias",
        family="detection",
        summary="Logits of regions and words with a number of each word added for all regions.",
        meaning=_word_bias,
        subjects=(
            Subject("logits", ("Alignment",), "logits of regions and words"),
            Subject("numbers", ("Tokens",), "a number per word, `token_head(words, out=1)`"),
        ),
        formula=r"z_{ikl} + b_{il}",
        cost="none",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\nlet words = language(text_of(phrases))\n"
            'let z = word_bias(alignment(regions(image, boxes), words), token_head(words, out=1, name="bias"))\n'
            "minimize focal(z, word_map(words, boxes))"
        ),
    )
)


class AroundParameters(Parameters):
    """Arguments of `around_patches`."""

    size: float = Field(
        default=0.05, gt=0.0, lt=1.0, description="side of the box around each patch, as a share of the image"
    )


def _around_patches(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    numbers = builder.tokens(subjects["numbers"], "numbers", "around_patches")
    assert isinstance(parameters, AroundParameters)
    check_patches(builder, numbers, "numbers", "around_patches", PATCHES)
    check_numbers(builder, numbers, 4, "numbers", "around_patches")
    return builder.add("around_patches", numbers, size=float(parameters.size))


register(
    Primitive(
        name="around_patches",
        family="detection",
        summary=(
            "Boxes that begin where their patches are: numbers of each patch plus the logits of the centre and the size of "
            "a box around it (Deformable DETR, DINO). Without it all patches begin with one box, and which of them is "
            "matched with a box of the image is left to chance."
        ),
        meaning=_around_patches,
        subjects=(Subject("numbers", ("Tokens",), "four numbers per patch, `token_head(points, out=4)`"),),
        parameters=AroundParameters,
        formula=r"g(x_{ik}) + \sigma^{-1}(c_k, s, s)",
        cost="none",
        example=(
            "recipe matched_boxes(image: Image, boxes: Boxes, phrases: Phrases)\nlet text = language(text_of(phrases))\n"
            'let points = vision(image).tokens\nlet places = around_patches(token_head(points, out=4, name="boxes"))\n'
            "let at = match_boxes(alignment(points, text), places, word_map(text, boxes), boxes)\n"
            "minimize box_error(places, boxes, at=at)"
        ),
    )
)
