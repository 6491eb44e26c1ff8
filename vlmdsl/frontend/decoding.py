"""Calls of text decoders: `captioner(text, context, prefix=..., parallel=...)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmdsl.diagnostics.catalog.types import EncoderKind, WrongType
from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.frontend import coerce
from vlmdsl.frontend.session import Session
from vlmdsl.ir import Encoder, Node
from vlmdsl.ir.operations.views import PROMPTED
from vlmdsl.primitives import Fault
from vlmdsl.primitives.values import NumberValue, Value, type_of
from vlmdsl.source import Span
from vlmdsl.types import DrawsType, FieldType

__all__ = ["ARGUMENTS", "POSITIONAL", "decoded"]

POSITIONAL = ["text", "context"]
"""Arguments of a text decoder that may be given by position."""
ARGUMENTS = [*POSITIONAL, "prefix", "parallel"]
"""All its arguments."""


def decoded(session: Session, encoder: Encoder, values: Mapping[str, Value], places: Mapping[str, Span], span: Span) -> Node:
    """The text as the decoder encodes it; Fault for an argument that does not fit."""
    text, kind = values["text"], FieldType("Text")
    if not isinstance(text, Node) or text.type != kind:
        actual, help = type_of(text), f"the text comes first, and then what it attends to: `{encoder.tower}(text, image)`"
        place = places["text"]
        wrong = EncoderKind.at(place, str(actual), help=(help,), encoder=encoder.tower, wanted=encoder.kind, found=actual)
        raise Fault(wrong, text)
    inputs, attributes = [text], dict[str, Any]()
    if "context" in values:
        inputs.append(_context(session, encoder, values["context"], places["context"]))
    prefix = values.get("prefix")
    if isinstance(prefix, Node) and isinstance(prefix.type, DrawsType):
        inputs.append(prefix)
        attributes["prefix"] = "drawn"
    elif isinstance(prefix, Node) and prefix.type == kind:
        inputs[0] = session.add(PROMPTED, prefix, text, span=span)
        attributes["prefix"] = "prompt"
    elif prefix is not None:
        raise _wrong(encoder, "prefix", prefix, places["prefix"], "`prefix()`, or a Text to put before this one")
    share = _share(encoder, values["parallel"], places["parallel"]) if "parallel" in values else 0.0
    if share:
        inputs.append(session.uniforms(f"{encoder.tower}_parallel", span, count=1))
        attributes["parallel"] = share
    return session.add("encode", *inputs, span=span, encoder=encoder, **attributes)


def _context(session: Session, encoder: Encoder, context: Value, place: Span) -> Node:
    """The tokens that the text attends to: the last states of an image, or the features that a pooler gives of it."""
    tokens = coerce.states(session, context, "Image", place)
    if tokens is None:
        raise _wrong(encoder, "context", context, place, "an Image, or what a pooler gives of one")
    return tokens


def _share(encoder: Encoder, value: Value, place: Span) -> float:
    if isinstance(value, NumberValue) and not value.is_truth and 0.0 <= value.value <= 1.0:
        return float(value.value)
    reason = "must be a number between 0 and 1, the share of the samples"
    raise Fault(BadValue.at(place, argument="parallel", function=encoder.tower, reason=reason), value)


def _wrong(encoder: Encoder, argument: str, value: Value, place: Span, expected: str) -> Fault:
    actual = type_of(value)
    wrong = WrongType.at(place, str(actual), argument=argument, function=encoder.tower, wanted=expected, found=actual)
    return Fault(wrong, value)
