"""Negatives picked from a similarity matrix, and the values of the picked samples of the global batch."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import NUMBER, need, one_of, take
from vlmdsl.types import (
    ConditionType,
    DrawsType,
    EncodedType,
    FieldType,
    PicksType,
    ScoreType,
    SimType,
    TokensType,
    Type,
    VecType,
    as_value,
    picked_axis,
)

__all__ = ["FETCH", "HARDEST", "MINE", "PICKED"]


def _of_batch(node: Node, types: tuple[Type, ...]) -> None:
    one_of(node, "along", "rows", "columns")
    need(types[0] == SimType(), f"mines the samples of the batch, got {types[0]}")


def mine(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType, DrawsType)
    _of_batch(node, types)
    need(node.number("floor") >= 0, f"the floor is {node.attribute('floor')!r}")
    assert isinstance(types[1], DrawsType)
    return PicksType(picked=types[1].count, of="B")


def hardest(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    _of_batch(node, types)
    need(node.number("k") >= 1, f"k is {node.attribute('k')!r}")
    return PicksType(picked=picked_axis(int(node.number("k"))), of="B")


def _picks(kind: Type) -> PicksType:
    need(isinstance(kind, PicksType) and kind.of == "B", f"takes picks of the batch, got {kind}")
    assert isinstance(kind, PicksType)
    return kind


def fetch(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    picks, kind = _picks(types[1]), as_value(types[0])
    if picks.picked != "1":
        need(kind == VecType(), f"takes several picks of {kind}")
        return TokensType(tokens="K")
    fetched = isinstance(kind, EncodedType | VecType | TokensType | ScoreType) or kind in (
        ConditionType(),
        FieldType("Label"),
    )
    need(fetched, f"cannot fetch {kind}")
    return kind


def picked(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, PicksType)
    _picks(types[0])
    return ConditionType()


MINE = define(
    Operation(
        "mine",
        mine,
        {"along": (str,), "floor": NUMBER},
        stops_gradient=True,
        takes="Sim, a draw of each sample",
        carries="`along` (`rows`, `columns`), `floor`",
        gives=(
            "Picks of the batch: K negatives of each sample, drawn in proportion to the softmax plus the floor by the"
            " inverse of the cumulative distribution; never the pair or an excluded entry; without gradient"
        ),
    )
)
HARDEST = define(
    Operation(
        "hardest",
        hardest,
        {"along": (str,), "k": (int,)},
        stops_gradient=True,
        takes="Sim",
        carries="`along`, `k`",
        gives="Picks of the batch: the k most similar negatives, the earlier of equals",
    )
)
FETCH = define(
    Operation(
        "fetch",
        fetch,
        takes="Vec, Tokens, Score, Condition or Label; Picks of the batch",
        gives=(
            "the same of the picked samples, from any process; Tokens for several picks of Vec, masked where there "
            "are fewer. Gradients return to the picked sample"
        ),
    )
)
PICKED = define(
    Operation(
        "picked",
        picked,
        stops_gradient=True,
        takes="Picks of the batch",
        gives="Condition: whether a sample has picked another one; otherwise it has picked itself",
    )
)
