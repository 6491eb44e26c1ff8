"""`parse`: the syntax tree of a text."""

from __future__ import annotations

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.source import SourceText
from vlmdsl.syntax import parse as parse_source
from vlmdsl.syntax.tree import Module

__all__ = ["parse"]


def parse(text: str, *, file: str = "<text>") -> tuple[Module, list[Diagnostic]]:
    """Return the tree of a recipe's text and its syntax errors; the tree omits what could not be parsed. Never raises.

    >>> module, diagnostics = parse("minimize contrast(image, text)")
    >>> type(module.items[0]).__name__, diagnostics
    ('Minimize', [])
    """
    return parse_source(SourceText(file, text))
