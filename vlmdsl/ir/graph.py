"""The objective graph: immutable, hash-consed nodes at the level of the mathematics.

One node type: operation, inputs, attributes, type. The same operation on the same inputs is the same node, so sharing is
what the graph does by itself. Spans live in a side table and are merged when nodes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from vlmdsl.source import Span
from vlmdsl.types import Type

__all__ = ["Attribute", "Graph", "Node", "walk"]

Attribute = object
"""An attribute is any hashable, immutable value: numbers, strings, tuples, frozen dataclasses."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operation. Made by `Graph.add` only; equal nodes of one graph are the same object."""

    operation: str
    inputs: tuple[Node, ...]
    attributes: tuple[tuple[str, Attribute], ...]
    type: Type
    index: int

    def attribute(self, name: str) -> object:
        """The attribute called `name`; KeyError if this operation has none."""
        for key, value in self.attributes:
            if key == name:
                return value
        raise KeyError(f"{self.operation} has no attribute {name!r}")

    def number(self, name: str) -> float:
        value = self.attribute(name)
        assert isinstance(value, int | float), f"{self.operation}.{name} is no number: {value!r}"
        return float(value)

    def string(self, name: str) -> str:
        value = self.attribute(name)
        assert isinstance(value, str), f"{self.operation}.{name} is no string: {value!r}"
        return value

    def __repr__(self) -> str:
        return f"%{self.index} {self.operation}: {self.type}"


@dataclass
class Graph:
    """A builder and owner of nodes.

    >>> from vlmdsl.types import ScalarType
    >>> graph = Graph()
    >>> one = graph.add("constant", type=ScalarType(), value=1.0)
    >>> one is graph.add("constant", type=ScalarType(), value=1.0)
    True
    """

    nodes: list[Node] = field(default_factory=list)
    spans: dict[int, dict[Span, None]] = field(default_factory=dict)
    """The places of each node, by its index, each once and in order."""
    _interned: dict[object, Node] = field(default_factory=dict)

    def add(
        self, operation: str, *inputs: Node, type: Type, span: Span | Iterable[Span] | None = None, **attributes: Attribute
    ) -> Node:
        """The node of this operation, new or already there; `span` is added to the places that it answers for."""
        ordered = tuple(sorted(attributes.items()))
        key = (operation, tuple(node.index for node in inputs), ordered, type)
        node = self._interned.get(key)
        if node is None:
            node = Node(operation, inputs, ordered, type, len(self.nodes))
            self._interned[key] = node
            self.nodes.append(node)
        self.answer_for(node, () if span is None else (span,) if isinstance(span, Span) else span)
        return node

    def answer_for(self, node: Node, spans: Iterable[Span]) -> None:
        """Add to the places of the recipe that a node answers for."""
        for span in spans:
            self.spans.setdefault(node.index, {})[span] = None

    def find(self, operation: str, *inputs: Node, type: Type, **attributes: Attribute) -> Node | None:
        """The node that `add` would give, if it is there already."""
        key = (operation, tuple(node.index for node in inputs), tuple(sorted(attributes.items())), type)
        return self._interned.get(key)

    def spans_of(self, node: Node) -> tuple[Span, ...]:
        """The places of the recipe that this node answers for, first the one that made it."""
        return tuple(self.spans.get(node.index, ()))

    def rebuild(
        self, roots: Iterable[Node], rule: Callable[[Graph, Node, tuple[Node, ...]], Node | None]
    ) -> tuple[Graph, dict[int, Node]]:
        """A new graph of what `roots` need, each node passed through `rule` bottom up.

        `rule(new_graph, old_node, new_inputs)` gives the replacement, or None to copy the node. Returns the new graph and
        the map from old node indices to new nodes; spans follow.
        """
        fresh = Graph()
        moved: dict[int, Node] = {}
        for node in walk(roots):
            inputs = tuple(moved[parent.index] for parent in node.inputs)
            made = rule(fresh, node, inputs)
            if made is None:
                made = fresh.add(node.operation, *inputs, type=node.type, span=None, **dict(node.attributes))
            fresh.answer_for(made, self.spans.get(node.index, ()))
            moved[node.index] = made
        return fresh, moved


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node that `roots` need, inputs before users, each once; iterative, so depth is no limit."""
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
