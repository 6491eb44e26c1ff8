"""Walks over trees that never recurse."""

from __future__ import annotations

from collections.abc import Iterator

from vlmdsl.syntax import tree
from vlmdsl.syntax.tree import Expression

__all__ = ["children", "expressions_of", "too_deep"]


def children(node: Expression) -> tuple[Expression, ...]:
    """The expressions directly inside of an expression, in the order of the text."""
    inside: tuple[Expression, ...] = ()
    match node:
        case tree.Member():
            inside = (node.subject,)
        case tree.Index():
            inside = (node.subject, node.index)
        case tree.Call():
            inside = (node.callee, *(argument.value for argument in node.arguments))
        case tree.Unary():
            inside = (node.operand,)
        case tree.Binary():
            inside = (node.left, node.right)
        case tree.Given():
            inside = (node.subject, node.context)
        case tree.Tuple():
            inside = node.items
        case tree.LetIn():
            inside = (node.value, node.body)
        case tree.Number() | tree.String() | tree.Name():
            pass
    return inside


def expressions_of(item: tree.Item | tree.Term) -> Iterator[Expression]:
    """The outermost expressions of an item: its value, its defaults, its terms."""
    match item:
        case tree.Recipe(parameters=parameters):
            yield from (parameter.default for parameter in parameters if parameter.default is not None)
        case tree.Def(parameters=parameters, body=body):
            yield from (parameter.default for parameter in parameters if parameter.default is not None)
            yield body
        case tree.Let(value=value) | tree.EncoderDeclaration(value=value) | tree.Term(value=value):
            yield value
        case tree.Minimize(terms=terms):
            yield from (term.value for term in terms)
        case tree.Stage(items=items) | tree.Flow(items=items):
            for inner in items:
                yield from expressions_of(inner)
        case tree.Edition() | tree.Cite() | tree.Status() | tree.Batch() | tree.Use():
            return


def too_deep(item: tree.Item | tree.Term, limit: int) -> Expression | None:
    """The first expression found more than `limit` levels inside of an item, or None."""
    waiting = [(expression, 1) for expression in expressions_of(item)]
    while waiting:
        node, depth = waiting.pop()
        if depth > limit + 1:
            return node
        waiting.extend((child, depth + 1) for child in children(node))
    return None
