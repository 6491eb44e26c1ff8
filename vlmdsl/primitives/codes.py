"""Discrete codes of patches: the tokenizer that gives them, and the codes as a target (BEiT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Encoder, Node
from vlmdsl.ir.operations.encoding import MIX
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, Value
from vlmdsl.source.limits import MAXIMUM_ENTRIES, MAXIMUM_WIDTH

_EXAMPLE = (
    "recipe tokens_of_patches(image: Image)\nencoder tokenizer = codebook(size=64)\nlet m = blocks()\n"
    "minimize token_loss(linear(mask(image, m), size=64), codes(image, by=tokenizer), at=m)"
)


class CodebookParameters(Parameters):
    """Arguments of `codebook`."""

    size: int = Field(ge=2, le=MAXIMUM_ENTRIES, description="number of entries")
    patch: int = Field(
        default=0, ge=0, le=MAXIMUM_WIDTH, description="side of a patch in pixels; 0: as many patches as the image tower has"
    )
    side: float = Field(default=1.0, gt=0.0, le=1.0, description="side of its images, as a share of the image tower's")
    normalised: Literal["none", "patch"] = Field(
        default="none", description="`patch`: each patch minus its mean, over the root of its variance plus 1e-6"
    )
    file: str = Field(
        default="",
        description="safetensors file with its entries, `centres [size, 3 patch^2]`; without one they are fitted by k-means "
        "to the training data before the first step",
    )
    name: GivenName = Field(default="codebook", description="its name in checkpoints; codebooks with one name are one")


def _codebook(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    from vlmdsl.ir.modules import CodebookSettings  # few recipes have one, and classes take time to make

    assert isinstance(parameters, CodebookParameters)
    values = parameters.model_dump()
    return EncoderValue(Encoder(values.pop("name"), "Image", frozen=True, codebook=CodebookSettings(**values)))


register(
    Primitive(
        name="codebook",
        family="encoding",
        summary=(
            "A tokenizer of images: the number of the nearest of its entries to each patch. It never learns; the checkpoint "
            "holds the entries."
        ),
        meaning=_codebook,
        parameters=CodebookParameters,
        formula=r"c(x)_p = \arg\min_v \lVert x_p - e_v \rVert",
        cost="2 N P V C FLOPs for N images of P patches of C numbers",
        example=_EXAMPLE,
    )
)


def _codes(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image, tokenizer = subjects["image"], subjects["by"]
    assert isinstance(image, Node)
    assert isinstance(tokenizer, EncoderValue)
    encoder = tokenizer.encoder
    if encoder.kind != "Image" or encoder.heads or encoder.teacher or encoder.enters is not None:
        raise wrong_type(
            builder, "by", "codes", tokenizer, "a tokenizer of images: `codebook(...)`, or a tower that has codes"
        )
    if image.operation is MIX:
        reason = "it is mixed in the step, and a tokenizer reads images as they are loaded"
        raise bad_value(builder, "image", "codes", reason, "take the codes of an image that is not mixed")
    return builder.add("codes", builder.add("encode", image, encoder=replace(encoder, frozen=True)))


register(
    Primitive(
        name="codes",
        family="prediction",
        summary=(
            "The codes of the patches of an image as a target: a tokenizer reads the image, or the same crop of it, at its "
            "own size. No gradient."
        ),
        meaning=_codes,
        subjects=(
            Subject("image", ("Image",), "the image, or a view of it"),
            Subject("by", ("Encoder",), "the tokenizer", keyword=True),
        ),
        formula=r"c(x)_{ip} \in \{1, \dots, V\}",
        cost="a pass of the tokenizer, without gradient",
        example=_EXAMPLE,
    )
)
