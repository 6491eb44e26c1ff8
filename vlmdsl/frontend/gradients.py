"""Which values a gradient can reach and which are always zero: whether an objective can learn anything, and what it leaves
as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.diagnostics.catalog.meaning import NeverTrained
from vlmdsl.ir import Module, Node, Program, learns, reached, trained_modules, uses_at, walk
from vlmdsl.ir.operations.encoding import GATE
from vlmdsl.ir.operations.scalars import CLAMP, CONSTANT, DIVIDE, MULTIPLY, PARAMETER, SUBTRACT
from vlmdsl.source import Span

__all__ = ["check_trained", "teaches", "zeros"]


def zeros(roots: Iterable[Node]) -> set[Node]:
    """The nodes below `roots` that are zero for any data: 0, its products, and sums and means of these."""
    zero: set[Node] = set()
    for node in walk(roots):
        values = node.operands
        if node.operation is CONSTANT:
            is_zero = node.number("value") == 0.0
        elif node.operation in (MULTIPLY, GATE):
            is_zero = any(value in zero for value in values)
        elif node.operation is DIVIDE:
            is_zero = values[0] in zero
        elif node.operation is SUBTRACT and node.inputs[0] is node.inputs[1]:
            is_zero = True
        else:
            is_zero = node.operation.keeps_zero and all(value in zero for value in values)
        if is_zero:
            zero.add(node)
    return zero


def teaches(roots: Iterable[Node], zero: set[Node]) -> bool:
    """Whether a gradient of one of `roots` reaches a tower, a learned parameter, or a number from the caller."""
    return learns((root for root in roots if root not in zero), lambda node: _reached(node, zero))


def check_trained(programs: Sequence[Program], place: Span) -> Iterator[Diagnostic]:
    """V0510 for each module and learned number that the programs of a file use and none of them changes.

    A tower may come with weights of its own, and be stopped in place of frozen.
    """
    trained: set[Module | str] = set()
    for program in programs:
        nodes = list(_trained(program))
        trained |= trained_modules(nodes) | _numbers(nodes)
    for program in programs:
        zero = zeros(program.roots())
        roots = (*(term.node for term in program.terms), *(update.node for update in program.updates))
        for node in _used(roots, zero):
            parts: list[Module | str] = [
                use.module for use in uses_at(node) if use.gradient and use.module.family != "tower"
            ]
            for part in (*parts, *_numbers([node])):
                if part not in trained:
                    trained.add(part)
                    yield NeverTrained.at(next(iter(program.graph.spans_of(node)), place), part=_words(part))


def _trained(program: Program) -> Iterator[Node]:
    """The nodes that gradients of terms reach."""
    zero = zeros(program.roots())
    return reached((term.node for term in program.terms if term.node not in zero), lambda node: _reached(node, zero))


def _used(roots: Iterable[Node], zero: set[Node]) -> Iterator[Node]:
    """The nodes below the roots, but for those that only a product with zero needs."""
    stack, seen = list(roots), set(zero)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack.extend(node.inputs)


def _numbers(nodes: Iterable[Node]) -> set[str]:
    """The names of learned numbers."""
    return {node.string("name") for node in nodes if node.operation is PARAMETER}


def _words(part: Module | str) -> str:
    """What is never trained, in words: ``the head `pick` of `vision` ``."""
    if isinstance(part, str):
        return f"the learned number `{part}`"
    kind = part.family.replace("_", " ")
    return f"the {kind} `{part.name}`" + (f" of `{part.base.name}`" if part.on is not None else "")


def _reached(node: Node, zero: set[Node]) -> Iterable[Node]:
    """The inputs that a gradient reaches: of a product only those whose other factor is not zero."""
    if node.operation is MULTIPLY:
        left, right = node.inputs
        return [own for own, other in ((left, right), (right, left)) if other not in zero]
    if node.operation is GATE:
        return node.inputs if node.inputs[1] not in zero else node.inputs[1:]
    if node.operation is DIVIDE and node.inputs[0] in zero:
        return node.inputs[:1]
    if node.operation is CLAMP and node.attribute("lower") == node.attribute("upper"):
        return ()
    return node.operands
