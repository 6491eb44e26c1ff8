"""`format`: the formatter for recipes."""

from __future__ import annotations

from vlmdsl.api.sources import SOURCES
from vlmdsl.source import SourceText
from vlmdsl.syntax.format import format_text

__all__ = ["format"]


def format(text: str, *, file: str = "<text>") -> str:
    """Format a recipe, keeping its comments; DiagnosticError if it does not parse. `file` is the name in messages.

    >>> format("contrast( sim = tokenmax,views=rewrite( M=4 ) )")
    'contrast(sim=tokenmax, views=rewrite(M=4))\\n'
    """
    return format_text(SOURCES.add(SourceText(file, text)))
