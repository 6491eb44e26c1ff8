"""Masks: which tokens are selected, and the masked text."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.diagnostics.catalog.values import BadValue, BoundsDisagree
from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, Value


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
