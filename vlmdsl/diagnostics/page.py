"""The page of a diagnostic code: what `vlmdsl explain V0304` prints."""

from __future__ import annotations

import textwrap
from importlib import import_module
from pkgutil import iter_modules
from string import Formatter

from vlmdsl.diagnostics import catalog
from vlmdsl.diagnostics.problem import CATALOGUE, Problem

__all__ = ["catalogue", "page_of", "title_of"]

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
    for stage in iter_modules(catalog.__path__):
        import_module(f"{catalog.__name__}.{stage.name}")
    return dict(sorted(CATALOGUE.items()))


def title_of(problem: type[Problem]) -> str:
    """The heading of a code's page: `V0304: pooled features where tokens are compared`."""
    summary = problem.summary.rstrip(".")
    summary = summary[:1].lower() + summary[1:] if summary[1:2].islower() or summary[1:2] == " " else summary
    return f"{problem.code}: {summary}"


def page_of(problem: type[Problem]) -> str:
    """The page of a code below its heading, in Markdown that reads well as plain text."""
    stage = _STAGES.get(problem.code[:3], "other")
    parts = [
        f"{problem.severity} in {stage}, since version {problem.since}. {_message(problem.template)}",
        *(
            textwrap.fill(paragraph, _COLUMNS, break_long_words=False, break_on_hyphens=False)
            for paragraph in problem.explanation.split("\n\n")
        ),
    ]
    if problem.bad:
        parts += ["This program is wrong:", textwrap.indent(problem.bad.rstrip("\n"), "    ")]
    if problem.good:
        parts += ["Corrected:", textwrap.indent(problem.good.rstrip("\n"), "    ")]
    if problem.provoked_by:
        parts.append(f"This {problem.severity} does not depend on the program alone. Example: {problem.provoked_by}.")
    return "\n\n".join(parts) + "\n"


def _message(template: str) -> str:
    """The sentence about the message, with `…` for each value: `{name}` becomes `…`."""
    parts = list(Formatter().parse(template))
    if not any(literal for literal, _, _, _ in parts):
        return "Its message states the reason."
    return f'Its message is "{"".join(literal + ("" if name is None else "…") for literal, name, _, _ in parts)}".'
