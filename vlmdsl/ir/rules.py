"""The rules by which an operation's inputs determine its type: what the rows of `vlmdsl.ir.signatures` are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from vlmdsl.ir.contrast import Contrast, Direction
from vlmdsl.ir.encoders import Encoder
from vlmdsl.ir.graph import Node
from vlmdsl.types import (
    JOINED,
    TOKEN_AXIS,
    ConditionType,
    EncodedType,
    FieldType,
    LossType,
    MemoryType,
    PicksType,
    ScalarType,
    ScoreType,
    SimType,
    TableType,
    TargetType,
    TokensType,
    Type,
    VecType,
    VocabularyType,
)

COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
UNARY = ("negate", "exp", "log", "softplus")
BINARY = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
DISTRIBUTIONS = ("beta", "uniform")
"""What a number a step may be drawn from; each has two arguments."""
ELEMENTWISE = frozenset({*UNARY, *BINARY, "clamp", "stop"})
"""Operations whose type follows from their inputs by `broadcast`."""
NUMERIC = (ScalarType, ScoreType, SimType, TargetType, LossType)


class BrokenError(Exception):
    """What is wrong with a node; `verify` adds where."""


Yields: TypeAlias = Callable[[Node, tuple[Type, ...]], Type | None]
"""The type a node must have, given itself and its input types; None where the inputs do not determine it."""


def broadcast(types: tuple[Type, ...]) -> Type | None:
    """The type of an elementwise operation: a Scalar broadcasts to anything, else all agree; None if they do not."""
    wide = [kind for kind in map(_as_value, types) if not isinstance(kind, ScalarType)]
    if not wide:
        return ScalarType()
    return wide[0] if all(kind == wide[0] for kind in wide) and isinstance(wide[0], NUMERIC) else None


def _as_value(kind: Type) -> Type:
    """A `Flag` field reads as a condition and a `Number` field as a score."""
    if kind == FieldType("Flag"):
        return ConditionType()
    return ScoreType() if kind == FieldType("Number") else kind


def need(condition: bool, reason: str) -> None:
    if not condition:
        raise BrokenError(reason)


def _take(types: tuple[Type, ...], *wanted: type[Type]) -> None:
    need(len(types) == len(wanted), f"has {len(types)} inputs, wants {len(wanted)}")
    for position, (kind, want) in enumerate(zip(types, wanted, strict=True)):
        need(isinstance(_as_value(kind), want), f"input {position} is {kind}, wants {want.__name__.removesuffix('Type')}")


def fixed(result: Type, *wanted: type[Type]) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        _take(types, *wanted)
        return result

    return yields


def field(node: Node, types: tuple[Type, ...]) -> Type | None:
    _take(types)
    need(isinstance(node.type, FieldType), f"a field cannot be {node.type}")
    return None


def view(kind: str, gives: str | None = None) -> Yields:
    """A view of a field of this kind, which gives a field of the same kind or of another."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        _take(types, FieldType)
        need(types[0] == FieldType(kind), f"is a view of {kind}, got {types[0]}")
        return FieldType(gives or kind)

    return yields


def encode(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, FieldType)
    encoder = node.attribute("encoder")
    assert isinstance(encoder, Encoder)
    kind = types[0].kind if isinstance(types[0], FieldType) and types[0].count is None else ""
    need(kind in encoder.takes, f"{encoder.tower} encodes {encoder.kind}, got {types[0]}")
    return EncodedType(kind)


def join(node: Node, types: tuple[Type, ...]) -> Type:
    need(types == (FieldType("Image"), FieldType("Text")), "joins an Image and a Text")
    return FieldType(JOINED)


def tokens(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, EncodedType)
    assert isinstance(types[0], EncodedType)
    _without_heads(node)
    return TokensType(tokens=TOKEN_AXIS[types[0].kind])


def _without_heads(node: Node) -> None:
    encoder = dict(node.inputs[0].attributes).get("encoder")
    need(not (isinstance(encoder, Encoder) and encoder.heads), "a head gives pooled features only")


