"""Type rules that several families share, and helpers for rules."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import BrokenError, Yields
from vlmdsl.types import AlignmentType, LossType, ScalarType, ScoreType, SimType, TargetType, Type, as_value

__all__ = [
    "BOUND",
    "NUMBER",
    "NUMERIC",
    "fixed",
    "need",
    "one_of",
    "positive_block",
    "same",
    "take",
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
