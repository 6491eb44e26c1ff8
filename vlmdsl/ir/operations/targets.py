"""Targets: which pairs belong together."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import BOUND, NUMBER, fixed, need, one_of, positive_block, take
from vlmdsl.types import FieldType, LabelsType, ScalarType, ScoreType, SimType, TargetType, Type

__all__ = [
    "FLIPPED", "PAIRED", "SAME", "SMOOTH", "SOFTMAX", "TRANSPORT",
]  # fmt: skip


def labels(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, FieldType, *((LabelsType,) * len(types[1:2])))
    need(types[0] == FieldType("Label"), f"compares a Label, got {types[0]}")
    earlier = types[1] if len(types) > 1 else None
    return TargetType("B", f"B+{earlier.rows}") if isinstance(earlier, LabelsType) else TargetType()


def flipped(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    positive_block(node)
    return TargetType()


def of_affinity(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, SimType)
    assert isinstance(types[0], SimType)
    return TargetType(types[0].rows, types[0].columns)


def smooth(node: Node, types: tuple[Type, ...]) -> Type:
    per_step = isinstance(types[-1], ScalarType)
    share = () if node.attribute("epsilon") is not None else (ScalarType if per_step else ScoreType,)
    take(types, TargetType, *share)
    one_of(node, "over", "all", "others")
    return types[0]


PAIRED = define(Operation("paired", fixed(TargetType()), sums_to_one=True, symmetric=True, gives="Target: 1 at (i, i)"))
SAME = define(
    Operation(
        "same",
        labels,
        {"missing": (int,)},
        sums_to_one=True,
        symmetric=True,
        stops_gradient=True,
        takes="a Label; optionally the Labels of a queue, for additional columns",
        carries="`missing` (int marker: equal to nothing but itself, across processes too)",
        gives="Target",
    )
)
SMOOTH = define(
    Operation(
        "smooth",
        smooth,
        {"epsilon": BOUND, "over": (str,)},
        {"epsilon": None},
        sums_to_one=True,
        per_sample=True,
        takes="Target; a Scalar or a Score, if epsilon is one",
        carries="`epsilon`, where it is a number; `over` (`all`, `others`)",
        gives="Target: (1-e) T + e/N, or e/(N-1) off the diagonal",
    )
)
FLIPPED = define(
    Operation(
        "flipped",
        flipped,
        {"block": (int,)},
        {"block": 0},
        sums_to_one=True,
        symmetric=True,
        carries="`block`, unless it is the whole batch",
        gives="Target: 1 at each sample's partner, as for `mix`: of the whole batch (i, B + 1 - i)",
    )
)
SOFTMAX = define(
    Operation(
        "softmax",
        of_affinity,
        sums_to_one=True,
        materialised=True,
        of_matrix=True,
        takes="Sim",
        gives="Target: the softmax of each row, and of each column; of columns side by side, of each row",
    )
)
TRANSPORT = define(
    Operation(
        "transport",
        of_affinity,
        {"epsilon": NUMBER, "iterations": (int,)},
        sums_to_one=True,
        materialised=True,
        of_matrix=True,
        takes="Sim",
        carries="`epsilon`, `iterations`",
        gives="Target: Sinkhorn's plan, rows scaled first and last; mirrored for the columns",
    )
)
