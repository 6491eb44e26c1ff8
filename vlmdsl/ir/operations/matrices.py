"""Similarities and scores of pairs, and which pairs are candidates."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import BrokenError, Operation, define
from vlmdsl.ir.operations.rules import need, same, take
from vlmdsl.types import (
    ConditionType,
    FieldType,
    LabelsType,
    MemoryType,
    ScoreType,
    SimType,
    TargetType,
    TokensType,
    Type,
    VecType,
)

__all__ = [
    "EXCLUDE", "EXCLUDE_OWN", "EXCLUDE_PAIRS", "LOG_SUM_EXP", "REUSE", "ROW_MEAN", "ROW_SUM", "SCORE", "SIMILARITY",
    "TRANSPOSE", "UNITE",
]  # fmt: skip


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


def exclude_own(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType, FieldType, LabelsType)
    matrix, key, keys = types
    assert isinstance(matrix, SimType)
    assert isinstance(keys, LabelsType)
    need(key == FieldType("Key"), f"samples have a Key, got {key}")
    need(matrix.columns == keys.rows, f"the columns are {matrix.columns}, the keys {keys.rows}")
    return matrix


def of_rows(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    assert isinstance(types[0], SimType)
    return ScoreType(types[0].rows)


_COMPARED = {"by": (str,), "arguments": (tuple,)}

SIMILARITY = define(
    Operation(
        "similarity",
        similarity,
        _COMPARED,
        compares=True,
        multiplies=True,
        takes="x, y (both Vec, or both Tokens, or a Vec and a memory)",
        carries=(
            "`by` (`dot`, `tokenmax`, `tokenmean`, `euclidean`, a plug-in's name), `arguments` (sorted pairs of name "
            "and value, without defaults; `share`, `count`, `rank` of `tokenmax` select tokens over the whole batch, "
            "in training only)"
        ),
        gives="Sim",
    )
)
SCORE = define(
    Operation(
        "score",
        score,
        _COMPARED,
        compares=True,
        per_sample=True,
        takes="x, y",
        carries="`by`, `arguments`",
        gives="Score: the similarity of each pair",
    )
)
TRANSPOSE = define(Operation("transpose", transpose, keeps_zero=True, takes="Sim", gives="Sim"))
REUSE = define(
    Operation(
        "reuse",
        same(SimType),
        {"matrix": (str,)},
        per_sample=True,
        keeps_zero=True,
        takes="Sim",
        carries="`matrix` (`rows`, `columns`)",
        gives="Sim: both directions read this one matrix",
    )
)
UNITE = define(
    Operation(
        "unite",
        unite,
        per_sample=True,
        keeps_zero=True,
        takes="two Sims, or two Targets",
        gives=(
            "Sim[B, B+B], Target[B, B+Q9]: columns side by side, of the batch or of a memory, read along "
            "rows only; a narrower target is over the first columns"
        ),
    )
)
EXCLUDE = define(
    Operation(
        "exclude",
        exclude,
        excludes=True,
        keeps_zero=True,
        takes="Sim, Condition",
        gives="Sim: a sample for which the condition holds is not a candidate in either direction",
    )
)
EXCLUDE_PAIRS = define(
    Operation(
        "exclude_pairs",
        same(SimType),
        excludes=True,
        per_sample=True,
        keeps_zero=True,
        takes="Sim",
        gives="Sim: the pair of a sample is not a candidate",
    )
)
EXCLUDE_OWN = define(
    Operation(
        "exclude_own",
        exclude_own,
        excludes=True,
        per_sample=True,
        keeps_zero=True,
        takes="Sim against a memory, a Key, the Labels of a queue that hold the keys of its entries",
        gives="Sim: the entries of a queue that are of the sample itself are not candidates",
    )
)
LOG_SUM_EXP = define(
    Operation(
        "log_sum_exp",
        of_rows,
        criterion=True,
        takes="Sim",
        gives="Score: each row's, over its candidates; minus infinity if it has no candidate",
    )
)
ROW_SUM = define(
    Operation(
        "row_sum",
        of_rows,
        criterion=True,
        keeps_zero=True,
        takes="Sim",
        gives="Score: each row's, over its candidates; 0 if it has no candidate",
    )
)
ROW_MEAN = define(
    Operation(
        "row_mean",
        of_rows,
        criterion=True,
        keeps_zero=True,
        takes="Sim",
        gives="Score: each row's, over its candidates; 0 if it has no candidate",
    )
)
