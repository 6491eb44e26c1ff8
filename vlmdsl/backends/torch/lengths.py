"""How long features are: which input of the objective says it, of what is compared and of what a state holds."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.ir import ModuleOutput, Node, Program, Stream, module_outputs, streams
from vlmdsl.ir.operations.encoding import POOLED, TOKENS
from vlmdsl.ir.operations.modules import APPLY
from vlmdsl.ir.operations.state import ENQUEUE, NEAREST
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.types import DistributionType, MemoryType, TokensType, VectorType, VecType, as_value

__all__ = ["compared_streams", "entering_streams"]

_FEATURES = (VecType, VectorType, TokensType, DistributionType)
"""Types of values with a feature axis. Their dimension is that of the first features that they are computed from."""


def compared_streams(program: Program) -> list[tuple[str, str]]:
    """The pairs of inputs whose features are compared, with each other or with those that a state holds, or are written to
    one state."""
    names = _inputs_of(program, _entering(program))
    pairs: dict[tuple[str, str], None] = {}
    for node in program.nodes():
        if node.operation.compares or node.operation.signs or node.operation in (ENQUEUE, NEAREST):
            lengths = list(dict.fromkeys(names[parent] for parent in node.inputs if parent in names))
            pairs |= dict.fromkeys((lengths[0], other) for other in lengths[1:])
    return list(pairs)


def entering_streams(program: Program) -> dict[str, str]:
    """For each memory of vectors, and each vector, by name, the input of the objective whose features enter it first."""
    return {state.string("name"): name for state, name in _entering(program).items()}


def _entering(program: Program) -> dict[Node, str]:
    names = _inputs_of(program, {})
    held = [update for update in program.updates if isinstance(update.state.type, MemoryType | VectorType)]
    return {update.state: next(names[parent] for parent in update.node.inputs if parent in names) for update in held}


def _inputs_of(program: Program, states: Mapping[Node, str]) -> dict[Node, str]:
    """For each node with features the input of the objective whose length they have; `states` are those of states."""
    outputs: dict[Node, Stream | ModuleOutput] = {stream.encode: stream for stream in streams(program)}
    outputs |= {output.node: output for output in module_outputs(program)}
    names = dict(states)
    for node in program.nodes():
        if node.operation is FIELD and isinstance(as_value(node.type), VecType):
            names[node] = node.string("name")
        elif node.operation in (POOLED, TOKENS):
            names[node] = outputs[node.inputs[0]].input(node.operation)
        elif node.operation is APPLY and isinstance(node.type, TokensType | VecType):  # a head, which changes their length
            names[node] = outputs[node].input(TOKENS if isinstance(node.type, TokensType) else POOLED)
        elif isinstance(node.type, _FEATURES) and any(parent in names for parent in node.inputs):
            names[node] = next(names[parent] for parent in node.inputs if parent in names)
    return names
