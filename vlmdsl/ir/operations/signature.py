"""What a row of the table of operations says, and the rules that several families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from vlmdsl.ir.graph import Node
from vlmdsl.types import ConditionType, FieldType, LossType, ScalarType, ScoreType, SimType, TargetType, Type

__all__ = [
    "BOUND",
    "NUMBER",
    "NUMERIC",
    "BrokenError",
    "Signature",
    "Yields",
    "as_value",
    "fixed",
    "need",
    "one_of",
    "positive_block",
    "same",
    "take",
]

NUMBER = (int, float)
BOUND = (int, float, type(None))
NUMERIC = (ScalarType, ScoreType, SimType, TargetType, LossType)


class BrokenError(Exception):
    """What is wrong with a node; `verify` adds where."""


Yields: TypeAlias = Callable[[Node, tuple[Type, ...]], Type | None]
"""The type a node must have, given itself and its input types; None where the inputs do not determine it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What one operation carries and yields: `attributes` by name with their Python types, and the rule of its type.

    Attributes that are `optional` are there only where they differ from their default.
    """

    attributes: dict[str, tuple[type, ...]]
    yields: Yields
    optional: frozenset[str] = frozenset()


def need(condition: bool, reason: str) -> None:
    if not condition:
        raise BrokenError(reason)


def as_value(kind: Type) -> Type:
    """A `Flag` field reads as a condition and a `Number` field as a score."""
    if kind == FieldType("Flag"):
        return ConditionType()
    return ScoreType() if kind == FieldType("Number") else kind


def take(types: tuple[Type, ...], *wanted: type[Type]) -> None:
    """The inputs are these and no more."""
    need(len(types) == len(wanted), f"has {len(types)} inputs, wants {len(wanted)}")
    for position, (kind, want) in enumerate(zip(types, wanted, strict=True)):
        need(isinstance(as_value(kind), want), f"input {position} is {kind}, wants {want.__name__.removesuffix('Type')}")


def one_of(node: Node, name: str, *allowed: str) -> None:
    need(node.string(name) in allowed, f"{name} is {node.string(name)!r}, may be {', '.join(allowed)}")


def positive_block(node: Node) -> None:
    """Where blocks of the batch are named they have samples; the whole batch has no name."""
    block = dict(node.attributes).get("block", 1)
    need(isinstance(block, int) and block > 0, f"the block is {block!r}")


def fixed(result: Type, *wanted: type[Type]) -> Yields:
    """The rule of an operation that takes these and gives always the same."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        take(types, *wanted)
        return result

    return yields


def same(*allowed: type[Type]) -> Yields:
    """The rule of an operation that gives what it takes."""

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        need(len(types) == 1, f"has {len(types)} inputs, wants 1")
        need(isinstance(types[0], allowed), f"cannot take {types[0]}")
        return types[0]

    return yields
