"""The objective graph: immutable, hash-consed nodes at the level of the mathematics.

One node type: operation, inputs, attributes, type. The same operation on the same inputs is the same node, so the graph
shares nodes automatically. Spans are kept in a side table and merged with the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vlmdsl.ir.node import Attribute, Node, walk
from vlmdsl.ir.operation import BrokenError, InternalError, Operation, operation_named
from vlmdsl.source import Span
from vlmdsl.types import ErrorType, Type

__all__ = ["Attribute", "Graph", "Node", "infer", "walk"]


@dataclass
class Graph:
    """A builder and owner of nodes.

    >>> graph = Graph()
    >>> one = graph.add("constant", value=1.0)
    >>> one is graph.add("constant", value=1.0)
    True
    >>> graph.add("negate", one)
    %1 negate: Scalar
    """

    nodes: list[Node] = field(default_factory=list)
    spans: dict[int, dict[Span, None]] = field(default_factory=dict)
    """The places of each node, by its index, each once and in order."""
    _interned: dict[object, Node] = field(default_factory=dict)

    def add(
        self,
        operation: str,
        *inputs: Node,
        type: Type | None = None,
        span: Span | Iterable[Span] | None = None,
        **attributes: Attribute,
    ) -> Node:
        """Add a node, or return the equal one; `span` is added to its places.

        Its type follows from the operation's rule; `type` is for operations whose type is data (`declares_type`), and for
        tests of the verifier. InternalError if the rule rejects the inputs.
        """
        record, ordered = operation_named(operation), tuple(sorted(attributes.items()))
        key = _key(record, inputs, ordered, type)
        node = self._interned.get(key)
        if node is None:
            node = Node(record, inputs, ordered, type or infer(record, inputs, ordered), len(self.nodes))
            self._interned[key] = node
            self.nodes.append(node)
        self.answer_for(node, () if span is None else (span,) if isinstance(span, Span) else span)
        return node

    def copy(self, node: Node, *inputs: Node, span: Span | Iterable[Span] | None = None, **changed: Attribute) -> Node:
        """The node of the same operation on other inputs, with its attributes but for those that are `changed`."""
        declared = node.type if node.operation.declares_type else None
        return self.add(node.operation, *inputs, type=declared, span=span, **{**dict(node.attributes), **changed})

    def answer_for(self, node: Node, spans: Iterable[Span]) -> None:
        """Add a place of the recipe to a node."""
        for span in spans:
            self.spans.setdefault(node.index, {})[span] = None

    def find(self, operation: str, *inputs: Node, **attributes: Attribute) -> Node | None:
        """The node that `add` would return, if it exists."""
        return self._interned.get(_key(operation_named(operation), inputs, tuple(sorted(attributes.items())), None))

    def spans_of(self, node: Node) -> tuple[Span, ...]:
        """The places of the recipe that a node comes from, first the one that created it."""
        return tuple(self.spans.get(node.index, ()))

    def rebuild(
        self, roots: Iterable[Node], rule: Callable[[Graph, Node, tuple[Node, ...]], Node | None]
    ) -> tuple[Graph, dict[int, Node]]:
        """Rebuild the nodes that `roots` need in a new graph, bottom up, each passed through `rule`.

        `rule(new_graph, old_node, new_inputs)` returns the replacement, or None to copy the node. Returns the new graph and
        the map from old node indices to new nodes; spans follow.
        """
        fresh = Graph()
        moved: dict[int, Node] = {}
        for node in walk(roots):
            inputs = tuple(moved[parent.index] for parent in node.inputs)
            rebuilt = rule(fresh, node, inputs)
            if rebuilt is None:
                rebuilt = fresh.copy(node, *inputs)
            fresh.answer_for(rebuilt, self.spans.get(node.index, ()))
            moved[node.index] = rebuilt
        return fresh, moved


def infer(operation: Operation, inputs: tuple[Node, ...], attributes: tuple[tuple[str, Attribute], ...]) -> Type:
    """The type of this operation on these inputs; InternalError if its rule rejects them."""
    draft = Node(operation, inputs, attributes, _UNTYPED, -1)
    try:
        return operation.yields(draft, tuple(parent.type for parent in inputs))
    except (BrokenError, KeyError) as broken:
        raise InternalError("the making of a node", draft, str(broken)) from None


_UNTYPED = ErrorType()


def _key(
    operation: Operation, inputs: tuple[Node, ...], attributes: tuple[tuple[str, Attribute], ...], declared: Type | None
) -> object:
    """The identity of a node: the type follows from the rest, unless it is data."""
    return operation, tuple(node.index for node in inputs), attributes, declared if operation.declares_type else None