def vocabulary(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, EncodedType)
    need(types[0] == EncodedType("Text"), f"has words for texts, got {types[0]}")
    _without_heads(node)
    return VocabularyType()


def mask(node: Node, types: tuple[Type, ...]) -> Type:
    shares = {name: node.number(name) for name in ("share", "hidden", "replaced")}
    need(all(0 <= share <= 1 for share in shares.values()), f"the shares are {shares}")
    return view("Text")(node, types) or types[0]


def mlm(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, VocabularyType)
    need(node.inputs[0].inputs[0].inputs[0].operation == "mask", "nothing in this text is masked")
    return LossType()


def same(*allowed: type[Type]) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        need(len(types) == 1, f"has {len(types)} inputs, wants 1")
        need(isinstance(types[0], allowed), f"cannot take {types[0]}")
        return types[0]

    return yields


def _pair_rows(types: tuple[Type, ...]) -> tuple[str, str]:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    x, y = types
    if (isinstance(x, VecType) and isinstance(y, VecType | MemoryType)) or (
        isinstance(x, TokensType) and isinstance(y, TokensType)
    ):
        return x.rows, y.rows
    raise BrokenError(f"compares two Vec or two Tokens, got {x} and {y}")


def similarity(node: Node, types: tuple[Type, ...]) -> Type:
    return SimType(*_pair_rows(types))


def score(node: Node, types: tuple[Type, ...]) -> Type:
    rows, columns = _pair_rows(types)
    need(rows == columns, f"scores pairs, but the rows are {rows} and {columns}")
    return ScoreType(rows)


