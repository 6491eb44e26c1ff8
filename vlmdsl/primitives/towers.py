"""Primitives for additional towers, and for what they encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import WrongType
from vlmdsl.ir import Encoder, Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, Value, type_of


def _plain_tower(builder: Builder, value: Value, argument: str, kind: str, function: str) -> None:
    """Fault unless the value is a plain tower of this kind: derived encoders have no separate embedding."""
    if isinstance(value, EncoderValue) and value.encoder == Encoder(value.encoder.tower, kind):
        return
    expected = f"the tower of {kind.lower()}s itself"
    place = builder.place(argument)
    label = str(type_of(value))
    raise Fault(
        WrongType.at(place, label, argument=argument, function=function, wanted=expected, found=type_of(value)), value
    )


class SharedParameters(Parameters):
    """Arguments of `shared`."""

    name: GivenName = Field(default="shared", description="the tower's name: uses of one name share weights")


def _shared(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, SharedParameters)
    _plain_tower(builder, subjects["vision"], "vision", "Image", "shared")
    _plain_tower(builder, subjects["language"], "language", "Text", "shared")
    return EncoderValue(Encoder(parameters.name, "Image|Text"))


register(
    Primitive(
        name="shared",
        family="towers",
        summary=(
            "One tower instead of two: patches and tokens have separate embeddings, and share all layers after them. It "
            "encodes an Image, a Text, or both joined."
        ),
        meaning=_shared,
        subjects=(
            Subject("vision", ("Encoder",), "the image tower that it replaces"),
            Subject("language", ("Encoder",), "the text tower that it replaces"),
        ),
        parameters=SharedParameters,
        formula=r"f(x),\ f(t),\ f(x \oplus t)",
        example=(
            "recipe single(image: Image, text: Text)\nencoder one = shared(vision, language)\n"
            "minimize contrast(one(image), one(text))"
        ),
    )
)


class EnterParameters(Parameters):
    """Arguments of `enter`."""

    after: float = Field(ge=0.0, lt=1.0, description="the share of the tower's blocks that the regions skip")


def _enter(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encoder = subjects["encoder"]
    assert isinstance(encoder, EncoderValue)
    assert isinstance(parameters, EnterParameters)
    if encoder.encoder.kind != "Image":
        place, expected = builder.place("encoder"), "an encoder of images"
        actual = type_of(encoder)
        raise Fault(
            WrongType.at(place, str(actual), argument="encoder", function="enter", wanted=expected, found=actual), encoder
        )
    return EncoderValue(replace(encoder.encoder, kind="Regions", enters=float(parameters.after)))


register(
    Primitive(
        name="enter",
        family="towers",
        summary=(
            "An image tower entered part-way: the regions of a detector replace the patches before "
            "the last blocks, without positions (PyramidCLIP)."
        ),
        meaning=_enter,
        subjects=(Subject("encoder", ("Encoder",), "the image encoder whose last blocks it shares"),),
        parameters=EnterParameters,
        formula=r"f_{>\mathrm{after}}(W r)",
        example=(
            "recipe regional(regions: Regions, text: Text)\nencoder late = enter(vision, after=75%)\n"
            "minimize contrast(late(regions), text)"
        ),
    )
)


class SeparateParameters(Parameters):
    """Arguments of `separate`."""

    name: GivenName = Field(description="the tower's name: uses of one name share weights; `model.towers` sets its encoder")


def _separate(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encoder = subjects["encoder"]
    assert isinstance(encoder, EncoderValue)
    assert isinstance(parameters, SeparateParameters)
    return EncoderValue(replace(encoder.encoder, tower=parameters.name))


register(
    Primitive(
        name="separate",
        family="towers",
        summary="Another tower of the same type, with separate weights.",
        meaning=_separate,
        subjects=(Subject("encoder", ("Encoder",), "the tower that it copies the settings of"),),
        parameters=SeparateParameters,
        formula=r"f'(x)",
        example='recipe two(image: Image)\nminimize contrast(image, separate(vision, name="other")(image))',
    )
)


def _join(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image, text = subjects["image"], subjects["text"]
    assert isinstance(image, Node)
    assert isinstance(text, Node)
    return builder.add("join", image, text)


register(
    Primitive(
        name="join",
        family="views",
        summary="An image and its text as one sequence, tokens after patches, for a shared tower.",
        meaning=_join,
        subjects=(
            Subject("image", ("Image",), "the image, or a view of it"),
            Subject("text", ("Text",), "the text, or a view of it"),
        ),
        formula=r"x \oplus t",
        example=(
            "recipe pairs(image: Image, text: Text)\nencoder one = shared(vision, language)\n"
            "minimize contrast(one(join(image, text)), one(text))"
        ),
    )
)
