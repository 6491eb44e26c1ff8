"""The updates of state that a program needs, and their invariants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vlmdsl.ir.node import Node, walk
from vlmdsl.ir.operations.scalars import CONSTANT
from vlmdsl.ir.program import Program, Update

__all__ = ["faults_of_updates", "live_updates"]


def live_updates(roots: Iterable[Node], updates: Iterable[Update]) -> tuple[Update, ...]:
    """The updates of those states that `roots` read, or that the updates of such states read."""
    every = tuple(updates)
    live: tuple[Update, ...] = ()
    while True:
        read = set(walk((*roots, *(update.node for update in live))))
        reached = tuple(update for update in every if update.state in read)
        if len(reached) == len(live):
            return reached
        live = reached


def _between_steps(root: Node) -> bool:
    """Whether a value is made of states and constants only, so that it can be computed without a batch."""
    return all(node.inputs or node.operation.state or node.operation is CONSTANT for node in walk([root]))


def faults_of_updates(program: Program) -> Iterator[tuple[Node, str]]:
    """The problem and its place, unless every state has exactly one update, of its type."""
    updated: set[Node] = set()
    for update in program.updates:
        if not update.state.operation.state or update.state in updated:
            yield update.state, "is not a state, or is updated twice"
        if update.when == "epoch" and not _between_steps(update.node):
            yield update.node, "is updated after an epoch, but reads what only a step has"
        if update.node.type != update.state.type:
            yield update.node, f"updates a state of the type {update.state.type}"
        updated.add(update.state)
    for node in program.nodes():
        if node.operation.state and node not in updated:
            yield node, "is never updated"
