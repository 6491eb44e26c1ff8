"""Primitives for numbers: learned ones, and arithmetic on scalars, scores and matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics import Diagnostic, closest
from vlmdsl.diagnostics.catalog.types import WrongType
from vlmdsl.diagnostics.catalog.values import BoundsDisagree, NotOneOf
from vlmdsl.ir import Node
from vlmdsl.ir.operation import operation_named
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Meaning, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import AllSamples, NumberValue, StringValue, TupleValue, Value, type_of
from vlmdsl.types import FieldType, ScalarType, ScoreType


class LearnedParameters(Parameters):
    """Arguments of `learned`."""

    initial: float = Field(description="its initial value")
    form: Literal["log_scale", "direct"] = Field(
        default="log_scale",
        description="`log_scale`: a temperature, stored as the log of its inverse; `direct`: the number itself",
    )
    max_scale: float | None = Field(default=None, gt=0.0, description="largest inverse temperature (`log_scale` only)")
    min_scale: float | None = Field(default=None, gt=0.0, description="smallest inverse temperature (`log_scale` only)")
    lower: float | None = Field(default=None, description="smallest value (`direct` only)")
    upper: float | None = Field(default=None, description="largest value (`direct` only)")
    clamp: Literal["after_step", "hard", "straight_through"] = Field(
        default="after_step",
        description=(
            "when the bounds are enforced: clamped after the optimiser step; in the graph, without gradient beyond them; "
            "in the graph, with the gradient passed through"
        ),
    )
    name: OptionalName = Field(
        default="",
        description=(
            "the name that it is logged under; by default the one it is bound to. In the checkpoint the log scale of a "
            "`temperature` is `log_scale`, of another name `NAME_log_scale`"
        ),
    )


def _bounds(builder: Builder, bound: LearnedParameters) -> tuple[float, float | None, float | None]:
    """Start and bounds of the stored number."""
    logarithmic = bound.form == "log_scale"
    foreign = ("lower", "upper") if logarithmic else ("max_scale", "min_scale")
    for argument in foreign:
        if getattr(bound, argument) is not None:
            raise Fault(
                BoundsDisagree.at(
                    builder.place(argument), reason=f'`{argument}` cannot be combined with form="{bound.form}"'
                )
            )
    if not logarithmic:
        start, lower, upper = bound.initial, bound.lower, bound.upper
    else:
        if bound.initial <= 0.0:
            raise Fault(BoundsDisagree.at(builder.place("initial"), reason="a temperature is greater than 0"))
        start = -math.log(bound.initial)
        lower = None if bound.min_scale is None else math.log(bound.min_scale)
        upper = None if bound.max_scale is None else math.log(bound.max_scale)
    tolerance = 1e-9
    outside = "below" if lower is not None and start < lower - tolerance else ""
    outside = "above" if upper is not None and start > upper + tolerance else outside
    if outside:
        raise Fault(_outside(builder, bound, outside))
    return start, lower, upper


def _outside(builder: Builder, bound: LearnedParameters, outside: str) -> Diagnostic:
    """The message for an initial value beyond a bound."""
    if bound.form == "log_scale":
        shown = f"a temperature of {bound.initial:g} is a scale of {1 / bound.initial:g}"
        name = "max_scale" if outside == "above" else "min_scale"
        limit = getattr(bound, name)
        help = f"start with {'at least' if outside == 'above' else 'at most'} {1 / limit:g}, or give another `{name}`"
    else:
        shown, name = f"the start is {bound.initial:g}", "upper" if outside == "above" else "lower"
        limit = getattr(bound, name)
        help = f"start with {'at most' if outside == 'above' else 'at least'} {limit:g}, or give another `{name}`"
    return BoundsDisagree.at(builder.place("initial"), help=(help,), reason=f"{shown}, {outside} `{name}`, {limit:g}")


def _learned(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, LearnedParameters)
    start, lower, upper = _bounds(builder, parameters)
    projected = parameters.clamp == "after_step"
    stored = parameter = builder.parameter(
        parameters.name,
        initial=start,
        lower=lower if projected else None,
        upper=upper if projected else None,
        log_scale=parameters.form == "log_scale",
    )
    if not projected and (lower is not None or upper is not None):
        gradient = "zero" if parameters.clamp == "hard" else "pass"
        stored = builder.add("clamp", stored, lower=lower, upper=upper, gradient=gradient)
    value = stored
    if parameters.form == "log_scale":
        value = builder.add("exp", builder.add("negate", stored))
    builder.report(parameter, value)
    return value


register(
    Primitive(
        name="learned",
        family="scalars",
        summary="A learned parameter; by default a temperature, stored as the log of its inverse (the log scale).",
        meaning=_learned,
        parameters=LearnedParameters,
        positional_parameters=("initial",),
        formula=r"\tau = e^{-a}",
        example="contrast(image, text, temperature=learned(0.07, max_scale=100))",
    )
)


def _unary(operation: str) -> Meaning:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        x = subjects["x"]
        if isinstance(x, NumberValue):
            number = operation_named(operation).number
            assert number is not None
            try:
                return NumberValue(number(x.value), span=x.span)
            except (ValueError, OverflowError):
                raise Fault(
                    BoundsDisagree.at(builder.place("x"), reason=f"{operation}({x.value:g}) is not a finite number")
                ) from None
        assert isinstance(x, Node)
        return builder.add(operation, x)

    return meaning


for _name, _formula in (("exp", r"e^x"), ("log", r"\log x"), ("softplus", r"\log(1 + e^x)")):
    register(
        Primitive(
            name=_name,
            family="scores",
            summary=f"`{_name}` of every element.",
            meaning=_unary(_name),
            subjects=(Subject("x", ("Scalar", "Score", "Sim", "Alignment"), "the number"),),
            formula=_formula,
            example=f"contrast(image, text, weight=stop({_name}(2 + score(image, text))))",
        )
    )


def _extreme(operation: str) -> Meaning:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        a, b = subjects["a"], subjects["b"]
        if isinstance(a, NumberValue) and isinstance(b, NumberValue):
            number = operation_named(operation).number
            assert number is not None
            return NumberValue(number(a.value, b.value), span=a.span)
        left, right = _as_node(builder, a), _as_node(builder, b)
        return builder.add(operation, left, right)

    return meaning


def _as_node(builder: Builder, value: Value) -> Node:
    if isinstance(value, NumberValue):
        return builder.constant(value.value)
    assert isinstance(value, Node)
    return value


for _name, _operation in (("min", "minimum"), ("max", "maximum")):
    register(
        Primitive(
            name=_name,
            family="scores",
            summary=f"The {_operation} of two numbers, element by element.",
            meaning=_extreme(_operation),
            subjects=(
                Subject("a", ("Scalar", "Score"), "one number"),
                Subject("b", ("Scalar", "Score"), "the other"),
            ),
            formula=rf"\{_name}(a, b)",
            example=f"contrast(image, text, weight=stop({_name}(score(image, text), 1)))",
        )
    )


class ClampParameters(Parameters):
    """Arguments of `clamp`."""

    lower: float | None = Field(default=None, description="smallest value")
    upper: float | None = Field(default=None, description="largest value")
    gradient: Literal["zero", "pass"] = Field(default="zero", description="the gradient beyond the bounds")


def _clamp(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, ClampParameters)
    x = _as_node(builder, subjects["x"])
    bounds = (parameters.lower, parameters.upper)
    if bounds == (None, None) or (None not in bounds and parameters.lower > parameters.upper):  # type: ignore[operator]
        raise Fault(
            BoundsDisagree.at(builder.span, reason="`clamp` needs `lower`, `upper` or both, with `lower` below `upper`")
        )
    return builder.add("clamp", x, lower=parameters.lower, upper=parameters.upper, gradient=parameters.gradient)


register(
    Primitive(
        name="clamp",
        family="scores",
        summary="Clamps a number to two bounds; beyond them the gradient is zero, or passes through.",
        meaning=_clamp,
        subjects=(Subject("x", ("Scalar", "Score", "Sim", "Alignment"), "the number"),),
        parameters=ClampParameters,
        formula=r"\min(\max(x, l), u)",
        example="contrast(image, text, weight=stop(clamp(score(image, text), lower=0, upper=1)))",
    )
)


_CHOICE = ("Scalar", "Score", "Sim", "Target", "Loss", "Vec", "Distribution", "Similarity", "Static")


def _check_chosen(builder: Builder, value: Value, argument: str) -> None:
    """The values of `where` are numbers or scores."""
    if not isinstance(value, NumberValue) and not isinstance(type_of(value), ScalarType | ScoreType | FieldType):
        expected = "a number or one number per sample, since the condition is per sample or per step"
        actual = type_of(value)
        place = builder.place(argument)
        raise Fault(
            WrongType.at(place, str(actual), argument=argument, function="where", wanted=expected, found=actual), value
        )


def _where(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    condition, yes, no = subjects["condition"], subjects["then"], subjects["otherwise"]
    if isinstance(condition, AllSamples):
        return yes
    if isinstance(condition, NumberValue):
        return yes if condition.value else no
    assert isinstance(condition, Node)
    for argument in ("then", "otherwise"):
        _check_chosen(builder, subjects[argument], argument)
    left, right = _as_node(builder, yes), _as_node(builder, no)
    return builder.add("where", condition, left, right)


register(
    Primitive(
        name="where",
        family="scores",
        summary="One number where a condition holds, another where it does not; a constant condition is resolved at once.",
        meaning=_where,
        subjects=(
            Subject("condition", ("Condition", "Choice", "Static"), "a comparison"),
            Subject("then", _CHOICE, "the value where it holds"),
            Subject("otherwise", _CHOICE, "the value where it does not"),
        ),
        formula=r"[c]\,a + [\neg c]\,b",
        example="contrast(image, text, weight=stop(where(score(image, text) < 0, 0, 1)))",
    )
)


def _not(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    condition = subjects["condition"]
    if isinstance(condition, NumberValue):
        return NumberValue(0.0 if condition.value else 1.0, is_integer=True, span=condition.span, is_truth=True)
    assert isinstance(condition, Node)
    return builder.add("not", condition)


register(
    Primitive(
        name="complement",
        family="scores",
        summary="The negation of a condition.",
        meaning=_not,
        subjects=(Subject("condition", ("Condition", "Choice", "Static"), "the condition"),),
        formula=r"\neg c",
        example=(
            "recipe masked(image: Image, text: Text, broken: Flag)\nminimize contrast(image, text, keep=complement(broken))"
        ),
    )
)


def _one_of(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    value, choices = subjects["value"], subjects["choices"]
    assert isinstance(choices, TupleValue)
    words = [item.value for item in choices.items if isinstance(item, StringValue)]
    if isinstance(value, StringValue) and value.value in words:
        return value
    shown = f'"{value.value}"' if isinstance(value, StringValue) else str(type_of(value))
    place = value.span if isinstance(value, StringValue | NumberValue) and value.span else builder.place("value")
    listed = ", ".join(f'"{word}"' for word in words)
    near = closest(value.value, words) if isinstance(value, StringValue) else None
    help = () if near is None else (f'did you mean "{near}"?',)
    raise Fault(NotOneOf.at(place, help=help, value=shown, choices=listed))


register(
    Primitive(
        name="one_of",
        family="scalars",
        summary="Checks that a string is one of those listed; for options of library functions.",
        meaning=_one_of,
        subjects=(Subject("value", ("Static",), "the option"), Subject("choices", ("Tuple",), "the allowed strings")),
        formula="",
        example=(
            'def times(size = "one") = where(one_of(size, ("one", "two")) == "two", 2, 1)\n'
            "minimize times() * contrast(image, text)"
        ),
    )
)
