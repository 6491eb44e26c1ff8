"""Drops what has no effect: terms of weight zero, and with them the parameters, encoders and metrics that only they use."""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Program, walk
from vlmdsl.passes.rewriting import constant_value

__all__ = ["dead"]


def dead(program: Program) -> Program:
    """The program without terms that are the constant 0 (all of them stay if there is no other), and without metrics of
    parameters that no term uses; its graph holds live nodes only."""
    living = tuple(term for term in program.terms if constant_value(term.node) != 0.0) or program.terms
    used = set(walk(term.node for term in living))
    metrics = tuple(
        metric
        for metric in program.metrics
        if all(node in used for node in walk([metric.node]) if node.operation == "parameter")
    )
    kept = replace(program, terms=living, metrics=metrics)
    return kept.mapped(*kept.graph.rebuild(kept.roots(), lambda graph, node, inputs: None))
