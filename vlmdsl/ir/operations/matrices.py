"""Similarities and scores of pairs, and which pairs are candidates."""

from __future__ import annotations

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import BrokenError, Signature, need, same, take
from vlmdsl.types import ConditionType, MemoryType, ScoreType, SimType, TargetType, TokensType, Type, VecType

__all__ = ["SIGNATURES"]


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


def transpose(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    assert isinstance(types[0], SimType)
    return SimType(types[0].columns, types[0].rows)


def unite(node: Node, types: tuple[Type, ...]) -> Type:
    kind = SimType if isinstance(types[0], SimType) else TargetType
    take(types, kind, kind)
    a, b = types
    assert isinstance(a, SimType | TargetType)
    assert isinstance(b, SimType | TargetType)
    need(a.rows == b.rows, f"unites the rows {a.rows} and {b.rows}")
    return kind(a.rows, f"{a.columns}+{b.columns}")


def exclude(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType, ConditionType)
    return types[0]


def of_rows(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    assert isinstance(types[0], SimType)
    return ScoreType(types[0].rows)


SIGNATURES: dict[str, Signature] = {
    "similarity": Signature({"by": (str,), "arguments": (tuple,)}, similarity),
    "score": Signature({"by": (str,), "arguments": (tuple,)}, score),
    "transpose": Signature({}, transpose),
    "reuse": Signature({"matrix": (str,)}, same(SimType)),
    "unite": Signature({}, unite),
    "exclude": Signature({}, exclude),
    "exclude_pairs": Signature({}, same(SimType)),
    "log_sum_exp": Signature({}, of_rows),
    "row_sum": Signature({}, of_rows),
    "row_mean": Signature({}, of_rows),
}
