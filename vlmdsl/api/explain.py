"""`explain`: the page of a recipe, of a primitive or library function, of a diagnostic code, or of a run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlmdsl.api.explanation import Explanation
from vlmdsl.diagnostics import Problem, catalogue, page_of, title_of

__all__ = ["Explanation", "explain"]


def explain(subject: str | Path, *, expression: bool = False, knobs: Mapping[str, object] | None = None) -> Explanation:
    """Explain `subject`: a recipe (name, path, text), a primitive or library function, a diagnostic code, or the `settings`
    of a run, a section of them (`optimizer`) or a single one (`train.batch`).

    The page of a recipe has its formula in LaTeX and in plain text, its terms, fields, encoders and learned parameters.
    DiagnosticError for any other subject, and for a recipe with errors.

    >>> explain("V0304").title
    'V0304: pooled features where tokens are compared'
    >>> explain("tokenmax").title
    'tokenmax (similarities)'
    """
    word = str(subject)
    if not expression and (problem := catalogue().get(word.upper())) is not None:
        return _code(problem)
    from vlmdsl.api.language_pages import page_about  # a code needs no front end

    return page_about(subject, expression=expression, knobs=knobs)


def _code(problem: type[Problem]) -> Explanation:
    facts = {
        "kind": "diagnostic",
        "code": problem.code,
        "severity": problem.severity,
        "summary": problem.summary,
        "explanation": problem.explanation,
        "bad": problem.bad,
        "good": problem.good,
    }
    return Explanation(title_of(problem), (("", page_of(problem)),), facts)
