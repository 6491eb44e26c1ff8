"""`format`: the one style of recipes."""

from __future__ import annotations

from vlmdsl.syntax import format_text

__all__ = ["format"]


def format(text: str) -> str:
    """The text in the one style, comments kept; DiagnosticError if it does not parse.

    >>> format("contrast( sim = tokenmax,views=rewrite( M=4 ) )")
    'contrast(sim=tokenmax, views=rewrite(M=4))\\n'
    """
    return format_text(text)
