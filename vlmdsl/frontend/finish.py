"""From an elaborated session to a program: only what is used, and a unique name for every learned number."""

from __future__ import annotations

from vlmdsl.frontend.session import Session
from vlmdsl.ir import Graph, Metric, Node, Program, Term, parameters
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
    knobs: tuple[tuple[str, object], ...],
    fields: tuple[tuple[str, FieldType], ...],
    digests: tuple[tuple[str, str], ...],
) -> Program:
    """The program of the terms, its learned numbers named after what they are bound to (`temperature`, `temperature_2`)."""
    draft = Program(name, session.graph, tuple(Term(label, node) for label, node in terms))
    names = _unique_names(draft)
    metrics = tuple(
        Metric(names[stored.string("name")], value) for stored, value in session.metrics if stored.string("name") in names
    )

    def renamed(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        if node.operation != "parameter":
            return None
        attributes = {**dict(node.attributes), "name": names[node.string("name")]}
        return graph.add("parameter", type=node.type, span=None, **attributes)

    program = Program(name, session.graph, draft.terms, metrics, documentation, citations, status, knobs, fields, digests)
    graph, moved = session.graph.rebuild(program.roots(), renamed)
    return program.mapped(graph, moved)


def _unique_names(program: Program) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in parameters(program):
        serial = node.string("name")
        wanted = unique = serial.rpartition("#")[0]
        copy = 2
        while unique in names.values():
            unique, copy = f"{wanted}_{copy}", copy + 1
        names[serial] = unique
    return names
