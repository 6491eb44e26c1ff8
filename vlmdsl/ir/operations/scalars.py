"""Numbers, learned ones and drawn ones, and arithmetic on them and on scores."""

from __future__ import annotations

import math

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import (
    BOUND,
    NUMBER,
    NUMERIC,
    Signature,
    Yields,
    as_value,
    fixed,
    need,
    one_of,
    same,
    take,
)
from vlmdsl.types import ConditionType, DistributionType, ScalarType, ScoreType, TokensType, Type, VecType

__all__ = ["COMPARISONS", "ELEMENTWISE", "SIGNATURES", "broadcast"]

COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
_UNARY = ("negate", "exp", "log", "softplus")
_BINARY = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
_DISTRIBUTIONS = ("beta", "uniform")
"""What a number a step may be drawn from; each has two arguments."""
ELEMENTWISE = frozenset({*_UNARY, *_BINARY, "clamp", "stop"})
"""Operations whose type follows from their inputs by `broadcast`."""


def broadcast(types: tuple[Type, ...]) -> Type | None:
    """The type of an elementwise operation: a Scalar broadcasts to any other number, else all agree; None if they do not."""
    wide = [kind for kind in map(as_value, types) if not isinstance(kind, ScalarType)]
    if not wide:
        return ScalarType()
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
    return ScalarType()


def elementwise(arity: int) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        need(len(types) == arity, f"has {len(types)} inputs, wants {arity}")
        found = broadcast(types)
        need(found is not None, "cannot combine " + " and ".join(map(str, types)))
        need(not isinstance(found, VecType) or node.operation in ("add", "subtract"), f"cannot {node.operation} features")
        return found or ScalarType()

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


def clamp(node: Node, types: tuple[Type, ...]) -> Type | None:
    one_of(node, "gradient", "zero", "pass")
    return same(*NUMERIC)(node, types)


SIGNATURES: dict[str, Signature] = {
    "constant": Signature({"value": NUMBER}, constant),
    "parameter": Signature({"name": (str,), "initial": NUMBER, "lower": BOUND, "upper": BOUND}, parameter),
    "scalar": Signature({"name": (str,)}, fixed(ScalarType())),
    "draw": Signature({"name": (str,), "distribution": (str,), "arguments": (tuple,)}, draw),
    **{name: Signature({}, elementwise(1)) for name in _UNARY},
    **{name: Signature({}, elementwise(2)) for name in _BINARY},
    **{name: Signature({}, compare) for name in COMPARISONS},
    "where": Signature({}, where),
    "clamp": Signature({"lower": BOUND, "upper": BOUND, "gradient": (str,)}, clamp),
    "not": Signature({}, complement),
    "and": Signature({}, fixed(ConditionType(), ConditionType, ConditionType)),
    "or": Signature({}, fixed(ConditionType(), ConditionType, ConditionType)),
    "retain": Signature({"value": NUMBER}, retain),
    "stop": Signature({}, same(VecType, TokensType, DistributionType, *NUMERIC)),
}
