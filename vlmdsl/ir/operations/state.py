"""What outlives a step."""

from __future__ import annotations

import math

from vlmdsl.ir.graph import Node
from vlmdsl.ir.operations.signature import NUMBER, Signature, need, one_of, take
from vlmdsl.types import MemoryType, ScalarType, ScoreType, SimType, Type, VecType

__all__ = ["SIGNATURES"]


def state(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    need(math.isfinite(node.number("initial")), f"initial is {node.attribute('initial')!r}")
    return ScalarType()


def memory(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    one_of(node, "start", "empty", "random")
    need(node.number("size") >= 1, f"size is {node.attribute('size')!r}")
    return MemoryType()


def enqueue(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, MemoryType, *((VecType,) * max(len(types) - 1, 1)))
    return MemoryType()


def running_mean(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, ScalarType, ScoreType)
    need(node.inputs[0].operation == "state", "the mean so far is no state")
    return ScalarType()


def nearest(node: Node, types: tuple[Type, ...]) -> Type:
    """Of similarities to the memory, or of vectors that are compared with it by their products."""
    take(types, VecType if types and isinstance(types[0], VecType) else SimType, MemoryType, VecType)
    return VecType()


SIGNATURES: dict[str, Signature] = {
    "state": Signature({"name": (str,), "initial": NUMBER}, state),
    "memory": Signature({"name": (str,), "size": (int,), "start": (str,)}, memory),
    "enqueue": Signature({}, enqueue),
    "nearest": Signature({}, nearest),
    "running_mean": Signature({"momentum": NUMBER}, running_mean),
}
