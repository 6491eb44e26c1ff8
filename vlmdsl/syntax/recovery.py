"""Parses a text with errors statement by statement, so that all independent errors are reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lark.exceptions import UnexpectedInput
from lark.utils import TextSlice

from vlmdsl.diagnostics import Diagnostic, Label
from vlmdsl.diagnostics.catalog.syntax import BrokenLine
from vlmdsl.source import SourceText, Span
from vlmdsl.source.limits import MAXIMUM_DIAGNOSTICS
from vlmdsl.syntax import tree
from vlmdsl.syntax.build import Builder
from vlmdsl.syntax.failure import explain_failure
from vlmdsl.syntax.grammar import load_grammar
from vlmdsl.syntax.lexical import lexical_faults
from vlmdsl.syntax.scan import Piece
from vlmdsl.syntax.statements import (
    BINARY_SIGNS,
    bracket_fault,
    inside_of_block,
    significant,
    split_block,
    split_statements,
)

__all__ = ["recover"]

_Start = Literal["statement", "term"]


def recover(
    source: SourceText, pieces: Sequence[Piece], builder: Builder
) -> tuple[tuple[tree.Item, ...], list[Diagnostic], bool]:
    """The items that can be read, at least one diagnostic for each statement that cannot, and whether all were looked at."""
    reader = _Reader(source, builder)
    items: list[tree.Item] = []
    for statement in split_statements(source.text, pieces):
        if reader.has_enough():
            break
        items.extend(reader.statement(statement))
    return tuple(items), reader.faults, reader.complete


class _Reader:
    """Parses statements one by one and collects the errors of those that it cannot parse."""

    def __init__(self, source: SourceText, builder: Builder) -> None:
        self.source = source
        self.builder = builder
        self.faults: list[Diagnostic] = []
        self.complete = True

    def has_enough(self) -> bool:
        """Whether there are enough errors to stop."""
        self.complete = self.complete and len(self.faults) < MAXIMUM_DIAGNOSTICS
        return not self.complete

    def statement(self, pieces: list[Piece]) -> tuple[tree.Item, ...]:
        """The items of one statement; none if it has a fault."""
        unclosed = any(piece.kind == "unclosed" for piece in pieces)
        fault = None if unclosed else bracket_fault(self.source.name, pieces)
        if fault is None and [piece.text for piece in significant(pieces)[:2]] == ["minimize", "{"]:
            return self._block(pieces)
        if fault is not None and not any(lexical_faults(self.source, pieces)):
            self.faults.append(fault)
            return ()
        inside = inside_of_block(pieces)
        if inside is not None and self._statements(inside):
            return ()
        item = self._parse(pieces, "statement")
        if item is None:
            return ()
        return item if isinstance(item, tuple) else (item,)

    def _statements(self, pieces: Sequence[Piece]) -> bool:
        """Whether there are faults in the statements of a block."""
        before = len(self.faults)
        for statement in split_statements(self.source.text, pieces):
            if not self.has_enough():
                self.statement(statement)
        return len(self.faults) > before

    def _block(self, pieces: list[Piece]) -> tuple[tree.Item, ...]:
        """`minimize { ... }`, term by term."""
        depth = pieces[1].depth
        end = max(
            (index for index, piece in enumerate(pieces) if piece.kind == "close" and piece.depth == depth), default=-1
        )
        if end + 1 < len(pieces) or pieces[1].kind == "newline":
            self._parse(pieces, "statement")
            return ()
        terms = [self._parse(term, "term") for term in split_block(pieces) if not self.has_enough()]
        span = Span(self.source.name, pieces[0].start, pieces[-1].end)
        if terms and not any(terms):
            return ()
        return (tree.Minimize(tuple(term for term in terms if term is not None), False, "", span),)

    def _parse(self, pieces: list[Piece], start: _Start) -> Any:
        """The node that the pieces stand for, or None with a fault."""
        lexical = list(lexical_faults(self.source, pieces))
        broken = self._broken_line(pieces)
        if lexical or broken is not None:
            self.faults.extend(lexical or [broken] if broken is not None else lexical)
            return None
        text = TextSlice(self.source.text, pieces[0].start, pieces[-1].end)
        try:
            return self.builder.build(load_grammar().parse(text, start=start))
        except UnexpectedInput as error:
            self.faults.append(explain_failure(error, self.source.name, significant(pieces), start))
            return None

    def _broken_line(self, pieces: Sequence[Piece]) -> Diagnostic | None:
        """A line break outside of brackets next to an operator."""
        for before, newline, after in zip(pieces, pieces[1:], pieces[2:], strict=False):
            if newline.kind != "newline" or after.depth != pieces[0].depth or after.kind == "close":
                continue
            for sign, other, text in ((before, after, "continues here"), (after, before, "ends here")):
                if sign.text in BINARY_SIGNS:
                    return BrokenLine.at(
                        Span(self.source.name, sign.start, sign.end),
                        secondary=(Label(Span(self.source.name, other.start, other.end), text),),
                        help=("put the expression into parentheses",),
                        sign=sign.text,
                    )
        return None
