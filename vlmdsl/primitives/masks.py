"""Masks: which tokens or patches are selected, and the masked text or image."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.diagnostics.catalog.values import BadValue, BoundsDisagree
from vlmdsl.ir import Node
from vlmdsl.primitives.faults import bad_value
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, Value
from vlmdsl.types import FieldType

BLOCKS, WHOLE_WORDS, SPANS = "blocks", "whole_words", "spans"
"""The mask rules that select blocks of patches, all tokens of some words, and tokens beside each other."""


class RandomParameters(Parameters):
    """Arguments of `random`."""

    share: float = Field(gt=0.0, le=1.0, description="the probability of each token; of patches exactly this share")


def _random(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, RandomParameters)
    return MaskValue(parameters.share, builder.draw())


register(
    Primitive(
        name="random",
        family="masks",
        summary="Selects each token independently, with this probability; of the patches of an image this share.",
        meaning=_random,
        parameters=RandomParameters,
        positional_parameters=("share",),
        formula=r"P(k \in M_i) = p",
        cost="none",
        example="minimize mlm(mask(text, random(15%)))",
    )
)


class WholeWordsParameters(Parameters):
    """Arguments of `whole_words`."""

    share: float = Field(gt=0.0, le=1.0, description="the share of the tokens of a text; at least one token")


def _whole_words(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, WholeWordsParameters)
    return MaskValue(float(parameters.share), builder.draw(), WHOLE_WORDS, (), "Text")


register(
    Primitive(
        name=WHOLE_WORDS,
        family="masks",
        summary="Selects all tokens of some words, up to the share; a word that would exceed it is left out (BERT).",
        meaning=_whole_words,
        parameters=WholeWordsParameters,
        positional_parameters=("share",),
        formula=r"M_i = \bigcup_{w \in W_i} w",
        cost="none",
        example="minimize mlm(mask(text, whole_words(15%)))",
    )
)


class SpansParameters(Parameters):
    """Arguments of `spans`; the defaults are T5's."""

    share: float = Field(default=0.15, gt=0.0, lt=1.0, description="the share of the tokens of a text; at least one token")
    mean_length: float = Field(default=3.0, ge=1.0, le=2**15, description="the mean number of tokens of a span")


def _spans(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, SpansParameters)
    arguments = (("mean_length", float(parameters.mean_length)),)
    return MaskValue(float(parameters.share), builder.draw(), SPANS, arguments, "Text")


register(
    Primitive(
        name=SPANS,
        family="masks",
        summary="Selects spans of tokens of a mean length, the rest of the text between them; never the first token (T5).",
        meaning=_spans,
        parameters=SpansParameters,
        positional_parameters=("share",),
        formula=r"M_i = \bigcup_s [b_s, b_s + l_s)",
        cost="none",
        example="minimize mlm(mask(text, spans(15%)))",
    )
)


class BlocksParameters(Parameters):
    """Arguments of `blocks`; of a grid of 14 x 14 patches the defaults are 75 patches in blocks of at least 16 (BEiT)."""

    share: float = Field(default=75 / 196, gt=0.0, lt=1.0, description="the largest share of the patches that it selects")
    smallest: float = Field(
        default=16 / 196, gt=0.0, lt=1.0, description="the smallest area of a block, as a share of the patches"
    )
    aspect: float = Field(default=0.3, gt=0.0, le=1.0, description="the smallest ratio of the sides of a block")


def _blocks(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, BlocksParameters)
    if parameters.smallest > parameters.share:
        reason = f"the smallest block, {parameters.smallest:g} of the patches, is more than the share, {parameters.share:g}"
        raise Fault(BoundsDisagree.at(builder.place("smallest"), reason=reason))
    arguments = {"aspect": float(parameters.aspect), "smallest": float(parameters.smallest)}
    return MaskValue(float(parameters.share), builder.draw(), BLOCKS, tuple(arguments.items()), "Image")


register(
    Primitive(
        name=BLOCKS,
        family="masks",
        summary=(
            "Selects overlapping blocks of patches until the share is reached, or no block fits any more, so that the "
            "number of patches varies a little (BEiT)."
        ),
        meaning=_blocks,
        parameters=BlocksParameters,
        positional_parameters=("share",),
        formula=r"M_i = \bigcup_b [y_b, y_b + h_b) \times [x_b, x_b + w_b)",
        cost="none",
        example=(
            "recipe blockwise(image: Image)\nencoder tokenizer = codebook(size=64)\nlet m = blocks(40%)\n"
            "minimize token_loss(linear(mask(image, m), size=64), codes(image, by=tokenizer), at=m)"
        ),
    )
)


class MaskParameters(Parameters):
    """Arguments of `mask`; selected tokens that are neither masked nor replaced stay as they are, and are predicted too."""

    hidden: float = Field(default=0.8, ge=0.0, le=1.0, description="share of the selected tokens that become the mask token")
    replaced: float = Field(
        default=0.1, ge=0.0, le=1.0, description="share of the selected tokens that become a random token"
    )


def _mask(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text, tokens = subjects["stream"], subjects["tokens"]
    assert isinstance(text, Node)
    assert isinstance(tokens, MaskValue)
    assert isinstance(parameters, MaskParameters)
    if text.type == FieldType("Image"):
        return _replaced(builder, text, tokens, parameters)
    if tokens.of == "Image":
        reason = f"`{tokens.by}` selects patches of images, not tokens"
        raise Fault(BadValue.at(builder.place("tokens"), argument="tokens", function="mask", reason=reason))
    hidden, replaced = float(parameters.hidden), float(parameters.replaced)
    if hidden + replaced > 1.0 + 1e-9:
        reason = f"the shares of `hidden` and `replaced` sum to {hidden + replaced:g}, more than 1"
        raise Fault(BoundsDisagree.at(builder.place("replaced"), reason=reason))
    return builder.add(
        "mask",
        text,
        share=float(tokens.share),
        hidden=hidden,
        replaced=replaced,
        draw=tokens.draw,
        **tokens.attributes,
    )


def _replaced(builder: Builder, image: Node, patches: MaskValue, parameters: MaskParameters) -> Node:
    """The image with the selected patches replaced."""
    if patches.of == "Text":
        raise bad_value(builder, "tokens", "mask", f"`{patches.by}` selects tokens of texts, not patches")
    for name in sorted(parameters.model_fields_set):
        raise bad_value(builder, name, "mask", "it is for texts: every selected patch is replaced")
    if patches.share >= 1:
        raise bad_value(builder, "tokens", "mask", "the mask selects all patches, so that nothing predicts them")
    return builder.add("replace", image, share=float(patches.share), draw=patches.draw, **patches.attributes)


register(
    Primitive(
        name="mask",
        family="masks",
        summary=(
            "A text with some tokens masked, drawn per sample and epoch; never special tokens or padding (BERT). Of an "
            "image a learned token replaces the selected patches in the tower (BEiT)."
        ),
        meaning=_mask,
        subjects=(
            Subject("stream", ("Text", "Image"), "the text or the image"),
            Subject("tokens", ("Mask",), "which tokens or patches are selected"),
        ),
        parameters=MaskParameters,
        formula=r"\tilde{t}_{ik} \in \{[\mathrm{mask}], w, t_{ik}\} \text{ for } k \in M_i",
        cost="none",
        example="contrast(image, mask(text, random(15%)))",
        view_of="Text",
    )
)
