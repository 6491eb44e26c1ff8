"""Every diagnostic is given exactly the fields of its message, wherever it is raised: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from string import Formatter

import pytest

from vlmdsl.diagnostics import Problem

ROOT = Path(__file__).resolve().parents[3]
CATALOG = "vlmdsl.diagnostics.catalog"
OF_EVERY_DIAGNOSTIC = {"secondary", "notes", "help", "fix"}


def mistakes(source: str, module: str = "") -> Iterator[str]:
    """What is wrong with the calls `SomeProblem.at(...)` of a module's source."""
    tree = ast.parse(source)
    scope = {"Problem": Problem, **vars(import_module(module))} if module.startswith(CATALOG) else _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and isinstance(problem := scope.get(node.name), type):
            yield from _of_calls(node, {"cls": problem})
        if isinstance(node, ast.Module):
            yield from _of_calls(node, scope)


def _imported(tree: ast.Module) -> dict[str, object]:
    """What a module imports of the catalogue, by the name that it has there."""
    scope: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(CATALOG):
            for alias in node.names:
                scope[alias.asname or alias.name] = getattr(import_module(node.module or ""), alias.name)
    return scope


def _of_calls(tree: ast.AST, scope: dict[str, object]) -> Iterator[str]:
    own_class = "cls" in scope
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "at"):
            continue
        receiver = ast.unparse(call.func.value)
        if (receiver == "cls") != own_class:
            continue
        head, *rest = receiver.split(".")
        problem = scope.get(head)
        for name in rest:
            problem = getattr(problem, name, None)
        if not (isinstance(problem, type) and issubclass(problem, Problem)):
            yield f"{call.lineno}: {receiver} is not a class of the catalogue: name the class where it is raised"
            continue
        fields = {name for _, name, _, _ in Formatter().parse(problem.template) if name}
        filled = {keyword.arg or "**" for keyword in call.keywords} - OF_EVERY_DIAGNOSTIC
        if filled != fields:
            yield f"{call.lineno}: {problem.__name__} has the fields {sorted(fields)} and is given {sorted(filled)}"


def test_every_diagnostic_is_given_the_fields_of_its_message() -> None:
    files = [path for folder in ("vlmdsl", "cli/vlmdsl_cli") for path in sorted((ROOT / folder).rglob("*.py"))]
    modules = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    wrong = [
        f"{path.relative_to(ROOT)}:{fault}" for path in files for fault in mistakes(path.read_text("utf-8"), modules[path])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "call",
    [
        "UnknownColumn.at(place)",
        "data.UnknownColumn.at(place, file=1)",
        "UnknownColumn.at(place, **facts)",
        "fault.at(place)",
    ],
)
def test_a_call_with_other_fields_is_reported(call: str) -> None:
    imports = f"from {CATALOG} import data\nfrom {CATALOG}.data import UnknownColumn\n"
    assert len(list(mistakes(imports + call))) == 1
