"""What is wrong with an argument of a primitive: its type, or its value."""

from __future__ import annotations

from vlmdsl.diagnostics.catalog.types import WrongType
from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.primitives.spec import Builder, Fault
from vlmdsl.primitives.values import Value, type_of

__all__ = ["bad_value", "wrong_type"]


def wrong_type(builder: Builder, argument: str, function: str, value: Value, expected: str) -> Fault:
    """V0301 at an argument: `function` expects `expected` there, in words, not a value of this type."""
    place, kind = builder.place(argument), type_of(value)
    return Fault(WrongType.at(place, str(kind), argument=argument, function=function, wanted=expected, found=kind), value)


def bad_value(builder: Builder, argument: str, function: str, reason: str, *help: str) -> Fault:
    """V0405 at an argument of `function`: `reason` says why its value makes no sense, `help` what to write."""
    return Fault(BadValue.at(builder.place(argument), help=help, argument=argument, function=function, reason=reason))
