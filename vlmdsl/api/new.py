"""`new`: the files to begin a recipe of one's own with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdsl.api.driver import Built, build_flows
from vlmdsl.api.format import format
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import CannotBegin
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.source import SourceText, Span
from vlmdsl.syntax import parse
from vlmdsl.syntax.tree import Recipe, Status

__all__ = ["NewRecipe", "new"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

_TEST = '''"""The recipe `{name}`: it has no errors, and its loss has gradients."""

from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.testing import example_features, example_modules

RECIPE = Path(__file__).with_name("{name}.vlo")


def test_it_has_no_errors():
    assert vlmdsl.check(RECIPE.read_text(encoding="utf-8"), file=str(RECIPE)) == []


@pytest.mark.parametrize("objective", [{objectives}], ids=str)
def test_its_loss_is_finite_and_has_gradients(objective):
    compiled = vlmdsl.compile(RECIPE, compiled=False, **objective).double()
    features = example_features(compiled)
    inputs = [value.requires_grad_() for value in features.values() if value.is_floating_point()]
    loss = compiled(modules=example_modules(compiled), **features).loss
    loss.backward()
    assert loss.isfinite()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in inputs)
'''

_CONFIGURATION = """# The settings of a run of `{name}`: vlmdsl train {name}.vlo --config {name}.yaml
# `vlmdsl explain settings` lists all of them.
data:
  train: [shapes]          # shards, folders or tables: 'shards/train-*.tar'
train:
  batch: 64
  steps: 300
optimizer:
  learning_rate: 0.002
"""


@dataclass(frozen=True)
class NewRecipe:
    """The files that were written: the recipe, its test, and the settings of a run."""

    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Their paths, for a machine."""
        return {"files": [str(file) for file in self.files]}

    def to_text(self) -> str:
        """Their paths, and what to do next."""
        recipe, test, settings = (displayed(str(file)) for file in self.files)
        return f"{recipe}\n{test}\n{settings}\ntry: vlmdsl check {recipe}, vlmdsl train {recipe} --config {settings}"


def new(name: str, *, source: str | Path = "clip", folder: str | Path = ".") -> NewRecipe:
    """Write `NAME.vlo`, a copy of another recipe under this name, with `test_NAME.py` and `NAME.yaml`.

    The copy makes no claim about what it was checked against (`status`). Raises `DiagnosticError`: V0864 for a name that a
    recipe cannot have, for a file that exists and for an expression, V0202 if there is no such recipe to copy, and whatever
    is wrong with it.

    Args:
        name: the name of the new recipe.
        source: the recipe to copy, a bundled name or a path.
        folder: where to write; an existing folder.

    >>> import tempfile
    >>> [file.name for file in new("mine", source="siglip", folder=tempfile.mkdtemp()).files]
    ['mine.vlo', 'test_mine.py', 'mine.yaml']
    """
    if not _NAME.fullmatch(name):
        raise _fault(name, "a name has lower-case letters, digits and underscores, and begins with a letter")
    built = build_flows(source)
    place = Path(folder)
    texts = {
        f"{name}.vlo": _renamed(built[0], name),
        f"test_{name}.py": _TEST.format(name=name, objectives=", ".join(repr(_arguments(one)) for one in built)),
        f"{name}.yaml": _CONFIGURATION.format(name=name),
    }
    files = tuple(place / file for file in texts)
    for file in files:
        if file.exists() or file.is_symlink():
            raise _fault(name, f"`{file}` exists already")
    for file, text in zip(files, texts.values(), strict=True):
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
        except OSError as error:
            raise _fault(name, f"`{file}` cannot be written: {error.strerror}") from None
    return NewRecipe(files)


def _renamed(built: Built, name: str) -> str:
    """The text of a recipe under another name, without what it says about itself that only holds for the original."""
    text = built.source.text
    module, _ = parse(SourceText(built.source.name, text))
    heads = [item for item in module.items if isinstance(item, Recipe)]
    if not heads:
        raise _fault(name, "what it is to be copied from has no `recipe NAME(...)`")
    cuts = [(heads[0].name.span.start, heads[0].name.span.end, name)]
    cuts += [(item.span.start, item.span.end, "") for item in module.items if isinstance(item, Status)]
    for start, end, replacement in sorted(cuts, reverse=True):
        text = text[:start] + replacement + text[end:]
    return format(text)


def _arguments(built: Built) -> dict[str, str]:
    """What selects an objective of a recipe in `vlmdsl.compile`."""
    return {what: part for what, part in (("stage", built.stage.name), ("flow", built.flow.name)) if part}


def _fault(name: str, reason: str) -> DiagnosticError:
    return DiagnosticError((CannotBegin.at(Span("<command line>", 0, 0), name=name, reason=reason),))
