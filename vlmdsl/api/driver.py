"""The pipeline, one stage per line, which every command that needs a program calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmdsl.api.sources import SOURCES, RecipeSource, read
from vlmdsl.diagnostics import DiagnosticError, render_text
from vlmdsl.frontend import FrontEnd, load
from vlmdsl.ir import Program
from vlmdsl.passes import optimise
from vlmdsl.source import SourceText

__all__ = ["Built", "build"]


@dataclass(frozen=True)
class Built:
    """A built recipe: the program as written, and after all passes."""

    source: RecipeSource
    front_end: FrontEnd
    written: Program
    planned: Program


def build(
    recipe: str | Path,
    *,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    passes: str = "all",
    dump: Callable[[str, Program], None] | None = None,
    kept: Mapping[tuple[str, str], SourceText] | None = None,
) -> Built:
    """From text to planned program; DiagnosticError with all diagnostics, rendered, if there is an error. `passes` are the
    passes that run: `all`, `off`, or names separated by commas. With `kept`, the files that the recipe uses are taken from
    there, as in `vlmdsl.frontend.load`, and no other file is read.
    """
    source = read(recipe, expression=expression)
    front_end = load(
        SourceText(source.name, source.text), knobs=knobs, folder=None if kept is not None else source.folder, kept=kept
    )
    SOURCES.texts.update(front_end.sources.texts)
    if front_end.program is None:
        diagnostics = tuple(front_end.diagnostics)
        raise DiagnosticError(diagnostics, render_text(diagnostics, front_end.sources))
    if dump is not None:
        dump("ir", front_end.program)
    planned = optimise(front_end.program, passes=passes, dump=dump)
    return Built(source, front_end, front_end.program, planned)
