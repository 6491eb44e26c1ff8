"""Views: changes of a field before it is encoded. They run in the data pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.diagnostics.catalog.types import ViewDoesNotApply, WrongType
from vlmdsl.diagnostics.catalog.values import BoundsDisagree
from vlmdsl.ir import Node
from vlmdsl.primitives.pipelines import PIPELINES, PipelineName, describe
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import ErrorValue, TupleValue, Value, ViewSet, ViewValue, type_of
from vlmdsl.source.limits import MAXIMUM_VIEWS
from vlmdsl.types import FieldType


class RewriteParameters(Parameters):
    """Arguments of `rewrite`."""

    count: int = Field(alias="M", ge=1, le=MAXIMUM_VIEWS - 1, description="number of rewrites of each text")
    minimum_words: int = Field(
        default=1, ge=1, description="if the drawn rewrite has fewer blank-separated words, the text itself is used"
    )
    pick: Literal["one", "each"] = Field(
        default="one", description="`one`: draw one per sample and step; `each`: the set of the text and all its rewrites"
    )


def _rewrite(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, RewriteParameters)
    if parameters.pick == "each":
        views = range(parameters.count + 1)
        return ViewSet(tuple(builder.add("alternative", text, view=view) for view in views))
    return builder.add(
        "rewrite",
        text,
        count=parameters.count,
        minimum_words=parameters.minimum_words,
        draw=builder.draw(),
    )


register(
    Primitive(
        name="rewrite",
        family="views",
        summary="One of the text and its M rewrites, drawn uniformly per sample and step (LaCLIP); or each of them.",
        meaning=_rewrite,
        subjects=(Subject("text", ("Text",), "the text; its rewrites are the data field NAME_rewrites"),),
        parameters=RewriteParameters,
        formula=r"t \sim U\{t_0, t_1, \ldots, t_M\}",
        example="contrast(image, rewrite(text, M=4))",
        view_of="Text",
    )
)


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


def _viewed(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    """Applies every view to the stream of its type, in order; a view that fits neither is a fault."""
    streams = [subjects["a"], subjects["b"]]
    views = subjects["with"]
    for view in views.items if isinstance(views, TupleValue) else (views,):
        if isinstance(view, ErrorValue):
            return view
        fitting = [
            position
            for position, stream in enumerate(streams)
            if isinstance(view, ViewValue) and _element_kind(stream) == view.kind
        ]
        if not fitting:
            types = ", ".join(str(type_of(stream)) for stream in streams)
            name = view.name if isinstance(view, ViewValue) else str(type_of(view))
            place = view.span if isinstance(view, ViewValue) and view.span else builder.place("with")
            raise Fault(ViewDoesNotApply.at(place, str(type_of(view)), view=name, streams=types))
        for position in fitting:
            streams[position] = builder.view(view, streams[position])
    return TupleValue(tuple(streams))


def _element_kind(stream: Value) -> str:
    element = stream.items[0] if isinstance(stream, ViewSet) else stream
    type = type_of(element)
    return type.kind if isinstance(type, FieldType) else ""


register(
    Primitive(
        name="viewed",
        family="views",
        summary="Two streams with views, each view applied to the stream of its type, as `views=` of the library does.",
        meaning=_viewed,
        subjects=(
            Subject("a", ("Any",), "one stream"),
            Subject("b", ("Any",), "the other"),
            Subject("with", ("View", "Tuple"), "one view or several", keyword=True),
        ),
        formula="",
        example="let pair = viewed(image, text, with=rewrite(M=4))\nminimize contrast(pair[0], pair[1])",
        maps_sets=False,
    )
)


def _each(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    values = subjects["views"]
    assert isinstance(values, TupleValue)
    if sum(len(item.items) if isinstance(item, ViewSet) else 1 for item in values.items) > MAXIMUM_VIEWS:
        raise Fault(TooLarge.at(builder.place("views"), reason=f"more than {MAXIMUM_VIEWS} views in a set"))
    views = [view for item in values.items for view in (item.items if isinstance(item, ViewSet) else (item,))]
    if any(isinstance(view, ErrorValue) for view in views):
        return ErrorValue()
    if len({type_of(view) for view in views}) != 1:
        actual, place = type_of(values), builder.place("views")
        expected = "one or more values of one type"
        raise Fault(WrongType.at(place, str(actual), argument="views", function="each", wanted=expected, found=actual))
    return ViewSet(tuple(views))


register(
    Primitive(
        name="each",
        family="views",
        summary="A set of values: a call over it is the mean over them, over two sets the mean over all pairs.",
        meaning=_each,
        subjects=(Subject("views", ("Tuple",), "values of one type; the elements of sets among them are included"),),
        formula=r"\{x^{(1)}, \ldots, x^{(n)}\}",
        cost="none",
        example="contrast(image, each((text, mask(text, random(15%)))))",
    )
)
