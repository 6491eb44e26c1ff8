"""No text of a recipe becomes code, or reaches a terminal that could be controlled by it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from properties.hostile import Hostile, hostile_recipe
from vlmdsl.api.explain import explain
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.allowed import allowed_tree
from vlmdsl.backends.torch.emit import emit
from vlmdsl.diagnostics import controls, json_text, render_github, render_json, render_text
from vlmdsl.frontend import FrontEnd, load
from vlmdsl.ir import Program
from vlmdsl.passes import optimise
from vlmdsl.source import SourceText

RECIPES = 5_000
USED = "recipe used(image: Image, text: Text)\nminimize contrast(image, text)\n"
KNOWN = {"inputs", "parameters", "state", "ops"}
MEMBERS = {"detach", "get", "loss", "accuracy", *ops.__all__}


def loaded(recipe: Hostile, folder: Path) -> FrontEnd:
    """The front end's result for a recipe beside the file that it uses, where a disk can hold a file of that name."""
    used = folder / recipe.used
    try:
        used.write_text(USED, "utf-8")
    except (OSError, ValueError):
        return load(SourceText(recipe.file, recipe.text), folder=folder)
    try:
        return load(SourceText(recipe.file, recipe.text), folder=folder)
    finally:
        used.unlink()


def foreign_names(tree: ast.Module) -> Iterator[str]:
    """Every name, member and import of a module that the emitter does not write; said again here, apart from its check."""
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in assigned | KNOWN:
            yield node.id
        elif isinstance(node, ast.Attribute) and node.attr not in MEMBERS:
            yield node.attr
        elif isinstance(node, ast.Import | ast.Lambda | ast.ClassDef | ast.Expr):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from {alias.name for alias in node.names} - {"ops"}
    yield from assigned & KNOWN


def check_source(program: Program, front_end: FrontEnd) -> None:
    source = emit(program, front_end.sources)
    names = list(foreign_names(allowed_tree(source)))
    assert not names, source
    assert not controls(source.replace("\n", "")), source


def check_messages(front_end: FrontEnd) -> None:
    """Each diagnostic in all its forms is safe to print."""
    text = render_text(front_end.diagnostics, front_end.sources) + render_github(front_end.diagnostics, front_end.sources)
    assert not controls(text.replace("\n", ""))
    report = render_json(front_end.diagnostics, front_end.sources)
    assert not controls(report.replace("\n", ""))
    assert len(json.loads(report)["diagnostics"]) == len(front_end.diagnostics)


def test_hostile_recipes_give_source_without_foreign_names(tmp_path: Path) -> None:
    correct = 0
    for seed in range(RECIPES):
        front_end = loaded(hostile_recipe(seed), tmp_path)
        if front_end.program is None:
            check_messages(front_end)
        else:
            correct += 1
            check_source(optimise(front_end.program) if seed % 4 == 0 else front_end.program, front_end)
    assert correct > 0.7 * RECIPES


def test_pages_of_hostile_recipes_control_no_terminal() -> None:
    explained = 0
    for seed in range(40):
        text = hostile_recipe(seed).text
        if load(SourceText("mine.vlo", text)).program is None:
            continue
        explained += 1
        page = explain(text)
        assert not controls(page.to_text().replace("\n", ""))
        written = json_text(page.to_json())
        assert not controls(written.replace("\n", ""))
        assert json.loads(written)["citations"] == list(page.facts["citations"])  # type: ignore[call-overload]
        assert page.latex.count("\\begin") == page.latex.count("\\end") == 1
    assert explained > 20
