"""From an elaborated session to a program: only what is used, and a unique name for every learned number, draw and state."""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.frontend.session import Session
from vlmdsl.ir import NAMED, Graph, Metric, Node, Program, Term, live_updates
from vlmdsl.types import FieldType

__all__ = ["finish"]


def finish(
    session: Session,
    *,
    name: str,
    terms: list[tuple[str, Node]],
    documentation: str,
    citations: tuple[str, ...],
    status: str,
    batch_policy: str,
    knobs: tuple[tuple[str, object], ...],
    fields: tuple[tuple[str, FieldType], ...],
    digests: tuple[tuple[str, str], ...],
) -> Program:
    """The program of the terms, its learned numbers, draws and states named by what they are bound to (`tau`, `tau_2`)."""
    updates = live_updates((node for _, node in terms), session.updates)
    draft = Program(name, session.graph, tuple(Term(label, node) for label, node in terms), updates=updates)
    names = _unique_names(draft)
    metrics = tuple(
        Metric(names[stored.string("name")], value) for stored, value in session.metrics if stored.string("name") in names
    )

    def renamed(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        if node.operation not in NAMED:
            return None
        attributes = {**dict(node.attributes), "name": names[node.string("name")]}
        return graph.add(node.operation, type=node.type, span=None, **attributes)

    program = replace(
        draft,
        metrics=metrics,
        documentation=documentation,
        citations=citations,
        status=status,
        batch_policy=batch_policy,
        knobs=knobs,
        fields=fields,
        digests=digests,
    )
    graph, moved = session.graph.rebuild(program.roots(), renamed)
    return program.mapped(graph, moved)


def _unique_names(program: Program) -> dict[str, str]:
    names: dict[str, str] = {}
    inputs = {node.string("name") for node in program.nodes() if node.operation == "field"}
    for node in (node for node in program.nodes() if node.operation in NAMED):
        serial = node.string("name")
        wanted = unique = serial.rpartition("#")[0]
        copy = 2
        while unique in names.values() or (node.operation == "draw" and unique in inputs):
            unique, copy = f"{wanted}_{copy}", copy + 1
        names[serial] = unique
    return names
