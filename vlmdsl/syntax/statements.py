"""Splits a text that does not parse into statements, so that errors do not affect other statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmdsl.diagnostics import Diagnostic, Label
from vlmdsl.diagnostics.catalog.syntax import UnclosedBracket, UnmatchedBracket
from vlmdsl.source import Span
from vlmdsl.syntax.grammar import BLOCK_WORDS, KEYWORDS
from vlmdsl.syntax.scan import CLOSERS, Piece

__all__ = [
    "BINARY_SIGNS", "STATEMENT_WORDS", "bracket_fault", "inside_of_block", "significant", "split_block", "split_statements",
]  # fmt: skip

STATEMENT_WORDS = tuple(word for word in KEYWORDS if word not in ("as", "in"))
BINARY_SIGNS = frozenset({"+", "-", "*", "/", "|", "<", "<=", ">", ">=", "==", "!="})


def significant(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces without newlines."""
    return [piece for piece in pieces if piece.kind != "newline"]


def split_statements(text: str, pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The statements of a text, each the pieces from its first to its last; comments are left out.

    A newline outside of brackets ends a statement, unless a definition's `=`, an `in` or an operator stands before it or an
    operator after it. A word that only begins statements ends what is open before it, brackets too.
    """
    statements: list[list[Piece]] = []
    current: list[Piece] = []
    waiting: list[str] = []
    newline: Piece | None = None
    for piece in pieces:
        if piece.kind == "comment":
            continue
        if piece.kind == "newline":
            newline = newline or piece
            continue
        if newline is not None:
            if not current and statements and piece.text in BINARY_SIGNS:
                current = statements.pop()
            if current and _begins_statement(text, piece, current, len(waiting)):
                statements.append(current)
                current, waiting = [], []
            elif current:
                current.append(newline)
        newline = None
        current.append(piece)
        if piece.kind == "open":
            waiting.append(CLOSERS[piece.text])
        elif piece.text in waiting:
            del waiting[len(waiting) - 1 - waiting[::-1].index(piece.text) :]
    if current:
        statements.append(current)
    return statements


def _begins_statement(text: str, piece: Piece, current: Sequence[Piece], depth: int) -> bool:
    """Whether a piece that is the first of its line begins a statement."""
    at_margin = piece.start == 0 or text[piece.start - 1] == "\n"
    if piece.text in STATEMENT_WORDS and (at_margin or (depth and piece.text != "let" and not _in_block(current))):
        return piece.text != "let" or depth > 0 or current[-1].text not in ("=", "in")
    return depth == 0 and piece.text not in BINARY_SIGNS and current[-1].text not in BINARY_SIGNS | {"=", "in", ","}


def _in_block(current: Sequence[Piece]) -> bool:
    if [piece.text for piece in current[:2]] == ["minimize", "{"]:
        return True
    two_words = [piece.kind for piece in current[:2]] == ["word", "word"] and current[0].text not in KEYWORDS  # with a slip
    return (current[0].text in BLOCK_WORDS or two_words) and any(piece.text == "{" for piece in current)


def inside_of_block(statement: Sequence[Piece]) -> Sequence[Piece] | None:
    """The pieces between the braces of a `stage` or `flow`; None for another statement, or without braces."""
    if statement[0].text not in BLOCK_WORDS or not _in_block(statement):
        return None
    first = next(index for index, piece in enumerate(statement) if piece.text == "{")
    return statement[first + 1 : -1] if statement[-1].text == "}" else None


def split_block(statement: Sequence[Piece]) -> list[list[Piece]]:
    """The terms of `minimize { ... }`, whose brackets are in order: separated by newlines and commas."""
    terms: list[list[Piece]] = [[]]
    depth = 0
    for piece in statement[2:-1]:
        if depth == 0 and (piece.kind == "newline" or piece.text == ","):
            terms.append([])
            continue
        depth += (piece.kind == "open") - (piece.kind == "close")
        terms[-1].append(piece)
    return _joined([term for term in terms if term])


def _joined(terms: Sequence[list[Piece]]) -> list[list[Piece]]:
    """Terms with a line that begins or ends with an operator joined to their neighbour: one fault, not two."""
    joined: list[list[Piece]] = []
    for term in terms:
        if joined and (term[0].text in BINARY_SIGNS or joined[-1][-1].text in BINARY_SIGNS | {"in"}):
            last = joined[-1][-1]
            joined[-1] += [Piece("newline", "\n", last.end, last.end, 0), *term]
        else:
            joined.append(term)
    return joined


def bracket_fault(file: str, statement: Sequence[Piece]) -> Diagnostic | None:
    """The first fault of the brackets of a statement, or None if they are in order."""
    waiting: list[Piece] = []
    for piece in statement:
        if piece.kind == "open":
            waiting.append(piece)
        elif piece.kind == "close":
            if waiting and CLOSERS[waiting[-1].text] == piece.text:
                waiting.pop()
            elif any(CLOSERS[opener.text] == piece.text for opener in waiting):
                return _unclosed(file, waiting[-1], piece.start, piece.end, "comes before its end")
            else:
                return UnmatchedBracket.at(
                    Span(file, piece.start, piece.end),
                    "no open bracket",
                    secondary=tuple(_open_places(file, waiting[-1:])),
                    bracket=piece.text,
                )
    if waiting:
        end = statement[-1].end
        return _unclosed(file, waiting[0], end, end, "the statement ends here")
    return None


def _unclosed(file: str, opener: Piece, start: int, end: int, text: str) -> Diagnostic:
    return UnclosedBracket.at(
        Span(file, opener.start, opener.end),
        f"no `{CLOSERS[opener.text]}` closes this",
        secondary=(Label(Span(file, start, end), text),),
        help=(f"add `{CLOSERS[opener.text]}` where it belongs",),
        bracket=opener.text,
    )


def _open_places(file: str, openers: Sequence[Piece]) -> Iterator[Label]:
    for opener in openers:
        yield Label(Span(file, opener.start, opener.end), f"this is still open: it needs `{CLOSERS[opener.text]}`")
