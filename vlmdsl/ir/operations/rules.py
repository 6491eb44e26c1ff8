"""Type rules that several families share, and helpers for rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import BrokenError, Yields
from vlmdsl.types import AlignmentType, ConditionType, LossType, ScalarType, ScoreType, SimType, TargetType, Type, as_value

__all__ = [
    "BOUND",
    "NUMBER",
    "NUMERIC",
    "SAMPLES_CHOSEN",
    "OfSamples",
    "fixed",
    "need",
    "of_samples",
    "one_of",
    "positive_block",
    "same",
    "take",
    "with_samples",
]

NUMBER = (int, float)
BOUND = (int, float, type(None))
NUMERIC = (ScalarType, ScoreType, SimType, TargetType, AlignmentType, LossType)


def need(condition: bool, reason: str) -> None:
    if not condition:
        raise BrokenError(reason)


def take(types: tuple[Type, ...], *expected: type[Type]) -> None:
    """Check that the inputs are exactly these."""
    need(len(types) == len(expected), f"has {len(types)} inputs, wants {len(expected)}")
    for position, (kind, want) in enumerate(zip(types, expected, strict=True)):
        need(isinstance(as_value(kind), want), f"input {position} is {kind}, wants {want.__name__.removesuffix('Type')}")


def one_of(node: Node, name: str, *allowed: str) -> None:
    need(node.string(name) in allowed, f"{name} is {node.string(name)!r}, may be {', '.join(allowed)}")


def positive_block(node: Node) -> None:
    """A stated block size is positive; the whole batch is not stated."""
    block = node.attribute("block")
    need(isinstance(block, int) and (block > 0 or "block" not in dict(node.attributes)), f"the block is {block!r}")


def fixed(result: Type, *expected: type[Type]) -> Yields:
    """The rule of an operation with these inputs and a constant type."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        take(types, *expected)
        return result

    return yields


def same(*allowed: type[Type]) -> Yields:
    """The rule of an operation with the type of its input."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        need(len(types) == 1, f"has {len(types)} inputs, wants 1")
        need(isinstance(as_value(types[0]), allowed), f"cannot take {types[0]}")
        return as_value(types[0])

    return yields


class OfSamples(NamedTuple):
    """The inputs of a mean that can be restricted to some samples and weighted by sample (trait `samples_after`)."""

    inputs: tuple[Node, ...]
    """Those of every mean of this operation."""
    where: Node | None
    """The Condition that a sample fulfils if it counts."""
    weight: Node | None
    """The Score that says how much each of these counts."""


def of_samples(node: Node) -> OfSamples:
    """The inputs of a node by what they are; of an operation without the trait all are in `inputs`."""
    types = [parent.type for parent in node.inputs]
    first, where, weight = _places(node, types)
    own = (*node.inputs[:first], *node.inputs[first + where + weight :])
    chosen = node.inputs[first : first + where + weight]
    return OfSamples(own, chosen[0] if where else None, chosen[-1] if weight else None)


def _places(node: Node, types: Sequence[Type]) -> tuple[int, int, int]:
    """Where a Condition and a Score may stand among the inputs, and how many there are of each, 0 or 1."""
    first = node.operation.samples_after or len(types)
    where = int(len(types) > first and isinstance(as_value(types[first]), ConditionType))
    weight = int(len(types) > first + where and isinstance(as_value(types[first + where]), ScoreType))
    return first, where, weight


def with_samples(rule: Yields) -> Yields:
    """The rule of an operation with the trait `samples_after`, from the rule for its other inputs."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        first, where, weight = _places(node, types)
        return rule(node, (*types[:first], *types[first + where + weight :]))

    return yields


SAMPLES_CHOSEN = "; and a Condition of the samples that count, and a Score of how much, if not all count alike"
"""These inputs in words."""
