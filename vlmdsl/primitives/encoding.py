"""Primitives on encoders and on the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from vlmdsl.ir import Encoder, Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, NumberValue, Value
from vlmdsl.types import TokensType

SMALLEST_LENGTH = 1e-12

DEFAULT_ENCODERS: dict[str, Encoder] = {
    "vision": Encoder("vision", "Image"),
    "language": Encoder("language", "Text"),
}
"""The towers every recipe has; a field is encoded by the one of its type unless the recipe says otherwise."""


def _frozen(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encoder = subjects["encoder"]
    assert isinstance(encoder, EncoderValue)
    return EncoderValue(replace(encoder.encoder, frozen=True))


register(
    Primitive(
        name="frozen",
        family="encoding",
        summary="The encoder, locked: no gradient, evaluation mode, left out of the optimiser.",
        meaning=_frozen,
        subjects=(Subject("encoder", ("Encoder",), "the encoder to lock"),),
        formula=r"\mathrm{sg}[f(x)]",
        example="recipe locked(image: Image, text: Text)\nencoder vision = frozen(vision)\nminimize contrast(image, text)",
    )
)


class NormalizeParameters(Parameters):
    """Arguments of `normalize`."""

    epsilon: float = Field(default=0.0, ge=0.0, description="added to each vector's length before dividing by it")
    smallest: float = Field(default=SMALLEST_LENGTH, gt=0.0, description="what a shorter length counts as")


def _normalize(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, NormalizeParameters)
    value = subjects["x"]
    is_tokens = isinstance(value, Node) and isinstance(value.type, TokensType)
    features = value if is_tokens else builder.pooled(value, "x", "normalize")
    assert isinstance(features, Node)
    attributes: dict[str, object] = {"epsilon": float(parameters.epsilon)}
    if parameters.smallest != SMALLEST_LENGTH:
        attributes["smallest"] = float(parameters.smallest)
    return builder.add("normalize", features, type=features.type, **attributes)


register(
    Primitive(
        name="normalize",
        family="encoding",
        summary="Each vector divided by its length; a vector of zeros stays one.",
        meaning=_normalize,
        subjects=(Subject("x", ("Encoded", "Vec", "Tokens", "Image", "Text"), "features"),),
        parameters=NormalizeParameters,
        laws=("permutation",),
        formula=r"x / \|x\|",
        cost="none",
        example="minimize mean(-score(normalize(image), normalize(text), by=euclidean))",
    )
)


_STOPPED = ("Encoded", "Vec", "Tokens", "Distribution", "Sim", "Score", "Scalar", "Image", "Text")


def _stop(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    value = builder.encoded(subjects["x"], "x")
    if isinstance(value, NumberValue):
        return value
    assert isinstance(value, Node)
    return builder.add("stop", value, type=value.type)


register(
    Primitive(
        name="stop",
        family="encoding",
        summary="The value without its gradient.",
        meaning=_stop,
        subjects=(Subject("x", _STOPPED, "the value"),),
        formula=r"\mathrm{sg}[x]",
        example="contrast(image, stop(text))",
    )
)
