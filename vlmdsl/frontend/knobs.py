"""The signature of a recipe: its fields, and its hyper-parameters with their values."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vlmdsl.diagnostics import closest
from vlmdsl.diagnostics.catalog.names import UnknownKnob
from vlmdsl.diagnostics.catalog.values import KnobValue
from vlmdsl.frontend.names import is_field_type
from vlmdsl.frontend.scope import FileScope
from vlmdsl.ir import Node
from vlmdsl.primitives import Fault
from vlmdsl.primitives.values import ErrorValue, NumberValue, StringValue, Value
from vlmdsl.source import Span
from vlmdsl.syntax.tree import Parameter, Recipe
from vlmdsl.types import FieldType

if TYPE_CHECKING:
    from vlmdsl.frontend.elaborate import Elaborator

__all__ = ["apply_knobs", "bind_signature", "field_node"]


def bind_signature(elaborator: Elaborator, recipe: Recipe, scope: FileScope, given: Mapping[str, Value]) -> None:
    """Binds fields and hyper-parameters in `scope`: to their arguments, else to a field node or the default."""
    for parameter in recipe.parameters:
        name = parameter.name.name
        if name in given:
            scope.values[name] = given[name]
        elif parameter.default is not None:
            with elaborator.session.named(name):
                scope.values[name] = elaborator.evaluate(parameter.default, scope)
        else:
            scope.values[name] = _field(elaborator, parameter)


def _field(elaborator: Elaborator, parameter: Parameter) -> Value:
    assert parameter.type is not None, "the parser reports a parameter that is neither field nor hyper-parameter"
    if not is_field_type(parameter.type.name, parameter.type.count):
        return ErrorValue()  # Reported when names were resolved.
    if parameter.type.name == "Scalar":
        return elaborator.session.add("scalar", span=parameter.span, name=parameter.name.name)
    return field_node(elaborator, parameter.name.name, FieldType(parameter.type.name, parameter.type.count), parameter.span)


def field_node(elaborator: Elaborator, name: str, type: FieldType, span: Span) -> Node:
    return elaborator.session.add("field", type=type, span=span, name=name)


def apply_knobs(
    elaborator: Elaborator, recipe: Recipe | None, name: str, knobs: Mapping[str, object], span: Span
) -> dict[str, Value]:
    """Values for the hyper-parameters that were set from outside (`--param`, keywords), checked against their defaults."""
    signature = {p.name.name: p for p in recipe.parameters if p.default is not None} if recipe else {}
    given: dict[str, Value] = {}
    for knob, value in knobs.items():
        if knob not in signature:
            near = closest(knob, signature)
            listed = f"its hyper-parameters are {', '.join(signature)}" if signature else "it has none"
            help = f"did you mean `{near}`?" if near else listed
            elaborator.session.report(UnknownKnob.at(span, help=(help,), recipe=name, name=knob))
            continue
        try:
            given[knob] = _knob_value(elaborator, signature[knob], value)
        except Fault as fault:
            elaborator.session.report(fault.diagnostic)
    return given


def _knob_value(elaborator: Elaborator, parameter: Parameter, value: object) -> Value:
    assert parameter.default is not None
    default = elaborator.evaluate(parameter.default, FileScope("<knob>"))
    name, span = parameter.name.name, parameter.span
    if isinstance(default, StringValue):
        if isinstance(value, str):
            return StringValue(value, span)
        raise Fault(KnobValue.at(span, name=name, reason=f"expected a string, not {value!r}"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault(KnobValue.at(span, name=name, reason=f"expected a number, not {value!r}"))
    if value != value or abs(value) > sys.float_info.max:
        raise Fault(KnobValue.at(span, name=name, reason="expected a finite number"))
    return NumberValue(float(value), is_integer=isinstance(value, int), span=span)
