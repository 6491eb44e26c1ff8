"""Views applied to two streams, and sets of views; the views themselves are in `image_views` and `text_views`."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.diagnostics.catalog.types import ViewDoesNotApply, WrongType
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import ErrorValue, TupleValue, Value, ViewSet, ViewValue, type_of
from vlmdsl.source.limits import MAXIMUM_VIEWS
from vlmdsl.types import FieldType


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
