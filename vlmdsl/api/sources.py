"""What a recipe can be given as: a bundled name, a path, or source text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vlmdsl.diagnostics import DiagnosticError, closest, render_text
from vlmdsl.diagnostics.catalog.names import ControlInPath, UnknownRecipe
from vlmdsl.source import SourceMap, Span
from vlmdsl.source.bundled import bundled_names, bundled_text
from vlmdsl.syntax import read_source

__all__ = ["SOURCES", "RecipeSource", "names_a_file", "read"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


SOURCES = SourceMap()
"""Every text this process has read, so that a diagnostic can be shown after the call that found it has returned."""


@dataclass(frozen=True)
class RecipeSource:
    """A recipe's text, the name that messages show, and its file (None for a bundled recipe or an expression)."""

    name: str
    text: str
    path: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Where its relative `use` are looked up."""
        return None if self.path is None else self.path.resolve().parent


def read(recipe: str | Path, *, expression: bool = False) -> RecipeSource:
    """Finds a recipe.

    A bare word is a bundled name (`clip`); what ends in `.vlo` or names a file is a path; anything else, or any text with
    `expression`, is source text. DiagnosticError V0202 if there is none.

    >>> read("clip").name
    'clip.vlo'
    >>> read("contrast(image, text)").name
    '<expression>'
    """
    word = str(recipe)
    if not expression:
        if isinstance(recipe, str) and _NAME.fullmatch(word):
            text = bundled_text(word)
            if text is not None:
                return RecipeSource(text.name, text.text)
        if isinstance(recipe, Path) or word.endswith(".vlo") or names_a_file(word):
            return _read_file(Path(word))
        if _NAME.fullmatch(word):
            raise _unknown(word)
    return RecipeSource("<expression>", word)


def names_a_file(word: str) -> bool:
    """Whether a one-line word is a path of a file that exists; text too long for a path is none."""
    try:
        return "\n" not in word and Path(word).is_file()
    except (OSError, ValueError):
        return False


def _read_file(path: Path) -> RecipeSource:
    strange = ControlInPath.of(str(path), Span("<command line>", 0, 0))
    if strange is not None:
        raise DiagnosticError((strange,), render_text([strange], SOURCES))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unknown(str(path), f"{path}: {error.strerror or error}") from None
    text, found = read_source(data, str(path))
    if found:
        SOURCES.add(text)
        raise DiagnosticError(tuple(found), render_text(found, SOURCES))
    return RecipeSource(text.name, text.text, path)


def _unknown(word: str, reason: str = "") -> DiagnosticError:
    near = closest(word, bundled_names())
    help = f"did you mean `{near}`?" if near else "`vlmdsl recipes` lists what is bundled; a path ends in `.vlo`"
    notes = (reason,) if reason else ()
    diagnostic = UnknownRecipe.at(Span("<command line>", 0, 0), help=(help,), notes=notes, name=word)
    return DiagnosticError((diagnostic,), render_text([diagnostic], SOURCES))
