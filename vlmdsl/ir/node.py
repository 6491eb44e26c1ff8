"""One operation applied: the node of the objective graph, and the traversal of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vlmdsl.ir.operation import Operation
from vlmdsl.types import ConditionType, Type, as_value

__all__ = ["Attribute", "Node", "is_condition", "walk"]

Attribute = object
"""An attribute is any hashable, immutable value: numbers, strings, tuples, frozen dataclasses."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operation. Made by `Graph.add` only; equal nodes of one graph are the same object."""

    operation: Operation
    inputs: tuple[Node, ...]
    attributes: tuple[tuple[str, Attribute], ...]
    type: Type
    index: int

    def attribute(self, name: str) -> object:
        """The attribute `name`, or its default; KeyError if this operation does not have it."""
        for key, value in self.attributes:
            if key == name:
                return value
        if name not in self.operation.defaults:
            raise KeyError(f"{self.operation} has no attribute {name!r}")
        return self.operation.defaults[name]

    @property
    def operands(self) -> tuple[Node, ...]:
        """All inputs except conditions."""
        return tuple(parent for parent in self.inputs if not is_condition(parent))

    def number(self, name: str) -> float:
        value = self.attribute(name)
        assert isinstance(value, int | float), f"{self.operation}.{name} is not a number: {value!r}"
        return float(value)

    def string(self, name: str) -> str:
        value = self.attribute(name)
        assert isinstance(value, str), f"{self.operation}.{name} is not a string: {value!r}"
        return value

    def __deepcopy__(self, memo: object) -> Node:
        """Itself: nodes are immutable, and values are looked up by them."""
        return self

    def __repr__(self) -> str:
        return f"%{self.index} {self.operation}: {self.type}"


def is_condition(node: Node) -> bool:
    """Whether a node is a truth value, of each sample or of the step; a `Flag` field is one."""
    return isinstance(as_value(node.type), ConditionType)


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node that `roots` need, inputs before users, each once; iterative, so that depth is not limited."""
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            yield node
        elif node.index not in seen:
            seen.add(node.index)
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.inputs))
