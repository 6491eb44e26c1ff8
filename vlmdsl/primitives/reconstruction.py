"""Primitives that predict the pixels of dropped patches: the decoder, the pixels as a target, and the criterion (MAE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import PooledWhereTokensAreCompared
from vlmdsl.ir import Module, Node, Use, encoder_of, walk
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import APPLY, drops_of, use_of
from vlmdsl.ir.operations.views import CROP
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.patch_masks import mask_of_patches, without_masks
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES, chosen_samples
from vlmdsl.primitives.spec import Builder, Fault, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, PixelsValue, Value
from vlmdsl.source.limits import MAXIMUM_LAYERS, MAXIMUM_WIDTH
from vlmdsl.types import EncodedType, PatchesType

_POSITION_NUMBERS = 4
"""Sines and cosines of a row and of a column: the width of a decoder is a multiple of this number."""


class DecodeParameters(Parameters):
    """Arguments of `decode`."""

    depth: int = Field(default=8, ge=1, le=MAXIMUM_LAYERS, description="number of blocks")
    width: int = Field(default=512, ge=4, le=MAXIMUM_WIDTH, description="width of the decoder")
    heads: int = Field(default=16, ge=1, le=MAXIMUM_WIDTH, description="number of attention heads, a divisor of the width")
    output: Literal["linear", "tanh", "states"] = Field(
        default="linear",
        description=(
            "`tanh`: pixels in [-1, 1], for towers that take them standardised to it (KELIP); `states`: not pixels, but "
            "states as the tower has them, for `linear` (MaskCLIP)"
        ),
    )
    name: GivenName = Field(default="decoder", description="its name in checkpoints; decoders with one name share weights")


def _decode(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    from vlmdsl.ir.modules import PixelDecoderSettings  # few recipes apply modules, and classes take time to make

    assert isinstance(parameters, DecodeParameters)
    encode = builder.encoded(subjects["image"], "image")
    if not isinstance(encode, Node) or encode.operation is not ENCODE or encode.type != EncodedType("Image"):
        raise wrong_type(builder, "image", "decode", encode, "an image with dropped patches, as a tower encodes it")
    if encoder_of(encode).heads:
        help = ("a head outputs pooled features only: use the tower itself, without `project` or `predict`",)
        place = builder.place("image")
        raise Fault(PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity="decode"), encode)
    if not drops_of(encode.inputs[0]):
        help = ("drop some: `decode(drop(image, random(75%)))`",)
        raise bad_value(builder, "image", "decode", "no patch of it is dropped, so there is nothing to predict", *help)
    if any(node.operation is CROP and node.number("side") != 1 for node in walk([encode.inputs[0]])):
        raise bad_value(builder, "image", "decode", "it is a small crop; the decoder is for images of the tower's size")
    width, heads = parameters.width, parameters.heads
    if width % heads or width % _POSITION_NUMBERS:
        divisor, whose = (heads, "heads") if width % heads else (_POSITION_NUMBERS, "numbers of a position")
        raise bad_value(builder, "width", "decode", f"{width} is not a multiple of {divisor}, the {whose}")
    settings = PixelDecoderSettings(depth=parameters.depth, width=width, heads=heads, output=parameters.output)
    return builder.add("apply", builder.add("states", encode), use=Use(Module(parameters.name, "decoder", settings)))


register(
    Primitive(
        name="decode",
        family="reconstruction",
        summary=(
            "The pixels of all patches of an image, predicted from the states of those that were not dropped: a transformer "
            'over these, with a learned token for each dropped patch (MAE). With `output="states"` it predicts the states '
            "that the tower would have: features of all patches."
        ),
        meaning=_decode,
        subjects=(Subject("image", ("Encoded", "Image"), "an image with dropped patches, or a tower's output for it"),),
        parameters=DecodeParameters,
        formula=r"d(f(x_{\mathcal{K}}))",
        cost="its blocks, over all patches of every image",
        example=("let hidden = random(75%)\nminimize reconstruct(decode(drop(image, hidden)), pixels(image), at=hidden)"),
    )
)


class PixelsParameters(Parameters):
    """Arguments of `pixels`."""

    normalised: Literal["none", "patch"] = Field(
        default="none",
        description="`patch`: each patch minus its mean, over the root of its unbiased variance plus 1e-6 (MAE)",
    )


def _pixels(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image = subjects["image"]
    assert isinstance(image, Node)
    assert isinstance(parameters, PixelsParameters)
    return PixelsValue(image, parameters.normalised)


register(
    Primitive(
        name="pixels",
        family="reconstruction",
        summary=(
            "The pixels of an image as a target, in the patches and with the standardisation of the tower whose "
            "output is compared with them. No gradient."
        ),
        meaning=_pixels,
        subjects=(Subject("image", ("Image",), "the image, or a view of it"),),
        parameters=PixelsParameters,
        formula=r"x_{ip} \in \mathbb{R}^C",
        cost="none",
        example=(
            "let hidden = random(75%)\n"
            'minimize reconstruct(decode(drop(image, hidden)), pixels(image, normalised="patch"), at=hidden)'
        ),
    )
)


def _reconstruct(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    decoded, target, at = subjects["decoded"], subjects["target"], subjects["at"]
    assert isinstance(target, PixelsValue)
    assert isinstance(at, MaskValue)
    if not isinstance(decoded, Node) or decoded.operation is not APPLY or not isinstance(decoded.type, PatchesType):
        raise wrong_type(builder, "decoded", "reconstruct", decoded, "decoded patches, `decode(...)`")
    encode = decoded.inputs[0].inputs[0]
    source = encode.inputs[0]
    if target.image not in (source, without_masks(source)):
        help = ("name the view, `let x = augment(image)`, and use it in both",)
        raise bad_value(builder, "target", "reconstruct", "these are not pixels of the image that is decoded", *help)
    dropped = mask_of_patches(builder, encode, at, "at", "reconstruct")
    settings = use_of(decoded).module.settings
    if getattr(settings, "output", None) == "tanh" and target.normalised != "none":
        reason = "patches of variance 1 have numbers outside [-1, 1], which the `tanh` of the decoder cannot give"
        raise bad_value(builder, "target", "reconstruct", reason, "leave `output` or `normalised` out")
    patches = builder.add("pixels", encode, decoded, normalised=target.normalised)
    return builder.add("reconstruct", decoded, patches, dropped, *chosen_samples(builder, subjects, "reconstruct"))


register(
    Primitive(
        name="reconstruct",
        family="reconstruction",
        summary=(
            "The mean squared error of decoded patches, averaged over the patches of the global batch that a mask selects; "
            "0 if there are none (MAE)."
        ),
        meaning=_reconstruct,
        subjects=(
            Subject("decoded", ("Patches",), "the decoded patches of an image"),
            Subject("target", ("Pixels",), "the pixels of the image"),
            Subject("at", ("Mask",), "the mask by which patches were dropped", keyword=True),
            *SAMPLES,
        ),
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{\sum_i |M_i|} \sum_i \sum_{p \in M_i} \frac{1}{C} \lVert d_{ip} - x_{ip} \rVert^2",
        cost="N P C numbers, read",
        example=(
            "let hidden = random(75%)\n"
            'minimize reconstruct(decode(drop(image, hidden)), pixels(image, normalised="patch"), at=hidden)'
        ),
    )
)
