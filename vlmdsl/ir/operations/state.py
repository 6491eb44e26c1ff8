"""State across steps."""

from __future__ import annotations

import math

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import BOUND, NUMBER, need, one_of, take
from vlmdsl.types import (
    FieldType,
    InputsType,
    LabelsType,
    MemoryType,
    PerSampleType,
    ScalarType,
    ScoreType,
    SimType,
    Type,
    VectorType,
    VecType,
    memory_axis,
)

__all__ = ["ENQUEUE", "MEMORY", "NEAREST", "RUNNING_MEAN", "STATE"]


def state(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    initial, per_sample = node.attribute("initial"), isinstance(node.type, PerSampleType)
    none = initial is None and per_sample
    need(none or (isinstance(initial, NUMBER) and math.isfinite(initial)), f"initial is {initial!r}")
    return node.type if isinstance(node.type, VectorType | PerSampleType) else ScalarType()


def memory(node: Node, types: tuple[Type, ...]) -> Type:
    take(types)
    one_of(node, "start", "empty", "random")
    need(node.number("size") >= 1, f"size is {node.attribute('size')!r}")
    axis = memory_axis(int(node.number("size")))
    if isinstance(node.type, InputsType):
        return InputsType(node.type.kind, axis)
    return LabelsType(axis) if isinstance(node.type, LabelsType) else MemoryType(axis)


def enqueue(node: Node, types: tuple[Type, ...]) -> Type:
    if types and isinstance(types[0], InputsType):
        need(types[1:] == (FieldType(types[0].kind),), f"holds {types[0].kind}s, got {types[1:]}")
        return types[0]
    held = LabelsType if types and isinstance(types[0], LabelsType) else MemoryType
    entering = FieldType if held is LabelsType else VecType
    take(types, held, *((entering,) * max(len(types) - 1, 1)))
    need(all(kind in (FieldType("Label"), FieldType("Key"), VecType()) for kind in types[1:]), "holds vectors or labels")
    return types[0]


def running_mean(node: Node, types: tuple[Type, ...]) -> Type:
    number = () if node.attribute("momentum") is not None else (ScalarType,)
    of_vectors = bool(types) and isinstance(types[0], VectorType)
    take(types, *((VectorType, VecType) if of_vectors else (ScalarType, ScoreType)), *number)
    need(node.inputs[0].operation is STATE, "the mean so far is not a state")
    return types[0]


def nearest(node: Node, types: tuple[Type, ...]) -> Type:
    """With similarities to the memory, or with vectors that are compared with it by inner products."""
    take(types, VecType if types and isinstance(types[0], VecType) else SimType, MemoryType, VecType)
    return VecType()


STATE = define(
    Operation(
        "state",
        state,
        {"name": (str,), "initial": BOUND},
        declares_type=True,
        named=True,
        state=True,
        stops_gradient=True,
        carries="`name` (unique), `initial` (None: of a number per sample, which its first step gives)",
        gives=(
            "Scalar: a number that persists across steps, before this step; Vector: one number per feature; or "
            "PerSample: one number per sample of the data set"
        ),
    )
)
MEMORY = define(
    Operation(
        "memory",
        memory,
        {"name": (str,), "size": (int,), "start": (str,)},
        declares_type=True,
        named=True,
        state=True,
        excludes=True,  # slots that are not written yet
        stops_gradient=True,
        carries="`name` (unique), `size` (Q), `start` (`empty`, `random`)",
        gives="Memory: unit vectors of earlier steps; Labels; or Images or Texts, as towers take them",
    )
)
ENQUEUE = define(
    Operation(
        "enqueue",
        enqueue,
        stops_gradient=True,
        takes="memory, one Vec or more (of Labels: Label or Key fields; of Images or Texts: one of these)",
        gives="that of the memory: each stream's entries overwrite the oldest slots, in the order of the ranks; no gradient",
    )
)
NEAREST = define(
    Operation(
        "nearest",
        nearest,
        stops_gradient=True,
        takes="Sim of x and memory (or vectors compared by products), memory, x",
        gives="Vec: each sample's most similar entry, without gradient; x where the memory is empty",
    )
)
RUNNING_MEAN = define(
    Operation(
        "running_mean",
        running_mean,
        {"momentum": BOUND},
        {"momentum": None},
        stops_gradient=True,
        takes="state; Score, or Vec where it is a Vector; a Scalar, if the momentum is one",
        carries="`momentum`, where it is a number",
        gives="that of the state: momentum times the state plus the rest times the mean over all samples",
    )
)
