"""The printed form of a program: one node per line, the same text for the same program.

%4 = similarity(%1, %3) {by: dot, arguments: ()} : Sim[B, B]   # clip.vlo:6
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from vlmdsl.ir.contrast import Contrast
from vlmdsl.ir.node import Node
from vlmdsl.ir.program import MIXED, Program, Update
from vlmdsl.source import SourceMap

__all__ = ["program_text"]


def program_text(program: Program, sources: SourceMap | None = None) -> str:
    """The program as text; with `sources` every line ends with its place in the recipe."""
    nodes = program.nodes()
    names = {node.index: f"%{position}" for position, node in enumerate(nodes)}
    signature = ", ".join(f"{name}: {kind}" for name, kind in program.fields)
    lines = [f"program {program.name}({signature})"]
    lines += ["  " + _line(program, node, names, sources) for node in nodes]
    lines += [f"  term {term.name} = {names[term.node.index]}" for term in program.terms]
    lines += [f"  metric {metric.name} = {names[metric.node.index]}" for metric in program.metrics]
    lines += [_update(update, names) for update in program.updates]
    lines += [f"  batch {program.batch_policy}"] if program.batch_policy != MIXED else []
    return "\n".join(lines) + "\n"


def _update(update: Update, names: dict[int, str]) -> str:
    later = "" if update.when == "step" else f" after every {update.when}"
    return f"  update {names[update.state.index]} = {names[update.node.index]}{later}"


def _line(program: Program, node: Node, names: dict[int, str], sources: SourceMap | None) -> str:
    inputs = ", ".join(names[parent.index] for parent in node.inputs)
    attributes = ", ".join(f"{name}: {_attribute(value)}" for name, value in node.attributes)
    line = (
        f"{names[node.index]} = {node.operation}({inputs})"
        + (f" {{{attributes}}}" if attributes else "")
        + f" : {node.type}"
    )
    spans = program.graph.spans_of(node)
    if sources is None or not spans:
        return line
    row, _ = sources.get(spans[0].file).position(spans[0].start)
    return f"{line}   # {spans[0].file}:{row}"


def _attribute(value: object) -> str:
    """A value of an attribute; of a dataclass only the fields that differ from their defaults."""
    if isinstance(value, Contrast):
        shown = {"fused": value.fused, "rows": value.rows, "columns": value.columns}
        return ", ".join(f"{name}={_attribute(item)}" for name, item in shown.items())
    if is_dataclass(value) and not isinstance(value, type):
        shown = {
            field.name: getattr(value, field.name) for field in fields(value) if getattr(value, field.name) != field.default
        }
        return f"{type(value).__name__}({', '.join(f'{name}={_attribute(item)}' for name, item in shown.items())})"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_attribute, value)) + ("," if len(value) == 1 else "") + ")"
    return value if isinstance(value, str) else repr(value)
