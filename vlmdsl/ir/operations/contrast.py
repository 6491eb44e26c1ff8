"""A contrastive region: the one operation that only a pass makes."""

from __future__ import annotations

import math

from vlmdsl.ir.contrast import Contrast, Direction
from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import need, take
from vlmdsl.types import (
    ConditionType,
    FieldType,
    LossType,
    ScalarType,
    ScoreType,
    SimType,
    TargetType,
    Type,
    VecType,
    as_value,
)

__all__ = ["CONTRAST"]

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
    expected = [(name, getattr(direction, name), kind) for name, kind in _DIRECTION_INPUTS.items()]
    for part in direction.targets:
        if part.kind in ("same", "dense"):
            need(part.input is not None, f"the {part.kind} target has no input")
            expected.append((part.kind, part.input, TargetType if part.kind == "dense" else FieldType))
    for name, position, kind in expected:
        if position is not None:
            need(0 <= position < len(types), f"{name} is input {position} of {len(types)}")
            need(isinstance(as_value(types[position]), kind), f"{name} cannot be {types[position]}")


def contrast(node: Node, types: tuple[Type, ...]) -> Type:
    contrast = node.attribute("contrast")
    assert isinstance(contrast, Contrast)
    features = (VecType, VecType) if contrast.fused else (SimType,)
    take(types[: len(features)], *features)
    directions = [direction for direction in (contrast.rows, contrast.columns) if direction is not None]
    need(bool(directions), "has no direction")
    for direction in directions:
        _direction(direction, types)
    return LossType()


CONTRAST = define(
    Operation(
        "contrast",
        contrast,
        {"contrast": (Contrast,)},
        compares=True,
        multiplies=True,
        counts="sample that its conditions select",
        takes="see `ir/contrast.py`",
        carries="`contrast: ir.Contrast`",
        gives="Loss: a whole region, added by a pass",
    )
)
