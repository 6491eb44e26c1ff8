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
    InputsType,
    PicksType,
    ScoreType,
    SimType,
    TokensType,
    Type,
    VecType,
    as_value,
    picked_axis,
)

__all__ = ["FETCH", "HARDEST", "MINE", "PICKED", "fetches_input", "pool_of"]


def pool_of(matrix: SimType) -> str:
    """What is picked from a matrix, its columns: the batch, or the batch and a queue; none of others."""
    batch, *queues = matrix.columns.split("+")
    possible = matrix.rows == batch == "B" and len(queues) <= 1 and all(queue.startswith("Q") for queue in queues)
    return matrix.columns if possible else ""


def _pool(node: Node, types: tuple[Type, ...]) -> str:
    one_of(node, "along", "rows", "columns")
    assert isinstance(types[0], SimType)
    pool = pool_of(types[0])
    need(bool(pool), f"mines the samples of the batch, and of a queue after them, got {types[0]}")
    need(pool == "B" or node.string("along") == "rows", "a matrix with the entries of a queue has no column direction")
    return pool


def mine(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType, DrawsType)
    need(node.number("floor") >= 0, f"the floor is {node.attribute('floor')!r}")
    assert isinstance(types[1], DrawsType)
    return PicksType(picked=types[1].count, of=_pool(node, types))


def hardest(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    need(node.number("k") >= 1, f"k is {node.attribute('k')!r}")
    return PicksType(picked=picked_axis(int(node.number("k"))), of=_pool(node, types))


def _picks(kind: Type) -> PicksType:
    need(isinstance(kind, PicksType) and kind.of.startswith("B"), f"takes picks of the batch, got {kind}")
    assert isinstance(kind, PicksType)
    return kind


def fetch(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) in (2, 3), f"has {len(types)} inputs, wants 2, or 3 with a queue")
    picks, kind = _picks(types[1]), as_value(types[0])
    if len(types) == 3:
        queue = types[2]
        need(isinstance(queue, InputsType) and kind == FieldType(queue.kind), f"cannot fetch {kind} from {queue}")
        assert isinstance(queue, InputsType)
        need(picks == PicksType(picked="1", of=f"B+{queue.rows}"), f"{picks} are not single picks of the batch and {queue}")
        return kind
    need(picks.of == "B", f"picks of {picks.of} need the queue")
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
            "Picks of the batch, or of the batch and a queue: K negatives of each sample, drawn in proportion to the "
            "softmax plus the floor by the inverse of the cumulative distribution; never the pair or an excluded entry; "
            "without gradient"
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
        view_word="taken",
        takes=(
            "Vec, Tokens, Score, Condition or Label; Picks of the batch. Or an Image or a Text; Picks of the batch and a "
            "queue; that queue, of Images or Texts"
        ),
        gives=(
            "the same of the picked samples, from any process or from the queue; Tokens for several picks of Vec, masked "
            "where there are fewer. Gradients return to the picked sample. An Image or a Text is then encoded"
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


def fetches_input(node: Node) -> bool:
    """Whether a node is the image or the text of another sample, which encoders take."""
    return node.operation is FETCH and len(node.inputs) == 3