def mixture(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    need(types[0] in (VecType(), FieldType("Image")), f"mixes images or features, got {types[0]}")
    _take(types[1:], ScalarType)
    return types[0]


def elementwise(arity: int) -> Yields:
    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        need(len(types) == arity, f"has {len(types)} inputs, wants {arity}")
        found = broadcast(types)
        need(found is not None, "cannot combine " + " and ".join(map(str, types)))
        return found or ScalarType()

    return yields


def compare(node: Node, types: tuple[Type, ...]) -> Type:
    kind = elementwise(2)(node, types)
    need(isinstance(kind, ScalarType | ScoreType), f"compares scores, got {kind}")
    return ConditionType("" if isinstance(kind, ScalarType) else "B")


def complement(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, ConditionType)
    return _as_value(types[0])


def where(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 3, f"has {len(types)} inputs, wants 3")
    _take(types[:1], ConditionType)
    kind = elementwise(2)(node, types[1:])
    need(isinstance(kind, ScalarType | ScoreType), f"chooses between scores, got {kind}")
    return ScoreType() if kind is None or types[0] != ConditionType("") else kind


def transpose(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType)
    assert isinstance(types[0], SimType)
    return SimType(types[0].columns, types[0].rows)


def labels(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, FieldType)
    need(types[0] == FieldType("Label"), f"compares a Label, got {types[0]}")
    return TargetType()


def unite(node: Node, types: tuple[Type, ...]) -> Type:
    kind = SimType if isinstance(types[0], SimType) else TargetType
    _take(types, kind, kind)
    a, b = types
    assert isinstance(a, SimType | TargetType)
    assert isinstance(b, SimType | TargetType)
    need(a.rows == b.rows, f"unites the rows {a.rows} and {b.rows}")
    return kind(a.rows, f"{a.columns}+{b.columns}")


def exclude(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType, ConditionType)
    return types[0]


def asked(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType, TargetType)
    assert isinstance(types[0], SimType)
    _one_of(node, "along", "rows", "columns")
    need(node.string("along") == "rows" or "+" not in types[0].columns, f"asks the columns of {types[0]}")
    return ScoreType(types[0].rows if node.string("along") == "rows" else types[0].columns)


def cross_entropy(node: Node, types: tuple[Type, ...]) -> Type:
    _one_of(node, "denominator", "all", "negatives")
    return asked(node, types)


def of_affinity(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType)
    assert isinstance(types[0], SimType)
    return TargetType(types[0].rows, types[0].columns)


def smooth(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, TargetType)
    _one_of(node, "over", "all", "others")
    return types[0]


def clamp(node: Node, types: tuple[Type, ...]) -> Type | None:
    _one_of(node, "gradient", "zero", "pass")
    return same(*NUMERIC)(node, types)


def _one_of(node: Node, name: str, *allowed: str) -> None:
    need(node.string(name) in allowed, f"{name} is {node.string(name)!r}, may be {', '.join(allowed)}")


def mean(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, *((ScoreType,) if len(types) == 1 else (ScoreType, ConditionType)))
    return LossType()


def samples(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, *((ConditionType,) * len(types[:1])))
    return ScalarType()


def constant(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    need(math.isfinite(node.number("value")), f"the value is {node.number('value')}")
    return ScalarType()


def draw(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    _one_of(node, "distribution", *DISTRIBUTIONS)
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    need(len(arguments) == 2 and all(map(math.isfinite, arguments)), f"arguments are {arguments!r}")
    return ScalarType()


def parameter(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    for name in ("initial", "lower", "upper"):
        value = node.attribute(name)
        need(value is None or (isinstance(value, int | float) and math.isfinite(value)), f"{name} is {value!r}")
    return ScalarType()


def state(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    need(math.isfinite(node.number("initial")), f"initial is {node.attribute('initial')!r}")
    return ScalarType()


def memory(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    _one_of(node, "start", "empty", "random")
    need(node.number("size") >= 1, f"size is {node.attribute('size')!r}")
    return MemoryType()


def enqueue(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, MemoryType, *((VecType,) * max(len(types) - 1, 1)))
    return MemoryType()


def attend(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, VecType, *((TokensType,) * max(len(types) - 1, 2)))
    return VecType()


def retrieve(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, VecType, TableType, FieldType)
    need(types[2] == FieldType("Key"), f"leaves out a Key, got {types[2]}")
    need(node.number("k") >= 1, f"k is {node.attribute('k')!r}")
    return PicksType()


def reference(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types)
    encoder = node.attribute("encoder")
    need(isinstance(encoder, Encoder) and encoder.frozen, "the encoder of a reference set learns")
    return TableType()


def log_sum_exp(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, SimType)
    assert isinstance(types[0], SimType)
    return ScoreType(types[0].rows)


def running_mean(node: Node, types: tuple[Type, ...]) -> Type:
    _take(types, ScalarType, ScoreType)
    need(node.inputs[0].operation == "state", "the mean so far is no state")
    return ScalarType()


_DIRECTION_INPUTS: dict[str, type[Type] | tuple[type[Type], ...]] = {
    "scale": (ScalarType, ScoreType),
    "bias": ScalarType,
    "weight": ScoreType,
    "over": ConditionType,
    "keep": ConditionType,
}


def _direction(direction: Direction, types: tuple[Type, ...]) -> None:
    need(bool(direction.targets), "a direction has no target")
    need(math.isfinite(direction.coefficient), f"the coefficient is {direction.coefficient}")
    wanted = [(name, getattr(direction, name), kind) for name, kind in _DIRECTION_INPUTS.items()]
    for part in direction.targets:
        if part.kind in ("same", "dense"):
            need(part.input is not None, f"the {part.kind} target has no input")
            wanted.append((part.kind, part.input, TargetType if part.kind == "dense" else FieldType))
    for name, position, kind in wanted:
        if position is not None:
            need(0 <= position < len(types), f"{name} is input {position} of {len(types)}")
            need(isinstance(_as_value(types[position]), kind), f"{name} cannot be {types[position]}")


def contrast(node: Node, types: tuple[Type, ...]) -> Type:
    contrast = node.attribute("contrast")
    assert isinstance(contrast, Contrast)
    features = (VecType, VecType) if contrast.fused else (SimType,)
    _take(types[: len(features)], *features)
    directions = [direction for direction in (contrast.rows, contrast.columns) if direction is not None]
    need(bool(directions), "has no direction")
    for direction in directions:
        _direction(direction, types)
    return LossType()
