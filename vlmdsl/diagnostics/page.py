"""The page of a diagnostic code: what `vlmdsl explain V0304` prints."""

from __future__ import annotations

import textwrap
from importlib import import_module
from string import Formatter

from vlmdsl.diagnostics.problem import CATALOGUE, Problem

__all__ = ["catalogue", "explain_code", "page_of"]

_STAGES = {
    "V01": "syntax",
    "V02": "names",
    "V03": "types and axes",
    "V04": "values",
    "V05": "meaning",
    "V06": "lowering",
    "V08": "data",
    "V09": "environment",
}
_COLUMNS = 100


def catalogue() -> dict[str, type[Problem]]:
    """Every code with its class, in order."""
    import_module("vlmdsl.diagnostics.catalog")
    return dict(sorted(CATALOGUE.items()))


def explain_code(code: str) -> str | None:
    """The page of a code, in Markdown that reads well as plain text; None if there is no such code.

    >>> print(explain_code("V0112").splitlines()[0])
    # V0112: an opening bracket without its closing one
    """
    problem = catalogue().get(code.upper())
    return None if problem is None else page_of(problem)


def page_of(problem: type[Problem]) -> str:
    """The page of one class of the catalogue."""
    summary = problem.summary.rstrip(".")
    summary = summary[:1].lower() + summary[1:] if summary[1:2].islower() or summary[1:2] == " " else summary
    stage = _STAGES.get(problem.code[:3], "other")
    parts = [
        f"# {problem.code}: {summary}",
        f"{problem.severity} of the stage {stage}, since {problem.since}. The message reads: {_shown(problem.template)}.",
        textwrap.fill(problem.explanation, _COLUMNS, break_long_words=False, break_on_hyphens=False),
    ]
    if problem.bad:
        parts += ["This program has the fault:", textwrap.indent(problem.bad.rstrip("\n"), "    ")]
    if problem.good:
        parts += ["Mended:", textwrap.indent(problem.good.rstrip("\n"), "    ")]
    if problem.provoked_by:
        parts.append(f"No program alone shows it; it comes from {problem.provoked_by}.")
    return "\n\n".join(parts) + "\n"


def _shown(template: str) -> str:
    """The message with its holes left open: `{name}` becomes `…`."""
    parts = Formatter().parse(template)
    return '"' + "".join(literal + ("" if name is None else "…") for literal, name, _, _ in parts) + '"'
