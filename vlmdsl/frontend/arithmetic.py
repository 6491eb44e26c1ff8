"""Operators: which values they combine, and the result."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace

from vlmdsl.diagnostics.catalog.types import AxesDisagree, OperatorTypes
from vlmdsl.diagnostics.catalog.values import DivisionByZero, NotANumber, NotATemperature
from vlmdsl.frontend.coerce import kind_of
from vlmdsl.frontend.session import Session
from vlmdsl.ir import Node, walk
from vlmdsl.primitives import Fault
from vlmdsl.primitives.values import ErrorValue, NumberValue, SimilarityPart, SimilarityValue, StringValue, Value, type_of
from vlmdsl.source import Span
from vlmdsl.source.limits import SMALLEST_TEMPERATURE
from vlmdsl.types import FieldType, ScalarType, ScoreType, Type

__all__ = ["binary", "negate"]

_OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
_COMPARISONS = {
    "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal", "==": "equal", "!=": "not_equal",
}  # fmt: skip
_FOLD: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

_LOGITS = ("Sim", "Alignment")
"""What is divided by a temperature, which is greater than 0."""

# (kind of the left, operators, kind of the right) that combine; the result has the kind that is not Scalar.
_COMBINES: frozenset[tuple[str, str, str]] = frozenset(
    [("Scalar", op, "Scalar") for op in "+-*/"]
    + [("Score", op, "Score") for op in "+-*/"]
    + [("Score", op, "Scalar") for op in "+-*/"]
    + [("Scalar", op, "Score") for op in "+-*/"]
    + [("Sim", op, "Scalar") for op in "+-*/"]
    + [("Scalar", op, "Sim") for op in "+*-"]
    + [("Sim", op, "Sim") for op in "+-*"]
    + [("Alignment", op, "Scalar") for op in "+-*/"]
    + [("Scalar", op, "Alignment") for op in "+*-"]
    + [("Alignment", op, "Alignment") for op in "+-"]
    + [("Vec", op, "Vec") for op in "+-"]
    + [("Vec", op, "Vector") for op in "+-"]
    + [("Vector", op, "Vec") for op in "+-"]
    + [("Loss", op, "Loss") for op in "+-"]
    + [("Loss", op, "Scalar") for op in "+-*/"]
    + [("Scalar", op, "Loss") for op in "+-*"]
    + [("Target", op, "Target") for op in "+-"]
    + [("Target", op, "Scalar") for op in "*/"]
    + [("Scalar", "*", "Target")]
)


def negate(session: Session, value: Value, span: Span) -> Value:
    """`-value`."""
    match value:
        case ErrorValue():
            return value
        case NumberValue(is_truth=False):
            return replace(value, value=-value.value, span=span)
        case SimilarityValue():
            return _scaled(value, -1.0)
        case Node() if {"Scalar", "Score", "Sim", "Alignment", "Loss"} & set(kind_of(value)):
            return session.add("negate", value, span=span)
        case _:
            raise Fault(OperatorTypes.at(span, str(type_of(value)), operator="-", left="nothing", right=type_of(value)))


def binary(session: Session, symbol: str, left: Value, right: Value, span: Span) -> Value:
    """`left symbol right`; Fault V0302 if the operator does not combine them."""
    if isinstance(left, ErrorValue) or isinstance(right, ErrorValue):
        return ErrorValue()
    if any(isinstance(value, NumberValue) and value.is_truth for value in (left, right)):
        raise _fault(symbol, left, right, span)
    if isinstance(left, NumberValue) and isinstance(right, NumberValue):
        return _folded(symbol, left, right, span)
    if isinstance(left, StringValue) and isinstance(right, StringValue) and symbol in ("==", "!="):
        return NumberValue(float((left.value == right.value) == (symbol == "==")), is_integer=True, span=span, is_truth=True)
    similarity = _similarity(symbol, left, right)
    if similarity is not None:
        return similarity
    if symbol in _COMPARISONS:
        return _comparison(session, symbol, left, right, span)
    kinds = (_arithmetic_kind(left), symbol, _arithmetic_kind(right))
    if kinds not in _COMBINES:
        raise _fault(symbol, left, right, span)
    if isinstance(left, Node) and isinstance(right, Node) and kinds[0] == kinds[2] == "Sim" and left.type != right.type:
        raise Fault(AxesDisagree.at(span, left=left.type, right=right.type))
    if symbol == "/":
        _check_divisor(session, kinds[0], right, span)
    if kinds[0] == kinds[2] and kinds[0] in ("Sim", "Target", "Alignment") and type_of(left) != type_of(right):
        raise Fault(AxesDisagree.at(span, left=type_of(left), right=type_of(right)))
    return session.add(
        _OPERATIONS[symbol],
        _node(session, left, span),
        _node(session, right, span),
        span=span,
    )


def _check_divisor(session: Session, divided: str, right: Value, span: Span) -> None:
    """Fault for a divisor that is 0, or initially 0, and for similarities divided by an invalid temperature."""
    value = right.value if isinstance(right, NumberValue) else session.start_of(right) if isinstance(right, Node) else None
    place = (right.span if isinstance(right, NumberValue) else None) or span
    if value is None:
        return
    if value == 0.0 and (divided not in _LOGITS or isinstance(right, NumberValue)):
        raise Fault(DivisionByZero.at(place), right)
    if divided in _LOGITS and value < SMALLEST_TEMPERATURE:
        start = "" if isinstance(right, NumberValue) else " at the start"
        least = "greater than 0" if value <= 0.0 else f"at least {SMALLEST_TEMPERATURE:g}"
        raise Fault(NotATemperature.at(place, value=value, start=start, least=least), right)


def _fault(symbol: str, left: Value, right: Value, span: Span) -> Fault:
    strange = right if _arithmetic_kind(left) else left
    scores = [value for value in (left, right) if isinstance(value, Node) and "Score" in kind_of(value)]
    names = [node.string("name") for node in walk(scores) if node.type == FieldType("Number")]
    streams = [bool({"Image", "Text", "Encoded"} & set(kind_of(value))) for value in (left, right)]
    features = [bool({"Vec", "Vector"} & set(kind_of(value))) for value in (left, right)]
    help = ["features are added: `image.pooled + text.pooled`"] if all(streams) and symbol in "+-" else []
    if symbol in "+-" and any(streams) and any(features):
        help = ["features are added and subtracted, and those of a stream are its `.pooled`"]
    help += [
        f"`{name}: Number` is one number per sample; declare `{name}: Scalar` for one number per step" for name in names
    ]
    return Fault(
        OperatorTypes.at(span, help=tuple(help), operator=symbol, left=type_of(left), right=type_of(right)), strange
    )


def _arithmetic_kind(value: Value) -> str:
    kinds = [
        kind for kind in kind_of(value) if kind in ("Scalar", "Score", "Sim", "Alignment", "Loss", "Target", "Vec", "Vector")
    ]
    return kinds[0] if kinds else ""


def _result(left: Value, right: Value) -> Type:
    for value in (left, right):
        type = type_of(value)
        if "Score" in kind_of(value):
            return ScoreType()
        if not isinstance(type, ScalarType):
            return type
    return ScalarType()


def _node(session: Session, value: Value, span: Span) -> Node:
    if isinstance(value, NumberValue):
        return session.add("constant", span=value.span or span, value=float(value.value))
    assert isinstance(value, Node)
    return value


def _folded(symbol: str, left: NumberValue, right: NumberValue, span: Span) -> NumberValue:
    if symbol == "/" and right.value == 0.0:
        raise Fault(DivisionByZero.at(right.span or span), right)
    value = float(_FOLD[symbol](left.value, right.value))
    if not math.isfinite(value):
        raise Fault(NotANumber.at(span, reason=f"{left.value:g} {symbol} {right.value:g}"))
    whole = left.is_integer and right.is_integer and symbol != "/"
    unit = left.unit if left.unit == right.unit and symbol in "+-" else left.unit or right.unit if symbol == "*" else ""
    truth = symbol in _COMPARISONS
    return NumberValue(value, unit="" if unit == "%" else unit, is_integer=whole or truth, span=span, is_truth=truth)


def _scaled(similarity: SimilarityValue, factor: float) -> SimilarityValue:
    return SimilarityValue(tuple(replace(part, coefficient=part.coefficient * factor) for part in similarity.parts))


def _merged(parts: tuple[SimilarityPart, ...]) -> SimilarityValue:
    """Merge parts that compare in the same way."""
    sums: dict[SimilarityPart, float] = {}
    for part in parts:
        key = replace(part, coefficient=1.0)
        sums[key] = sums.get(key, 0.0) + part.coefficient
    return SimilarityValue(tuple(replace(part, coefficient=total) for part, total in sums.items()))


def _similarity(symbol: str, left: Value, right: Value) -> SimilarityValue | None:
    """Sums and multiples of similarities are similarities."""
    match left, symbol, right:
        case SimilarityValue(), "+", SimilarityValue():
            return _merged(left.parts + right.parts)
        case SimilarityValue(), "-", SimilarityValue():
            return _merged(left.parts + _scaled(right, -1.0).parts)
        case NumberValue(), "*", SimilarityValue():
            return _scaled(right, left.value)
        case SimilarityValue(), "*", NumberValue():
            return _scaled(left, right.value)
        case SimilarityValue(), "/", NumberValue() if right.value != 0.0:
            return _scaled(left, 1.0 / right.value)
        case _:
            return None


def _comparison(session: Session, symbol: str, left: Value, right: Value, span: Span) -> Value:
    kinds = {_arithmetic_kind(left), _arithmetic_kind(right)}
    if not kinds <= {"Scalar", "Score"}:
        raise _fault(symbol, left, right, span)
    operands = (_node(session, left, span), _node(session, right, span))
    return session.add(_COMPARISONS[symbol], *operands, span=span)
