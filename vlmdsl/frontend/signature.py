"""The signature of a recipe: its fields, and its hyper-parameters with their values."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from vlmdsl.diagnostics import closest
from vlmdsl.diagnostics.catalog.names import UnknownHyperparameter
from vlmdsl.diagnostics.catalog.values import HyperparameterValue
from vlmdsl.frontend.evaluates import Evaluates
from vlmdsl.frontend.names import is_field_type
from vlmdsl.frontend.scope import FileScope
from vlmdsl.ir import Node
from vlmdsl.primitives import Fault
from vlmdsl.primitives.values import ErrorValue, NumberValue, StringValue, Value
from vlmdsl.source import Span
from vlmdsl.syntax.tree import Parameter, Recipe
from vlmdsl.types import FieldType

__all__ = ["chosen_values", "bind_signature", "field_node"]


def bind_signature(elaborator: Evaluates, recipe: Recipe, scope: FileScope, arguments: Mapping[str, Value]) -> None:
    """Bind fields and hyper-parameters in `scope`: to their arguments, else to a field node or the default."""
    for parameter in recipe.parameters:
        name = parameter.name.name
        if name in arguments:
            scope.values[name] = arguments[name]
        elif parameter.default is not None:
            with elaborator.session.named(name):
                scope.values[name] = elaborator.evaluate(parameter.default, scope)
        else:
            scope.values[name] = _field(elaborator, parameter)


def _field(elaborator: Evaluates, parameter: Parameter) -> Value:
    assert parameter.type is not None, "the parser reports a parameter that is neither field nor hyper-parameter"
    if not is_field_type(parameter.type.name, parameter.type.count):
        return ErrorValue()  # Reported in name resolution.
    if parameter.type.name == "Scalar":
        return elaborator.session.add("scalar", span=parameter.span, name=parameter.name.name)
    return field_node(elaborator, parameter.name.name, FieldType(parameter.type.name, parameter.type.count), parameter.span)


def field_node(elaborator: Evaluates, name: str, type: FieldType, span: Span) -> Node:
    return elaborator.session.add("field", type=type, span=span, name=name)


def chosen_values(
    elaborator: Evaluates, recipe: Recipe | None, name: str, choices: Mapping[str, object], span: Span
) -> dict[str, Value]:
    """Values for the hyper-parameters that were set from outside (`--param`, keywords), checked against their defaults."""
    signature = {p.name.name: p for p in recipe.parameters if p.default is not None} if recipe else {}
    values: dict[str, Value] = {}
    for word, choice in choices.items():
        if word not in signature:
            near = closest(word, signature)
            listed = f"its hyper-parameters are {', '.join(signature)}" if signature else "it has none"
            help = f"did you mean `{near}`?" if near else listed
            elaborator.session.report(UnknownHyperparameter.at(span, help=(help,), recipe=name, name=word))
            continue
        try:
            values[word] = _checked_value(elaborator, signature[word], choice)
        except Fault as fault:
            elaborator.session.report(fault.diagnostic)
    return values


def _checked_value(elaborator: Evaluates, parameter: Parameter, value: object) -> Value:
    assert parameter.default is not None
    default = elaborator.evaluate(parameter.default, FileScope("<hyper-parameter>"))
    name, span = parameter.name.name, parameter.span
    if isinstance(default, StringValue):
        if isinstance(value, str):
            return StringValue(value, span)
        raise Fault(HyperparameterValue.at(span, name=name, reason=f"expected a string, not {value!r}"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault(HyperparameterValue.at(span, name=name, reason=f"expected a number, not {value!r}"))
    if value != value or abs(value) > sys.float_info.max:
        raise Fault(HyperparameterValue.at(span, name=name, reason="expected a finite number"))
    return NumberValue(float(value), is_integer=isinstance(value, int), span=span)
