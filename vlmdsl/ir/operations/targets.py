"""Which pairs belong together."""

from __future__ import annotations

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import NUMBER, Signature, fixed, need, one_of, positive_block, take
from vlmdsl.types import FieldType, LabelsType, SimType, TargetType, Type

__all__ = ["SIGNATURES"]


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
    take(types, TargetType)
    one_of(node, "over", "all", "others")
    return types[0]


SIGNATURES: dict[str, Signature] = {
    "paired": Signature({}, fixed(TargetType())),
    "same": Signature({"missing": (int,)}, labels),
    "smooth": Signature({"epsilon": NUMBER, "over": (str,)}, smooth),
    "flipped": Signature({"block": (int,)}, flipped, optional=frozenset({"block"})),
    "softmax": Signature({}, of_affinity),
    "transport": Signature({"epsilon": NUMBER, "iterations": (int,)}, of_affinity),
}
