"""Finding a recipe: a bundled name, a path, or source text."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from vlmdsl.diagnostics import DiagnosticError, closest, render_text
from vlmdsl.diagnostics.catalog.names import ControlInPath, UnknownRecipe
from vlmdsl.source import SourceMap, Span
from vlmdsl.source.bundled import bundled_names, bundled_text
from vlmdsl.source.limits import MAXIMUM_BYTES
from vlmdsl.syntax import read_source

__all__ = ["SOURCES", "RecipeSource", "names_a_file", "read"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_PROGRAM = re.compile(r"\s*|[^\s(){}]*")
"""A single word without a call is a name or a path: every program has a call."""


_SHOWN = 8
"""How many recipes of a folder are listed at most."""

SOURCES = SourceMap()
"""Every text this process has read, so that a diagnostic can be shown after the call that found it has returned."""


class RecipeSource(NamedTuple):
    """A recipe's text, the name that messages show, and its file (None for a bundled recipe or an expression)."""

    name: str
    text: str
    path: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Where relative paths of `use` start."""
        return None if self.path is None else self.path.resolve().parent


def read(recipe: str | Path, *, expression: bool = False) -> RecipeSource:
    """Find a recipe.

    A single word is a bundled name (`clip`); a word that ends in `.vlo` or names a file is a path; a text with a call or
    several words, and any text with `expression`, is source text. DiagnosticError V0202 if there is none.

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
            return _read_file(word)
        if _NO_PROGRAM.fullmatch(word):
            raise _unknown(word)
    return RecipeSource("<expression>", word)


def names_a_file(word: str) -> bool:
    """Whether a one-line word is a path of a file that exists; text too long for a path is not one."""
    try:
        return "\n" not in word and Path(word).is_file()
    except (OSError, ValueError):
        return False


def _read_file(word: str) -> RecipeSource:
    strange = ControlInPath.of(word, Span("<command line>", 0, 0))
    if strange is not None:
        raise DiagnosticError((strange,), render_text([strange], SOURCES))
    path = Path(word)
    try:
        state = path.stat()
        if not S_ISREG(state.st_mode):  # opening a pipe may block, and a device may have no end
            raise _unknown(word, "it is a folder" if path.is_dir() else "it is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise _unknown(word, f"{word}: {error.strerror or error}") from None
    text, diagnostics = read_source(data, str(path), size=state.st_size)
    if diagnostics:
        SOURCES.add(text)
        raise DiagnosticError(tuple(diagnostics), render_text(diagnostics, SOURCES))
    return RecipeSource(text.name, text.text, path)


def _unknown(word: str, reason: str = "") -> DiagnosticError:
    notes = (reason,) if reason else ()
    diagnostic = UnknownRecipe.at(Span("<command line>", 0, 0), help=(_advice(word),), notes=notes, name=word)
    return DiagnosticError((diagnostic,), render_text([diagnostic], SOURCES))


def _advice(word: str) -> str:
    """A suggestion for a name or path without a recipe."""
    if not word.strip():
        return "the name is empty: was a variable of the shell not set?"
    if "://" in word:
        return "recipes are read from local files: download it first"
    path = Path(word)
    inside = _recipes_in(path)
    if inside:
        return f"`{word}` is a folder; name one of its recipes: {', '.join(f'`{path / name}`' for name in inside)}"
    if _exists(path):
        return "a recipe is a regular file; `vlmdsl check -` reads standard input"
    return _near(word, path)


def _near(word: str, path: Path) -> str:
    """The bundled recipe or the file in the same folder with a similar name."""
    bare, beside = path.name == word, _recipes_in(path.parent)
    if bare and path.stem in bundled_names():
        other = "here the path of a file is expected" if path.stem == word else f"its name has no `{path.suffix}`"
        return f"`{path.stem}` is a bundled recipe; {other}"
    near = closest(path.name, beside) or closest(f"{path.name}.vlo", beside)
    if near is not None:
        return f"did you mean `{path.parent / near}`?"
    near = closest(path.stem, bundled_names()) if bare else None
    return f"did you mean `{near}`?" if near else _LISTING


_LISTING = "`vlmdsl recipes` lists the bundled recipes; a path ends in `.vlo`"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _recipes_in(folder: Path) -> list[str]:
    """The names of the first recipes in a folder; none where it cannot be read."""
    try:
        return sorted(islice((file.name for file in folder.iterdir() if file.suffix == ".vlo" and file.is_file()), _SHOWN))
    except (OSError, ValueError):
        return []
