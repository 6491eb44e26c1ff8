"""From an elaborated session to a program: live nodes only, and a unique name for every learned parameter, draw and
state."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import replace

from vlmdsl.frontend.names import RESERVED_INPUT
from vlmdsl.frontend.session import Session
from vlmdsl.ir import Graph, Metric, Node, Program, Term, live_updates
from vlmdsl.ir.operations.per_sample import INDEX
from vlmdsl.ir.operations.scalars import DRAW, RAMP, SCALAR
from vlmdsl.ir.operations.views import FIELD
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
    """The program of the terms.

    Learned parameters, draws and states are reported by the name that they are bound to (`tau`, `tau_2`). The stored form of
    a temperature, the log of its inverse, has a separate name (`tau_log_scale`).
    """
    updates = live_updates((node for _, node in terms), session.updates)
    draft = Program(name, session.graph, tuple(Term(label, node) for label, node in terms), updates=updates)
    names = _unique_names(draft)
    stored_names = _stored_names(names, session.log_scales)
    metrics = tuple(
        Metric(names[stored.string("name")], value) for stored, value in session.metrics if stored.string("name") in names
    )

    def renamed(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        if not node.operation.named:
            return None
        return graph.copy(node, name=stored_names[node.string("name")])

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
    inputs = {node.string("name") for node in program.nodes() if node.operation in (FIELD, SCALAR)} | {RESERVED_INPUT}
    for node in (node for node in program.nodes() if node.operation.named):
        serial = node.string("name")
        taken = {*names.values(), *(inputs if node.operation in (DRAW, INDEX, RAMP) else ())}
        names[serial] = _free(serial.rpartition("#")[0], taken)
    return names


def _free(name: str, taken: Set[str]) -> str:
    """`name`, with the next free number if it is taken."""
    unique, copy = name, 2
    while unique in taken:
        unique, copy = f"{name}_{copy}", copy + 1
    return unique


def _stored_names(names: dict[str, str], log_scales: set[str]) -> dict[str, str]:
    """The stored names, also unique: those that are reported, except for log scales."""
    stored = {serial: name for serial, name in names.items() if serial not in log_scales}
    for serial in (serial for serial in names if serial in log_scales):
        stored[serial] = _free(_log_scale_name(names[serial]), set(stored.values()))
    return stored


def _log_scale_name(temperature: str) -> str:
    """The name of the log of the inverse of a temperature.

    >>> _log_scale_name("temperature"), _log_scale_name("hard_temperature_2"), _log_scale_name("tau")
    ('log_scale', 'hard_log_scale_2', 'tau_log_scale')
    """
    renamed = re.sub(r"(?<![^_])temperature(?![^_])", "log_scale", temperature)
    return renamed if renamed != temperature else f"{temperature}_log_scale"
