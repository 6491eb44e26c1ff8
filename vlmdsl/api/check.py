"""`check`: all errors and warnings of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from vlmdsl.api.sources import SOURCES, names_a_file, read
from vlmdsl.diagnostics import Diagnostic, render_github, render_json, render_text
from vlmdsl.frontend import load
from vlmdsl.source import SourceText

__all__ = ["check", "read", "render"]


def check(
    text: str, *, file: str = "<text>", knobs: Mapping[str, object] | None = None, folder: Path | None = None
) -> list[Diagnostic]:
    """Return all independent errors and warnings of a recipe's text, sorted by place. Never raises.

    `file` is the name in messages. A relative `use "./..."` starts from its folder, or from `folder`.

    >>> [diagnostic.code for diagnostic in check("contrast(image, text, sim=tokenmx)")]
    ['V0201']
    >>> check("contrast(sim=tokenmax, views=rewrite(M=4))")
    []
    """
    home = folder if folder is not None else Path(file).parent if names_a_file(file) else None
    result = load(SourceText(file, text), knobs=knobs, folder=home)
    SOURCES.texts.update(result.sources.texts)
    return result.diagnostics


def render(
    diagnostics: Sequence[Diagnostic], *, style: Literal["text", "json", "github"] = "text", colour: bool = False
) -> str:
    """Render diagnostics for people (`text`), programs (`json`) or a pull request (`github`).

    >>> print(render(check("contrast(image, text, sim=tokenmx)")).splitlines()[0])
    error[V0201]: `tokenmx` is not defined
    """
    if style == "json":
        return render_json(diagnostics, SOURCES)
    if style == "github":
        return render_github(diagnostics, SOURCES)
    return render_text(diagnostics, SOURCES, colour=colour)
