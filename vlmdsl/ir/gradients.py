"""How gradients flow in a graph: what they reach, and which modules they train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vlmdsl.ir.encoders import encoder_of
from vlmdsl.ir.node import Node
from vlmdsl.ir.operations.encoding import ENCODE, TOKENS, VOCABULARY
from vlmdsl.ir.operations.grounding import WORD_MAP
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.ir.program import Program
from vlmdsl.ir.uses import Module, Use, uses_of, vocabulary_use

__all__ = ["has_untrained_outputs", "learns", "reached", "trained_modules", "uses_at"]


def reached(roots: Iterable[Node], inputs: Callable[[Node], Iterable[Node]] = lambda node: node.operands) -> Iterator[Node]:
    """The nodes that gradients of `roots` reach, each once, the roots included.

    `inputs(node)` are the inputs of a node that its gradient reaches.
    """
    stack, seen = list(roots), set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or node.operation.stops_gradient:
            continue
        seen.add(node)
        yield node
        stack.extend(inputs(node))


def learns(roots: Iterable[Node], inputs: Callable[[Node], Iterable[Node]] = lambda node: node.operands) -> bool:
    """Whether a gradient of one of `roots` reaches a learning encoder, a learned parameter, or a number from the caller."""
    return any(node.operation.learned or any(use.gradient for use in uses_at(node)) for node in reached(roots, inputs))


def uses_at(node: Node) -> tuple[Use, ...]:
    """The calls of modules that a node stands for: an encoder's tower and heads, a module on features, the linear map to a
    vocabulary; none for other operations."""
    if node.operation is ENCODE:
        return uses_of(encoder_of(node))
    if node.operation is APPLY:
        return (use_of(node),)
    if node.operation is VOCABULARY:
        return (vocabulary_use(uses_at(node.inputs[0])[0]),)
    return ()


def trained_modules(nodes: Iterable[Node]) -> frozenset[Module]:
    """The modules whose weights change where gradients reach these nodes: those that are neither frozen nor a teacher's."""
    return frozenset(use.module for node in nodes for use in uses_at(node) if use.gradient)


def has_untrained_outputs(program: Program) -> bool:
    """Whether a gradient reaches one output of a module and not another one that is read, so that weights of which only this
    one is made get none: the projection of a tower whose pooled features only say which negatives to mine."""
    trained = {_output(node) for node in reached(term.node for term in program.terms)}
    return any(output is not None and output not in trained for output in map(_output, program.nodes()))


def _output(node: Node) -> tuple[Module, str] | None:
    """The learning module of which an operation reads an output, and the output; None for operations without gradient and
    those that read no module. A map of words reads which tokens there are, with the tokens."""
    maps = node.operation is WORD_MAP
    if not maps and (not node.operation.reads_encoder_output or node.operation.stops_gradient):
        return None
    output = TOKENS if maps else node.operation
    *_, use = uses_at(node.inputs[0])
    return (use.module, output) if use.gradient else None
