"""The texts that come with the package: recipes, and the library in `recipes/std`."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from vlmdsl._resources import root
from vlmdsl.source.text import SourceText

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["bundled_names", "bundled_text", "library_files", "library_modules"]

_DEFINITION = re.compile(r"^def\s+(\w+)", re.MULTILINE)


@cache
def _bundled() -> dict[str, Traversable]:
    return {entry.name.removesuffix(".vlo"): entry for entry in root("recipes").iterdir() if entry.name.endswith(".vlo")}


def bundled_names() -> list[str]:
    """The names of the bundled recipes, sorted."""
    return sorted(_bundled())


@cache
def bundled_text(name: str) -> SourceText | None:
    """The text of a bundled recipe; None if there is no recipe with this name."""
    entry = _bundled().get(name)
    return None if entry is None else SourceText(f"{name}.vlo", entry.read_text(encoding="utf-8"))


@cache
def library_files() -> dict[str, SourceText]:
    """Which file of the library defines a name."""
    files: dict[str, SourceText] = {}
    for file in sorted((root("recipes") / "std").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".vlo"):
            text = SourceText(f"std/{file.name}", file.read_text(encoding="utf-8"))
            files.update(dict.fromkeys(_DEFINITION.findall(text.text), text))
    return files


def library_modules() -> list[str]:
    """The names of the files of the library, sorted."""
    return sorted({text.name.removeprefix("std/").removesuffix(".vlo") for text in library_files().values()})
