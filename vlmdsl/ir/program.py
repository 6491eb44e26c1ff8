"""A program: the graph of an objective with its named terms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from vlmdsl.ir.graph import Graph, Node, walk
from vlmdsl.ir.operations.per_sample import INDEX
from vlmdsl.ir.operations.scalars import CLAMP, DRAW, EXP, NEGATE, PARAMETER, RAMP
from vlmdsl.types import FieldType

__all__ = [
    "BATCH_POLICIES", "MIXED", "ONE_SOURCE", "Metric", "Moment", "Program", "Term", "Update", "draws", "parameters", "ramps",
    "sample_index", "states",
]  # fmt: skip

MIXED, ONE_SOURCE = "mixed", "one_source"
BATCH_POLICIES = (MIXED, ONE_SOURCE)
"""Which samples may be together in a batch: any, or those of one source."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named term of the objective; `node` has type Loss (or Scalar)."""

    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class Metric:
    """A number worth logging beside the loss: a temperature, a bias. `node` is a Scalar."""

    name: str
    node: Node


Moment: TypeAlias = Literal["step", "epoch"]
"""What a state is updated after: every training step, or every epoch."""


@dataclass(frozen=True, slots=True)
class Update:
    """The update of a state after a training step, or after an epoch: `state` is its node, `node` the new value.

    Readers of `state` get the value before, readers of `node` the new one, so the graph defines the order. What is updated
    after an epoch is made of states only.
    """

    state: Node
    node: Node
    when: Moment = "step"


@dataclass(frozen=True, slots=True)
class Program:
    """The result of the front end and the input of every back end. Passes return a new one (`with_terms`)."""

    name: str
    graph: Graph
    terms: tuple[Term, ...]
    metrics: tuple[Metric, ...] = ()
    updates: tuple[Update, ...] = ()
    documentation: str = ""
    citations: tuple[str, ...] = ()
    status: str = ""
    batch_policy: str = MIXED
    """The samples of a batch: `mixed` (any), or `one_source` (all from one source of the data)."""
    knobs: tuple[tuple[str, object], ...] = ()
    fields: tuple[tuple[str, FieldType], ...] = ()
    """The signature: every batch field of the recipe, used or not."""
    digests: tuple[tuple[str, str], ...] = ()
    """SHA-256 of every source text, by name."""

    def roots(self) -> tuple[Node, ...]:
        named = tuple(term.node for term in self.terms) + tuple(metric.node for metric in self.metrics)
        return named + tuple(node for update in self.updates for node in (update.state, update.node))

    def step_roots(self) -> tuple[Node, ...]:
        """The roots of what a step computes: all but what is updated after an epoch."""
        later = {node for update in self.updates_after("epoch") for node in (update.state, update.node)}
        return tuple(node for node in self.roots() if node not in later)

    def updates_after(self, when: Moment) -> tuple[Update, ...]:
        """The updates of every step, or those of every epoch."""
        return tuple(update for update in self.updates if update.when == when)

    def nodes(self) -> list[Node]:
        """Every live node, inputs before users."""
        return list(walk(self.roots()))

    def mapped(self, graph: Graph, moved: dict[int, Node]) -> Program:
        """This program over a rebuilt graph (see `Graph.rebuild`)."""
        return replace(
            self,
            graph=graph,
            terms=tuple(replace(term, node=moved[term.node.index]) for term in self.terms),
            metrics=tuple(replace(metric, node=moved[metric.node.index]) for metric in self.metrics),
            updates=tuple(
                replace(update, state=moved[update.state.index], node=moved[update.node.index]) for update in self.updates
            ),
        )


def parameters(program: Program) -> list[Node]:
    """The `parameter` nodes in the order of first use; each has a unique `name` attribute."""
    return [node for node in program.nodes() if node.operation is PARAMETER]


def logarithms(program: Program) -> set[Node]:
    """The parameters that hold a logarithm: those that `exp` is taken of, of their negative or of a clamp of either."""
    return {below for node in program.nodes() if node.operation is EXP for below in _unchanged(node.inputs[0])}


def _unchanged(node: Node) -> list[Node]:
    """The parameter that a node is, but for its sign and for bounds."""
    while node.operation in (NEGATE, CLAMP):
        node = node.inputs[0]
    return [node] if node.operation is PARAMETER else []


def states(program: Program) -> list[Node]:
    """The nodes of state in the order of first use; each has a unique `name` attribute, also among parameters."""
    return [node for node in program.nodes() if node.operation.state]


def ramps(program: Program) -> list[Node]:
    """The `ramp` nodes in the order of first use; names are unique."""
    return [node for node in program.nodes() if node.operation is RAMP]


def draws(program: Program) -> list[Node]:
    """The `draw` nodes in the order of first use, a random number per step each, or `count` per sample; names are unique."""
    return [node for node in program.nodes() if node.operation is DRAW]


def sample_index(program: Program) -> Node | None:
    """The `index` node of a program with numbers per sample: the positions of a batch's samples; None without any."""
    return next((node for node in program.nodes() if node.operation is INDEX), None)
