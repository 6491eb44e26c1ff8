"""Values that are used twice, again and again: what is written in a line must not take time that doubles with each."""

from __future__ import annotations

import time

import pytest

from vlmdsl.api.check import check
from vlmdsl.api.explain import explain
from vlmdsl.api.plan import plan
from vlmdsl.diagnostics import DiagnosticError

_DEPTH = 20
_SECONDS = 3.0
"""Of processor time; what visits every path needs ten times as long at this depth."""

_ASKED = 'minimize mean(cross_entropy({}, targets=paired, along="rows"))'
_PROGRAMS = {
    "a matrix": ("similarity(image, text)", "{0} + transpose({0})", _ASKED),
    "a matrix of one stream": ("similarity(image, image)", "{0} + transpose({0})", _ASKED),
    "tokens": ("similarity(image, text, by=tokenmax)", "{0} + transpose({0})", _ASKED),
    "an affinity": (
        "similarity(image, text)",
        "{0} + transpose({0})",
        "minimize contrast(image, text, targets=softmax({}))",
    ),
    "a target": ("paired", "0.5 * {0} + 0.5 * {0}", "minimize contrast(image, text, targets={})"),
    "a mixed target": (
        "softmax(similarity(image, text))",
        "0.5 * {0} + 0.25 * {0} + 0.25 * flipped",
        "minimize contrast(image, text, targets={})",
    ),
    "a score": ("score(image, text)", "min({0}, {0} * {0})", "minimize mean(where({0} > 0, {0}, 0))"),
    "a weight": ("score(image, text)", "{0} + exp({0})", "minimize contrast(image, text, weight={})"),
    "a temperature": ("learned(0.07)", "{0} + exp({0})", "minimize contrast(image, text, temperature={})"),
    "a loss": ("contrast(image, text)", "{0} - 0.5 * {0}", "minimize {}"),
}


def _program(first: str, step: str, last: str, depth: int = _DEPTH) -> str:
    lines = [f"let z0 = {first}", *(f"let z{i} = {step.format(f'z{i - 1}')}" for i in range(1, depth + 1))]
    return "\n".join([*lines, last.format(f"z{depth}"), ""])


@pytest.mark.parametrize("name", _PROGRAMS)
def test_no_command_visits_every_path(name: str) -> None:
    program = _program(*_PROGRAMS[name])
    started = time.process_time()
    assert not [diagnostic for diagnostic in check(program) if diagnostic.severity == "error"]
    explain(program, expression=True).to_text()
    plan(program, expression=True)
    assert time.process_time() - started < _SECONDS


def test_matrices_side_by_side_have_a_bound() -> None:
    program = _program("similarity(image, text)", "unite({0}, {0})", _ASKED, depth=40)
    assert [diagnostic.code for diagnostic in check(program)] == ["V0504"]
    with pytest.raises(DiagnosticError, match="side by side"):
        plan(program, expression=True)
