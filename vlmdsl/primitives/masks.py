"""Masks: which tokens are selected, the masked text, and the criterion that predicts the selected tokens."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.diagnostics.catalog.meaning import NothingHidden
from vlmdsl.diagnostics.catalog.types import PooledWhereTokensAreCompared, WrongType
from vlmdsl.diagnostics.catalog.values import BadValue, BoundsDisagree
from vlmdsl.ir import Node, encoder_of, masked_text
from vlmdsl.ir.operations.encoding import ENCODE, source_of
from vlmdsl.ir.operations.modules import APPLY
from vlmdsl.ir.operations.scalars import STOP
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, Value, type_of
from vlmdsl.types import JOINED, EncodedType


class RandomParameters(Parameters):
    """Arguments of `random`."""

    share: float = Field(gt=0.0, le=1.0, description="the probability of each token")


def _random(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, RandomParameters)
    return MaskValue(parameters.share, builder.draw())


register(
    Primitive(
        name="random",
        family="masks",
        summary="Selects each token independently, with this probability.",
        meaning=_random,
        parameters=RandomParameters,
        positional_parameters=("share",),
        formula=r"P(k \in M_i) = p",
        cost="none",
        example="minimize mlm(mask(text, random(15%)))",
    )
)


class MaskParameters(Parameters):
    """Arguments of `mask`; selected tokens that are neither masked nor replaced stay as they are, and are predicted too."""

    hidden: float = Field(default=0.8, ge=0.0, le=1.0, description="share of the selected tokens that become the mask token")
    replaced: float = Field(
        default=0.1, ge=0.0, le=1.0, description="share of the selected tokens that become a random token"
    )


def _mask(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text, tokens = subjects["text"], subjects["tokens"]
    assert isinstance(text, Node)
    assert isinstance(tokens, MaskValue)
    assert isinstance(parameters, MaskParameters)
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


register(
    Primitive(
        name="mask",
        family="masks",
        summary="The text with some tokens masked, drawn per sample and epoch; never special tokens or padding (BERT).",
        meaning=_mask,
        subjects=(
            Subject("text", ("Text",), "the text"),
            Subject("tokens", ("Mask",), "which tokens are selected"),
        ),
        parameters=MaskParameters,
        formula=r"\tilde{t}_{ik} \in \{[\mathrm{mask}], w, t_{ik}\} \text{ for } k \in M_i",
        cost="none",
        example="contrast(image, mask(text, random(15%)))",
        view_of="Text",
    )
)


def _mlm(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    value = builder.encoded(subjects["text"], "text")
    assert isinstance(value, Node)
    stopped = value.operation is STOP
    encode = value.inputs[0] if stopped else value
    if encode.type not in (EncodedType("Text"), EncodedType(JOINED)) or encode.operation not in (ENCODE, APPLY):
        actual = type_of(value)
        raise Fault(
            WrongType.at(builder.place("text"), str(actual), argument="text", function="mlm", wanted="a Text", found=actual),
            value,
        )
    if encode.operation is ENCODE and encoder_of(encode).heads:
        help = ("a head outputs pooled features only: use the tower itself, without `project` or `predict`",)
        place = builder.place("text")
        raise Fault(PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity="mlm"), value)
    if masked_text(source_of(encode)) is None:
        help = ("mask some: `mlm(mask(text, random(15%)))`",)
        raise Fault(NothingHidden.at(builder.place("text"), help=help), subjects["text"])
    loss = builder.add("mlm", builder.add("vocabulary", encode))
    return builder.add("stop", loss) if stopped else loss


register(
    Primitive(
        name="mlm",
        family="masks",
        summary=(
            "Masked language modelling: the tower, with a head over the vocabulary, predicts each selected token; "
            "the mean over all selected tokens of the global batch, 0 if there is none."
        ),
        meaning=_mlm,
        subjects=(
            Subject("text", ("Encoded", "Text"), "a masked text or a tower's output for it, joined with an image or not"),
        ),
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{\sum_i |M_i|} \sum_i \sum_{k \in M_i} -\log p(t_{ik} \mid \tilde{t}_i)",
        cost="2 N W V FLOPs and N V logits for about N selected tokens",
        example="minimize mlm(mask(text, random(15%)))",
    )
)
