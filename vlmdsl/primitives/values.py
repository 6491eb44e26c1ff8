"""What an expression can be while a recipe is elaborated: a node of the graph, or a static value.

Static values are not part of the graph: numbers and strings become attributes or constants, similarities and views
are applied, functions are inlined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlmdsl.ir import Encoder, Head, Node, Teacher
from vlmdsl.source import Span
from vlmdsl.types import (
    ConditionType,
    EncoderType,
    ErrorType,
    FunctionType,
    MaskType,
    PixelsType,
    ScalarType,
    SimilarityType,
    StringType,
    TupleType,
    Type,
    ViewSetType,
    ViewType,
)

if TYPE_CHECKING:
    from vlmdsl.ir.modules import FusionSettings, PluginFusionSettings

__all__ = [
    "AllSamples", "EncoderValue", "ErrorValue", "FunctionValue", "FusionValue", "MaskValue", "NumberValue", "PixelsValue",
    "SimilarityPart",
    "SimilarityValue", "StringValue", "TupleValue", "Value", "ViewSet", "ViewValue", "type_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class NumberValue:
    """A number known when the recipe is compiled; `unit` is "", "%", "steps" or "epochs". The truth of a comparison is one
    too, 1 or 0, which conditions take and arithmetic does not."""

    value: float
    unit: str = ""
    is_integer: bool = False
    span: Span | None = None
    is_truth: bool = False


@dataclass(frozen=True, slots=True)
class StringValue:
    """A string known when the recipe is compiled."""

    value: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class TupleValue:
    """Several values in brackets."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class AllSamples:
    """`all`: the condition that holds for every sample."""


@dataclass(frozen=True, slots=True)
class MaskValue:
    """Which tokens a mask selects: each independently with probability `share`, or those that the function `by` of a plug-in
    selects, a share of `share` on average. The draw belongs to the mask: a mask that is used twice draws once."""

    share: float
    draw: int
    by: str = ""
    arguments: tuple[tuple[str, object], ...] = ()
    of: str = ""
    """The kind of field: `Text` (tokens) or `Image` (patches)."""

    @property
    def attributes(self) -> dict[str, object]:
        """The attributes of a node that uses the mask of a plug-in."""
        return {"by": self.by, "arguments": self.arguments} if self.by else {}


@dataclass(frozen=True, slots=True)
class PixelsValue:
    """The pixels of an image, or of a view of one, as a target; `normalised` is `none` or `patch`."""

    image: Node
    normalised: str


@dataclass(frozen=True, slots=True)
class SimilarityPart:
    """`coefficient` times the similarity called `by`. `level` is what it compares: `pooled` or `tokens`."""

    coefficient: float
    by: str
    level: str
    normalized: bool
    epsilon: float = 0.0
    """Added to each vector's length when it is normalised."""
    arguments: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class SimilarityValue:
    """A linear combination of similarities, as a value: `0.5*cosine + 0.5*tokenmax`."""

    parts: tuple[SimilarityPart, ...]


@dataclass(frozen=True, slots=True)
class ViewValue:
    """A view that lacks its subject: `rewrite(M=4)`. `target` is the primitive, `parameters` its checked arguments."""

    name: str
    kind: str
    target: object = field(hash=False)
    parameters: object = field(hash=False)
    span: Span | None = None
    draw: int = 0
    """Identity of the call's random draw: the same view value applied twice draws once."""


@dataclass(frozen=True, slots=True)
class EncoderValue:
    """A tower with its heads, frozen or not, or a teacher."""

    encoder: Encoder


@dataclass(frozen=True, slots=True)
class FusionValue:
    """The fusion module that encodes `text | image`, by name, with heads on its pooled features; with a `teacher` a running
    mean of the weights encodes, without gradient."""

    name: str
    settings: FusionSettings | PluginFusionSettings
    teacher: Teacher | None = None
    heads: tuple[Head, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewSet:
    """Several views of one thing; a call over sets is the mean over the product of its views."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class FunctionValue:
    """A primitive, a `def` or a recipe as a value; `target` is what the front end calls.

    A call that lacks its subjects is a function value too: `arguments` holds what it has, `span` its place.
    """

    name: str
    target: object = field(hash=False)
    arguments: Mapping[str, Value] = field(default_factory=dict, hash=False)
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class ErrorValue:
    """The value of an expression with a reported error; everything computed from it is an error too, without another
    report."""


Value = (
    Node
    | NumberValue
    | StringValue
    | TupleValue
    | AllSamples
    | MaskValue
    | PixelsValue
    | SimilarityValue
    | ViewValue
    | EncoderValue
    | FusionValue
    | ViewSet
    | FunctionValue
    | ErrorValue
)


def type_of(value: Value) -> Type:  # noqa: PLR0911 - one line per kind of value
    """The type that messages show for a value."""
    match value:
        case Node():
            return value.type
        case NumberValue(is_truth=truth):
            return ConditionType("") if truth else ScalarType()
        case StringValue():
            return StringType()
        case TupleValue():
            return TupleType(tuple(type_of(item) for item in value.items))
        case AllSamples():
            return ConditionType()
        case MaskValue():
            return MaskType()
        case PixelsValue():
            return PixelsType()
        case SimilarityValue():
            return SimilarityType()
        case ViewValue():
            return ViewType(value.kind)
        case FusionValue():
            return EncoderType("Text | Image")
        case EncoderValue():
            return EncoderType(value.encoder.kind)
        case ViewSet():
            return ViewSetType(type_of(value.items[0]), len(value.items))
        case FunctionValue():
            return FunctionType(value.name)
        case ErrorValue():
            return ErrorType()
