"""Views of an image: crops, augmentations, several crops at once, and some of its patches only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from vlmdsl.diagnostics.catalog.values import BadValue, BoundsDisagree
from vlmdsl.ir import Node
from vlmdsl.primitives.pipelines import PIPELINES, PipelineName, describe
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, TupleValue, Value, ViewSet
from vlmdsl.source.limits import MAXIMUM_VIEWS

_PIPELINES = "\n".join(
    [
        "steps in order, p: their probability; jitter: strengths of brightness, contrast, saturation, hue",
        *(f"{name}: {describe(name)}" for name in PIPELINES),
    ]
)


class CropParameters(Parameters):
    """Arguments of `crop`."""

    smallest: float = Field(default=0.5, gt=0.0, le=1.0, description="the smallest share of the image's area")
    largest: float = Field(default=1.0, gt=0.0, le=1.0, description="the largest share of the image's area")


def _crop(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image = subjects["image"]
    assert isinstance(image, Node)
    assert isinstance(parameters, CropParameters)
    shares = {"smallest": float(parameters.smallest), "largest": float(parameters.largest)}
    if parameters.smallest > parameters.largest:
        reason = f"the smallest share, {parameters.smallest:g}, is more than the largest, {parameters.largest:g}"
        raise Fault(BoundsDisagree.at(builder.place("smallest"), reason=reason))
    return builder.add("crop", image, **shares, draw=builder.draw())


register(
    Primitive(
        name="crop",
        family="views",
        summary="A random crop of an image, aspect ratio 3:4 to 4:3, resized to the tower's image size; not mirrored.",
        meaning=_crop,
        subjects=(Subject("image", ("Image",), "the image"),),
        parameters=CropParameters,
        formula=r"x \sim \mathrm{crop}(x)",
        example="contrast(crop(image, smallest=90%), text)",
        view_of="Image",
    )
)


class AugmentParameters(Parameters):
    """Arguments of `augment`."""

    n: int = Field(default=1, ge=1, le=MAXIMUM_VIEWS, description="number of independent views; more than one is a set")
    pipeline: PipelineName = Field(default="crop", description=_PIPELINES)


def _augment(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image = subjects["image"]
    assert isinstance(image, Node)
    assert isinstance(parameters, AugmentParameters)
    draw = builder.draw()
    views = tuple(
        builder.add("augment", image, view=view, pipeline=parameters.pipeline, draw=draw) for view in range(parameters.n)
    )
    return views[0] if parameters.n == 1 else ViewSet(views)


register(
    Primitive(
        name="augment",
        family="views",
        summary="Independent random views of an image, by a published pipeline.",
        meaning=_augment,
        subjects=(Subject("image", ("Image",), "the image"),),
        parameters=AugmentParameters,
        formula=r"x \sim \mathcal{A}(x)",
        example='contrast(augment(image, n=2, pipeline="slip"), text)',
        view_of="Image",
    )
)


def _shares(area: tuple[float, float]) -> tuple[float, float]:
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError("must be two shares of the area, above 0 and at most 1, the smaller first")
    return area


Shares = Annotated[tuple[float, float], AfterValidator(_shares)]


class MultiCropParameters(Parameters):
    """Arguments of `multi_crop`.

    The defaults are those of SwAV's runs of 400 epochs (`scripts/swav_400ep_pretrain.sh` of facebookresearch/swav); KELIP,
    which uses the same sides, did not publish the number and areas of its crops.
    """

    n: int = Field(default=2, ge=1, le=MAXIMUM_VIEWS // 2, description="number of crops of the tower's image size")
    small: int = Field(default=6, ge=0, le=MAXIMUM_VIEWS // 2, description="number of small crops, which follow them")
    scale: Shares = Field(default=(0.14, 1.0), description="smallest and largest share of the area of a crop")
    small_scale: Shares = Field(default=(0.05, 0.14), description="the same for a small crop")
    small_side: float = Field(
        default=96 / 224,
        gt=0,
        le=1,
        description="side of a small crop, as a share of the tower's (SwAV: 96 of 224 pixels); rounded to whole patches",
    )


def _multi_crop(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image = subjects["image"]
    assert isinstance(image, Node)
    assert isinstance(parameters, MultiCropParameters)
    draw = builder.draw()
    kinds: list[tuple[tuple[float, float], dict[str, float]]] = [(parameters.scale, {})] * parameters.n
    kinds += [(parameters.small_scale, {"side": parameters.small_side})] * parameters.small
    crops = tuple(
        builder.add("crop", image, view=view, smallest=low, largest=high, draw=draw, **side)
        for view, ((low, high), side) in enumerate(kinds)
    )
    return crops[0] if len(crops) == 1 else ViewSet(crops)


register(
    Primitive(
        name="multi_crop",
        family="views",
        summary=(
            "Large and small random crops of an image, as a set (SwAV, KELIP): small ones show a small part at a lower "
            "resolution, and cost little. Crops have an aspect of 3:4 to 4:3 and are not mirrored."
        ),
        meaning=_multi_crop,
        subjects=(Subject("image", ("Image",), "the image"),),
        parameters=MultiCropParameters,
        formula=r"x^{(k)} \sim \mathcal{C}_k(x)",
        example="contrast(multi_crop(image, n=2, small=2), text)",
        view_of="Image",
    )
)


class DropParameters(Parameters):
    """Arguments of `drop`."""

    share: float = Field(default=0.5, ge=0, lt=1, description="share of the patches that are dropped; 0: none")


def _drop(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    image = subjects["image"]
    assert isinstance(image, Node)
    assert isinstance(parameters, DropParameters)
    mask = subjects["patches"]
    if isinstance(mask, MaskValue):
        return builder.add("drop", image, share=_dropped(builder, mask, parameters), draw=mask.draw, **mask.attributes)
    if parameters.share == 0:
        return image
    return builder.add("drop", image, share=parameters.share, draw=builder.draw())


def _dropped(builder: Builder, mask: MaskValue, parameters: Parameters) -> float:
    """The share of the patches that a mask drops."""

    def bad(argument: str, reason: str) -> Fault:
        return Fault(BadValue.at(builder.place(argument), argument=argument, function="drop", reason=reason))

    if "share" in parameters.model_fields_set:
        raise bad("share", "the mask already says which share of the patches is dropped")
    if mask.of == "Text":
        raise bad("patches", f"`{mask.by}` selects tokens of texts, not patches")
    if mask.by == "blocks":
        raise bad("patches", "blocks select another number of patches in each image: replace them, `mask(image, blocks())`")
    if mask.share >= 1:
        raise bad("patches", "the mask selects all patches, so that none would be left")
    return float(mask.share)


register(
    Primitive(
        name="drop",
        family="views",
        summary=(
            "An image of which the tower encodes only some patches, drawn for each sample and step (FLIP): of L patches the "
            "int(L (1 - share)) with the smallest random numbers are kept, and the others cost nothing. A mask in place of "
            "the share owns the draw: wherever it is named, the same patches are dropped."
        ),
        meaning=_drop,
        subjects=(
            Subject("image", ("Image",), "the image, or a view of it"),
            Subject("patches", ("Mask",), "the mask of the patches that are dropped", default=TupleValue(())),
        ),
        parameters=DropParameters,
        formula=r"x_{\mathcal{K}}, \quad |\mathcal{K}| = \lfloor L (1 - r) \rfloor",
        example="contrast(drop(image, share=50%), text)",
        view_of="Image",
    )
)
