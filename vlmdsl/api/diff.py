"""`diff`: how two recipes differ in meaning rather than in text."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from vlmdsl.api.driver import Built, build_flows
from vlmdsl.api.pages import bounds, parameter_facts
from vlmdsl.backends.latex import formula_text
from vlmdsl.diagnostics import displayed, plain
from vlmdsl.ir import inputs, parameters
from vlmdsl.ir.digest import digest
from vlmdsl.ir.text import program_text

__all__ = ["diff"]


def diff(first: str | Path, second: str | Path) -> str:
    """Return the differences of two recipes after all passes: inputs, learned parameters, formula and operations; empty if
    there are none.

    Names of `let`s, comments, layout, and two ways to write the same loss are not differences.

    >>> diff("clip", "contrast(image, text)")
    ''
    """
    left, right = build_flows(first), build_flows(second)
    if _digests(left) == _digests(right):
        return ""
    lines = difflib.unified_diff(
        _all_described(left), _all_described(right), displayed(str(first)), displayed(str(second)), lineterm="", n=1
    )
    return plain("\n".join(lines) + "\n")


def _digests(flows: Sequence[Built]) -> list[tuple[str, str]]:
    return [(built.title, digest(built.planned)) for built in flows]


def _all_described(flows: Sequence[Built]) -> list[str]:
    """The lines of each flow, under its title."""
    return [line for built in flows for line in (*([built.title] if built.title else []), *_described(built))]


def _described(built: Built) -> list[str]:
    program = built.planned
    described = [f"input {spec.name}[{', '.join(spec.axes)}] {spec.dtype}" for spec in inputs(program)]
    for learned in map(parameter_facts, parameters(program)):
        described.append(f"learned {learned['name']} = {learned['initial']:.6g}{bounds(learned)}")
    described.extend(formula_text(built.written).splitlines())
    described.extend(line.partition("  #")[0] for line in program_text(program).splitlines())
    return described
