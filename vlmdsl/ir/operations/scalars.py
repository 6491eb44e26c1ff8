"""Constant, learned and drawn numbers, and arithmetic on them and on scores."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, Yields, define
from vlmdsl.ir.operations.rules import (
    BOUND,
    NUMBER,
    NUMERIC,
    fixed,
    need,
    one_of,
    same,
    take,
)
from vlmdsl.ir.ramps import Ramp
from vlmdsl.types import (
    ConditionType,
    DistributionType,
    DrawsType,
    EncodedType,
    LogitsType,
    ScalarType,
    ScoreType,
    TokensType,
    Type,
    VectorType,
    VecType,
    as_value,
    picked_axis,
)

__all__ = [
    "ADD", "AND", "CLAMP", "CONSTANT", "DIVIDE", "DRAW", "EQUAL", "EXP", "GREATER", "GREATER_EQUAL", "LESS",
    "LESS_EQUAL", "LOG", "MAXIMUM", "MINIMUM", "MULTIPLY", "NEGATE", "NOT", "NOT_EQUAL", "OR", "PARAMETER", "RAMP",
    "RETAIN", "SCALAR", "SOFTPLUS", "STOP", "SUBTRACT", "WHERE", "broadcast",
]  # fmt: skip

_DISTRIBUTIONS = ("beta", "uniform")
"""What a number may be drawn from; each has two arguments."""


def broadcast(types: tuple[Type, ...]) -> Type | None:
    """The type of an elementwise operation: a Scalar broadcasts to any other number, a Vector to the Vec of each sample,
    else all agree; None if they do not."""
    wide = [kind for kind in map(as_value, types) if not isinstance(kind, ScalarType)]
    if not wide:
        return ScalarType()
    if {type(kind) for kind in wide} == {VecType, VectorType}:
        return VecType()
    if any(kind != wide[0] for kind in wide):
        return None
    whole = isinstance(wide[0], VecType) and len(wide) == len(types) == 2
    return wide[0] if whole or isinstance(wide[0], NUMERIC) else None


def constant(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    need(math.isfinite(node.number("value")), f"the value is {node.number('value')}")
    return ScalarType()


def parameter(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    for name in ("initial", "lower", "upper"):
        value = node.attribute(name)
        need(value is None or (isinstance(value, int | float) and math.isfinite(value)), f"{name} is {value!r}")
    return ScalarType()


def draw(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    one_of(node, "distribution", *_DISTRIBUTIONS)
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    need(len(arguments) == 2 and all(map(math.isfinite, arguments)), f"arguments are {arguments!r}")
    count = node.attribute("count")
    if count is None:
        return ScalarType()
    need(isinstance(count, int) and count > 0, f"draws {count!r} numbers")
    return DrawsType(count=picked_axis(int(node.number("count"))))


def ramp(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    schedule = node.attribute("ramp")
    assert isinstance(schedule, Ramp)
    need(math.isfinite(schedule.start) and math.isfinite(schedule.end), f"it goes {schedule}")
    need(min(schedule.over.amount, schedule.after.amount) >= 0, f"it goes {schedule}")
    return ScalarType()


def elementwise(arity: int) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        need(len(types) == arity, f"has {len(types)} inputs, wants {arity}")
        shape = broadcast(types)
        need(shape is not None, "cannot combine " + " and ".join(map(str, types)))
        need(not isinstance(shape, VecType) or bool(node.operation.signs), f"cannot {node.operation} features")
        return shape or ScalarType()

    return yields


def compare(node: Node, types: tuple[Type, ...]) -> Type:
    kind = elementwise(2)(node, types)
    need(isinstance(kind, ScalarType | ScoreType), f"compares scores, got {kind}")
    return ConditionType("" if isinstance(kind, ScalarType) else "B")


def complement(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, ConditionType)
    return as_value(types[0])


def where(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 3, f"has {len(types)} inputs, wants 3")
    take(types[:1], ConditionType)
    kind = elementwise(2)(node, types[1:])
    need(isinstance(kind, ScalarType | ScoreType), f"chooses between scores, got {kind}")
    return ScoreType() if kind is None or types[0] != ConditionType("") else kind


def retain(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    take(types[1:], ConditionType)
    kind = as_value(types[0])
    need(isinstance(kind, VecType | TokensType | ScoreType), f"retains samples of {kind}")
    return kind


def clamp(node: Node, types: tuple[Type, ...]) -> Type:
    one_of(node, "gradient", "zero", "pass")
    return same(*NUMERIC)(node, types)


def _unary(
    name: str, number: Callable[[float], float], *, keeps_zero: bool = False, signs: tuple[int, ...] = ()
) -> Operation:
    return define(
        Operation(
            name,
            elementwise(1),
            takes="x",
            gives="of x, entry by entry",
            elementwise=True,
            number=number,
            keeps_zero=keeps_zero,
            signs=signs,
        )
    )


def _binary(
    name: str,
    number: Callable[[float, float], float],
    *,
    commutative: bool = False,
    keeps_zero: bool = False,
    signs: tuple[int, ...] = (),
) -> Operation:
    return define(
        Operation(
            name,
            elementwise(2),
            takes="x, y",
            gives="entry by entry; a Scalar broadcasts to Score, Sim, Target, Loss; two Vecs are added and subtracted, and "
            "a Vec and a Vector. An entry is a candidate in a combination of two Sims if it is one in both",
            elementwise=True,
            number=number,
            commutative=commutative,
            keeps_zero=keeps_zero,
            signs=signs,
        )
    )


def _comparison(name: str, *, commutative: bool = False) -> Operation:
    return define(
        Operation(
            name,
            compare,
            takes="x, y",
            gives="Condition; of two Scalars one per step",
            comparison=True,
            commutative=commutative,
            stops_gradient=True,
        )
    )


CONSTANT = define(
    Operation("constant", constant, {"value": NUMBER}, stops_gradient=True, carries="`value` (float)", gives="Scalar")
)
PARAMETER = define(
    Operation(
        "parameter",
        parameter,
        {"name": (str,), "initial": NUMBER, "lower": BOUND, "upper": BOUND},
        named=True,
        learned=True,
        carries="`name` (unique), `initial`, `lower`, `upper` (float or None: projected after the optimiser step)",
        gives="Scalar",
    )
)
SCALAR = define(
    Operation(
        "scalar",
        fixed(ScalarType()),
        {"name": (str,)},
        learned=True,
        carries="`name`",
        gives="Scalar: a number that the caller passes at each step, the same on every process; an input of the objective",
    )
)
DRAW = define(
    Operation(
        "draw",
        draw,
        {"name": (str,), "distribution": (str,), "arguments": (tuple,), "count": (int, type(None))},
        {"count": None},
        named=True,
        stops_gradient=True,
        carries=(
            "`name` (unique), `distribution` (`beta`, `uniform`), `arguments` (two numbers); `count` (K), "
            "where each sample draws"
        ),
        gives=(
            "Scalar: drawn once per step, keyed by seed, step and name; an input of the objective. With a "
            "count, Draws: K numbers per sample, keyed by seed, epoch, sample and name"
        ),
    )
)

RAMP = define(
    Operation(
        "ramp",
        ramp,
        {"name": (str,), "ramp": (Ramp,)},
        named=True,
        stops_gradient=True,
        carries="`name` (unique), `ramp` (shape, from, to, over and after which part of the run)",
        gives="Scalar: a function of the step; an input of the objective, held by batch k for step k",
    )
)

NEGATE = _unary("negate", operator.neg, keeps_zero=True, signs=(-1,))
EXP = _unary("exp", math.exp)
LOG = _unary("log", math.log)
SOFTPLUS = _unary("softplus", lambda value: max(value, 0.0) + math.log1p(math.exp(-abs(value))))
ADD = _binary("add", operator.add, commutative=True, keeps_zero=True, signs=(1, 1))
SUBTRACT = _binary("subtract", operator.sub, keeps_zero=True, signs=(1, -1))
MULTIPLY = _binary("multiply", operator.mul, commutative=True, keeps_zero=True)
DIVIDE = _binary("divide", operator.truediv)
MINIMUM = _binary("minimum", min, commutative=True, keeps_zero=True)
MAXIMUM = _binary("maximum", max, commutative=True, keeps_zero=True)
CLAMP = define(
    Operation(
        "clamp",
        clamp,
        {"lower": BOUND, "upper": BOUND, "gradient": (str,)},
        elementwise=True,
        takes="x",
        carries="`lower`, `upper`, `gradient` (`zero`, `pass`: straight-through)",
        gives="of x",
    )
)
STOP = define(
    Operation(
        "stop",
        same(EncodedType, VecType, TokensType, DistributionType, LogitsType, *NUMERIC),
        elementwise=True,
        number=float,
        passes_features=True,
        keeps_zero=True,
        stops_gradient=True,
        takes="any tensor",
        gives="the same; no gradient",
    )
)

LESS = _comparison("less")
LESS_EQUAL = _comparison("less_equal")
GREATER = _comparison("greater")
GREATER_EQUAL = _comparison("greater_equal")
EQUAL = _comparison("equal", commutative=True)
NOT_EQUAL = _comparison("not_equal", commutative=True)
NOT = define(Operation("not", complement, stops_gradient=True, takes="Condition", gives="Condition"))
AND = define(
    Operation(
        "and",
        fixed(ConditionType(), ConditionType, ConditionType),
        stops_gradient=True,
        takes="two Conditions",
        gives="Condition",
    )
)
OR = define(
    Operation(
        "or",
        fixed(ConditionType(), ConditionType, ConditionType),
        stops_gradient=True,
        takes="two Conditions",
        gives="Condition",
    )
)
WHERE = define(Operation("where", where, keeps_zero=True, takes="condition, x, y", gives="of x and y"))
RETAIN = define(
    Operation(
        "retain",
        retain,
        {"value": NUMBER},
        passes_features=True,
        per_sample=True,
        takes="Vec, Tokens or Score; Condition",
        carries="`value`",
        gives="the same, with `value` for samples for which the condition fails; added by a pass",
    )
)
