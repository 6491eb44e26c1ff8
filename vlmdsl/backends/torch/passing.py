"""How values pass from one emitted function to another: as named tensors, which `torch.compile` accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmdsl.backends.torch.calls import literal
from vlmdsl.ir import Node
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.schedule import Compute, Schedule
from vlmdsl.types import (
    AlignmentType,
    AssignmentType,
    BoxAssignmentType,
    CodesType,
    ConditionType,
    DistributionType,
    FieldType,
    MaskType,
    PatchesType,
    PicksType,
    ScoreType,
    TokensType,
    Type,
    VectorType,
    VecType,
)

__all__ = ["passed_axes", "passed_tensors", "passed_value"]


def passed_axes(compute: Compute, schedule: Schedule, names: Mapping[Node, str]) -> dict[str, tuple[str, ...]]:
    """The axes of the images that an emitted function takes, and of the outputs of earlier functions."""
    axes: dict[str, tuple[str, ...]] = {}
    for node in (value for value in compute.takes if isinstance(value, Node)):
        if node.type == FieldType("Image"):
            axes[names[node]] = ("B", "C", "H", "W")
        elif node.type == FieldType("Text"):
            axes |= {names[node]: ("B", "L"), f"{names[node]}_mask": ("B", "L")}
        elif any(node in before.gives for before in schedule.computes):
            own = _axes_of(node.type)
            axes |= {names[node] + suffix: own[:length] for suffix, length in _parts(node, len(own))}
    return axes


def passed_tensors(node: Node, name: str, value: Any) -> dict[str, Any]:
    """The output of an emitted function for a node as named tensors, which a later function takes."""
    members = value if isinstance(value, tuple) else (value,)
    parts = zip(_parts(node, 0), members, strict=True)
    return {name + suffix: member for (suffix, _), member in parts if member is not None}


def passed_value(node: Node, name: str) -> str:
    """The expression for the value of the node in a function that takes these tensors."""
    if isinstance(node.type, TokensType):
        return f"ops.tokens(inputs[{literal(name)}], inputs.get({literal(f'{name}_mask')}))"
    if isinstance(node.type, PicksType):
        return f"ops.Picks(inputs[{literal(name)}], inputs[{literal(f'{name}_real')}])"
    if node.type == FieldType("Text"):
        return f"ops.TokenFeatures(inputs[{literal(name)}], inputs[{literal(f'{name}_mask')}])"
    return f"inputs[{literal(name)}]"


def _parts(node: Node, axes: int) -> tuple[tuple[str, int], ...]:
    """The tensors of a value: the suffix of each name, and how many of the value's axes it has."""
    if node.operation is CONTRAST:
        return ("", 0), ("_accuracy", 0)
    if isinstance(node.type, TokensType):
        return ("", axes), ("_mask", axes - 1)
    if node.type == FieldType("Text"):
        return ("", axes), ("_mask", axes)
    if isinstance(node.type, PicksType):
        return ("", axes), ("_real", axes)
    return (("", axes),)


def _axes_of(type: Type) -> tuple[str, ...]:
    """The axes of the first tensor of a value of this type; none for a number."""
    if isinstance(type, TokensType):
        return "B", type.tokens, type.features
    if isinstance(type, AlignmentType):
        return "B", type.regions, type.words
    return next((axes for kind, axes in _AXES.items() if isinstance(type, kind)), ())


_AXES: dict[type[Type], tuple[str, ...]] = {
    VecType: ("B", "D"),
    DistributionType: ("B", "D"),
    VectorType: ("D",),
    PicksType: ("B", "K"),
    BoxAssignmentType: ("B", "P"),
    PatchesType: ("B", "P", "C"),
    AssignmentType: ("B", "P", "G"),
    CodesType: ("B", "P"),
    MaskType: ("B", "P"),
    ScoreType: ("B",),
    ConditionType: ("B",),
    FieldType: ("B",),
}
