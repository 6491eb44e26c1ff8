"""Removes what has no effect: terms of weight zero, and the parameters, states, encoders and metrics that only they use."""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Program, live_updates, walk
from vlmdsl.passes.rewriting import constant_value

__all__ = ["dead"]


def dead(program: Program) -> Program:
    """The program without terms that are the constant 0 (all of them stay if there is no other), without states that no
    term reads, and without metrics of parameters and states that are not used; its graph holds live nodes only."""
    living = tuple(term for term in program.terms if constant_value(term.node) != 0.0) or program.terms
    updates = live_updates((term.node for term in living), program.updates)
    used = set(walk((*(term.node for term in living), *(update.node for update in updates))))
    metrics = tuple(
        metric for metric in program.metrics if all(node in used for node in walk([metric.node]) if node.operation.named)
    )
    kept = replace(program, terms=living, metrics=metrics, updates=updates)
    return kept.mapped(*kept.graph.rebuild(kept.roots(), lambda graph, node, inputs: None))
