"""Binds the arguments of a call, by position and name, to subjects and parameters, and reports each error at its place."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from vlmdsl.diagnostics import Diagnostic, Label, closest
from vlmdsl.diagnostics.catalog.values import (
    ArgumentTwice,
    BadValue,
    MissingArgument,
    NotStatic,
    TooManyPositional,
    UnknownArgument,
)
from vlmdsl.frontend.foreign import known_elsewhere
from vlmdsl.ir import Node
from vlmdsl.primitives import Fault, Parameters, Primitive
from vlmdsl.primitives.values import NumberValue, StringValue, TupleValue, Value, type_of
from vlmdsl.source import Span

__all__ = ["Bound", "GivenArgument", "bind", "check_parameters", "missing"]

_MOST_LISTED = 24


class GivenArgument(NamedTuple):
    """An evaluated argument of a call."""

    name: str | None
    value: Value
    span: Span
    name_span: Span | None = None


class Bound(NamedTuple):
    """Arguments by name, with their places."""

    values: dict[str, Value]
    places: dict[str, Span]


def bind(
    function: str, positional: list[str], names: list[str], arguments: tuple[GivenArgument, ...], already: dict[str, Value]
) -> Bound:
    """Arguments by name. `positional` are the names of positional arguments, in order; `already` those bound by a partial
    call."""
    values, places = dict(already), dict[str, Span]()
    waiting = [name for name in positional if name not in already]
    for argument in arguments:
        name = argument.name
        if name is None:
            if not waiting:
                raise Fault(_too_many(function, positional, names, argument))
            name = waiting.pop(0)
        elif name not in names:
            place = argument.name_span or argument.span
            raise Fault(UnknownArgument.at(place, help=_possible(name, names), function=function, argument=name))
        elif name in waiting:
            waiting.remove(name)
        if name in places:
            raise Fault(
                ArgumentTwice.at(
                    argument.span, secondary=(Label(places[name], "given here"),), function=function, argument=name
                )
            )
        values[name], places[name] = argument.value, argument.span
    return Bound(values, places)


def _too_many(function: str, positional: list[str], names: list[str], argument: GivenArgument) -> Diagnostic:
    named = [name for name in names if name not in positional]
    help = (f"give it by name: {_listed([f'{name}=' for name in named])}",) if named else ()
    return TooManyPositional.at(argument.span, help=help, function=function, limit=len(positional))


def _possible(name: str, names: list[str]) -> tuple[str, ...]:
    elsewhere = known_elsewhere(name, names)
    if elsewhere:
        return (elsewhere,)
    near = closest(name, names)
    if near is not None:
        return (f"did you mean `{near}`?",)
    return (f"possible: {_listed(names)}",) if names else ("it has no arguments",)


def _listed(names: list[str]) -> str:
    """The names; of very many the first."""
    return ", ".join(names[:_MOST_LISTED]) + (f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else "")


def missing(function: str, argument: str, span: Span) -> Fault:
    return Fault(MissingArgument.at(span, help=(f"add `{argument}=...`",), function=function, argument=argument))


def _plain(value: Value) -> object:
    match value:
        case NumberValue():
            return int(value.value) if value.is_integer and not value.unit else value.value
        case StringValue():
            return value.value
        case TupleValue():
            return tuple(_plain(item) for item in value.items)
        case _:
            return value


def check_parameters(primitive: Primitive, values: dict[str, Value], places: dict[str, Span], span: Span) -> Parameters:
    """The primitive's parameter model from static values; Fault at the argument that does not fit."""
    for name, value in values.items():
        place = places.get(name, span)
        if isinstance(value, NumberValue) and value.is_truth:
            reason = "must be a number, not the result of a comparison"
            raise Fault(BadValue.at(place, argument=name, function=primitive.name, reason=reason))
        if isinstance(value, Node) or not isinstance(_plain(value), int | float | str | tuple):
            raise Fault(
                NotStatic.at(place, str(type_of(value)), argument=name, function=primitive.name, found=type_of(value))
            )
    try:
        return primitive.parameters.model_validate({name: _plain(value) for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise missing(primitive.name, name, span) from None
        reason, help = _reason(primitive, name, first["type"], str(first["msg"]), first["input"])
        place = places.get(name, span)
        raise Fault(BadValue.at(place, help=help, argument=name, function=primitive.name, reason=reason)) from None


def _reason(primitive: Primitive, name: str, kind: str, message: str, value: object) -> tuple[str, tuple[str, ...]]:
    """The message for pydantic's error, and its help."""
    field = next((info for key, info in primitive.parameters.model_fields.items() if (info.alias or key) == name), None)
    description = (f"{name}: {field.description.splitlines()[0]}",) if field is not None and field.description else ()
    if kind == "literal_error" and field is not None and get_origin(field.annotation) is Literal:
        words = get_args(field.annotation)
        near = closest(value, words) if isinstance(value, str) else None
        listed = ", ".join(f'"{word}"' for word in words)
        return f"must be one of {listed}", (f'did you mean "{near}"?',) if near else description
    if kind in ("int_type", "int_from_float"):
        return "must be an integer", description
    if kind in ("float_type", "string_type"):
        return f"must be a {'number' if kind == 'float_type' else 'string'}", description
    if kind == "string_pattern_mismatch":
        return "must be a name: ASCII letters, digits and underscores, not beginning with a digit", description
    return re.sub("^(Input|String) should", "must", message.removeprefix("Value error, ")), description
