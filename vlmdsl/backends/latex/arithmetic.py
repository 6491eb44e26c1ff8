"""Arithmetic as mathematics: formulas that follow from those of their inputs, and factors as papers write them."""

from __future__ import annotations

import re
from collections.abc import Callable

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import (
    SUM,
    Math,
    call,
    fraction,
    infix,
    log,
    negated,
    number,
    product,
    quotient,
    squared,
    total,
)
from vlmdsl.ir import Node
from vlmdsl.ir.operations.scalars import (
    ADD,
    CONSTANT,
    DIVIDE,
    EQUAL,
    EXP,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    LOG,
    MAXIMUM,
    MINIMUM,
    MULTIPLY,
    NEGATE,
    NOT,
    NOT_EQUAL,
    SOFTPLUS,
    STOP,
    SUBTRACT,
)

__all__ = ["ARITHMETIC", "scaled"]

_NUMBER = re.compile(r"[0-9./]+")


def _times(left: Math, right: Math) -> Math:
    """Numbers first; a factor times itself is its square."""
    if left == right:
        return squared(left)
    return product(right, left) if _NUMBER.fullmatch(right.text) else product(left, right)


def _over(left: Math, right: Math) -> Math:
    return fraction(left, right) if left.level == SUM or right.level == SUM else quotient(left, right)


ARITHMETIC: dict[str, Callable[..., Math]] = {
    ADD: total,
    SUBTRACT: lambda left, right: total(left, negated(right)),
    MULTIPLY: _times,
    DIVIDE: _over,
    NEGATE: negated,
    EXP: lambda inner: call("exp", inner, latex=r"\exp"),
    LOG: log,
    SOFTPLUS: lambda inner: log(total(number(1.0), call("exp", inner, latex=r"\exp"))),
    MINIMUM: lambda left, right: call("min", left, right, latex=r"\min"),
    MAXIMUM: lambda left, right: call("max", left, right, latex=r"\max"),
    STOP: lambda inner: call("sg", inner),
    LESS: lambda left, right: infix("<", "<", left, right),
    LESS_EQUAL: lambda left, right: infix(r"\leq", "≤", left, right),
    GREATER: lambda left, right: infix(">", ">", left, right),
    GREATER_EQUAL: lambda left, right: infix(r"\geq", "≥", left, right),
    EQUAL: lambda left, right: infix("=", "=", left, right),
    NOT_EQUAL: lambda left, right: infix(r"\neq", "≠", left, right),
    NOT: lambda inner: call("not", inner),
}
"""Operations whose formula follows from those of their inputs; on matrices they are elementwise."""


def scaled(writer: Writer, inner: Math, scale: Node) -> Math:
    """`inner` times a factor; a temperature divides, as papers write it."""
    if scale.operation is MULTIPLY:
        return scaled(writer, scaled(writer, inner, scale.inputs[0]), scale.inputs[1])
    if scale.operation is CONSTANT:
        value = scale.number("value")
        if value and len(f"{1 / value:.10g}") < len(f"{value:.10g}") and abs(value) > 1:
            return quotient(inner, number(1 / value))
        return ARITHMETIC[MULTIPLY](inner, number(value))
    if scale.operation is EXP and writer.names.learned.is_log_scale(scale.inputs[0]):
        return quotient(inner, writer.names.learned.symbol(scale.inputs[0]))
    if scale.operation is DIVIDE and scale.inputs[0].operation is CONSTANT and scale.inputs[0].number("value") == 1.0:
        return quotient(inner, writer.expression(scale.inputs[1]))
    return ARITHMETIC[MULTIPLY](inner, writer.expression(scale))
