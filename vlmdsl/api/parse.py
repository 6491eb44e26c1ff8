"""`parse`: the syntax tree of a text."""

from __future__ import annotations

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.source import SourceText
from vlmdsl.syntax import parse as parse_source
from vlmdsl.syntax.tree import Module

__all__ = ["parse"]


def parse(text: str, *, file: str = "<text>") -> tuple[Module, list[Diagnostic]]:
    """The tree of a recipe's text and its syntax faults; the tree leaves out what could not be parsed. Never raises.

    >>> module, found = parse("minimize contrast(image, text)")
    >>> type(module.items[0]).__name__, found
    ('Minimize', [])
    """
    return parse_source(SourceText(file, text))
