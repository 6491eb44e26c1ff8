"""The invariants of the graph: what every operation takes, carries and yields, checked between passes.

`docs/architecture.md` section 3 is the same table in words. A violation is a fault of the compiler, never of the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from vlmdsl.ir.contrast import Contrast, Direction
from vlmdsl.ir.graph import Node
from vlmdsl.ir.program import Encoder, Program
from vlmdsl.types import (
    TOKEN_AXIS,
    ConditionType,
    DistributionType,
    EncodedType,
    FieldType,
    LossType,
    ScalarType,
    ScoreType,
    SimType,
    TargetType,
    TokensType,
    Type,
    VecType,
)

__all__ = ["COMPARISONS", "ELEMENTWISE", "SIGNATURES", "InternalError", "Signature", "broadcast", "check_node", "verify"]

COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
_UNARY = ("negate", "exp", "log")
_BINARY = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
ELEMENTWISE = frozenset({*_UNARY, *_BINARY, "clamp", "stop"})
"""Operations whose type follows from their inputs by `broadcast`."""
_NUMERIC = (ScalarType, ScoreType, SimType, TargetType, LossType)


class InternalError(Exception):
    """A fault of the compiler itself: the stage that broke an invariant, the node and what is wrong with it."""

    def __init__(self, stage: str, node: Node | None, reason: str) -> None:
        self.stage, self.node, self.reason = stage, node, reason
        place = "" if node is None else f" at {node!r}"
        super().__init__(f"internal error after {stage}{place}: {reason}")


class _BrokenError(Exception):
    """What is wrong with a node; `verify` adds where."""


Yields: TypeAlias = Callable[[Node, tuple[Type, ...]], Type | None]
"""The type a node must have, given itself and its input types; None where the inputs do not determine it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What one operation carries and yields: `attributes` by name with their Python types, and the rule of its type.

    Attributes that are `optional` are there only where they differ from their default.
    """

    attributes: dict[str, tuple[type, ...]]
    yields: Yields
    optional: frozenset[str] = frozenset()


def broadcast(types: tuple[Type, ...]) -> Type | None:
    """The type of an elementwise operation: a Scalar broadcasts to anything, else all agree; None if they do not."""
    wide = [kind for kind in map(_as_value, types) if not isinstance(kind, ScalarType)]
    if not wide:
        return ScalarType()
    return wide[0] if all(kind == wide[0] for kind in wide) and isinstance(wide[0], _NUMERIC) else None


def _as_value(kind: Type) -> Type:
    """A `Flag` field reads as a condition and a `Number` field as a score."""
    if kind == FieldType("Flag"):
        return ConditionType()
    return ScoreType() if kind == FieldType("Number") else kind


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise _BrokenError(reason)


def _take(types: tuple[Type, ...], *wanted: type[Type]) -> None:
    _need(len(types) == len(wanted), f"has {len(types)} inputs, wants {len(wanted)}")
    for position, (kind, want) in enumerate(zip(types, wanted, strict=True)):
        _need(isinstance(_as_value(kind), want), f"input {position} is {kind}, wants {want.__name__.removesuffix('Type')}")


def _fixed(result: Type, *wanted: type[Type]) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        _take(types, *wanted)
        return result

    return yields


def _field(node: Node, types: tuple[Type, ...]) -> Type | None:
    _take(types)
    _need(isinstance(node.type, FieldType), f"a field cannot be {node.type}")
    return None


def _view(kind: str) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        _take(types, FieldType)
        _need(types[0] == FieldType(kind), f"is a view of {kind}, got {types[0]}")
        return types[0]

    return yields


def _encode(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, FieldType)
    encoder = node.attribute("encoder")
    assert isinstance(encoder, Encoder)
    _need(types[0] == FieldType(encoder.kind), f"{encoder.tower} encodes {encoder.kind}, got {types[0]}")
    return EncodedType(encoder.kind)


def _tokens(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, EncodedType)
    assert isinstance(types[0], EncodedType)
    return TokensType(tokens=TOKEN_AXIS[types[0].kind])


def _same(*allowed: type[Type]) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        _need(len(types) == 1, f"has {len(types)} inputs, wants 1")
        _need(isinstance(types[0], allowed), f"cannot take {types[0]}")
        return types[0]

    return yields


def _pair_rows(types: tuple[Type, ...]) -> tuple[str, str]:
    _need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    x, y = types
    if (isinstance(x, VecType) and isinstance(y, VecType)) or (isinstance(x, TokensType) and isinstance(y, TokensType)):
        return x.rows, y.rows
    raise _BrokenError(f"compares two Vec or two Tokens, got {x} and {y}")


def _similarity(node: Node, types: tuple[Type, ...]) -> Type:
    return SimType(*_pair_rows(types))


def _score(node: Node, types: tuple[Type, ...]) -> Type:
    rows, columns = _pair_rows(types)
    _need(rows == columns, f"scores pairs, but the rows are {rows} and {columns}")
    return ScoreType(rows)


def _elementwise(arity: int) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        _need(len(types) == arity, f"has {len(types)} inputs, wants {arity}")
        found = broadcast(types)
        _need(found is not None, "cannot combine " + " and ".join(map(str, types)))
        return found or ScalarType()

    return yields


def _compare(node: Node, types: tuple[Type, ...]) -> Type:
    kind = _elementwise(2)(node, types)
    _need(isinstance(kind, ScalarType | ScoreType), f"compares scores, got {kind}")
    return ConditionType()


def _where(node: Node, types: tuple[Type, ...]) -> Type:
    _need(len(types) == 3, f"has {len(types)} inputs, wants 3")
    _take(types[:1], ConditionType)
    kind = _elementwise(2)(node, types[1:])
    _need(isinstance(kind, ScalarType | ScoreType), f"chooses between scores, got {kind}")
    return ScoreType()


def _transpose(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType)
    assert isinstance(types[0], SimType)
    return SimType(types[0].columns, types[0].rows)


def _labels(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, FieldType)
    _need(types[0] == FieldType("Label"), f"compares a Label, got {types[0]}")
    return TargetType()


def _unite(node: Node, types: tuple[Type, ...]) -> Type:
    kind = SimType if isinstance(types[0], SimType) else TargetType
    _take(types, kind, kind)
    a, b = types
    assert isinstance(a, SimType | TargetType)
    assert isinstance(b, SimType | TargetType)
    _need(a.rows == b.rows, f"unites the rows {a.rows} and {b.rows}")
    return kind(a.rows, f"{a.columns}+{b.columns}")


def _exclude(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType, ConditionType)
    return types[0]


def _asked(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType, TargetType)
    assert isinstance(types[0], SimType)
    _one_of(node, "along", "rows", "columns")
    _need(node.string("along") == "rows" or "+" not in types[0].columns, f"asks the columns of {types[0]}")
    return ScoreType(types[0].rows if node.string("along") == "rows" else types[0].columns)


def _cross_entropy(node: Node, types: tuple[Type, ...]) -> Type:
    _one_of(node, "denominator", "all", "negatives")
    return _asked(node, types)


def _of_affinity(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType)
    assert isinstance(types[0], SimType)
    return TargetType(types[0].rows, types[0].columns)


def _smooth(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, TargetType)
    _one_of(node, "over", "all", "others")
    return types[0]


def _clamp(node: Node, types: tuple[Type, ...]) -> Type | None:
    _one_of(node, "gradient", "zero", "pass")
    return _same(*_NUMERIC)(node, types)


def _one_of(node: Node, name: str, *allowed: str) -> None:
    _need(node.string(name) in allowed, f"{name} is {node.string(name)!r}, may be {', '.join(allowed)}")


def _mean(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, *((ScoreType,) if len(types) == 1 else (ScoreType, ConditionType)))
    return LossType()


def _samples(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, *((ConditionType,) * len(types[:1])))
    return ScalarType()


def _constant(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    _need(math.isfinite(node.number("value")), f"the value is {node.number('value')}")
    return ScalarType()


def _parameter(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    for name in ("initial", "lower", "upper"):
        value = node.attribute(name)
        _need(value is None or (isinstance(value, int | float) and math.isfinite(value)), f"{name} is {value!r}")
    return ScalarType()


_DIRECTION_INPUTS: dict[str, type[Type] | tuple[type[Type], ...]] = {
    "scale": (ScalarType, ScoreType),
    "bias": ScalarType,
    "weight": ScoreType,
    "over": ConditionType,
    "keep": ConditionType,
}


def _direction(direction: Direction, types: tuple[Type, ...]) -> None:
    _need(bool(direction.targets), "a direction has no target")
    _need(math.isfinite(direction.coefficient), f"the coefficient is {direction.coefficient}")
    wanted = [(name, getattr(direction, name), kind) for name, kind in _DIRECTION_INPUTS.items()]
    for part in direction.targets:
        if part.kind in ("same", "dense"):
            _need(part.input is not None, f"the {part.kind} target has no input")
            wanted.append((part.kind, part.input, TargetType if part.kind == "dense" else FieldType))
    for name, position, kind in wanted:
        if position is not None:
            _need(0 <= position < len(types), f"{name} is input {position} of {len(types)}")
            _need(isinstance(_as_value(types[position]), kind), f"{name} cannot be {types[position]}")


def _contrast(node: Node, types: tuple[Type, ...]) -> Type:
    contrast = node.attribute("contrast")
    assert isinstance(contrast, Contrast)
    features = (VecType, VecType) if contrast.fused else (SimType,)
    _take(types[: len(features)], *features)
    directions = [direction for direction in (contrast.rows, contrast.columns) if direction is not None]
    _need(bool(directions), "has no direction")
    for direction in directions:
        _direction(direction, types)
    return LossType()


_NUMBER = (int, float)
_BOUND = (int, float, type(None))

SIGNATURES: dict[str, Signature] = {
    "field": Signature({"name": (str,)}, _field),
    "rewrite": Signature({"count": (int,), "minimum_words": (int,), "draw": (int,)}, _view("Text")),
    "alternative": Signature({"view": (int,)}, _view("Text")),
    "augment": Signature({"view": (int,), "pipeline": (object,), "draw": (int,)}, _view("Image")),
    "encode": Signature({"encoder": (Encoder,)}, _encode),
    "pooled": Signature({}, _fixed(VecType(), EncodedType)),
    "tokens": Signature({}, _tokens),
    "stop": Signature({}, _same(VecType, TokensType, DistributionType, *_NUMERIC)),
    "distribution": Signature({"temperature": _NUMBER}, _fixed(DistributionType(), VecType)),
    "entropy": Signature({}, _fixed(ScoreType(), DistributionType, DistributionType)),
    "entropy_of_mean": Signature({}, _fixed(LossType(), DistributionType)),
    "normalize": Signature(
        {"epsilon": _NUMBER, "smallest": _NUMBER}, _same(VecType, TokensType), optional=frozenset({"smallest"})
    ),
    "similarity": Signature({"by": (str,), "arguments": (tuple,)}, _similarity),
    "score": Signature({"by": (str,), "arguments": (tuple,)}, _score),
    "constant": Signature({"value": _NUMBER}, _constant),
    "parameter": Signature({"name": (str,), "initial": _NUMBER, "lower": _BOUND, "upper": _BOUND}, _parameter),
    **{name: Signature({}, _elementwise(1)) for name in _UNARY},
    **{name: Signature({}, _elementwise(2)) for name in _BINARY},
    **{name: Signature({}, _compare) for name in COMPARISONS},
    "where": Signature({}, _where),
    "clamp": Signature({"lower": _BOUND, "upper": _BOUND, "gradient": (str,)}, _clamp),
    "not": Signature({}, _fixed(ConditionType(), ConditionType)),
    "transpose": Signature({}, _transpose),
    "reuse": Signature({"matrix": (str,)}, _same(SimType)),
    "paired": Signature({}, _fixed(TargetType())),
    "same": Signature({"missing": (int,)}, _labels),
    "smooth": Signature({"epsilon": _NUMBER, "over": (str,)}, _smooth),
    "flipped": Signature({}, _fixed(TargetType())),
    "softmax": Signature({}, _of_affinity),
    "transport": Signature({"epsilon": _NUMBER, "iterations": (int,)}, _of_affinity),
    "target_entropy": Signature({"along": (str,)}, _asked),
    "exclude_pairs": Signature({}, _same(SimType)),
    "unite": Signature({}, _unite),
    "exclude": Signature({}, _exclude),
    "cross_entropy": Signature({"along": (str,), "denominator": (str,)}, _cross_entropy),
    "sigmoid_loss": Signature({}, _fixed(ScoreType(), SimType, TargetType)),
    "mean": Signature({}, _mean),
    "samples": Signature({}, _samples),
    "contrast": Signature({"contrast": (Contrast,)}, _contrast),
}
"""The table of operations: one row each."""


def _check(node: Node) -> None:
    signature = SIGNATURES.get(node.operation)
    if signature is None:
        raise _BrokenError(f"{node.operation!r} is no operation")
    names = {name for name, _ in node.attributes}
    wanted_names = set(signature.attributes)
    complete = wanted_names - signature.optional <= names <= wanted_names
    _need(complete, f"has the attributes {sorted(names)}, wants {sorted(signature.attributes)}")
    for name, value in node.attributes:
        _need(isinstance(value, signature.attributes[name]), f"{name} is {value!r}")
    wanted = signature.yields(node, tuple(parent.type for parent in node.inputs))
    _need(wanted is None or node.type == wanted, f"has the type {node.type}, wants {wanted}")


def check_node(node: Node, stage: str = "the front end") -> None:
    """Check one node against the table; InternalError names `stage` and the node."""
    try:
        _check(node)
    except _BrokenError as broken:
        raise InternalError(stage, node, str(broken)) from None


def verify(program: Program, stage: str = "the front end") -> None:
    """Check every live node and the program itself; InternalError names `stage`, the pass that ran last."""
    names: set[str] = set()
    for node in program.nodes():
        if node.index >= len(program.graph.nodes) or program.graph.nodes[node.index] is not node:
            raise InternalError(stage, node, "belongs to another graph")
        check_node(node, stage)
        if node.operation == "parameter":
            if node.string("name") in names:
                raise InternalError(stage, node, f"the parameter name {node.string('name')!r} is taken")
            names.add(node.string("name"))
    for term in program.terms:
        if not isinstance(term.node.type, LossType | ScalarType):
            raise InternalError(stage, term.node, f"the term {term.name} is no loss")
    for metric in program.metrics:
        if not isinstance(metric.node.type, ScalarType):
            raise InternalError(stage, metric.node, f"the metric {metric.name} is no scalar")
