"""Binding the arguments of a call: positions and names to subjects and parameters, each checked at its own place."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.diagnostics import Diagnostic, Label, closest
from vlmdsl.diagnostics.catalog.values import (
    ArgumentTwice,
    BadValue,
    MissingArgument,
    NotStatic,
    TooManyPositional,
    UnknownArgument,
)
from vlmdsl.ir import Node
from vlmdsl.primitives import Fault, Parameters, Primitive
from vlmdsl.primitives.parameters import Misfit, declared, options
from vlmdsl.primitives.values import NumberValue, StringValue, TupleValue, Value, type_of
from vlmdsl.source import Span

__all__ = ["Bound", "GivenArgument", "bind", "check_parameters", "missing"]


@dataclass(frozen=True)
class GivenArgument:
    """An evaluated argument of a call."""

    name: str | None
    value: Value
    span: Span
    name_span: Span | None = None


@dataclass(frozen=True)
class Bound:
    """Arguments by name, with their places."""

    values: dict[str, Value]
    places: dict[str, Span]


def bind(
    function: str, positional: list[str], known: list[str], given: tuple[GivenArgument, ...], already: dict[str, Value]
) -> Bound:
    """Arguments by name. `positional` are the names that positions fill, in order; `already` those of a partial call."""
    values, places = dict(already), dict[str, Span]()
    waiting = [name for name in positional if name not in already]
    for argument in given:
        name = argument.name
        if name is None:
            if not waiting:
                raise Fault(_too_many(function, positional, known, argument))
            name = waiting.pop(0)
        elif name not in known:
            place = argument.name_span or argument.span
            raise Fault(UnknownArgument.at(place, help=_possible(name, known), function=function, argument=name))
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


def _too_many(function: str, positional: list[str], known: list[str], argument: GivenArgument) -> Diagnostic:
    named = [name for name in known if name not in positional]
    help = (f"give it by name: {', '.join(f'{name}=' for name in named)}",) if named else ()
    return TooManyPositional.at(argument.span, help=help, function=function, limit=len(positional))


def _possible(name: str, known: list[str]) -> tuple[str, ...]:
    near = closest(name, known)
    if near is not None:
        return (f"did you mean `{near}`?",)
    return (f"possible: {', '.join(known)}",) if known else ("it takes no arguments",)


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


def check_parameters(primitive: Primitive, given: dict[str, Value], places: dict[str, Span], span: Span) -> Parameters:
    """The primitive's parameter model from static values; Fault at the argument that does not fit."""
    for name, value in given.items():
        if isinstance(value, Node) or not isinstance(_plain(value), int | float | str | tuple):
            place = places.get(name, span)
            raise Fault(
                NotStatic.at(place, str(type_of(value)), argument=name, function=primitive.name, found=type_of(value))
            )
    for parameter in declared(primitive.parameters):
        if parameter.required and parameter.name not in given:
            raise missing(primitive.name, parameter.name, span)
    try:
        return primitive.parameters(**{name: _plain(value) for name, value in given.items()})
    except Misfit as misfit:
        name = misfit.parameter.name
        fault = BadValue.at(
            places.get(name, span), help=_help(misfit), argument=name, function=primitive.name, reason=misfit.reason
        )
        raise Fault(fault) from None


def _help(misfit: Misfit) -> tuple[str, ...]:
    """The word that may have been meant, else what the parameter is for."""
    words = [word for word in options(misfit.parameter.kind) if isinstance(word, str)]
    near = closest(misfit.value, words) if isinstance(misfit.value, str) else None
    if near is not None:
        return (f'did you mean "{near}"?',)
    description = misfit.parameter.description
    return (f"{misfit.parameter.name}: {description.splitlines()[0]}",) if description else ()
